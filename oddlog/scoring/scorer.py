"""The port of whatever scores a batch: in process (`local.py`) or over HTTP (serving/client.py)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol, TypedDict

import numpy as np
import numpy.typing as npt

from oddlog.features.baseline import Baseline


class Reason(TypedDict):
    """Why an event is odd (REASON in oddlog/events/schema.py)."""

    feature: str
    value: float
    typical: float
    share: float
    text: str


@dataclass(frozen=True, slots=True)
class NoveltyScores:
    """What the second channel says of a batch of n rows: how odd a request is in itself, whoever sends it.

    `score` float32 [n]; `severity` float64 [n], on the same scale as the first channel's; `is_anomaly` bool [n].
    """

    threshold: float
    score: npt.NDArray[np.float32]
    severity: npt.NDArray[np.float64]
    is_anomaly: npt.NDArray[np.bool_]


@dataclass(slots=True)
class Scores:
    """The verdict on a batch of n rows, all by one model version.

    `score` float32 [n], higher = more anomalous; `severity` float64 [n]; `is_anomaly` bool [n], by either channel;
    `reasons` by row number, for anomalies alone; `novelty`, None where the model has no second channel, or that no
    threshold.
    """

    model_name: str
    model_version: str
    baseline_digest: str
    threshold: float
    threshold_version: str
    champion: str
    """The version that is champion at the moment of the answer: when it differs, a swap is due."""
    score: npt.NDArray[np.float32]
    severity: npt.NDArray[np.float64]
    is_anomaly: npt.NDArray[np.bool_]
    reasons: dict[int, list[Reason]] = field(default_factory=dict)
    novelty: NoveltyScores | None = None


class Scorer(Protocol):
    """Scores feature matrices with a named model version. Raises ScorerUnavailable when away or not ready."""

    def champion(self) -> str | None:
        """The champion's version now; None while nothing is promoted."""

    def challenger(self) -> str | None:
        """The version that is challenger now and can be scored with; None where there is none."""

    def baseline(self, version: str) -> Baseline:
        """The baseline a version was fitted with. Raises ScorerError for an unknown version."""

    def score(self, features: npt.NDArray[np.float32], names: list[str], *, version: str | None = None) -> Scores:
        """Scores of a float32 matrix [n, len(names)] by `version` (None: the champion).

        Raises ScorerError where the names are not the model's (the error names the columns that differ), or
        the version is unknown."""

    def close(self) -> None:
        """Close connections."""
