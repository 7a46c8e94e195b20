"""What a store holds, in words: for whoever asked for a period that it has nothing of."""

from __future__ import annotations

import datetime as dt

from oddlog.connectors.store import EventQuery, Store


def missing(store: Store, since: dt.datetime, until: dt.datetime | None) -> str:
    """A period, and what the store holds instead. Raises StoreError."""
    ends = store.time_range(EventQuery())
    holds = "none" if ends is None else f"those from {ends[0]:%Y-%m-%d %H:%M:%S} to {ends[1]:%Y-%m-%d %H:%M:%S} UTC"
    before = f" and before {until:%Y-%m-%d %H:%M:%S}" if until else ""
    return f"since {since:%Y-%m-%d %H:%M:%S} UTC{before}; the store holds {holds}"
