"""Which period a batch is of: whole hours, quarters of a day and days by the clock, or any; and the one before it."""

from __future__ import annotations

import datetime as dt

from monitoring.expected import Against
from oddlog.errors import UsageError

LENGTHS = {"1h": dt.timedelta(hours=1), "6h": dt.timedelta(hours=6), "1d": dt.timedelta(days=1)}
"""Lengths that batches follow each other in, from midnight UTC."""

WEEK = dt.timedelta(days=7)
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def batch_length(text: str) -> dt.timedelta:
    """The length of a batch by its name. Raises UsageError.

    >>> batch_length("6h")
    datetime.timedelta(seconds=21600)
    """
    if text not in LENGTHS:
        raise UsageError(f"batches of {text!r}", expected=f"one of {', '.join(LENGTHS)}")
    return LENGTHS[text]


def last_whole(length: dt.timedelta, now: dt.datetime) -> tuple[dt.datetime, dt.datetime]:
    """The last batch that had ended by `now`.

    >>> noon = dt.datetime(2024, 3, 1, 12, 20, tzinfo=dt.UTC)
    >>> [end.hour for end in last_whole(LENGTHS["6h"], noon)]
    [6, 12]
    """
    until = _EPOCH + (now - _EPOCH) // length * length
    return until - length, until


def read_batch_flag(text: str, now: dt.datetime) -> tuple[dt.datetime, dt.datetime]:
    """`1h`, `6h`, `1d`: the last whole one before `now`; `SINCE..UNTIL`: that period, ISO-8601. Raises UsageError.

    >>> read_batch_flag("2024-03-01..2024-03-02T12:00", _EPOCH)[1].isoformat()
    '2024-03-02T12:00:00+00:00'
    """
    if text in LENGTHS:
        return last_whole(LENGTHS[text], now)
    begin, _, end = text.partition("..")
    try:
        since, until = _utc(dt.datetime.fromisoformat(begin)), _utc(dt.datetime.fromisoformat(end))
    except (ValueError, OverflowError):
        since = until = _EPOCH
    if since >= until:
        raise UsageError(
            f"--batch {text!r} is no period",
            expected="1h, 6h, 1d, or two times, the earlier first: 2024-03-01T10:00..2024-03-01T16:00",
        )
    return since, until


def earlier(against: Against, since: dt.datetime, until: dt.datetime) -> tuple[dt.datetime, dt.datetime] | None:
    """The period that a batch is compared with; None: the model's reference.

    >>> [end.day for end in earlier("previous", _EPOCH, _EPOCH + LENGTHS["1d"])]
    [31, 1]
    """
    if against == "reference":
        return None
    back = until - since if against == "previous" else WEEK
    return since - back, until - back


def _utc(time: dt.datetime) -> dt.datetime:
    return time.replace(tzinfo=dt.UTC) if time.tzinfo is None else time.astimezone(dt.UTC)
