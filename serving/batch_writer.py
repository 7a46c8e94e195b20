"""Writing of batches in threads of their own: while some are written, the consumer prepares the next.

Only the store is touched from here. Positions are committed by the consumer's own thread, in order, in `enrich.py`.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import polars as pl

from oddlog.connectors.store import Store, WriteOutcome
from oddlog.errors import StoreError
from oddlog.events.record import Partition, Records
from oddlog.settings import EnrichSettings
from serving.consumer_metrics import ConsumerObserver
from serving.documents import dead_letters_of_rejected
from serving.snapshots import Snapshot, write_snapshot

if TYPE_CHECKING:
    from serving.shadow import ShadowRows

log = logging.getLogger(__name__)


class Stopped(Exception):
    """Asked to stop while a batch was not written: it is left uncommitted, and will be read again."""


@dataclass(slots=True)
class Batch:
    """Records, and what is to be stored of them."""

    records: Records
    events: pl.DataFrame
    """With features and verdict, or pending."""
    dead: pl.DataFrame
    snapshots: list[Snapshot] = field(default_factory=list)
    """Client state at the end of this batch: to be written when it is committed."""
    shadow: ShadowRows | None = None
    """What the challenger is to score when it is committed."""
    given_up: set[Partition] = field(default_factory=set)
    """Partitions that were revoked since it was read, whoever has them now."""


@dataclass(frozen=True, slots=True)
class Written:
    """What a batch became."""

    scored: int
    pending: int
    anomalies: int
    hushed: int
    dead: pl.DataFrame
    """With the events that the store refused for good."""
    retries: int


class BatchWriter:
    """Writes `settings.in_flight` batches at once; which of two is there first does not matter, for each goes by id."""

    def __init__(
        self, store: Store, settings: EnrichSettings, stop: threading.Event, observe: ConsumerObserver
    ) -> None:
        self._store = store
        self._settings = settings
        self._stop = stop
        self._observe = observe
        self._threads = ThreadPoolExecutor(settings.in_flight, thread_name_prefix="batch-writer")
        # A snapshot of many clients takes seconds: batches do not wait for it.
        self._aside = ThreadPoolExecutor(max_workers=1, thread_name_prefix="snapshot-writer")
        self._newest: deque[list[Snapshot]] = deque(maxlen=1)

    def submit(self, batch: Batch) -> Future[Written]:
        """Write a batch until every row is acknowledged or refused for good.

        The future raises Stopped when asked to stop meanwhile, StoreRefused, StoreError."""
        return self._threads.submit(self._write_batch, batch)

    def submit_snapshots(self, snapshots: list[Snapshot]) -> Future[None]:
        """Write snapshots, in a thread of their own; those that still wait are replaced by these.

        One that fails is logged: the one before is still there, and replay is the way without."""
        self._newest.append(snapshots)
        return self._aside.submit(self._write_snapshots)

    def close(self) -> None:
        """Wait for what is under way."""
        self._threads.shutdown()
        self._aside.shutdown()

    def _write_batch(self, batch: Batch) -> Written:
        events, dead = batch.events, batch.dead
        with self._observe.stage("write"):
            refused, retries = self._until_stored(events, self._store.write_events)
            if refused:
                dead = pl.concat([dead, dead_letters_of_rejected(batch.records, events, refused)])
            lost, again = self._until_stored(dead, self._store.write_dead)
            if lost:
                # Stopping keeps the position uncommitted: louder than a record that is nowhere.
                row, reason = next(iter(lost.items()))
                raise StoreError(
                    f"the store refuses {len(lost)} dead letters, the first {dead['_id'][row]}: {reason}",
                    expected="a store that takes any record's bytes",
                    mend="oddlog doctor",
                )
        if refused:
            events = events.with_row_index("row").filter(~pl.col("row").is_in(list(refused)))
        scored = int((events["anomaly.status"] == "scored").sum())
        return Written(
            scored=scored,
            pending=events.height - scored,
            anomalies=int(events["anomaly.is_anomaly"].sum() or 0),
            hushed=events["anomaly.hushed"].len() - events["anomaly.hushed"].null_count(),
            dead=dead,
            retries=retries + again,
        )

    def _write_snapshots(self) -> None:
        try:
            snapshots = self._newest.pop()
        except IndexError:  # those that this call was for were replaced, and are written
            return
        with self._observe.stage("snapshot"):
            for snapshot in snapshots:
                try:
                    write_snapshot(self._store, snapshot)
                except StoreError as error:
                    log.warning("snapshot of %s not written: %s", snapshot.partition, error.found)
                    self._observe.snapshot(written=False)
                else:
                    self._observe.snapshot(written=True)

    def _until_stored(
        self, frame: pl.DataFrame, write: Callable[[pl.DataFrame], WriteOutcome]
    ) -> tuple[dict[int, str], int]:
        """Write `frame`, what must wait again and alone; the refused rows, by their number, and how often it waited."""
        refused: dict[int, str] = {}
        rows = list(range(frame.height))
        attempt = 0
        while rows:
            outcome = write(frame[rows] if len(rows) < frame.height else frame)
            refused.update({rows[i]: reason for i, reason in outcome.rejected.items()})
            rows = [rows[i] for i in sorted(outcome.retry)]
            if rows:
                attempt += 1
                self._observe.retried()
                reason = next(iter(outcome.retry.values()))
                self._observe.waiting(reason)
                if attempt == 1:
                    log.warning("%d documents wait for the store: %s", len(rows), reason)
                self._pause(min(self._settings.retry_seconds, 0.1 * 2 ** min(attempt, 20)))
        return refused, attempt

    def _pause(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds * random.uniform(0.5, 1.0)
        while (left := deadline - time.monotonic()) > 0:
            self._observe.moved()
            if self._stop.wait(min(left, 1.0)):
                raise Stopped
