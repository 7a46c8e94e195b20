"""A client's names looked for in text of any kind, and taken out of it. Where it is looked for: `forget.py`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

FORGOTTEN = "forgotten"
"""What stands for a name that was taken out."""


class Mentions:
    """Where one of some names stands by itself: not as a part of a longer name or address.

    >>> one = Mentions(["192.0.2.1"])
    >>> [one.among(text) for text in (b"by 192.0.2.1.", b"::ffff:192.0.2.1", b"192.0.2.1:443", b'{"192.0.2.1"}')]
    [True, True, True, True]
    >>> [one.among(text) for text in (b"192.0.2.12", b"5.192.0.2.1", b"192.0.2.1.5")]
    [False, False, False]
    """

    def __init__(self, names: Iterable[str]) -> None:
        parts = [_part(name) for name in sorted(names, key=len, reverse=True)]
        self._text = re.compile("|".join(parts), re.IGNORECASE)
        self._bytes = re.compile("|".join(parts).encode(), re.IGNORECASE)

    def among(self, data: bytes) -> bool:
        """Whether the bytes name one."""
        return self._bytes.search(data) is not None

    def without(self, value: Any) -> Any:
        """A value of a document (texts, lists, objects of them), or bytes, with FORGOTTEN in the names' place."""
        if isinstance(value, str):
            return self._text.sub(FORGOTTEN, value)
        if isinstance(value, bytes):
            return self._bytes.sub(FORGOTTEN.encode(), value)
        if isinstance(value, list):
            return [self.without(one) for one in value]
        if isinstance(value, dict):
            return {self.without(key): self.without(one) for key, one in value.items()}
        return value


def _part(name: str) -> str:
    """A pattern for a name. An IPv4 address may have a port behind it, and `::ffff:` before it."""
    after = r"(?![0-9A-Za-z]|[.-][0-9A-Za-z]" + (r"|:[0-9A-Fa-f:])" if ":" in name else ")")
    before = r"(?<![0-9A-Za-z.:-])" if ":" in name else r"(?<![0-9A-Za-z.-])"
    return before + re.escape(name) + after
