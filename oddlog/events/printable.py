"""Text of log lines made safe to show: a stranger wrote it, and terminals and browsers obey control characters."""

from __future__ import annotations


def printable(text: str, most: int | None = None) -> str:
    """The text with everything invisible written out, and cut to `most` characters where that is given.

    Control characters move cursors and change titles; bidirectional marks make a path read as another.

    >>> printable("/a\\x1b[2J" + chr(0x202e) + "gpj.exe")
    '/a\\\\x1b[2J\\\\u202egpj.exe'
    >>> printable("/a/long/path", most=8)
    '/a/long…'
    """
    if most is not None:
        text = text[: most + 1]
    if not text.isprintable():
        text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return text if most is None or len(text) <= most else text[: max(most - 1, 0)] + "…"
