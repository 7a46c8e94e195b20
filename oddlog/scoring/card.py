"""The card of a model artifact: everything about a model that is neither graph nor table. JSON, no code."""

from __future__ import annotations

import datetime as dt
from typing import Any, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from oddlog.events.privacy import PrivacyStamp

Algorithm = Literal["iforest", "autoencoder", "surprise"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Finite(_Frozen):
    model_config = ConfigDict(allow_inf_nan=False)


class NoveltyThreshold(_Finite):
    """The second channel's: a novelty at or above `value` is an anomaly, whatever the first channel says."""

    value: float
    budget_per_day: float
    """Its share of the alerts that the owner wants to see a day."""
    expected_per_day: float
    """Alerts a day that it added, on the period it was learnt from, to those of the first channel."""


class Threshold(_Finite):
    """A score at or above `value` is an anomaly. Lives apart from the model: a JSON tag on its version."""

    value: float
    version: str
    """Counts up with every recalibration of this model version: "1", "2", ..."""
    budget_per_day: float
    """Alerts, distinct (client, hour), that the owner wants to see a day: by both channels together."""
    expected_per_day: float
    """Alerts a day that this threshold, and novelty's, gave on the period they were learnt from."""
    since: AwareDatetime
    until: AwareDatetime
    """The period it was learnt from: later than the one the model was fitted on."""
    novelty: NoveltyThreshold | None = None
    """None: the second channel says nothing."""


class Calibration(_Frozen):
    """Score -> severity, log10 N of "rarer than one event in N", learnt on a period later than the fitted
    one.

    Piecewise linear through (scores[i], severities[i]), both rising; beyond the last point the severity goes
    on with the slope of the tail, so that two extraordinary events can be told apart.
    """

    scores: list[float]
    severities: list[float]
    events: int


class DatasetInfo(_Frozen):
    """The events a model was made from."""

    digest: str = Field(max_length=36)  # MLflow takes no longer one
    since: dt.datetime
    fit_until: dt.datetime
    """Events before this fitted baseline and detector; those from here to `until` made threshold and
    calibration."""
    until: dt.datetime
    events: int
    clients: int
    source: str
    """The store and query they came from, in words."""


class Golden(_Frozen):
    """Rows and their scores, computed when the model was made: recomputed wherever it is loaded."""

    features: list[list[float]]
    scores: list[float]


class NoveltyCard(_Frozen):
    """What a card says of the second channel (oddlog/detectors/novelty.py)."""

    parameters: dict[str, Any]
    typical: float
    """Median over the fitted period."""
    calibration: Calibration
    golden: list[float]
    """The novelty of the golden rows."""


class Card(_Frozen):
    """One model: what it is, what it was made from, and how to check that it still is.

    Format 1 has one channel, format 2 has novelty beside it.
    """

    format: Literal[1, 2] = 2
    algorithm: Algorithm
    parameters: dict[str, Any]
    seed: int
    feature_names: list[str]
    feature_digest: str
    """Digest of the feature declaration (oddlog/features/declaration.py)."""
    baseline_digest: str
    typical: dict[str, float]
    """Median of each feature over the fitted period: what a reason calls typical."""
    dataset: DatasetInfo
    calibration: Calibration
    threshold: Threshold
    golden: Golden
    novelty: NoveltyCard | None = None
    privacy: PrivacyStamp | None = None
    """Under which the events were made; None: as they came."""
    oddlog_version: str
    created_at: dt.datetime
    model_digest: str
    """SHA-256 of graphs, tables and this card without `model_digest` and `created_at`."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.format == 2) != (self.novelty is not None):
            raise ValueError(f"a card of format {self.format} {'without' if self.format == 2 else 'with'} novelty")
        return self

    @property
    def unknown_to_format(self) -> dict[str, Any]:
        """What a card of this format has no field for, as pydantic's `exclude`: its text, and so its digest, are those
        of the oddlog that wrote it."""
        unknown: dict[str, Any] = {"novelty": True, "threshold": {"novelty"}} if self.format == 1 else {}
        return unknown if self.privacy is not None else {**unknown, "privacy": True}
