"""Scores stored events anew, partitions side by side, in order within each, with a lead-in: pending events by the
champion (`backfill`), or the events of a period by any version (`rescore`).

Client state depends on what came before, so every event of the lead-in and of the period is run through the
features, and only those that are due are updated. An event that changes meanwhile is left alone.
"""

from __future__ import annotations

import datetime as dt
import logging
import threading
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from oddlog.connectors.marks import Hushes, list_marks
from oddlog.connectors.store import EventQuery, Store
from oddlog.errors import OddlogError, ScorerError, ScorerUnavailable, UsageError
from oddlog.events.schema import EVENT_SCHEMA
from oddlog.features.baseline import Baseline
from oddlog.scoring.scorer import Scorer
from serving.documents import feature_columns, previous_columns, verdict_columns
from serving.lane import Lane

log = logging.getLogger(__name__)

WORKERS = 4
"""Partitions side by side, unless told otherwise: each holds one frame of events and its clients' state."""

# The parser's columns without the raw line, which no feature reads and which is most of the bytes.
_COLUMNS = [name for name in EVENT_SCHEMA if name != "event.original"]
_VERDICT = ["anomaly.status", "anomaly.model.version", "anomaly.score"]


@dataclass(slots=True)
class BackfillResult:
    """What was done: the version that scored, and counts of events."""

    version: str
    due: int
    """To be scored when it began."""
    updated: int = 0
    left_alone: int = 0
    """Changed by somebody else between being read and being updated."""
    read: int = 0
    """Lead-in included."""
    anomalies: int = 0


Progress = Callable[[BackfillResult], None]


def backfill(
    store: Store,
    scorer: Scorer,
    *,
    lead_in: dt.timedelta,
    since: dt.datetime | None = None,
    until: dt.datetime | None = None,
    workers: int = WORKERS,
    batch_rows: int = 10_000,
    progress: Progress | None = None,
) -> BackfillResult:
    """Score the pending events with since <= @timestamp < until by the champion.

    Raises UsageError without a champion, ScorerUnavailable and StoreUnavailable when one of them is away: what
    was done stays done, and a second call goes on with the rest."""
    store.refresh()
    wanted = EventQuery(since=since, until=until, status="pending")
    due = store.count_events(wanted)
    champion = scorer.champion()
    if champion is None:
        raise UsageError(
            f"there is no champion to score {due} pending events with",
            expected="a promoted model",
            mend="oddlog train && oddlog promote",
        )
    work = _Work(
        store,
        scorer,
        BackfillResult(champion, due),
        scorer.baseline(champion),
        begins=wanted,
        due=pl.col("anomaly.status") == "pending",
        lead_in=lead_in,
        batch_rows=batch_rows,
        progress=progress,
    )
    return work.run(workers)


def rescore(
    store: Store,
    scorer: Scorer,
    version: str,
    *,
    lead_in: dt.timedelta,
    since: dt.datetime | None = None,
    until: dt.datetime | None = None,
    workers: int = WORKERS,
    batch_rows: int = 10_000,
    progress: Progress | None = None,
) -> BackfillResult:
    """Score every event with since <= @timestamp < until by `version`, pending ones included, under its baseline.

    The verdict that was there is kept as `anomaly.previous.{version,score}`, set in the same update as the new
    one. An event that `version` has scored already is left as it is, so that a second call changes nothing, and
    one that was interrupted is gone on with. Raises UsageError for a version that the scorer does not have;
    ScorerUnavailable and StoreUnavailable as `backfill`."""
    try:
        baseline = scorer.baseline(version)
    except ScorerUnavailable:
        raise
    except ScorerError as error:
        raise UsageError(
            f"the scorer does not score with version {version!r}: {error.found}",
            expected=error.expected,
            mend="name one of those; a service holds only versions with an alias, --scorer local: any registered one",
        ) from error
    store.refresh()
    wanted = EventQuery(since=since, until=until)
    due = store.count_events(wanted) - store.count_events(replace(wanted, model_version=version))
    work = _Work(
        store,
        scorer,
        BackfillResult(version, due),
        baseline,
        # From the first event of the period, done or not: every call computes the same features.
        begins=wanted,
        due=pl.col("anomaly.model.version").ne_missing(pl.lit(version)),
        keep_previous=True,
        lead_in=lead_in,
        batch_rows=batch_rows,
        progress=progress,
    )
    return work.run(workers)


class _Stopped(Exception):
    """Another partition failed."""


class _Work:
    """One backfill or rescoring: which events are due, with what they are scored, and how far it is."""

    def __init__(
        self,
        store: Store,
        scorer: Scorer,
        result: BackfillResult,
        baseline: Baseline,
        *,
        begins: EventQuery,
        due: pl.Expr,
        lead_in: dt.timedelta,
        batch_rows: int,
        progress: Progress | None,
        keep_previous: bool = False,
    ) -> None:
        """`begins`: the events before the first of which, in each partition, the lead-in lies."""
        self._store, self._scorer, self._result, self._baseline = store, scorer, result, baseline
        self._begins, self._lead_in, self._batch_rows = begins, lead_in, batch_rows
        self._due = due if begins.since is None else due & (pl.col("@timestamp") >= begins.since)
        self._keep_previous = keep_previous
        self._hushes = Hushes(list_marks(store))
        self._progress = progress
        self._stop = threading.Event()
        self._counting = threading.Lock()

    def run(self, workers: int) -> BackfillResult:
        """Do it, `workers` partitions at a time. The first failure stops the others after their batch."""
        partitions = self._store.partitions(self._begins) if self._result.due else []
        if partitions:
            with ThreadPoolExecutor(min(workers, len(partitions)), thread_name_prefix="backfill") as pool:
                under_way = {pool.submit(self._partition, *partition): partition for partition in partitions}
                try:
                    wait(under_way, return_when=FIRST_EXCEPTION)
                finally:  # also when interrupted from the keyboard
                    self._stop.set()
                    pool.shutdown(wait=True, cancel_futures=True)
            failed = [(one.exception(), partition) for one, partition in under_way.items() if not one.cancelled()]
            for error, partition in failed:
                if error is not None and not isinstance(error, _Stopped):
                    raise self._told(error, partition)
        self._store.refresh()
        return self._result

    def _partition(self, epoch: str, topic: str, partition: int) -> None:
        here = {"epoch": epoch, "topic": topic, "partition": partition}
        period = self._store.time_range(replace(self._begins, **here))  # type: ignore[arg-type]
        if period is None:
            return
        lane = Lane(self._result.version, self._baseline)
        frames = self._store.read_events(
            EventQuery(since=period[0] - self._lead_in, until=self._begins.until, **here),  # type: ignore[arg-type]
            columns=[*_COLUMNS, *_VERDICT],
            order="position",
            batch_rows=self._batch_rows,
            with_version=True,
        )
        for events in frames:
            if self._stop.is_set():
                raise _Stopped
            self._frame(lane, events)

    def _frame(self, lane: Lane, events: pl.DataFrame) -> None:
        features = lane.compute(events)
        rows = events.select(self._due.arg_true()).to_series().to_numpy()
        updated = anomalies = 0
        if len(rows):
            chosen = np.ascontiguousarray(features[rows])
            scores = self._scorer.score(chosen, lane.names, version=lane.version)
            before = events[rows]
            updates = before.select("_id", "@timestamp", "_version").hstack(
                [
                    *feature_columns(chosen, lane.names),
                    *verdict_columns(scores, before, self._hushes),
                    *(previous_columns(before) if self._keep_previous else []),
                ]
            )
            updated = self._store.update_events(updates)
            anomalies = int(updates["anomaly.is_anomaly"].sum())
        with self._counting:
            self._result.read += events.height
            self._result.updated += updated
            self._result.left_alone += len(rows) - updated
            self._result.anomalies += anomalies
            if self._progress is not None:
                self._progress(self._result)

    def _told(self, error: BaseException, partition: tuple[str, str, int]) -> BaseException:
        """The error that ends it, with where it happened and what is done already."""
        if isinstance(error, OddlogError):
            done = f"{self._result.updated:,} of {self._result.due:,} events were updated before, and stay so"
            error.found = f"{error.found} (at partition {'-'.join(map(str, partition))}; {done})"
        return error
