"""Settings of what is kept of people: client addresses, user names, queries. Doing it is `events/privacy.py`'s."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator

from oddlog.settings_group import Group

SHORTEST_KEY = 32
"""Characters. All IPv4 addresses can be tried in minutes: what keeps them apart is the key alone."""


class PrivacySettings(Group):
    """What is kept of people; docs/privacy.md."""

    clients: Literal["keep", "pseudonymise"] = "keep"
    """`pseudonymise`: client addresses and user names are replaced by keyed hashes before anything is stored."""
    queries: Literal["keep", "drop"] = "keep"
    """`drop`: what follows `?` in requested URLs and referrers is dropped before anything is stored."""
    key: SecretStr | None = Field(default=None, repr=False)
    """The key of the hashes, 32 characters or more; `openssl rand -base64 32` makes one. Either makes one necessary."""
    key_file: Path | None = None
    """File with that key, instead of it: a mounted secret."""

    @field_validator("key")
    @classmethod
    def _is_long(cls, key: SecretStr | None) -> SecretStr | None:
        if key is not None and len(key.get_secret_value().strip()) < SHORTEST_KEY:
            raise ValueError(f"a key has {SHORTEST_KEY} characters or more; openssl rand -base64 32 makes one")
        return key

    @model_validator(mode="after")
    def _one_key(self) -> Self:
        if self.key is not None and self.key_file is not None:
            raise ValueError("key and key_file are both set; one of them is expected")
        return self

    @property
    def on(self) -> bool:
        """Whether anything is done."""
        return self.clients != "keep" or self.queries != "keep"
