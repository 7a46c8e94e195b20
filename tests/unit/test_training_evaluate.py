"""Figures of a model on labels and on planted attacks, against values worked out by hand."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from training.evaluate import (
    MIN_LABELLED,
    Labelled,
    judge_labelled,
    judge_planted,
    quality_of,
    truth_of,
)


def test_figures_on_labels() -> None:
    scores = np.array([9, 8, 7, 6, 5, 4, 99], dtype=np.float32)
    truth = np.array([1, 0, 1, 0, 0, 0, -1], dtype=np.int8)
    found = judge_labelled(scores, truth, threshold=7.0)
    assert found is not None
    assert (found.attacks, found.benign) == (2, 4)
    assert found.average_precision == pytest.approx((1 / 1 + 2 / 3) / 2)
    assert found.roc_auc == pytest.approx(7 / 8)  # pairs in the right order
    assert found.precision_at_1_percent == 1.0
    assert found.recall_at_budget == 1.0
    assert found.precision_at_budget == pytest.approx(2 / 3)


def test_precision_at_one_percent_is_over_the_highest_hundredth() -> None:
    scores = np.arange(1_000, dtype=np.float32)
    truth = np.zeros(1_000, dtype=np.int8)
    truth[-10:-3] = 1
    found = judge_labelled(scores, truth, threshold=1e9)
    assert found is not None
    assert found.precision_at_1_percent == pytest.approx(0.7)
    assert (found.recall_at_budget, found.precision_at_budget) == (0.0, 0.0)


@pytest.mark.parametrize("truth", [[0, 0, -1], [1, 1, -1], [-1, -1, -1]])
def test_one_kind_of_label_measures_nothing(truth: list[int]) -> None:
    assert judge_labelled(np.ones(3, dtype=np.float32), np.array(truth, dtype=np.int8), 0.5) is None


def test_labels_of_other_words_are_unknown() -> None:
    labels = pl.Series(["attack:scan", "benign", None, "crawler", "attack"])
    assert truth_of(labels).tolist() == [1, 0, -1, -1, 1]
    assert truth_of(pl.Series([None, None], dtype=pl.String)).tolist() == [-1, -1]


def test_planted_attacks_by_scenario_and_instance() -> None:
    scenario = pl.Series(["scan", "scan", "scan", "pull", None, None, None], dtype=pl.String)
    instance = pl.Series([0, 0, 1, 0, None, None, None], dtype=pl.Int32)
    scores = np.array([9, 1, 2, 6, 7, 3, 8], dtype=np.float32)
    own_attack = np.array([False] * 6 + [True])
    found = judge_planted(scores, scenario, instance, 5.0, known_attacks=own_attack)
    assert found is not None
    assert found.events == 4
    scan, pull = found.by_scenario["scan"], found.by_scenario["pull"]
    # One of two instances of the scan has an event over the threshold; the log's own attack (8) is no false alarm.
    assert (scan.events, scan.instances, scan.detected) == (3, 2, 0.5)
    assert scan.average_precision == pytest.approx((1 / 1 + 2 / 4 + 3 / 5) / 3)
    assert (pull.events, pull.instances, pull.detected) == (1, 1, 1.0)
    assert pull.average_precision == pytest.approx(1 / 2)
    assert found.detected == pytest.approx(2 / 3)


def test_nothing_planted_measures_nothing() -> None:
    none = pl.Series([None], dtype=pl.String)
    assert judge_planted(np.ones(1), none, none.cast(pl.Int32), 1.0, known_attacks=np.array([False])) is None


def test_quality_takes_labels_only_where_there_are_enough() -> None:
    planted = judge_planted(
        np.array([2.0, 1.0]),
        pl.Series(["scan", None]),
        pl.Series([0, None]),
        1.5,
        known_attacks=np.array([False, False]),
    )

    def labelled(attacks: int) -> Labelled:
        return Labelled(attacks, 1_000, 0.4, 0.9, 0.5, 0.5, 0.5)

    few, enough = quality_of(labelled(MIN_LABELLED - 1), planted), quality_of(labelled(MIN_LABELLED), planted)
    assert few is not None
    assert (few.basis, few.average_precision) == ("planted", 1.0)
    assert enough is not None
    assert (enough.basis, enough.average_precision, enough.attacks) == ("labels", 0.4, MIN_LABELLED)
    assert quality_of(None, None) is None
