"""The enrichment consumer: poll -> parse -> features -> score -> write -> commit, in batches of columns.

Delivery: a position is committed after the store has acknowledged every document and dead letter before it.
Reading is at least once, writing is create-only by position, so nothing is lost and nothing is there twice.
A scorer that is away delays no one: events are written as pending, and scored later.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import polars as pl

from oddlog.connectors.source import Source
from oddlog.connectors.store import EventQuery, Store, WriteOutcome
from oddlog.errors import ScorerError, ScorerUnavailable, SourceEpochError, SourceError
from oddlog.events.parse import parse
from oddlog.events.record import Partition, Records
from oddlog.scoring.scorer import Scorer
from oddlog.settings import EnrichSettings
from serving.consumer_metrics import ConsumerObserver
from serving.documents import dead_letters_of_rejected, pending_events, scored_events
from serving.lane import Lane
from serving.settle import settle_pending

log = logging.getLogger(__name__)

SCORER_REST_SECONDS = 2.0
"""After a failed request the scorer is left alone for this long, so that a batch does not wait for it each time."""


@dataclass(slots=True)
class Counts:
    """What a consumer has done since it started."""

    records: int = 0
    scored: int = 0
    pending: int = 0
    settled: int = 0
    dead_letters: int = 0
    anomalies: int = 0
    batches: int = 0
    retries: int = 0
    replayed: int = 0


LOOK_SECONDS = 5.0
"""How often the scorer is asked for the champion where no answer tells: while idle, or while it was away."""


class _Stopped(Exception):
    """Asked to stop while a batch was not written: it is left uncommitted, and will be read again."""


class Enricher:
    """One consumer of a source. `stop` (from a signal handler or another thread) ends `run` at a batch boundary."""

    def __init__(
        self,
        settings: EnrichSettings,
        source: Source,
        store: Store,
        scorer: Scorer,
        *,
        progress: Callable[[Counts], None] | None = None,
        observe: ConsumerObserver | None = None,
    ) -> None:
        self.counts = Counts()
        self.lane: Lane | None = None
        self._settings = settings
        self._source = source
        self._store = store
        self._scorer = scorer
        self._progress = progress or (lambda counts: None)
        self._observe = observe or ConsumerObserver()
        self._stop = threading.Event()
        self._next: dict[Partition, int] = {}
        self._scorer_rests_until = 0.0
        self._settled_at = float("-inf")
        self._looked_at = float("-inf")

    def stop(self) -> None:
        """End at the next batch boundary; what is read and not written stays uncommitted."""
        self._stop.set()

    def run(self, *, until_idle: float | None = None) -> Counts:
        """Consume until stopped, or until the source was empty for `until_idle` seconds.

        Raises SourceEpochError, SourceError and StoreRefused; what is retried never raises."""
        idle_since = time.monotonic()
        while not self._stop.is_set():
            self._observe.moved()
            poll = self._source.poll(self._settings.batch_rows, self._settings.batch_seconds)
            self._observe.revoked(poll.revoked)
            self._observe.assigned(poll.assigned)
            for partition in poll.revoked:
                self._forget(partition)
            self._follow_champion()
            for partition in poll.assigned:
                self._take(partition)
            if len(poll.records):
                try:
                    self._process(poll.records)
                except _Stopped:
                    break
                idle_since = time.monotonic()
            elif poll.assigned:
                idle_since = time.monotonic()
            elif until_idle is not None and time.monotonic() - idle_since >= until_idle:
                self._settle(force=True)
                break
            self._settle()
            self._tell_lag()
            self._progress(self.counts)
        return self.counts

    def _take(self, partition: Partition) -> None:
        """Restore the client state of a newly assigned partition, then let it flow."""
        self._next[partition] = self._source.committed(partition) or 0
        if self.lane is not None:
            with self._observe.stage("restore"):
                self.counts.replayed += self.lane.restore(self._source, partition, self._next[partition])
        self._source.start(partition)
        self._observe.restored(partition)

    def _forget(self, partition: Partition) -> None:
        self._next.pop(partition, None)
        if self.lane is not None:
            self.lane.drop(partition)

    def _follow_champion(self) -> None:
        """Have the champion's lane, also while no event asks for it: it is warm when the next one comes."""
        now = time.monotonic()
        if now < self._scorer_rests_until or (self.lane is not None and now - self._looked_at < LOOK_SECONDS):
            return
        self._looked_at = now
        try:
            champion = self._scorer.champion()
            if champion is None:
                self._scorer_rests_until = now + SCORER_REST_SECONDS
            elif self.lane is None or champion != self.lane.version:
                self._switch(champion)
        except ScorerError as error:
            self._let_scorer_rest(error)

    def _switch(self, version: str) -> None:
        """Warm the lane of `version` aside, by replaying up to where we are, then put it in place."""
        lane = Lane(version, self._scorer.baseline(version))
        for partition, offset in self._next.items():
            with self._observe.stage("restore"):
                self.counts.replayed += lane.restore(self._source, partition, offset)
        log.info(
            "lane of model version %s is warm (before: %s)",
            version,
            self.lane.version if self.lane else "none",
        )
        self.lane = lane
        self._observe.lane(version, lane.baseline.digest)

    def _let_scorer_rest(self, error: ScorerError) -> None:
        log.warning("scorer is away, events are written as pending: %s", error.found)
        self._scorer_rests_until = time.monotonic() + SCORER_REST_SECONDS

    def _process(self, records: Records) -> None:
        with self._observe.stage("parse"):
            parsed = parse(records)
        events, champion = self._enrich(parsed.events)
        dead = parsed.dead
        with self._observe.stage("write"):
            rejected = self._write(events, self._store.write_events)
        if rejected:
            dead = pl.concat([dead, dead_letters_of_rejected(records, events, rejected)])
        self._write(dead, self._store.write_dead)
        with self._observe.stage("commit"):
            committed = self._commit(records)
        status = events["anomaly.status"]
        scored = int((status == "scored").sum())
        self.counts.records += len(records)
        self.counts.scored += scored - len(rejected) if scored else 0
        self.counts.pending += events.height - scored
        self.counts.dead_letters += dead.height
        self.counts.anomalies += int(events["anomaly.is_anomaly"].sum() or 0)
        self.counts.batches += 1
        if committed:
            self._observe.batch(self.counts, dict(dead["kind"].value_counts().iter_rows()))
        if champion is not None and self.lane is not None and champion != self.lane.version:
            try:
                self._switch(champion)
            except ScorerError as error:
                self._let_scorer_rest(error)

    def _enrich(self, events: pl.DataFrame) -> tuple[pl.DataFrame, str | None]:
        """The events with features and verdict, or pending; and who is champion by the scorer's answer."""
        lane = self.lane
        if lane is None or events.height == 0:
            return pending_events(events, None, None), None
        with self._observe.stage("features"):
            features = lane.compute(events)
        if time.monotonic() >= self._scorer_rests_until:
            try:
                with self._observe.stage("score"):
                    scores = self._scorer.score(features, lane.names, version=lane.version)
                self._looked_at = time.monotonic()
                return scored_events(events, features, lane.names, scores), scores.champion
            except ScorerUnavailable as error:
                self._let_scorer_rest(error)
            except ScorerError as error:
                # The scorer does not hold this lane's version any more: these events stay pending under
                # its baseline, and the champion of now gets a lane after this batch.
                self._let_scorer_rest(error)
                return pending_events(events, features, lane), self._champion_or_none()
        return pending_events(events, features, lane), None

    def _champion_or_none(self) -> str | None:
        try:
            return self._scorer.champion()
        except ScorerError:
            return None

    def _write(self, frame: pl.DataFrame, write: Callable[[pl.DataFrame], WriteOutcome]) -> dict[int, str]:
        """Write until every row is acknowledged or refused for good; polling stays paused meanwhile.

        Returns the refused rows, by their number in `frame`."""
        refused: dict[int, str] = {}
        rows = list(range(frame.height))
        attempt = 0
        while rows:
            outcome = write(frame[rows] if len(rows) < frame.height else frame)
            refused.update({rows[i]: reason for i, reason in outcome.rejected.items()})
            rows = [rows[i] for i in sorted(outcome.retry)]
            if rows:
                attempt += 1
                self.counts.retries += 1
                self._observe.waiting(next(iter(outcome.retry.values())))
                if attempt == 1:
                    log.warning("%d documents wait for the store: %s", len(rows), next(iter(outcome.retry.values())))
                self._pause(min(self._settings.retry_seconds, 0.1 * 2**attempt) * random.uniform(0.5, 1.0))
        return refused

    def _pause(self, seconds: float) -> None:
        """Wait without losing membership. Raises _Stopped when asked to stop meanwhile."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self._observe.moved()
            if self._stop.wait(min(left, 1.0)):
                raise _Stopped
            self._source.keep_alive()

    def _commit(self, records: Records) -> bool:
        """Commit what is stored; whether the source took it."""
        try:
            self._source.commit(records.next_offset)
        except SourceEpochError:
            raise
        except SourceError as error:
            # Membership was lost on the way. What was written is there by id and harmless; memory is ahead of
            # the committed position, so it is thrown away and restored.
            log.warning("commit refused, reading again from the committed positions: %s", error.found)
            self._observe.waiting(f"the commit was refused: {error.found}")
            self._source.rewind()
            for partition in list(self._next):
                self._next[partition] = self._source.committed(partition) or 0
                if self.lane is not None:
                    self.counts.replayed += self.lane.restore(self._source, partition, self._next[partition])
            return False
        self._next.update(records.next_offset)
        return True

    def _tell_lag(self) -> None:
        if not self._observe.lag_due():
            return
        try:
            self._observe.lag(self._source.lag())
        except SourceEpochError:
            raise
        except SourceError as error:
            # Brokers that are away for a moment stop no one: reading goes on when they are back.
            log.debug("lag is not known: %s", error.found)
            self._observe.lag({})

    def _settle(self, *, force: bool = False) -> None:
        """Score what this or an earlier run wrote as pending under the lane's own baseline."""
        now = time.monotonic()
        if self.lane is None or now < self._scorer_rests_until:
            return
        if not force and now - self._settled_at < self._settings.settle_seconds:
            return
        self._settled_at = now
        query = EventQuery(status="pending", baseline=self.lane.baseline.digest)
        try:
            with self._observe.stage("settle"):
                self.counts.settled += settle_pending(self._store, self._scorer, query, self.lane.version)
        except ScorerError as error:
            self._let_scorer_rest(error)
