"""Scores events that were written as pending, partition by partition, in order, with a lead-in.

Client state depends on what came before, so every event of the lead-in and of the period is run through the
features, and only the pending ones are updated. An event that changes meanwhile is left alone.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl

from oddlog.connectors.store import EventQuery, Store
from oddlog.errors import UsageError
from oddlog.events.schema import EVENT_SCHEMA
from oddlog.scoring.scorer import Scorer
from serving.documents import feature_columns, verdict_columns
from serving.lane import Lane

# The parser's columns without the raw line, which no feature reads and which is most of the bytes.
_COLUMNS = [name for name in EVENT_SCHEMA if name != "event.original"]


@dataclass(slots=True)
class BackfillResult:
    """What a backfill did: the version it scored with, and counts."""

    version: str
    pending: int
    updated: int = 0
    left_alone: int = 0
    read: int = 0
    anomalies: int = 0


def backfill(
    store: Store,
    scorer: Scorer,
    *,
    lead_in: dt.timedelta,
    since: dt.datetime | None = None,
    until: dt.datetime | None = None,
    batch_rows: int = 10_000,
    progress: Callable[[BackfillResult], None] | None = None,
) -> BackfillResult:
    """Score the pending events with since <= @timestamp < until by the champion.

    Raises UsageError without a champion, ScorerUnavailable and StoreUnavailable when one of them is away: what
    was done stays done, and a second call goes on with the rest."""
    store.refresh()
    wanted = EventQuery(since=since, until=until, status="pending")
    champion = scorer.champion()
    if champion is None:
        raise UsageError(
            f"there is no champion to score {store.count_events(wanted)} pending events with",
            expected="a promoted model",
            mend="oddlog train && oddlog promote",
        )
    result = BackfillResult(champion, pending=store.count_events(wanted))
    baseline = scorer.baseline(champion)
    for epoch, topic, partition in store.partitions(wanted):
        lane = Lane(champion, baseline)  # client state of one partition at a time: that bounds memory
        first = _first_time(
            store,
            EventQuery(since=since, until=until, status="pending", epoch=epoch, topic=topic, partition=partition),
        )
        if first is None:
            continue
        query = EventQuery(since=first - lead_in, until=until, epoch=epoch, topic=topic, partition=partition)
        for events in store.read_events(
            query,
            columns=[*_COLUMNS, "anomaly.status"],
            order="position",
            batch_rows=batch_rows,
            with_version=True,
        ):
            features = lane.compute(events)
            result.read += events.height
            due = pl.col("anomaly.status") == "pending"
            if since is not None:
                due &= pl.col("@timestamp") >= since
            rows = events.select(due.arg_true()).to_series().to_numpy()
            if len(rows):
                chosen = np.ascontiguousarray(features[rows])
                scores = scorer.score(chosen, lane.names, version=champion)
                updated = store.update_events(
                    events[rows]
                    .select("_id", "@timestamp", "_version")
                    .hstack([*feature_columns(chosen, lane.names), *verdict_columns(scores, len(rows))])
                )
                result.updated += updated
                result.left_alone += len(rows) - updated
                result.anomalies += int(scores.is_anomaly.sum())
            if progress is not None:
                progress(result)
    store.refresh()
    return result


def _first_time(store: Store, query: EventQuery) -> dt.datetime | None:
    first: dt.datetime | None = None
    for times in store.read_events(query, columns=["@timestamp"]):
        lowest = times["@timestamp"].min()
        if isinstance(lowest, dt.datetime) and (first is None or lowest < first):
            first = lowest
    return first
