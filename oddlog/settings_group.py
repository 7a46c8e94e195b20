"""What every group of settings is made of: its base, texts that follow a pattern, keys. The groups are not here."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

IN_WORDS = "in_words"
"""Where a field keeps what its pattern means."""

_KEY = re.compile(r"[A-Za-z0-9._~+/-]{16,}=*")
"""A bearer token (RFC 6750) that nobody guesses; `openssl rand -base64 32` makes one."""


class Group(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, validate_default=True)

    @field_validator("url", check_fields=False)
    @classmethod
    def _can_be_read(cls, url: str) -> str:
        """Raises ValueError for brackets that are no IPv6 address, and for ports that are no number."""
        parts = urlsplit(url)
        if parts.scheme in {"http", "https"}:
            _ = parts.port
        return url


def checked_keys(keys: SecretStr | None, *, several: bool) -> SecretStr | None:
    """Raises ValueError for what is no key: an empty variable must not open a service that was meant to be closed."""
    if keys is not None:
        found = keys.get_secret_value()
        for key in found.split(",") if several else [found]:
            if not _KEY.fullmatch(key):
                raise ValueError("a key is 16 or more of A-Z a-z 0-9 . _ ~ + / - =; openssl rand -base64 32 makes one")
    return keys


def text(default: str, pattern: str, in_words: str) -> Any:
    """A field whose text follows a pattern; who gives another is told `in_words`."""
    return Field(default=default, pattern=pattern, json_schema_extra={IN_WORDS: in_words})
