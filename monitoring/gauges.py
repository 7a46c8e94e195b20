"""The latest drift as Prometheus metrics, and the port that they are read from."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, start_http_server

from monitoring.drift import DriftResult
from oddlog.errors import UsageError


class DriftGauges:
    """What a monitor's port tells: an observer of `monitor.py`."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

        def gauge(name: str, text: str, labels: Sequence[str] = ()) -> Gauge:
            return Gauge(name, text, labels, registry=self.registry)

        each = ("measure", "unit")
        self._effect = gauge("oddlog_drift_effect", "Size of the effect in the latest batch, in its unit.", each)
        self._limit = gauge("oddlog_drift_limit", "Limit of that effect in the latest batch.", each)
        self._past = gauge("oddlog_drift_past_limit", "1 where the latest batch is past the limit.", each)
        self._drifted = gauge("oddlog_drift_drifted", "1 where the latest batch has drifted.")
        self._share = gauge("oddlog_drift_features_share", "Share of the features past their limit.")
        self._events = gauge("oddlog_drift_batch_events", "Events of the latest batch.")
        self._until = gauge("oddlog_drift_batch_until_seconds", "When the latest batch ended, Unix time.")
        self._behind = gauge("oddlog_monitor_behind_seconds", "How long ago the batch ended that was checked last.")
        self._leading = gauge("oddlog_monitor_leading", "1 where this instance is the one at work.")
        self._checks = Counter("oddlog_monitor_checks", "Batches checked.", ["outcome"], registry=self.registry)
        for outcome in ("drifted", "sound", "failed"):
            self._checks.labels(outcome)

    def checked(self, result: DriftResult) -> None:
        """A batch was judged: its measures take the place of the last one's."""
        for gauge in (self._effect, self._limit, self._past):
            gauge.clear()
        for measure in result.check.verdict.measures:
            labels = (measure.name, measure.unit)
            if measure.effect is not None:
                self._effect.labels(*labels).set(measure.effect)
            self._limit.labels(*labels).set(measure.limit)
            self._past.labels(*labels).set(measure.drifted)
        batch = result.check.batch
        self._drifted.set(result.drifted)
        self._share.set(result.check.verdict.share)
        self._events.set(batch.figures.events)
        self._until.set(batch.until.timestamp())
        self._checks.labels("drifted" if result.drifted else "sound").inc()

    def failed(self) -> None:
        """A check could not be made now."""
        self._checks.labels("failed").inc()

    def stands(self, behind: dt.timedelta, *, leading: bool) -> None:
        """How far the loop is behind the clock."""
        self._behind.set(behind / dt.timedelta(seconds=1))
        self._leading.set(leading)


class HasRegistry(Protocol):
    """Metrics that a port can tell."""

    registry: CollectorRegistry


@contextmanager
def metrics_port(gauges: HasRegistry, host: str, port: int, *, setting: str = "monitor.metrics_port") -> Iterator[int]:
    """Serve /metrics until the end of the `with`; gives the port. Raises UsageError where it cannot be had."""
    try:
        server, thread = start_http_server(port, host, gauges.registry)
    except OSError as error:
        raise UsageError(
            f"port {port} of {host} cannot be had: {error.strerror}", mend=f"another setting {setting}"
        ) from None
    try:
        yield int(server.server_port)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
