"""What a model is worth on events it was not fitted on: against labels where there are, against planted attacks.

Scores are higher for the more anomalous. Nothing is fitted or drawn here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl

Scores = npt.NDArray[np.floating]
Truth = npt.NDArray[np.int8]
Flags = npt.NDArray[np.bool_]

BENIGN, ATTACK, UNKNOWN = 0, 1, -1
TOP_SHARE = 0.01

MIN_LABELLED = 50
"""Fewer labelled attacks, or benign events, than this measure luck: quality is then that on planted attacks."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """Figures over the events whose truth is known."""

    attacks: int
    benign: int
    average_precision: float
    """Area under precision over recall, as a step function (scikit-learn's average_precision_score)."""
    roc_auc: float
    precision_at_1_percent: float
    """Share of attacks among the highest hundredth of the scores."""
    recall_at_budget: float
    """Share of the attack events at or above the threshold."""
    precision_at_budget: float
    """Share of attacks among the events at or above the threshold; 0 where there are none."""


@dataclass(frozen=True, slots=True)
class Planted:
    """Figures over attacks that were planted among the events."""

    events: int
    average_precision: float
    by_scenario: Mapping[str, ScenarioOutcome] = field(default_factory=dict)

    @property
    def detected(self) -> float:
        """Share of all planted instances with at least one alert."""
        instances = sum(outcome.instances for outcome in self.by_scenario.values())
        return sum(o.detected * o.instances for o in self.by_scenario.values()) / instances


@dataclass(frozen=True, slots=True)
class ScenarioOutcome:
    """One scenario among the unplanted events."""

    events: int
    instances: int
    average_precision: float
    detected: float
    """Share of its instances with at least one event at or above the threshold."""


@dataclass(frozen=True, slots=True)
class Quality:
    """The one figure that models are ranked and gated by."""

    average_precision: float
    basis: Literal["labels", "planted"]
    attacks: int
    """Attack events that it is over."""


def quality_of(labelled: Labelled | None, planted: Planted | None) -> Quality | None:
    """Labels where there are enough, else planted attacks; None where there is neither."""
    if labelled is not None and min(labelled.attacks, labelled.benign) >= MIN_LABELLED:
        return Quality(labelled.average_precision, "labels", labelled.attacks)
    return None if planted is None else Quality(planted.average_precision, "planted", planted.events)


def truth_of(labels: pl.Series) -> Truth:
    """Labels (`labels.truth`) as 1 attack, 0 benign, -1 unknown [n].

    >>> truth_of(pl.Series(["benign", "attack:data_pull", "attack", None, "crawler"])).tolist()
    [0, 1, 1, -1, -1]
    """
    frame = labels.cast(pl.String).to_frame("label")
    return frame.select(
        pl.when(pl.col("label") == "benign")
        .then(BENIGN)
        .when(pl.col("label").str.starts_with("attack"))
        .then(ATTACK)
        .otherwise(UNKNOWN)
        .cast(pl.Int8)
    ).to_series().to_numpy()  # fmt: skip


def judge_labelled(
    scores: Scores, truth: Truth, threshold: float, *, flagged: Flags | None = None
) -> Labelled | None:  # fmt: skip
    """Figures of scores [n] against truth [n]; None where attacks or benign events are not among them.

    `flagged` [n]: the anomalies, where a second channel has a say in them; else what reaches the threshold.
    """
    known = truth != UNKNOWN
    flagged = scores[known] >= threshold if flagged is None else flagged[known]
    scores, truth = scores[known], truth[known]
    attacks, benign = int((truth == ATTACK).sum()), int((truth == BENIGN).sum())
    if not attacks or not benign:
        return None
    from sklearn.metrics import average_precision_score, roc_auc_score

    top = np.argsort(-scores, kind="stable")[: max(1, int(len(scores) * TOP_SHARE))]
    caught = int((flagged & (truth == ATTACK)).sum())
    return Labelled(
        attacks=attacks,
        benign=benign,
        average_precision=float(average_precision_score(truth, scores)),
        roc_auc=float(roc_auc_score(truth, scores)),
        precision_at_1_percent=float((truth[top] == ATTACK).mean()),
        recall_at_budget=caught / attacks,
        precision_at_budget=caught / max(1, int(flagged.sum())),
    )


def judge_planted(
    scores: Scores,
    scenario: pl.Series,
    instance: pl.Series,
    threshold: float,
    *,
    known_attacks: Flags,
    flagged: Flags | None = None,
) -> Planted | None:
    """Figures of scores [n] of events among which attacks were planted; None where none were.

    `scenario` [n] names the planted one, null for an event that was there; `instance` [n] tells instances of a
    scenario apart. Events that are `known_attacks` [n] of the log's own are left out: they are no false alarms.
    `flagged` [n] as in `judge_labelled`.
    """
    planted = scenario.is_not_null().to_numpy()
    if not planted.any():
        return None
    from sklearn.metrics import average_precision_score

    others = ~planted & ~known_attacks
    flagged = scores >= threshold if flagged is None else flagged

    def precision(rows: npt.NDArray[np.bool_]) -> float:
        chosen = rows | others
        return float(average_precision_score(rows[chosen], scores[chosen])) if others.any() else 1.0

    by_scenario: dict[str, ScenarioOutcome] = {}
    for name in sorted(scenario.drop_nulls().unique().to_list()):
        rows = (scenario == name).fill_null(False).to_numpy()
        numbers = instance.filter(pl.Series(rows))
        caught = instance.filter(pl.Series(rows & flagged)).n_unique()
        by_scenario[name] = ScenarioOutcome(
            events=int(rows.sum()),
            instances=numbers.n_unique(),
            average_precision=precision(rows),
            detected=caught / numbers.n_unique(),
        )
    return Planted(events=int(planted.sum()), average_precision=precision(planted), by_scenario=by_scenario)
