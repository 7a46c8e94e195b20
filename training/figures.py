"""The figures of a training run, as matplotlib figures: what is drawn, with titles, axes and units. No measuring."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Values = npt.NDArray[np.floating]

POINTS = 20_000
"""Most events drawn one by one; anomalies are always among them."""

_EVENTS, _ANOMALY, _ATTACK, _PLANTED = "#4c72b0", "#c44e52", "#dd8452", "#8172b3"


@dataclass(frozen=True, slots=True)
class Curve:
    """Scores with a yes or no for each: a line of the precision-recall figure."""

    name: str
    scores: Values
    positive: npt.NDArray[np.bool_]
    average_precision: float


def score_histogram(title: str, scores: Values, threshold: float, others: Mapping[str, Values] | None = None) -> Figure:
    """How often each score occurs (log scale), with the threshold; `others` are drawn over it, by name."""
    figure, axes = _figure(title)
    groups = {name: values for name, values in (others or {}).items() if len(values)}
    everything = np.concatenate([scores, *groups.values()])
    low, high = float(everything.min()), float(everything.max())
    bins = np.linspace(low, high if high > low else low + 1, 81).tolist()
    axes.hist(scores, bins=bins, color=_EVENTS, alpha=0.85, label=f"events of the later period ({len(scores):,})")
    for (name, values), colour in zip(groups.items(), (_ATTACK, _PLANTED), strict=False):
        label = f"{name} ({len(values):,})"
        axes.hist(values, bins=bins, histtype="step", color=colour, linewidth=1.8, label=label)
    axes.axvline(threshold, color=_ANOMALY, linestyle="--", label=f"threshold {threshold:.4g}")
    axes.set_yscale("log")
    axes.set_xlabel("score (higher = more anomalous)")
    axes.set_ylabel("events")
    axes.legend()
    return figure


def precision_recall(title: str, curves: Sequence[Curve]) -> Figure:
    """Precision over recall, one line for each way of judging."""
    from sklearn.metrics import precision_recall_curve

    figure, axes = _figure(title)
    for curve, colour in zip(curves, (_ATTACK, _PLANTED), strict=False):
        precision, recall, _ = precision_recall_curve(curve.positive, curve.scores)
        share = float(curve.positive.mean())
        label = f"{curve.name}: average precision {curve.average_precision:.3f}"
        axes.step(recall, precision, where="post", color=colour, label=label)
        axes.axhline(share, color=colour, linestyle=":", linewidth=1, label=f"chance, {share:.2%} of the events")
    axes.set_xlim(0, 1.01)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("recall (share of the attack events found)")
    axes.set_ylabel("precision (share of attacks among what is found)")
    if curves:
        axes.legend(loc="lower left")
    else:
        axes.text(0.5, 0.5, "nothing to judge by:\nno labels, nothing planted", ha="center", va="center")
    return figure


def scores_over_time(title: str, times: pl.Series, scores: Values, threshold: float, *, seed: int) -> Figure:
    """Every event's score at its time, anomalies marked; a sample where there are more than POINTS."""
    from matplotlib import dates

    figure, axes = _figure(title)
    odd = scores >= threshold
    sound = np.flatnonzero(~odd)
    if len(sound) > POINTS:
        sound = np.sort(np.random.default_rng(seed).choice(sound, POINTS, replace=False))
    moments = times.dt.replace_time_zone(None).to_numpy()
    label = "events" + (f" ({len(sound):,} of {int((~odd).sum()):,} drawn)" if len(sound) < (~odd).sum() else "")
    axes.scatter(moments[sound], scores[sound], s=3, color=_EVENTS, alpha=0.35, linewidths=0, label=label)
    axes.scatter(moments[odd], scores[odd], s=9, color=_ANOMALY, linewidths=0, label=f"anomalies ({int(odd.sum()):,})")
    axes.axhline(threshold, color=_ANOMALY, linestyle="--", linewidth=1, label=f"threshold {threshold:.4g}")
    locator = dates.AutoDateLocator()
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator))
    axes.set_xlabel("time of the event (UTC)")
    axes.set_ylabel("score (higher = more anomalous)")
    axes.legend(loc="upper left")
    return figure


def mean_contributions(title: str, names: Sequence[str], anomalies: Values, others: Values) -> Figure:
    """Mean contribution of each feature to the score, over anomalies [k, d] and over other events [m, d]."""
    figure, axes = _figure(title, height=6.0)
    place = np.arange(len(names))
    over = anomalies.mean(axis=0) if len(anomalies) else np.zeros(len(names))
    under = others.mean(axis=0) if len(others) else np.zeros(len(names))
    axes.barh(place - 0.2, over, height=0.4, color=_ANOMALY, label=f"anomalies ({len(anomalies):,})")
    axes.barh(place + 0.2, under, height=0.4, color=_EVENTS, label=f"other events ({len(others):,})")
    axes.set_yticks(place, names)
    axes.invert_yaxis()
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_xlabel("mean contribution (in units of the score's parts; see the algorithm)")
    axes.set_ylabel("feature")
    axes.legend(loc="best")
    return figure


def _figure(title: str, *, height: float = 4.8) -> tuple[Figure, Axes]:
    """One pair of axes. Without pyplot: no global state, no window, no leak over many trainings."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes: Any = figure.subplots()
    axes.set_title(title)
    axes.grid(visible=True, alpha=0.25)
    return figure, axes
