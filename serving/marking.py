"""Marking: documents or patterns of them given a verdict, and the stored alerts that are hushed by it.

What a mark is, is oddlog/connectors/marks.py's; the consumer follows by serving/hush.py.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from oddlog.connectors.marks import COLUMNS, Hushes, Mark, Verdict, list_marks, new_mark, put_marks, remove_mark
from oddlog.connectors.store import EventQuery, Store
from oddlog.errors import UsageError
from serving.hush import hush_stored, unhush_stored


@dataclass(frozen=True, slots=True)
class Marked:
    """What was written."""

    marks: list[Mark]
    hushed: int
    """Stored events that were alerts, and are none any more."""


@dataclass(frozen=True, slots=True)
class Unmarked:
    """What was removed."""

    marks: list[Mark]
    unhushed: int
    """Stored events that are alerts again."""


def mark_documents(
    store: Store, ids: Sequence[str], verdict: Verdict, *, by: str, note: str = "", until: dt.datetime | None = None
) -> Marked:
    """Mark events by their `_id`. `until`, for `expected` alone: not the event, but its client at its path, from the
    event on and before that time.

    Raises UsageError where one is not stored, and then writes nothing; StoreError."""
    events = _events(store, ids)
    if until is None:
        marks = [
            new_mark(verdict, by=by, note=note, event=id, client=client, path=path, time=time)
            for id, time, client, path in events
        ]
    else:
        if verdict != "expected":
            raise UsageError(
                f"an end for {verdict}, which is about what has been", expected="--as expected with an end",
                mend=f"oddlog mark DOCUMENT --as {verdict}",
            )  # fmt: skip
        patterns = {(client, path): time for _, time, client, path in reversed(events)}
        marks = [
            new_mark(verdict, by=by, note=note, client=client, path_prefix=path, since=time, until=until)
            for (client, path), time in patterns.items()
        ]
    return _write(store, marks)


def mark_pattern(
    store: Store,
    verdict: Verdict,
    *,
    by: str,
    note: str = "",
    client: str | None = None,
    path_prefix: str | None = None,
    since: dt.datetime | None = None,
    until: dt.datetime | None = None,
    now: dt.datetime | None = None,
) -> Marked:
    """Mark all events of a client, or below a path, of a period.

    `expected` holds from now on unless `since` tells, and needs an end; the other verdicts are about what has been: up
    to now unless `until` tells an earlier time. Raises UsageError, StoreError."""
    now = now or dt.datetime.now(dt.UTC)
    if verdict == "expected":
        since = since or (now if until is None or until > now else None)
    else:
        until = until or now
        if until > now:
            raise UsageError(
                f"{verdict} of events until {until:%Y-%m-%d %H:%M:%S} UTC, which nobody has seen yet",
                expected="an end that is not after now; only what is `expected` may lie ahead",
            )
    mark = new_mark(verdict, by=by, note=note, at=now, client=client, path_prefix=path_prefix, since=since, until=until)
    return _write(store, [mark])


def unmark(store: Store, ids: Sequence[str]) -> Unmarked:
    """Remove marks by their id; what they hushed is an alert again. Raises UsageError on one that is not there."""
    removed, unhushed = [], 0
    for id in ids:
        removed.append(remove_mark(store, id))
        unhushed += unhush_stored(store, removed[-1], Hushes(list_marks(store)))
    return Unmarked(removed, unhushed)


def _write(store: Store, marks: list[Mark]) -> Marked:
    store.setup()
    put_marks(store, marks)
    return Marked(marks, sum(hush_stored(store, mark) for mark in marks))


def _events(store: Store, ids: Sequence[str]) -> list[tuple[str, dt.datetime, str, str]]:
    """Id, time, client and path of stored events, oldest first. Raises UsageError where one is not there."""
    store.refresh()
    found = list(store.read_events(EventQuery(ids=tuple(ids)), columns=COLUMNS))
    events = pl.concat(found).sort("@timestamp", "_id") if found else pl.DataFrame(schema=dict.fromkeys(COLUMNS))
    if missing := sorted(set(ids) - set(events["_id"])):
        raise UsageError(
            f"the store holds no event {missing[0]!r}" + (f", nor {len(missing) - 1} others" if missing[1:] else ""),
            expected="the _id of a document, such as e1-logs.raw-0-17",
            mend="take it from the field _id in Kibana, or from what named the alert",
        )
    return events.rows()
