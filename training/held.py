"""Whether a store holds events of a period, and what it holds instead, in words."""

from __future__ import annotations

import datetime as dt

from oddlog.connectors.store import EventQuery, Store
from oddlog.errors import UsageError


def missing(store: Store, since: dt.datetime, until: dt.datetime | None) -> str:
    """A period, and what the store holds instead. Raises StoreError."""
    ends = store.time_range(EventQuery())
    holds = "none" if ends is None else f"those from {ends[0]:%Y-%m-%d %H:%M:%S} to {ends[1]:%Y-%m-%d %H:%M:%S} UTC"
    before = f" and before {until:%Y-%m-%d %H:%M:%S}" if until else ""
    return f"since {since:%Y-%m-%d %H:%M:%S} UTC{before}; the store holds {holds}"


def check_held(store: Store, since: dt.datetime, until: dt.datetime | None, *, expected: str, mend: str) -> None:
    """Raises UsageError where there is no event of the half-open period, StoreError."""
    if (until is None or since < until) and store.count_events(EventQuery(since=since, until=until)):
        return
    raise UsageError(f"no event {missing(store, since, until)}", expected=expected, mend=mend)
