"""What the service answers when a request cannot be scored: a status, and what was found, expected and mends it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable


class Refusal(Exception):
    """A request that is not scored. `status` is the HTTP status; the rest is the body.

    4xx where the client has to change something; 503 where there is nothing to score with yet.
    """

    def __init__(
        self, status: int, found: str, *, expected: str, mend: str, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(found)
        self.status = status
        self.found = found
        self.expected = expected
        self.mend = mend
        self.headers = headers or {}

    def body(self) -> dict[str, str]:
        """The JSON answer."""
        return {"found": self.found, "expected": self.expected, "mend": self.mend}


def columns_that_differ(found: Iterable[str], expected: Iterable[str]) -> str | None:
    """A sentence that names the columns that differ; None where both hold the same names once, in any order.

    >>> columns_that_differ(["a", "c"], ["a", "b"])
    'missing: b; not a feature: c'
    >>> columns_that_differ(["a", "a"], ["a"])
    'given twice: a'
    >>> columns_that_differ(["b", "a"], ["a", "b"]) is None
    True
    """
    names, wanted = list(found), list(expected)
    counts = Counter(names)
    missing = [name for name in wanted if name not in counts]
    extra = sorted(set(counts) - set(wanted))
    twice = sorted(name for name, count in counts.items() if count > 1)
    parts = [
        f"{label}: {_some(some)}"
        for label, some in (("missing", missing), ("not a feature", extra), ("given twice", twice))
        if some
    ]
    return "; ".join(parts) or None


def _some(names: list[str], most: int = 20) -> str:
    """Names, cut where a client sent a million of them.

    >>> _some(["a", "b", "c"], most=2)
    'a, b and 1 more'
    """
    shown = ", ".join(name if len(name) <= 80 else name[:77] + "..." for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most:,} more"
