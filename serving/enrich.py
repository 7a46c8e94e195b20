"""The enrichment consumer: poll -> parse -> features -> score -> write -> commit, in batches of columns.

Delivery: a position is committed after the store has acknowledged every document and dead letter before it.
Reading is at least once, writing is create-only by position, so nothing is lost and nothing is there twice.
A scorer that is away delays no one: events are written as pending, and scored later.

While batches are written (batch_writer.py), the next is read, parsed and scored; they are committed in order.
"""

from __future__ import annotations

import concurrent.futures
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from functools import partial

import polars as pl

from oddlog.connectors.privacy_stamp import claim_store
from oddlog.connectors.source import Source
from oddlog.connectors.store import EventQuery, Store
from oddlog.errors import ScorerError, ScorerUnavailable, SourceEpochError, SourceError, StoreUnavailable
from oddlog.events.privacy import Reader
from oddlog.events.record import Partition, Records
from oddlog.scoring.scorer import Scorer
from oddlog.settings import EnrichSettings
from serving.batch_writer import Batch, BatchWriter, Stopped, Written
from serving.consumer_metrics import ConsumerObserver
from serving.counts import Counts
from serving.documents import pending_events, scored_events
from serving.epoch import prove_epoch
from serving.hush import HushFollower
from serving.lane import Lane
from serving.patience import Patience
from serving.settle import settle_pending
from serving.shadow import Shadow
from serving.snapshots import Snapshot

log = logging.getLogger(__name__)

SCORER_REST_SECONDS = 2.0
"""After a failed request the scorer is left alone for this long, so that a batch does not wait for it each time."""

LOOK_SECONDS = 5.0
"""How often the scorer is asked for the champion where no answer tells: while idle, or while it was away."""

ALIVE_SECONDS = 0.5
"""How often the source is told that we live, while a batch waits for the store."""


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
        reader: Reader | None = None,
    ) -> None:
        """`reader`: how records are read; default: plainly."""
        self.counts = Counts()
        self.lane: Lane | None = None
        self._settings = settings
        self._source = source
        self._store = store
        self._scorer = scorer
        self._progress = progress or (lambda counts: None)
        self._observe = observe or ConsumerObserver()
        self._reader = reader or Reader()
        self._stop = threading.Event()
        self._writer = BatchWriter(store, settings, self._stop, self._observe)
        self._patiently = Patience(source, self._stop, self._observe)
        self._shadow = Shadow(settings, source, store, scorer, self._observe, parser=self._reader.parse)
        self._hush = HushFollower(store, settings.marks_seconds)
        self._in_flight: deque[tuple[Batch, Future[Written]]] = deque()
        """Batches that are being written, the oldest first: `settings.in_flight` of them at most."""
        self._computed: dict[Partition, int] = {}
        """Where memory stands, by partition that is ours: ahead of the committed position by what is in flight."""
        self._unproved: set[Partition] = set()
        """Partitions that nobody has committed in yet: their first record is held against the store's."""
        self._scorer_rests_until = 0.0
        self._scorer_is_away = False
        self._settled_at = float("-inf")
        self._looked_at = float("-inf")
        self._snapshot_at = time.monotonic()

    def stop(self) -> None:
        """End at the next batch boundary; what is read and not written stays uncommitted."""
        self._stop.set()

    def run(self, *, until_idle: float | None = None) -> Counts:
        """Set the store up, then consume until stopped, or until the source was empty for `until_idle` seconds.

        Raises SourceEpochError, SourceError, StoreRefused, StoreError; UsageError where the store has another
        privacy; what is retried never raises."""
        try:
            self._patiently(self._store.setup)
            self._patiently(lambda: claim_store(self._store, self._reader.stamp))
            self._patiently(self._hush.look)
            self._hush.start()
            self._shadow.start()
            self._loop(until_idle)
        except Stopped:
            log.info("stopped while the store was away; what is not committed will be read again")
        finally:
            self._stop.set()  # what ends one batch by an error must not leave another waiting for the store
            self._hush.close()
            self._writer.close()
            self._shadow.close()
            self._count_shadow()
        return self.counts

    def _loop(self, until_idle: float | None) -> None:
        idle_since = time.monotonic()
        while not self._stop.is_set():
            self._observe.moved()
            poll, polled = self._source.poll(self._settings.batch_rows, self._settings.batch_seconds), time.monotonic()
            self._observe.revoked(poll.revoked)
            self._observe.assigned(poll.assigned)
            for partition in poll.revoked:
                self._forget(partition)
            self._follow_champion()
            for partition in poll.assigned:
                self._take(partition)
            self._shadow.follow(self.lane.version if self.lane else None, self._computed)
            batch = self._prepare(poll.records) if len(poll.records) else None
            busy = bool(poll.assigned or batch is not None or self._in_flight)
            finished = self._finish(leave=self._settings.in_flight - 1 if batch is not None else 0)
            if busy or not finished:
                idle_since = time.monotonic()  # after it waited for the store: that is not the source's silence
            if not finished:
                continue  # `batch` follows on one that is not committed: both will be read again
            if self._stop.is_set():
                break
            if batch is not None:
                self._in_flight.append((batch, self._writer.submit(batch)))
            elif until_idle is not None and polled - idle_since >= until_idle:
                self._settle(force=True)
                break
            if not self._in_flight:
                self._observe.idle()
            self._settle()
            self._tell_lag()
            self._count_shadow()
            self._progress(self.counts)
        if self._finish() and self.counts.records:
            self._writer.submit_snapshots(self._snapshots(self._committed()))

    def _committed(self) -> dict[Partition, int]:
        """Where memory stands, where it stands no further than what is committed."""
        return {
            partition: offset
            for partition, offset in self._computed.items()
            if offset and self._source.committed(partition) == offset
        }

    def _snapshots(self, stands: Mapping[Partition, int]) -> list[Snapshot]:
        """The client state of the lanes at these offsets, where memory stands."""
        lane = self.lane
        mine = [lane.snapshot(partition, offset) for partition, offset in stands.items() if offset] if lane else []
        return mine + self._shadow.snapshots(stands)

    def _count_shadow(self) -> None:
        self.counts.shadow_scored, self.counts.shadow_dropped = self._shadow.scored, self._shadow.dropped

    def _take(self, partition: Partition) -> None:
        """Restore the client state of a newly assigned partition, then let it flow."""
        committed = self._patiently(lambda: self._source.committed(partition))
        if committed is None:
            self._unproved.add(partition)
        self._computed[partition] = committed or 0
        self._restore(self.lane, partition)
        self._source.start(partition)
        self._observe.restored(partition)

    def _forget(self, partition: Partition) -> None:
        """A partition is somebody else's, or ours once more: what is in flight of it will be read again from the
        committed offset, and is not committed from here, for that would come after commits of what was read again."""
        self._computed.pop(partition, None)
        for batch, _ in self._in_flight:
            batch.given_up.add(partition)
        self._unproved.discard(partition)
        self._shadow.forget(partition)
        if self.lane is not None:
            self.lane.drop(partition)

    def _restore(self, lane: Lane | None, partition: Partition) -> None:
        """Bring a lane to where memory stands in a partition."""
        if lane is not None:
            with self._observe.stage("restore"):
                self.counts.replayed += self._patiently(
                    lambda: lane.restore(self._source, self._store, partition, self._computed[partition])
                )

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
        """Warm the lane of `version` aside, up to where memory stands, then put it in place.

        The challenger's is warm already where it knew every client."""
        lane = self._shadow.take(version, self._computed)
        if lane is None:
            lane = Lane(
                version,
                self._scorer.baseline(version),
                max_clients=self._settings.max_clients,
                parser=self._reader.parse,
            )
            for partition in self._computed:
                self._restore(lane, partition)
        log.info("lane of model version %s is warm (before: %s)", version, self.lane.version if self.lane else "none")
        self.lane = lane
        self._observe.lane(version, lane.baseline.digest)

    def _let_scorer_rest(self, error: ScorerError) -> None:
        if not self._scorer_is_away:
            log.warning("scorer is away, events are written as pending: %s", error.found)
        self._scorer_is_away = True
        self._scorer_rests_until = time.monotonic() + SCORER_REST_SECONDS

    def _prepare(self, records: Records) -> Batch:
        """Parse, compute, score; memory stands at the end of `records` afterwards."""
        with self._observe.stage("parse"):
            parsed = self._reader.parse(records)
        if self._unproved:
            prove_epoch(parsed.events, self._unproved, self._store, self._patiently)
        events, champion = self._enrich(parsed.events)
        shadow = self._shadow.compute(parsed.events)
        self._computed.update(records.next_offset)
        batch = Batch(self._reader.kept(records), events, parsed.dead, shadow=shadow)
        if self.lane is not None and time.monotonic() - self._snapshot_at >= self._settings.snapshot_seconds:
            self._snapshot_at = time.monotonic()
            batch.snapshots = self._snapshots(self._computed)
        if champion is not None and self.lane is not None and champion != self.lane.version:
            try:
                self._switch(champion)
            except ScorerError as error:
                self._let_scorer_rest(error)
        return batch

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
                if self._scorer_is_away:
                    log.info("the scorer is back")
                    self._scorer_is_away = False
                return scored_events(events, features, lane.names, scores, self._hush.now), scores.champion
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

    def _finish(self, *, leave: int = 0) -> bool:
        """Commit what is stored, in order, and wait until no more than `leave` batches are in flight.

        False where memory is ahead of what can be committed: then none is in flight any more."""
        while self._in_flight and (len(self._in_flight) > leave or self._in_flight[0][1].done()):
            batch, future = self._in_flight.popleft()
            written = self._wait_for(future)
            if written is None or not self._commit(batch):
                # Those behind it go on being written, which harms nobody, and will be read again.
                self._in_flight.clear()
                return False
            self._count(batch, written)
        return True

    def _wait_for(self, future: Future[Written]) -> Written | None:
        """What became of a batch; None where we were asked to stop before all of it was stored."""
        while True:
            try:
                return future.result(timeout=ALIVE_SECONDS)
            except concurrent.futures.TimeoutError:
                self._alive()
            except Stopped:
                return None

    def _count(self, batch: Batch, written: Written) -> None:
        """A batch is committed: tell it, and pass on what waited for that."""
        self.counts.retries += written.retries
        self.counts.records += len(batch.records)
        self.counts.scored += written.scored
        self.counts.pending += written.pending
        self.counts.dead_letters += written.dead.height
        self.counts.anomalies += written.anomalies
        self.counts.hushed += written.hushed
        self.counts.batches += 1
        self._observe.batch(self.counts, dict(written.dead["kind"].value_counts().iter_rows()))
        if batch.shadow is not None:
            self._shadow.offer(batch.shadow)
        if batch.snapshots:
            self._writer.submit_snapshots(batch.snapshots)

    def _commit(self, batch: Batch) -> bool:
        """Commit what is stored; whether the source took it."""
        ours = {p: offset for p, offset in batch.records.next_offset.items() if p not in batch.given_up}
        try:
            with self._observe.stage("commit"):
                self._source.commit(ours)
        except SourceEpochError:
            raise
        except SourceError as error:
            # Membership was lost on the way. What was written is there by id and harmless; memory is ahead of
            # the committed position, so it is thrown away and restored.
            log.warning("commit refused, reading again from the committed positions: %s", error.found)
            self._observe.waiting(f"the commit was refused: {error.found}")
            self._patiently(self._source.rewind)
            for partition in self._computed:
                self._computed[partition] = self._patiently(partial(self._source.committed, partition)) or 0
                self._shadow.forget(partition)
                self._restore(self.lane, partition)
            return False
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

    def _alive(self) -> None:
        """Tell that we live, while something slow goes on: the source, for our membership, and whoever probes us."""
        self._observe.moved()
        self._source.keep_alive()

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
                if force:  # else the next time finds what reads do not see yet: a refresh holds up every writer
                    self._store.refresh()
                self.counts.settled += settle_pending(
                    self._store, self._scorer, query, self.lane.version, hushes=self._hush.now, alive=self._alive
                )
        except ScorerError as error:
            self._let_scorer_rest(error)
        except StoreUnavailable as error:
            log.warning("pending events wait for the store: %s", error.found)
