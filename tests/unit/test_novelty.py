"""The second channel: its graph equals its reference, and what it says is the request's alone."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import polars as pl
import pytest

from oddlog.detectors.detector import FitData, Matrix
from oddlog.detectors.novelty import RARITIES, Novelty
from oddlog.errors import UsageError
from oddlog.events.schema import ANOMALY_SCHEMA
from oddlog.features.declaration import FEATURE_NAMES
from oddlog.scoring.scorer import NoveltyScores, Scores
from serving.documents import verdict_columns

WIDTH = len(FEATURE_NAMES)
CHOSEN = [FEATURE_NAMES.index(name) for name in RARITIES]


def period(rows: int = 800, seed: int = 0) -> FitData:
    rng = np.random.default_rng(seed)
    return FitData(
        features=rng.gamma(1.0, 2.0, (rows, WIDTH)).astype(np.float32),
        weights=1.0 / rng.integers(1, 20, rows),
        behaviour=np.arange(rows),
        names=FEATURE_NAMES,
    )


def odd_rows() -> Matrix:
    rows = period(60, seed=4).features.copy()
    rows[0] = np.nan
    rows[1, CHOSEN[0]] = np.inf
    rows[2] = -np.inf
    rows[3] = 3.4e38
    return rows


@pytest.fixture(scope="module")
def channel() -> Novelty:
    return Novelty().fit(period())


def test_the_graph_equals_the_reference_row_by_row(channel: Novelty) -> None:
    session = ort.InferenceSession(channel.graph().SerializeToString(), providers=["CPUExecutionProvider"])
    assert [one.name for one in session.get_outputs()] == ["novelty", "contributions"]
    for rows in (odd_rows(), odd_rows()[:0]):
        novelty, parts = session.run(["novelty", "contributions"], {"features": rows})
        assert (novelty.shape, parts.shape) == ((len(rows),), rows.shape)
        np.testing.assert_allclose(novelty, channel.score(rows), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(parts, channel.contributions(rows), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(parts.sum(axis=1), novelty, rtol=1e-4, atol=1e-5)


def test_it_is_finite_deterministic_and_about_the_request_alone(channel: Novelty) -> None:
    rows = odd_rows()
    assert np.isfinite(channel.score(rows)).all()
    np.testing.assert_array_equal(channel.score(rows), Novelty().fit(period()).score(rows))
    other = rows.copy()
    others = [column for column in range(WIDTH) if column not in CHOSEN]
    other[:, others] = 77.0
    np.testing.assert_array_equal(channel.score(rows), channel.score(other))
    rarer = rows[10:].copy()
    rarer[:, CHOSEN] += 1.0
    assert (channel.score(rarer) >= channel.score(rows[10:])).all()


def test_nothing_to_learn_from_is_told() -> None:
    none = period(0)
    with pytest.raises(UsageError, match="no rows"):
        Novelty().fit(none)
    some = period(20)
    with pytest.raises(UsageError, match="path_rarity"):
        Novelty().fit(FitData(some.features, some.weights, some.behaviour, ("x",) * WIDTH))


def test_a_document_says_which_channel_finds_an_event_odd() -> None:
    score, novelty = np.array([0.0, 9.0, 0.0, 9.0], np.float32), np.array([0.0, 0.0, 5.0, 5.0], np.float32)
    second = NoveltyScores(4.0, novelty, novelty.astype(np.float64) / 2.0, novelty >= 4.0)
    scores = Scores(
        "oddlog",
        "3",
        "d" * 64,
        8.0,
        "1",
        "3",
        score,
        score.astype(np.float64),
        (score >= 8.0) | second.is_anomaly,
        novelty=second,
    )
    found = pl.DataFrame(verdict_columns(scores, pl.DataFrame({"_id": list("abcd")})))
    assert found.schema == pl.Schema(ANOMALY_SCHEMA)
    assert found["anomaly.channel"].to_list() == [None, "score", "novelty", "both"]
    assert found["anomaly.is_anomaly"].to_list() == [False, True, True, True]
    assert found["anomaly.novelty.score"].to_list() == [None, None, 5.0, 5.0]
    assert found["anomaly.novelty.severity"].to_list() == [None, None, 2.5, 2.5]
    assert found["anomaly.novelty.threshold"].to_list() == [None, None, 4.0, 4.0]


def test_a_model_without_the_channel_leaves_its_fields_empty() -> None:
    score = np.array([0.0, 9.0], np.float32)
    found = pl.DataFrame(
        verdict_columns(
            Scores("oddlog", "3", "d" * 64, 8.0, "1", "3", score, score.astype(np.float64), score >= 8.0),
            pl.DataFrame({"_id": ["a", "b"]}),
        )
    )
    assert found.schema == pl.Schema(ANOMALY_SCHEMA)
    assert found["anomaly.channel"].to_list() == [None, "score"]
    assert found.select(pl.col("^anomaly\\.novelty.*$").is_null().all()).row(0) == (True, True, True)
