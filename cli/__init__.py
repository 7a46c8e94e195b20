"""The one door, `oddlog <verb>`: composes the other rooms and holds no logic of its own."""
