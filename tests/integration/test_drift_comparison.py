"""Evidently's comparison under our settings: method and limits by name, columns without values, its workspace."""

from __future__ import annotations

import datetime as dt
import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from monitoring.comparison import compare, distances
from monitoring.expected import SKETCH_POINTS
from monitoring.workspace import put_snapshot, remove_snapshots
from oddlog.scoring.reference import quantile_points

RNG = np.random.default_rng(5)
LIMITS = {"same": 0.2, "moved": 0.2, "constant": 0.2}


def sketch(**columns: np.ndarray) -> pl.DataFrame:
    return quantile_points(columns, SKETCH_POINTS)


def normal(rows: int, shift: float = 0.0) -> np.ndarray:
    return RNG.normal(size=rows) + shift


def test_a_distance_is_in_standard_deviations_and_the_same_without_evidentlys_report(tmp_path: Path) -> None:
    expected = sketch(same=normal(5_000), moved=normal(5_000) * 10, constant=np.zeros(500))
    batch = sketch(constant=np.zeros(300), moved=normal(3_000) * 10 + 5, same=normal(3_000))
    found = compare(expected, batch, LIMITS, share=0.3, name="a check", time=dt.datetime(2024, 3, 1, tzinfo=dt.UTC))
    assert found.distances["moved"] == pytest.approx(0.5, abs=0.07)
    assert found.distances["same"] == pytest.approx(0, abs=0.1)
    assert found.distances["constant"] == 0
    assert distances(expected, batch, LIMITS) == pytest.approx(found.distances, rel=1e-6)

    # The same check again takes its snapshot's place; another one stands beside it.
    first, again = (put_snapshot(tmp_path, "oddlog drift", "a check", found.snapshot) for _ in range(2))
    other = put_snapshot(tmp_path, "oddlog drift", "another", found.snapshot)
    assert first == again != other
    from evidently.ui.workspace import Workspace

    workspace = Workspace.create(str(tmp_path))
    (project,) = workspace.search_project("oddlog drift")
    assert {str(run) for run in workspace.list_runs(project.id)} == {first, other}
    kept = workspace.get_run(project.id, first)
    assert kept is not None
    assert f"{kept.timestamp:%Y-%m-%d %H:%M}" == "2024-03-01 00:00"
    assert len(project.dashboard.model().panels) == 2
    (file,) = tmp_path.glob(f"*/snapshots/{first}.json")
    os.utime(file, (0, 0))
    assert remove_snapshots(tmp_path, dt.datetime(2024, 1, 1, tzinfo=dt.UTC)) == 1
    assert {str(run) for run in workspace.list_runs(project.id)} == {other}


@pytest.mark.parametrize("rows", [500, 2_000])
def test_the_method_does_not_depend_on_how_much_there_is(rows: int) -> None:
    """Evidently would take a p-value for a small reference: then 0.05 would be drift, and 0.9 none."""
    expected, batch = ({"x": np.sort(normal(rows, shift))} for shift in (0.0, 2.0))
    found = compare(pl.DataFrame(expected), pl.DataFrame(batch), {"x": 0.5})
    assert found.distances["x"] == pytest.approx(2, abs=0.2)


def test_columns_without_values_are_not_measured() -> None:
    some = normal(SKETCH_POINTS)
    some[::2] = np.nan
    some[1] = np.inf
    nothing = pl.Series([None] * SKETCH_POINTS, dtype=pl.Float64)
    whole = pl.Series(normal(SKETCH_POINTS))
    expected = pl.DataFrame({"x": whole, "gone": whole, "nan": whole, "new": nothing})
    batch = pl.DataFrame({"x": some, "gone": nothing, "nan": np.full(SKETCH_POINTS, np.nan), "new": whole})
    limits = dict.fromkeys(batch.columns, 0.2)
    assert distances(expected, batch, limits).keys() == {"x"}
    assert compare(expected, batch, limits).distances.keys() == {"x"}
    empty = compare(expected.select("gone"), batch.select("gone"), {"gone": 0.2})
    assert (empty.distances, empty.snapshot) == ({}, None)
