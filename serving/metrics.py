"""What the service counts, at BentoML's own /metrics. Request times and sizes BentoML counts by itself."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np

from oddlog.scoring.scorer import Scores
from oddlog.scoring.shelf import Held
from serving.follow import Observer, View

if TYPE_CHECKING:
    from prometheus_client import Counter


class ServiceMetrics(Observer):
    """Prometheus metrics of one process. Made by `service_metrics`: a name can be registered once."""

    def __init__(self) -> None:
        # Imported here: BentoML names the folder for metrics of several processes after it has imported the service.
        from prometheus_client import Counter, Gauge

        self._events = Counter("oddlog_events_scored", "Events scored, by model version.", ["version"])
        self._anomalies = Counter("oddlog_anomalies", "Events at or over the threshold.", ["version"])
        self._by_version: dict[str, tuple[Counter, Counter]] = {}
        self._explained = Counter("oddlog_events_explained", "Events explained on demand.", ["version"])
        self._requests_refused = Counter("oddlog_requests_refused", "Requests not scored, by status.", ["status"])
        self._swaps = Counter("oddlog_model_swaps", "Times that another version became champion here.")
        self._models_refused = Counter("oddlog_models_refused", "Model versions that failed their check.", ["version"])
        self._champion = Gauge(
            "oddlog_champion",
            "1 for the version that is champion.",
            ["version"],
            multiprocess_mode="mostrecent",
        )
        self._champion_made = Gauge(
            "oddlog_champion_created_timestamp_seconds",
            "When the champion was made, Unix time; 0 while there is none.",
            multiprocess_mode="mostrecent",
        )
        self._refused_now = Gauge(
            "oddlog_versions_refused",
            "Model versions that have a role and are not served: they failed their check, or could not be fetched.",
            multiprocess_mode="mostrecent",
        )
        self._registry_up = Gauge(
            "oddlog_registry_up",
            "1 when the last look at the registry succeeded.",
            multiprocess_mode="mostrecent",
        )
        self._from_cache = Gauge(
            "oddlog_serving_from_cache",
            "1 while the champion comes from the cache because the registry has not confirmed it.",
            multiprocess_mode="mostrecent",
        )

    def _of(self, version: str) -> tuple[Counter, Counter]:
        """Events and anomalies of a version: looking labels up takes longer than counting."""
        if (found := self._by_version.get(version)) is None:
            found = self._by_version[version] = self._events.labels(version), self._anomalies.labels(version)
        return found

    def scored(self, scores: Scores) -> None:
        """A batch was scored."""
        events, anomalies = self._of(scores.model_version)
        events.inc(len(scores.score))
        anomalies.inc(int(np.count_nonzero(scores.is_anomaly)))

    def explained(self, scores: Scores) -> None:
        """A batch was explained on demand."""
        self._explained.labels(scores.model_version).inc(len(scores.score))

    def request_refused(self, status: int) -> None:
        """A request was answered with a refusal."""
        self._requests_refused.labels(str(status)).inc()

    def swapped(self, version: str, before: str | None) -> None:
        if before is not None:
            self._swaps.inc()
            self._champion.labels(before).set(0)
        self._champion.labels(version).set(1)

    def refused(self, version: str) -> None:
        self._models_refused.labels(version).inc()

    def looked(self, view: View) -> None:
        self._registry_up.set(1 if view.reachable else 0)
        self._from_cache.set(1 if view.from_cache else 0)

    def stands(self, champion: Held | None, refused: int) -> None:
        self._champion_made.set(0 if champion is None else champion.model.card.created_at.timestamp())
        self._refused_now.set(refused)


@functools.cache
def service_metrics() -> ServiceMetrics:
    """The metrics of this process."""
    return ServiceMetrics()
