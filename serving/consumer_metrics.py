"""What the consumer tells about itself while it runs: counts for Prometheus, and whether it is live and ready.

The consumer is given a ConsumerObserver, which does nothing; ConsumerMetrics counts. The port that answers is
`consumer_port.py`'s.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Literal, Protocol

from oddlog.events.schema import DEAD_KINDS

if TYPE_CHECKING:
    from prometheus_client import Metric

    from oddlog.events.record import Partition

Stage = Literal["parse", "features", "score", "write", "commit", "restore", "settle", "snapshot", "shadow"]

LAG_SECONDS = 5.0
"""How often the source is asked for its lag: a request to the brokers each time."""

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Totals(Protocol):
    """What a consumer has done since it started; `serving.enrich.Counts`."""

    records: int
    scored: int
    pending: int
    settled: int
    anomalies: int
    hushed: int
    batches: int
    replayed: int


class ConsumerObserver:
    """Told about what the consumer does; does nothing with it. Every method may be called from any thread, is
    cheap enough for every batch, and raises nothing."""

    def moved(self) -> None:
        """The loop goes on: once a round, and while it waits for something slow."""

    def stage(self, name: Stage) -> AbstractContextManager[None]:
        """Around one stage of a batch: its seconds."""
        return nullcontext()

    def assigned(self, partitions: Iterable[Partition]) -> None:
        """Partitions are ours, and not restored yet."""

    def restored(self, partition: Partition) -> None:
        """A partition flows."""

    def revoked(self, partitions: Iterable[Partition]) -> None:
        """Partitions are ours no more."""

    def waiting(self, reason: str) -> None:
        """The batch at hand cannot be finished now: the store does not take it, or the commit was refused."""

    def idle(self) -> None:
        """Nothing waits: all that was read is committed, or will be read again."""

    def batch(self, totals: Totals, dead: Mapping[str, int]) -> None:
        """A batch is committed: what was done since the start, and this batch's dead letters by kind."""

    def lag_due(self) -> bool:
        """Whether `lag` should be asked for and told now."""
        return False

    def lag(self, lag: Mapping[Partition, int]) -> None:
        """Records not read yet, by assigned partition."""

    def lane(self, version: str | None, baseline: str | None = None) -> None:
        """The model version that scores from now on; None: there is none."""

    def retried(self) -> None:
        """A write that the store could not take is sent again."""

    def snapshot(self, *, written: bool) -> None:
        """A snapshot of client state is in the store, or could not be put there."""

    def shadow(self, *, scored: int, dropped: int) -> None:
        """Events that were given the challenger's score, and sampled ones that were not."""

    def shadow_lane(self, version: str | None, baseline: str | None = None) -> None:
        """The challenger that scores beside the champion from now on; None: there is none."""


class ConsumerMetrics(ConsumerObserver):
    """Counts, in a Prometheus registry of its own, and judges liveness and readiness.

    `live_seconds`: how long the loop may stand still. `clock`: seconds that never go back."""

    def __init__(self, *, live_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
        from prometheus_client.gc_collector import GCCollector
        from prometheus_client.process_collector import ProcessCollector

        self.registry = registry = CollectorRegistry()
        self._clock, self._live_seconds = clock, live_seconds
        self._lock = threading.Lock()
        self._moved_at = clock()
        self._lag_at = float("-inf")
        self._partitions: dict[Partition, bool] = {}  # to whether it is restored
        self._waits: str | None = None
        self._totals: Totals | None = None
        self._lag = Gauge(
            "oddlog_consumer_lag",
            "Records (files: bytes) that are not read yet, by assigned partition.",
            ["epoch", "topic", "partition"],
            registry=registry,
        )
        self._dead = Counter(
            "oddlog_consumer_dead_letters", "Records that no document was made of, by kind.", ["kind"],
            registry=registry,
        )  # fmt: skip
        # A count that first appears with a value above 0 has risen for nobody: increase() wants the 0 before it.
        for kind in DEAD_KINDS:
            self._dead.labels(kind)
        self._seconds = Histogram(
            "oddlog_consumer_stage_seconds", "Seconds of one stage of one batch.", ["stage"], buckets=_BUCKETS,
            registry=registry,
        )  # fmt: skip
        self._lane = Gauge(
            "oddlog_consumer_lane_info",
            "1 for the model version, and its baseline, that scores now.",
            ["version", "baseline"],
            registry=registry,
        )
        self._retries = Counter(
            "oddlog_consumer_retries", "Writes that the store could not take, and that were sent again.",
            registry=registry,
        )  # fmt: skip
        self._snapshots = Counter(
            "oddlog_consumer_snapshots", "Snapshots of client state, of one partition each, by outcome.", ["outcome"],
            registry=registry,
        )  # fmt: skip
        for outcome in ("written", "failed"):
            self._snapshots.labels(outcome)
        self._shadow = Counter(
            "oddlog_consumer_shadow_events",
            "Events of sampled clients by what became of them: given the challenger's score, or dropped.",
            ["outcome"],
            registry=registry,
        )
        for outcome in ("scored", "dropped"):
            self._shadow.labels(outcome)
        self._shadow_lane = Gauge(
            "oddlog_consumer_shadow_lane_info",
            "1 for the challenger, and its baseline, that scores a sample now.",
            ["version", "baseline"],
            registry=registry,
        )
        self._committed = Gauge(
            "oddlog_consumer_last_commit_timestamp_seconds", "When a batch was committed last.", registry=registry
        )
        registry.register(self)
        ProcessCollector(registry=registry)
        GCCollector(registry=registry)

    # What the consumer tells.

    def moved(self) -> None:
        self._moved_at = self._clock()

    @contextmanager
    def stage(self, name: Stage) -> Iterator[None]:
        self.moved()
        began = self._clock()
        try:
            yield
        finally:
            self._seconds.labels(name).observe(self._clock() - began)
            self.moved()

    def assigned(self, partitions: Iterable[Partition]) -> None:
        with self._lock:
            self._partitions.update(dict.fromkeys(partitions, False))

    def restored(self, partition: Partition) -> None:
        self.moved()
        with self._lock:
            self._partitions[partition] = True

    def revoked(self, partitions: Iterable[Partition]) -> None:
        with self._lock:
            for partition in partitions:
                self._partitions.pop(partition, None)
                self._lag.remove_by_labels(_labels(partition))

    def waiting(self, reason: str) -> None:
        self.moved()
        self._waits = reason

    def idle(self) -> None:
        self._waits = None

    def batch(self, totals: Totals, dead: Mapping[str, int]) -> None:
        self.moved()
        self._waits = None
        self._totals = totals
        for kind, count in dead.items():
            self._dead.labels(kind).inc(count)
        self._committed.set_to_current_time()

    def lag_due(self) -> bool:
        return self._clock() - self._lag_at >= LAG_SECONDS

    def lag(self, lag: Mapping[Partition, int]) -> None:
        self._lag_at = self._clock()
        for partition, behind in lag.items():
            self._lag.labels(**_labels(partition)).set(behind)

    def lane(self, version: str | None, baseline: str | None = None) -> None:
        self._lane.clear()
        if version is not None:
            self._lane.labels(version, baseline or "").set(1)

    def retried(self) -> None:
        self._retries.inc()

    def snapshot(self, *, written: bool) -> None:
        self._snapshots.labels("written" if written else "failed").inc()

    def shadow(self, *, scored: int, dropped: int) -> None:
        self._shadow.labels("scored").inc(scored)
        self._shadow.labels("dropped").inc(dropped)

    def shadow_lane(self, version: str | None, baseline: str | None = None) -> None:
        self._shadow_lane.clear()
        if version is not None:
            self._shadow_lane.labels(version, baseline or "").set(1)

    # What whoever asks is told.

    def not_live(self) -> str | None:
        """Why the consumer counts as stuck; None while it is live."""
        still = self._clock() - self._moved_at
        if still <= self._live_seconds:
            return None
        return f"the loop has not moved for {still:.0f} s (enrich.live_seconds: {self._live_seconds:g})"

    def not_ready(self) -> str | None:
        """Why the consumer does not process records now; None while it does, or is idle."""
        if reason := self.not_live():
            return reason
        with self._lock:
            held = dict(self._partitions)
        if not held:
            return f"waiting: {self._waits}" if self._waits else "no partition is assigned"
        if left := [partition for partition, done in held.items() if not done]:
            return f"{len(left)} of {len(held)} partitions are being restored"
        return f"a batch waits: {self._waits}" if self._waits else None

    def collect(self) -> Iterable[Metric]:
        """The counts as they are at this moment (asked by Prometheus' registry)."""
        from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily

        totals = self._totals
        events = CounterMetricFamily("oddlog_consumer_events", "Events written, by status.", labels=["status"])
        for status in ("scored", "pending"):
            events.add_metric([status], getattr(totals, status, 0))
        yield events
        for name, meaning in {
            "records": "Records read and committed.",
            "anomalies": "Events at or over the threshold, those that marks hush left out.",
            "hushed": "Events at or over the threshold that a mark keeps from being alerts.",
            "batches": "Batches committed.",
            "settled": "Events that were written as pending and scored later.",
            "replayed": "Events replayed to restore client state.",
        }.items():
            yield CounterMetricFamily(f"oddlog_consumer_{name}", meaning, value=getattr(totals, name, 0))
        with self._lock:
            held = dict(self._partitions)
        partitions = GaugeMetricFamily("oddlog_consumer_partitions", "Partitions, by state.", labels=["state"])
        partitions.add_metric(["flowing"], sum(held.values()))
        partitions.add_metric(["restoring"], len(held) - sum(held.values()))
        yield partitions
        yield GaugeMetricFamily(
            "oddlog_consumer_ready", "1 while /readyz says yes.", value=0 if self.not_ready() else 1
        )

    def describe(self) -> Iterable[Metric]:
        """Nothing: the names are known only with the values, and nobody else uses this registry."""
        return []


def _labels(partition: Partition) -> dict[str, str]:
    return {"epoch": partition.epoch, "topic": partition.topic, "partition": str(partition.number)}
