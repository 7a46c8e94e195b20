"""What was measured of a candidate, as values: what the gates are asked on, and what is kept of it beside the verdicts.

Measuring is in `judge.py` and the files that it calls; the gates are in `gates.py` and `verdicts.py`.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Basis = Literal["labels", "planted"]


@dataclass(frozen=True, slots=True)
class Detected:
    """Attack scenarios that were planted among the judged events, at the threshold in force."""

    average_precision: float
    share: float
    """Of the planted instances: those with at least one anomaly."""
    missed: tuple[str, ...]
    """Scenarios of which no instance was found."""


@dataclass(frozen=True, slots=True)
class Marked:
    """Events of the judged period that people marked, and what the threshold makes of them."""

    false_alarms: int
    """Marked as false alarm or as expected."""
    flagged_false_alarms: int
    true_anomalies: int
    flagged_true_anomalies: int


@dataclass(frozen=True, slots=True)
class Cost:
    """What scoring costs, on the machine that judges."""

    one_row_ms: float
    """Median time of one event, both channels."""
    batch_ms: float
    """Median time of `batch_rows` events at once."""
    batch_rows: int
    growth_mb: float
    """How much the resident memory grew by loading the artifact and scoring with it."""


@dataclass(frozen=True, slots=True)
class Shadowed:
    """A candidate's live scores as challenger, beside those that it is given here for the same events."""

    events: int
    agreement: float | None
    """Spearman's rank correlation; None where one side is all the same."""


@dataclass(frozen=True, slots=True)
class Change:
    """The newest events beside those that a model brings as reference (oddlog/scoring/reference.py)."""

    events: int
    """The newest ones, none of which the model was made from."""
    worth: float
    """How many clients these are worth."""
    since: dt.datetime | None
    distances: Mapping[str, float]
    """Normed Wasserstein distance of every feature that could be compared, in standard deviations of the reference."""
    error: float
    """Standard error of such a distance, as far as the number of clients explains it."""


@dataclass(frozen=True, slots=True)
class Rival:
    """The champion on the same later events, or why it could not be judged on them."""

    version: str
    average_precision: float | None
    reason: str = ""
    marked: Marked | None = None
    agreement: float | None = None
    """Spearman's rank correlation of the candidate's client-hours with the champion's, each by its highest score."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was measured of a candidate."""

    version: str
    algorithm: str
    events: int
    """In the judged period: after the fitted ones of the candidate, and of the champion."""
    clients: int
    hours: float
    """From the first to the last of them."""
    average_precision: float | None
    """None where there was nothing to judge by."""
    basis: Basis | None
    """What the average precision was measured by; marks count as labels."""
    attacks: int
    """Attack events that it is over."""
    alerts_per_day: float | None
    budget_per_day: float
    graph_difference: float | None
    """None where the run does not tell."""
    golden_difference: float | None
    feature_digest: str
    serving_feature_digest: str
    sample: float = 1.0
    """Share of the clients that the events are of, where all would not fit into memory; alerts a day are of all."""
    problem: str = ""
    """Why the artifact could not be loaded; then most is None."""
    detected: Detected | None = None
    """None where nothing was planted."""
    marked: Marked | None = None
    """None where nothing was measured."""
    cost: Cost | None = None
    shadowed: Shadowed | None = None
    """None where it never was challenger while the judged events came."""
    change: Change | None = None
    """None where nothing could be compared."""
    champion: Rival | None = None
    """None while nothing is promoted, or where the candidate is the champion."""
