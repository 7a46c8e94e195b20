"""Reasons name what carried the score, and read as sentences."""

from __future__ import annotations

import numpy as np
import pytest

from oddlog.features.declaration import FEATURE_NAMES, FEATURES
from oddlog.scoring.explanation import MOST, SENTENCES, explain

NAMES = list(FEATURE_NAMES)
TYPICAL = dict.fromkeys(NAMES, 0.02)


def row(**values: float) -> np.ndarray:
    return np.array([[values.get(name, 0.0) for name in NAMES]], dtype=np.float32)


def test_the_largest_positive_contributions_are_named() -> None:
    found = explain(
        row(client_error_1h=0.96, path_rarity=6.9, client_page_1d=0.5),
        row(client_error_1h=3.0, path_rarity=1.0, client_page_1d=-5.0),
        NAMES,
        TYPICAL,
    )
    assert found == [
        [
            {
                "feature": "client_error_1h",
                "value": pytest.approx(0.96),
                "typical": 0.02,
                "share": 0.75,
                "text": "client_error_1h: 96 % of this client's requests in the last hour failed; typical 2 %",
            },
            {
                "feature": "path_rarity",
                "value": pytest.approx(6.9),
                "typical": 0.02,
                "share": 0.25,
                "text": "path_rarity: its path is as rare as 1 in 992; typical 1 in 1",
            },
        ]
    ]


def test_at_most_three_and_no_crumbs() -> None:
    (equal,) = explain(np.ones((1, 16), np.float32), np.ones((1, 16), np.float32), NAMES, TYPICAL)
    # One of each signal: the last day's mean would say what the last hour's has said.
    assert [reason["feature"] for reason in equal] == ["client_error_1h", "client_token_1h", "client_company_1h"]
    assert len(equal) == MOST
    (one,) = explain(row(), row(client_error_1h=1, client_error_1d=0.01), NAMES, TYPICAL)
    assert [reason["feature"] for reason in one] == ["client_error_1h"]


def test_nothing_spoke_against_it() -> None:
    assert explain(row(), row(client_error_1h=-1), NAMES, TYPICAL) == [[]]
    assert explain(np.empty((0, 16), np.float32), np.empty((0, 16), np.float32), NAMES, TYPICAL) == []


def test_values_that_are_no_numbers() -> None:
    (found,) = explain(row(path_rarity=np.nan), row(path_rarity=1, token_rarity=np.nan), NAMES, TYPICAL)
    assert [reason["feature"] for reason in found] == ["path_rarity"]
    assert "unknown" in found[0]["text"]


@pytest.mark.parametrize("feature", FEATURES, ids=lambda feature: feature.name)
def test_every_feature_has_a_sentence(feature: object) -> None:
    name = feature.name  # type: ignore[attr-defined]
    (found,) = explain(row(**{name: 0.5}), row(**{name: 1.0}), NAMES, TYPICAL)
    assert found[0]["feature"] == name
    assert "{" not in found[0]["text"]
    assert SENTENCES[name].count("{value}") == 1
