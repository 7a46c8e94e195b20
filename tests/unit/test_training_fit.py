"""The later features are those that serving computes, and a graph that differs from its reference is refused."""

from __future__ import annotations

import zlib

import numpy as np
import polars as pl
import pytest

from oddlog.detectors.catalogue import create
from oddlog.errors import ArtifactError
from oddlog.events.logfile import records_from_lines
from oddlog.events.parse import parse
from oddlog.features.compute import FeatureComputer
from oddlog.features.declaration import FEATURE_NAMES
from oddlog.simulation import simulate
from training.checks import check_tables
from training.dataset import split_by_time
from training.fit import Fitted, check_graphs, fit_baseline
from training.planting import plant_scenarios


@pytest.fixture(scope="module")
def events() -> pl.DataFrame:
    """Simulated traffic in three partitions, each client in one of them."""
    lines = [text.encode() for text in simulate(seed=5, lines=3_000, days=2).lines]
    records = records_from_lines(lines)
    records.partition = [zlib.crc32((value or b"").split(b" ", 1)[0]) % 3 for value in records.value]
    return parse(records).events.sort("oddlog.position.partition", "oddlog.position.offset")


@pytest.fixture(scope="module")
def fitted(events: pl.DataFrame) -> Fitted:
    split = split_by_time(events["@timestamp"], 0.7)
    return fit_baseline(events.filter(pl.Series(split.fitted)), events.iter_slices(999), split.boundary)


def test_later_features_are_those_of_a_stream(events: pl.DataFrame, fitted: Fitted) -> None:
    split = split_by_time(events["@timestamp"], 0.7)
    computer = FeatureComputer(fitted.baseline)
    streamed = np.concatenate([computer.compute(batch) for batch in events.iter_slices(137)])
    np.testing.assert_allclose(fitted.later, streamed[~split.fitted], rtol=1e-5)
    assert fitted.fit_data.features.shape == (int(split.fitted.sum()), len(FEATURE_NAMES))
    assert list(fitted.typical) == list(FEATURE_NAMES)
    assert all(np.isfinite(value) for value in fitted.typical.values())


class _Compiled:
    """A compiled model that gives what it is told to."""

    def __init__(self, score: np.ndarray, contributions: np.ndarray) -> None:
        self._score, self._contributions = score, contributions

    def score(self, features: np.ndarray) -> np.ndarray:
        return self._score

    def contributions(self, features: np.ndarray) -> np.ndarray:
        return self._contributions


def test_a_bounded_baseline_gives_the_later_features_of_what_it_keeps(events: pl.DataFrame, fitted: Fitted) -> None:
    boundary = split_by_time(events["@timestamp"], 0.7).boundary
    early = events.filter(pl.col("@timestamp") < boundary)
    small = fit_baseline(early, events.iter_slices(700), boundary, most_keys=50)
    assert len(small.baseline.path.keys) == 50 < len(fitted.baseline.path.keys)
    assert small.keys_left_out == fitted.baseline.entries - small.baseline.entries > 0
    assert fitted.keys_left_out == 0
    served = FeatureComputer(small.baseline).compute(events)
    np.testing.assert_array_equal(small.later, served[(events["@timestamp"] >= boundary).to_numpy()])
    (caution,) = check_tables(small.keys_left_out)
    assert (caution.name, caution.figure) == ("tables_capped", small.keys_left_out)
    assert check_tables(0) == []


def test_a_graph_that_differs_is_refused_and_the_row_is_told(fitted: Fitted) -> None:
    detector = create("surprise").fit(fitted.fit_data, seed=0)
    rows = fitted.later[:200]
    score, parts = detector.score(rows), detector.contributions(rows)
    check = check_graphs(detector, _Compiled(score, parts), rows)  # type: ignore[arg-type]
    assert (check.rows, check.score, check.contribution) == (200, 0.0, 0.0)
    wrong = score.copy()
    wrong[17] += 0.01 * max(1.0, abs(wrong[17]))
    with pytest.raises(ArtifactError, match=r"another score .* in 1 places of 200, the first at \(17,\)"):
        check_graphs(detector, _Compiled(wrong, parts), rows)  # type: ignore[arg-type]
    bent = parts.copy()
    bent[3, 2] += 1
    with pytest.raises(ArtifactError, match=r"another contribution .*\(3, 2\)"):
        check_graphs(detector, _Compiled(score, bent), rows)  # type: ignore[arg-type]


def test_planted_scenarios_stand_among_the_later_events_alone(events: pl.DataFrame, fitted: Fitted) -> None:
    boundary = split_by_time(events["@timestamp"], 0.7).boundary
    planted = plant_scenarios(events, since=boundary, seed=3)
    again = plant_scenarios(events, since=boundary, seed=3)
    assert planted.events.equals(again.events)
    assert planted.scenario.drop_nulls().n_unique() >= 10
    own = planted.events.filter(planted.scenario.is_null())
    assert own.sort("_id").equals(events.filter(pl.col("@timestamp") >= boundary).select(own.columns).sort("_id"))
    assert planted.events["@timestamp"].is_sorted()
    assert planted.events["@timestamp"].min() >= boundary  # type: ignore[operator]
    matrix = planted.features(fitted.baseline)
    assert matrix.shape == (planted.events.height, len(FEATURE_NAMES))
    assert np.isfinite(matrix).all()
