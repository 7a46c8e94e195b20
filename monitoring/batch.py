"""A batch out of the store at a bounded cost: a sample of its events, counts that the store makes. No judging.

However large the batch: `sample_rows` events are read, chosen by position so that every client keeps its part, and what
comes of them is SKETCH_POINTS quantiles a column. Counts are aggregations of the store.
"""

from __future__ import annotations

import datetime as dt
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import polars as pl

from monitoring.expected import SKETCH_POINTS, Expected
from monitoring.figures import Figures, share, status_shares
from monitoring.reference import Reference
from oddlog.connectors.store import DeadQuery, EventQuery, Store
from oddlog.errors import UsageError
from oddlog.events.schema import FEATURE_PREFIX, POSITION_ORDER, TIMESTAMP
from oddlog.scoring.distance import worth_of
from oddlog.scoring.reference import NEW_AFTER, PATH_RARITY, new_clients, quantile_points

SCORES = {"score": "anomaly.score", "severity": "anomaly.severity"}
"""Reference columns that are no features, and the event's column for each."""

FIXED_MB = 600
"""What a check takes beside the events that it reads: Evidently and the other libraries, quantile points, plots."""
BYTES_PER_ROW = 2_000
"""What an event that is read takes at most: its columns as they are read, joined, and as numbers."""

CLIENTS_ASKED = 2_000
"""Most clients that the store is asked about by name, whether they were there the day before."""

_CLIENT, _TIME, _OFFSET = "source.address", "@timestamp", "oddlog.position.offset"


@dataclass(frozen=True, slots=True)
class Batch:
    """The events of a period: since <= @timestamp < until."""

    since: dt.datetime
    until: dt.datetime
    """The period asked for; an open end is that of the last event."""
    scored: int
    """Events that the reference's version scored: what distances are over."""
    compared: int
    """How many of them were read."""
    clients: int
    """Distinct clients, of all events."""
    points: pl.DataFrame | None
    """SKETCH_POINTS quantiles of what was read, Float32, columns as the reference has; None where nothing was."""
    missing: dict[str, float]
    """Share of what was read without a finite value, by column."""
    figures: Figures
    pending: float | None
    """Share of the events that are not scored."""
    dead: dict[str, int]
    """Dead letters that the broker got in the period, by kind."""
    lateness: float | None
    """Seconds that the slowest hundredth of what was read, or more, came after a later event of its partition."""


def rows_within(memory_mb: int, sample_rows: int) -> int:
    """How many events a check may read, so that it takes no more than `memory_mb` (setting drift.memory_mb).

    >>> rows_within(1_024, 20_000), rows_within(700, 10_000_000)
    (20000, 50000)
    """
    return min(sample_rows, max(memory_mb - FIXED_MB, 10) * 1_000_000 // BYTES_PER_ROW)


def read_batch(
    store: Store, reference: Reference, *, since: dt.datetime, until: dt.datetime | None, sample_rows: int
) -> Batch:
    """The batch of a period. `until` None: up to the last event.

    Distances are of events that the reference's version scored alone: features and scores of another version stand
    under another baseline, and would differ without any drift. Raises UsageError for an open period without events;
    StoreError."""
    if until is None:
        until = _end_of(store, reference, since)
    own = EventQuery(since=since, until=until, status="scored", model_version=reference.version.version)
    scored = store.count_events(own)
    with ThreadPoolExecutor(1, thread_name_prefix="counts") as aside:  # the store counts while the sample is read
        counting = aside.submit(store.summarise_events, EventQuery(since=since, until=until))
        sample = _sample(store, own, reference, scored, sample_rows)
    counts = counting.result()
    names = reference.frame.columns
    columns = {name: sample[SCORES.get(name, FEATURE_PREFIX + name)].cast(pl.Float64).to_numpy() for name in names}
    missing = {name: 1 - float(np.isfinite(values).mean()) for name, values in columns.items()} if len(sample) else {}
    unseen = float((columns[PATH_RARITY] >= reference.unseen_from).mean()) if len(sample) else None
    return Batch(
        since=since,
        until=until,
        scored=scored,
        compared=sample.height,
        clients=counts.clients,
        points=quantile_points(columns, SKETCH_POINTS) if len(sample) else None,
        missing=missing,
        figures=Figures(
            events=counts.events,
            worth=min(worth_of(sample[_CLIENT]), float(counts.clients)),
            alert_rate=share(counts.alerts, counts.client_hours),
            statuses=status_shares({name: float(count) for name, count in counts.statuses.items()}, counts.events),
            unseen_paths=unseen,
            new_clients=_new(store, sample, since, until),
            busiest=share(counts.busiest, counts.events),
        ),
        pending=share(counts.pending, counts.events),
        dead=store.dead_kinds(DeadQuery(since=since, until=until)),
        lateness=_lateness(sample),
    )


def expected_by_batch(batch: Batch, expected: Expected) -> Expected:
    """An earlier batch as what is expected; `expected` gives the name, the period and the cautions."""
    points = None if batch.points is None else batch.points.cast(pl.Float64)
    return replace(
        expected, points=points, figures=batch.figures, worth=batch.figures.worth, since=batch.since, until=batch.until
    )


def _sample(store: Store, own: EventQuery, reference: Reference, scored: int, sample_rows: int) -> pl.DataFrame:
    """At most about `sample_rows` of the events, the same share of every client's."""
    columns = [_CLIENT, _TIME, *POSITION_ORDER, *(SCORES.get(n, FEATURE_PREFIX + n) for n in reference.frame.columns)]
    query = replace(own, share=sample_rows / scored) if scored > sample_rows else own
    frames = list(store.read_events(query, columns=columns)) if scored else []
    if frames:
        return pl.concat(frames)
    empty = pl.DataFrame(schema=dict.fromkeys(columns, pl.Float64))
    return empty.cast({_CLIENT: pl.String, _TIME: TIMESTAMP})


def _new(store: Store, sample: pl.DataFrame, since: dt.datetime, until: dt.datetime) -> float | None:
    """Share of the sampled events whose client was away for a day before; None where the store has no such day, by the
    hour: that nobody came in its first minutes is no gap."""
    first = store.time_range(EventQuery(until=since))
    if sample.is_empty() or first is None or first[0] >= since - NEW_AFTER + dt.timedelta(hours=1):
        return None
    every = sample.sort(_OFFSET).gather_every(max(1, -(-sample.height // CLIENTS_ASKED)))
    clients = every[_CLIENT].unique().to_list()
    lead_in = since - NEW_AFTER - dt.timedelta(hours=1)
    pairs = store.client_hours(EventQuery(since=lead_in, until=until, clients=tuple(clients)))
    # An hour before what is asked about, of no one, so that the first hour of the batch is known to be judged.
    begin = lead_in.replace(minute=0, second=0, microsecond=0) - dt.timedelta(hours=1)
    mark = pl.DataFrame({"client": [""], "hour": [begin]}, schema={"client": pl.String, "hour": TIMESTAMP})
    known = new_clients(pl.concat([pairs, mark]))
    hours = every.select(pl.col(_CLIENT).alias("client"), pl.col(_TIME).dt.truncate("1h").cast(TIMESTAMP).alias("hour"))
    found = hours.join(known, on=["client", "hour"], how="left")["new"].mean()
    return None if found is None else float(cast(float, found))


def _lateness(sample: pl.DataFrame) -> float | None:
    """Seconds; the 99th percentile of how far an event is behind the latest before it, in its partition's order."""
    if sample.is_empty():
        return None
    late = sample.sort(POSITION_ORDER).select(
        ((pl.col(_TIME).cum_max() - pl.col(_TIME)).over(POSITION_ORDER[:3]).dt.total_milliseconds() / 1000).alias("s")
    )
    return float(cast(float, late["s"].quantile(0.99)))


def _end_of(store: Store, reference: Reference, since: dt.datetime) -> dt.datetime:
    found = store.time_range(EventQuery(since=since))
    if found is not None:
        return found[1] + dt.timedelta(milliseconds=1)
    version = reference.version.version
    held = store.count_events(EventQuery(status="scored", model_version=version))
    raise UsageError(
        f"there are no events from {since:%Y-%m-%d %H:%M:%S} UTC on",
        expected="some events to judge",
        mend=f"an earlier --since, or a batch with both ends; the store holds {held} events that version {version} "
        "scored. oddlog enrich brings more, oddlog backfill scores what is pending",
    )
