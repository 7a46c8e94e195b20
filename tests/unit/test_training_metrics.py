"""Figures of a ranking, against values worked out by hand and against scikit-learn."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import average_precision_score

from training.metrics import REPLICATES, Cut, Ranking, Scored, intervals, judge


def scored(truth: list[int], client: list[int], hour: list[int] | None = None, days: float = 1.0) -> Scored:
    label = pl.Series([{1: "attack:a", 0: "benign", -1: "ambiguous"}[t] for t in truth])
    return Scored(np.array(truth, np.int8), label, np.array(client), np.array(hour or client), days)


@pytest.mark.parametrize("levels", [3, 50, 100_000])
def test_average_precision_is_scikit_learns_with_weights_and_ties(levels: int) -> None:
    rng = np.random.default_rng(levels)
    truth, scores = rng.random(500) < 0.2, rng.integers(levels, size=500).astype(float)
    weights = rng.integers(0, 4, size=500).astype(float)
    expected = average_precision_score(truth, scores, sample_weight=weights)
    assert Ranking(truth, scores).average_precision(weights) == pytest.approx(expected)


def test_no_positives_have_no_average_precision() -> None:
    assert np.isnan(Ranking(np.zeros(3, dtype=bool), np.arange(3.0)).average_precision(np.ones(3)))


def test_a_budget_goes_through_equal_scores() -> None:
    scores = np.array([5.0, 3.0, 3.0, 3.0, 1.0])
    assert Cut.at(scores, 2.0).taken(scores).tolist() == [1.0, 1 / 3, 1 / 3, 1 / 3, 0.0]
    assert Cut.at(scores, 0.9).taken(scores).sum() == 0
    assert Cut.at(scores, 99.0).taken(scores).sum() == 5


def test_budgets_count_client_hours_not_events() -> None:
    # Client 0 is one alert whatever it sends; the second alert is client 1, benign; client 2 is left out.
    rows = scored([1, 1, 1, 0, 1], client=[0, 0, 0, 1, 2], days=2.0)
    found = judge(rows, np.array([9.0, 8.0, 2.0, 5.0, 4.0]), budget=1.0)
    assert found.events["recall_at_budget"] == pytest.approx(2 / 4)
    assert found.events["precision_at_budget"] == pytest.approx(2 / 3)
    assert found.client_hours["recall_at_budget"] == pytest.approx(1 / 2)
    assert found.client_hours["precision_at_budget"] == pytest.approx(1 / 2)
    assert found.client_hours["ap"] == pytest.approx((1 / 1 + 2 / 3) / 2)
    assert found.by_type == {
        "attack:a": {"events": 4.0, "ap": pytest.approx(found.events["ap"]), "recall_at_budget": 0.5}
    }


def test_an_hour_is_an_attack_where_one_event_is_and_unknown_where_all_are() -> None:
    rows = scored([0, 1, -1, -1, 0], client=[0, 0, 0, 1, 2])
    truth, highest, client = rows.by_hour(np.array([1.0, 2.0, 7.0, 3.0, 4.0]))
    assert truth.tolist() == [1, -1, 0]
    assert highest.tolist() == [7.0, 3.0, 4.0]
    assert client.tolist() == [0, 1, 2]


def test_intervals_resample_clients() -> None:
    rng = np.random.default_rng(0)
    client = np.repeat(np.arange(60), 20)
    truth = (client < 10).astype(np.int8)
    rows = scored(truth.tolist(), client.tolist())
    perfect = intervals(rows, [truth + rng.random(1_200) * 0.5])
    assert perfect == {"events": (1.0, 1.0), "client_hours": (1.0, 1.0)}
    # One client's events alone are found: what is known of the ranking is known of ten clients, not of 200 events.
    low, high = intervals(rows, [np.where(client == 0, 2.0, rng.random(1_200))])["events"]
    assert high - low > 0.1
    assert REPLICATES >= 100
