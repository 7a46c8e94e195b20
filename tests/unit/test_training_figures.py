"""Figures say what they show: title, axis names, legend; and they can be drawn where little is known."""

from __future__ import annotations

import datetime as dt
import io

import numpy as np
import polars as pl
import pytest
from matplotlib.figure import Figure

from training.figures import (
    POINTS,
    Curve,
    mean_contributions,
    precision_recall,
    score_histogram,
    scores_over_time,
)

SCORES = np.linspace(0, 10, 500).astype(np.float32)
START = dt.datetime(2024, 5, 1, tzinfo=dt.UTC)


def times(count: int) -> pl.Series:
    return pl.Series([START + dt.timedelta(seconds=i) for i in range(count)], dtype=pl.Datetime("ms", "UTC"))


def every_figure() -> list[Figure]:
    positive = np.zeros(500, dtype=bool)
    positive[-20:] = True
    matrix = np.random.default_rng(0).random((40, 3)).astype(np.float32)
    return [
        score_histogram("a", SCORES, 9.0, {"labelled attacks": SCORES[-20:], "planted attacks": SCORES[:0]}),
        precision_recall("b", [Curve("labels", SCORES, positive, 1.0)]),
        scores_over_time("c", times(500), SCORES, 9.0, seed=0),
        mean_contributions("d", ["one", "two", "three"], matrix, matrix[:0]),
    ]


@pytest.mark.parametrize("number", range(4))
def test_a_figure_is_readable(number: int) -> None:
    figure = every_figure()[number]
    (axes,) = figure.axes
    assert axes.get_title() == "abcd"[number]
    assert axes.get_xlabel()
    assert axes.get_ylabel()
    assert axes.get_legend() is not None
    target = io.BytesIO()
    figure.savefig(target, format="png")
    assert target.getvalue().startswith(b"\x89PNG")


def test_figures_can_be_drawn_where_nothing_is_known() -> None:
    same = np.ones(5, dtype=np.float32)
    empty = np.empty((0, 2), dtype=np.float32)
    for figure in (
        score_histogram("t", same, 2.0),
        precision_recall("t", []),
        scores_over_time("t", times(5), same, 2.0, seed=0),
        mean_contributions("t", ["one", "two"], empty, empty),
    ):
        figure.savefig(io.BytesIO(), format="png")


def test_many_events_are_sampled_but_every_anomaly_is_drawn() -> None:
    count = POINTS * 2
    scores = np.zeros(count, dtype=np.float32)
    scores[::1_000] = 10
    (axes,) = scores_over_time("t", times(count), scores, 5.0, seed=0).axes
    sound, odd = (len(np.asarray(collection.get_offsets())) for collection in axes.collections)
    assert (sound, odd) == (POINTS, 40)
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert f"events ({POINTS:,} of {count - 40:,} drawn)" in labels
