"""Times of flags: ISO-8601, UTC unless they name a zone, and lengths of time. What a period selects is not here."""

from __future__ import annotations

import datetime as dt
import re
from typing import Annotated

import typer

from oddlog.errors import UsageError

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}

Since = Annotated[
    str | None,
    typer.Option(
        "--since", help="Events from this time on: ISO-8601, UTC unless it names a zone.", metavar="TIME",
        show_default=False,
    ),
]  # fmt: skip
Until = Annotated[
    str | None,
    typer.Option("--until", help="Events before this time, likewise.", metavar="TIME", show_default=False),
]


def period(
    since: str | None, until: str | None, last: str | None = None, *, now: dt.datetime | None = None
) -> tuple[dt.datetime | None, dt.datetime | None]:
    """Both ends, UTC, None where open; `last`: the length of time up to `now`. Raises UsageError.

    >>> noon = dt.datetime(2024, 3, 1, 12, tzinfo=dt.UTC)
    >>> [end.isoformat() for end in period(None, None, "1h", now=noon)]
    ['2024-03-01T11:00:00+00:00', '2024-03-01T12:00:00+00:00']
    """
    if last is not None:
        if since or until:
            raise UsageError("--last together with --since or --until", expected="one of the two ways")
        now = now or dt.datetime.now(dt.UTC)
        return now - duration(last), now
    start = None if since is None else moment("--since", since)
    end = None if until is None else moment("--until", until)
    if start and end and start >= end:
        raise UsageError(f"--since {since} is not before --until {until}", expected="an earlier --since")
    return start, end


def moment(flag: str, text: str) -> dt.datetime:
    """A time of a flag, UTC. Raises UsageError.

    >>> moment("--since", "2024-03-01T12:30+02:00").isoformat()
    '2024-03-01T10:30:00+00:00'
    """
    try:
        time = dt.datetime.fromisoformat(text)
        return time.replace(tzinfo=dt.UTC) if time.tzinfo is None else time.astimezone(dt.UTC)
    except (ValueError, OverflowError):
        raise UsageError(f"{flag} {text!r} is no time", expected=f"ISO-8601: {flag} 2024-03-01T10:00:00Z") from None


def duration(text: str, flag: str = "--last") -> dt.timedelta:
    """A length of time. Raises UsageError.

    >>> duration("90m")
    datetime.timedelta(seconds=5400)
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])", text)
    try:
        length = dt.timedelta(**{_UNITS[found[2]]: float(found[1])}) if found else dt.timedelta()
    except OverflowError:
        length = dt.timedelta()
    if not length:
        raise UsageError(f"{flag} {text!r} is no length of time", expected=f"a number and s, m, h, d or w: {flag} 1h")
    return length
