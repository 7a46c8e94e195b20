"""The card of a model artifact: everything about a model that is neither graph nor table. JSON, no code."""

from __future__ import annotations

import datetime as dt
from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

Algorithm = Literal["iforest", "autoencoder", "surprise"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Finite(_Frozen):
    model_config = ConfigDict(allow_inf_nan=False)


class Threshold(_Finite):
    """A score at or above `value` is an anomaly. Lives apart from the model: a JSON tag on its version."""

    value: float
    version: str
    """Counts up with every recalibration of this model version: "1", "2", ..."""
    budget_per_day: float
    """Alerts, distinct (client, hour), that the owner wants to see a day."""
    expected_per_day: float
    """Alerts a day that this threshold gave on the period it was learnt from."""
    since: AwareDatetime
    until: AwareDatetime
    """The period it was learnt from: later than the one the model was fitted on."""


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


class Card(_Frozen):
    """One model: what it is, what it was made from, and how to check that it still is."""

    format: Literal[1] = 1
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
    oddlog_version: str
    created_at: dt.datetime
    model_digest: str
    """SHA-256 of graphs, tables and this card without `model_digest` and `created_at`."""
