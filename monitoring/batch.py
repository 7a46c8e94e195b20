"""A recent batch from the store, as the columns that a reference has. Comparing them is in comparison.py."""

from __future__ import annotations

import datetime as dt
import math
from dataclasses import dataclass
from typing import cast

import numpy as np
import polars as pl

from monitoring.reference import Reference
from oddlog.connectors.store import EventQuery, Store
from oddlog.errors import UsageError
from oddlog.events.schema import FEATURE_PREFIX
from oddlog.settings import DriftSettings

SCORES = {"score": "anomaly.score", "severity": "anomaly.severity"}
"""Reference columns that are no features, and the event's column for each."""

OVERSAMPLING = 10
"""This many times the sample is read at most: larger batches are thinned by offset as they come."""

_CLIENT, _TIME, _OFFSET = "source.address", "@timestamp", "oddlog.position.offset"


@dataclass(frozen=True, slots=True)
class Batch:
    """Events that one model version scored in a period, sampled, oldest first; columns as its reference."""

    frame: pl.DataFrame
    since: dt.datetime
    until: dt.datetime
    """The period asked for; an open end is that of the last event."""
    first: dt.datetime
    last: dt.datetime
    """Times of the first and the last event."""
    events: int
    """How many there are in the period; `frame` has at most DriftSettings.sample_rows of them."""
    clients: int
    """Distinct clients among the events that were read."""


def read_batch(
    store: Store,
    reference: Reference,
    settings: DriftSettings,
    *,
    since: dt.datetime | None,
    until: dt.datetime | None,
) -> Batch:
    """The batch of since <= @timestamp < until; `since` None: everything later than the training data.

    Only events that the reference's version scored: features and scores of another version stand under another
    baseline, and would differ without any drift. Raises UsageError where there are fewer than `min_rows`.
    """
    since = since or reference.card.dataset.until + dt.timedelta(milliseconds=1)  # `until` is its last event
    query = EventQuery(since=since, until=until, status="scored", model_version=reference.version.version)
    events = store.count_events(query)
    if events < settings.min_rows:
        whole = store.count_events(EventQuery(status="scored", model_version=reference.version.version))
        raise _too_few(query, events, whole, settings.min_rows)
    columns = {name: SCORES.get(name, FEATURE_PREFIX + name) for name in reference.frame.columns}
    step = max(1, math.ceil(events / (OVERSAMPLING * settings.sample_rows)))
    frames = [
        frame.filter(pl.col(_OFFSET) % step == 0) if step > 1 else frame
        for frame in store.read_events(query, columns=[_CLIENT, _TIME, _OFFSET, *columns.values()])
    ]
    if not frames:  # deleted since they were counted
        raise _too_few(query, 0, events, settings.min_rows)
    read = pl.concat(frames)
    first, last = (cast(dt.datetime, time) for time in read.select(pl.min(_TIME), pl.max(_TIME).alias("last")).row(0))
    sampled = sample_by_client(read, settings.sample_rows)
    return Batch(
        frame=sampled.select(pl.col(column).cast(pl.Float64).alias(name) for name, column in columns.items()),
        since=since,
        until=until or last + dt.timedelta(milliseconds=1),
        first=first,
        last=last,
        events=events,
        clients=read.get_column(_CLIENT).n_unique(),
    )


def sample_by_client(events: pl.DataFrame, rows: int) -> pl.DataFrame:
    """At most `rows` of the events, the same share of every client's, oldest first.

    Evenly spaced over the events sorted by client and time: a busy client is neither missed nor doubled, and
    the same events give the same sample, whatever order they came in.
    """
    if events.height > rows:
        ordered = events.sort(_CLIENT, _TIME, _OFFSET)
        picked = np.linspace(0, ordered.height - 1, rows).round().astype(np.int64)
        events = ordered[picked]
    return events.sort(_TIME, _CLIENT, _OFFSET)


def _too_few(query: EventQuery, events: int, of_version: int, expected: int) -> UsageError:
    since, until, version = query.since, query.until, query.model_version
    end = f"until {until:%Y-%m-%d %H:%M:%S} UTC" if until else "on"
    held = f"the store holds {of_version} events that version {version} scored"
    more = "a longer period: oddlog drift --since ... --until ..."
    if of_version < expected:
        more = "wait for oddlog enrich to score more, or oddlog backfill for what is pending"
    return UsageError(
        f"{events} events from {since:%Y-%m-%d %H:%M:%S} UTC {end} were scored by version {version}: too few to judge",
        expected=f"{expected} or more (setting drift.min_rows)",
        mend=f"{more}; {held}",
    )
