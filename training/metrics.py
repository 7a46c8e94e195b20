"""Figures of a ranking against labels: over events and client-hours, at an alert budget, with intervals. No detectors.

Truth is 1 (attack), 0 (benign) or -1 (in the stream, not counted). Equal scores share their places: where a cut goes
through a group of them, the expected number counts, so that a rule with two values is neither flattered nor harmed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

Metrics = dict[str, float]
Truth = npt.NDArray[np.int8]
Scores = npt.NDArray[np.floating]
Weights = npt.NDArray[np.float64]

REPLICATES = 200


@dataclass(frozen=True, slots=True)
class Scored:
    """The scored part of a log: what rankings of it are held against.

    `truth` int8 [n]; `label` by event; `client` int64 [n], number of the event's client; `hour` int64 [n], number of
    its client-hour (an alert); `days`, how long it is.
    """

    truth: Truth
    label: pl.Series
    client: npt.NDArray[np.int64]
    hour: npt.NDArray[np.int64]
    days: float

    @classmethod
    def of(cls, events: pl.DataFrame, truth: Truth, label: pl.Series) -> Scored:
        """From events (columns of EVENT_SCHEMA), their truth and labels."""
        numbered = events.select(
            client=pl.col("source.address").rank("dense"),
            hour=pl.struct("source.address", pl.col("@timestamp").dt.truncate("1h")).rank("dense"),
        )
        seconds = events["@timestamp"].dt.epoch("s")
        length = (int(seconds.max()) - int(seconds.min())) / 86_400  # type: ignore[arg-type]
        client, hour = (numbered[c].to_numpy().astype(np.int64) - 1 for c in ("client", "hour"))
        return cls(truth, label, client, hour, max(length, 1 / 24))

    def by_hour(self, scores: Scores) -> tuple[Truth, Scores, npt.NDArray[np.int64]]:
        """Truth, highest score and client of every client-hour; it is an attack where one of its events is."""
        hours = int(self.hour.max()) + 1
        highest = np.full(hours, -np.inf)
        np.maximum.at(highest, self.hour, np.asarray(scores, dtype=np.float64))
        truth = np.full(hours, -1, dtype=np.int8)
        np.maximum.at(truth, self.hour, self.truth)
        client = np.zeros(hours, dtype=np.int64)
        client[self.hour] = self.client
        return truth, highest, client


@dataclass(frozen=True, slots=True)
class Judged:
    """Every figure of one ranking: over events, over client-hours, and by label of the attacks."""

    events: Metrics
    client_hours: Metrics
    by_type: dict[str, Metrics]


def judge(scored: Scored, scores: Scores, budget: float, *, cut: Cut | None = None) -> Judged:
    """Figures of scores [n], `budget` in alerts a day: the highest client-hours of the period that fit into it.

    `cut`: where the budget ends, if other events decide that.
    """
    hour_truth, hour_scores, _ = scored.by_hour(scores)
    cut = cut or Cut.at(hour_scores, budget * scored.days)
    alerted, flagged = cut.taken(hour_scores), cut.taken(np.asarray(scores, dtype=np.float64))
    return Judged(
        events=metrics(scored.truth, scores) | _at_budget(scored.truth, flagged),
        client_hours=metrics(hour_truth, hour_scores) | _at_budget(hour_truth, alerted),
        by_type=_by_type(scored, scores, flagged),
    )


@dataclass(frozen=True, slots=True)
class Cut:
    """Where a budget ends: scores above `score` are taken, those equal to it with probability `share`."""

    score: float
    share: float

    @classmethod
    def at(cls, scores: Scores, places: float) -> Cut:
        """The cut that takes so many of the highest scores."""
        wanted = min(int(places + 1e-9), len(scores))
        if wanted == 0:
            return cls(np.inf, 0.0)
        score = float(np.partition(scores, -wanted)[-wanted])
        return cls(score, (wanted - int((scores > score).sum())) / int((scores == score).sum()))

    def taken(self, scores: Scores) -> Weights:
        """How surely each is taken, 0 to 1."""
        result: Weights = np.where(scores > self.score, 1.0, np.where(scores == self.score, self.share, 0.0))
        return result


def metrics(truth: Truth, scores: Scores) -> Metrics:
    """Average precision, area under the ROC curve, and precision among the top 1 % of the counted events."""
    from sklearn.metrics import roc_auc_score

    counted = truth >= 0
    positive, score = truth[counted] == 1, np.asarray(scores, dtype=np.float64)[counted]
    places = max(1, round(0.01 * len(score)))
    return {
        "ap": float(Ranking(positive, score).average_precision(np.ones(len(score)))),
        "roc_auc": float(roc_auc_score(positive, score)),
        "precision_at_1pct": float(Cut.at(score, places).taken(score)[positive].sum() / places),
    }


class Ranking:
    """A ranking whose average precision is asked for under many weights of its rows; sorted once."""

    def __init__(self, positive: npt.NDArray[np.bool_], scores: Scores) -> None:
        self._order = np.argsort(-scores, kind="stable")
        ordered = scores[self._order]
        self._positive = positive[self._order].astype(np.float64)
        self._ends = np.r_[np.flatnonzero(np.diff(ordered)), len(ordered) - 1]

    def average_precision(self, weights: Weights) -> float:
        """Area under precision over recall as a step function, equal scores as one step; NaN without positives."""
        weight = weights[self._order]
        found = np.cumsum(weight * self._positive)[self._ends]
        if not found[-1] > 0:
            return float("nan")
        seen = np.maximum(np.cumsum(weight)[self._ends], np.finfo(np.float64).tiny)
        return float((np.diff(found, prepend=0.0) * found / seen).sum() / found[-1])


def intervals(scored: Scored, rankings: Sequence[Scores], seed: int = 0) -> dict[str, tuple[float, float]]:
    """95 % intervals of average precision, of `events` and `client_hours`: the mean over the rankings (seeds of one
    algorithm) under REPLICATES bootstraps over clients, the same for every algorithm."""
    rng = np.random.default_rng(seed)
    clients = int(scored.client.max()) + 1
    sides: dict[str, list[tuple[Ranking, npt.NDArray[np.int64]]]] = {"events": [], "client_hours": []}
    for scores in rankings:
        hours = scored.by_hour(scores)
        for name, rows in (("events", (scored.truth, scores, scored.client)), ("client_hours", hours)):
            truth, score, client = rows
            counted = truth >= 0
            sides[name].append((Ranking(truth[counted] == 1, np.asarray(score)[counted]), client[counted]))
    found: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(REPLICATES):
        times = np.bincount(rng.integers(clients, size=clients), minlength=clients).astype(np.float64)
        for name, side in sides.items():
            found[name].append(float(np.mean([ranking.average_precision(times[client]) for ranking, client in side])))
    return {name: _middle(values) for name, values in found.items()}


def mean_of(runs: Sequence[Mapping[str, float]]) -> Metrics:
    """Mean over seeds of every figure."""
    return {name: float(np.mean([run[name] for run in runs])) for name in runs[0]}


def _middle(values: Sequence[float]) -> tuple[float, float]:
    low, high = np.nanquantile(values, [0.025, 0.975])
    return float(low), float(high)


def _at_budget(truth: Truth, taken: Weights) -> Metrics:
    attacks, benign = taken[truth == 1].sum(), taken[truth == 0].sum()
    return {
        "recall_at_budget": float(attacks / max(int((truth == 1).sum()), 1)),
        "precision_at_budget": float(attacks / (attacks + benign)) if attacks + benign else 0.0,
    }


def _by_type(scored: Scored, scores: Scores, flagged: Weights) -> dict[str, Metrics]:
    attack, benign = scored.truth == 1, scored.truth == 0
    found = {}
    for label in sorted(scored.label.filter(pl.Series(attack)).unique().to_list()):
        rows = attack & scored.label.eq_missing(label).to_numpy()
        chosen = rows | benign
        found[label] = {
            "events": float(rows.sum()),
            "ap": Ranking(rows[chosen], np.asarray(scores)[chosen]).average_precision(np.ones(int(chosen.sum()))),
            "recall_at_budget": float(flagged[rows].mean()),
        }
    return found
