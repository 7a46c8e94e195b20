"""Evidently's comparison under our settings: method and limits by name, columns without values."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from monitoring.comparison import compare

RNG = np.random.default_rng(5)


def normal(rows: int, shift: float = 0.0) -> np.ndarray:
    return RNG.normal(size=rows) + shift


def quantiles(rows: int = 5_000) -> np.ndarray:
    return np.sort(normal(rows))


def test_a_distance_is_in_standard_deviations_of_the_reference() -> None:
    reference = pl.DataFrame({"same": quantiles(), "moved": quantiles() * 10, "constant": np.zeros(5_000)})
    batch = pl.DataFrame({"constant": np.zeros(3_000), "moved": normal(3_000) * 10 + 5, "same": normal(3_000)})
    found = compare(reference, batch, limit=0.2, max_share=0.3)
    by_name = {column.name: column for column in found.columns}
    assert by_name["moved"].distance == pytest.approx(0.5, abs=0.05)
    assert by_name["same"].distance == pytest.approx(0, abs=0.1)
    assert by_name["constant"].distance == 0
    assert [column.drifted for column in found.columns] == [True, False, False]
    assert found.columns[0].mean == pytest.approx(5, abs=1)
    assert found.share == pytest.approx(1 / 3)
    assert "<body>" in found.html


@pytest.mark.parametrize("rows", [50, 500, 5_000])
def test_the_method_does_not_depend_on_how_much_there_is(rows: int) -> None:
    """Evidently would take a p-value for a small reference: then 0.05 would be drift, and 0.9 none."""
    reference = pl.DataFrame({"x": quantiles(rows)})
    assert compare(reference, pl.DataFrame({"x": normal(400)}), limit=0.5, max_share=1).share == 0
    assert compare(reference, pl.DataFrame({"x": normal(400, 2.0)}), limit=0.5, max_share=1).share == 1


def test_columns_without_values() -> None:
    some = normal(1_000)
    some[::2] = np.nan
    some[1] = np.inf
    reference = pl.DataFrame(
        {"x": quantiles(), "gone": quantiles(), "nan": quantiles(), "new": pl.Series([None] * 5_000, dtype=pl.Float32)}
    )
    batch = pl.DataFrame(
        {"x": some, "gone": pl.Series([None] * 1_000, dtype=pl.Float64), "nan": np.full(1_000, np.nan),
         "new": normal(1_000)}
    )  # fmt: skip
    found = compare(reference, batch, limit=0.2, max_share=0.3)
    by_name = {column.name: column for column in found.columns}
    assert by_name["x"].missing == pytest.approx(0.501)
    assert not by_name["x"].drifted
    assert by_name["gone"].drifted
    assert by_name["nan"].drifted
    assert by_name["gone"].distance is None
    assert not by_name["new"].drifted
    assert "the reference has no values" in by_name["new"].note
    assert found.share == pytest.approx(2 / 3)
    assert [column.name for column in found.columns] == ["gone", "nan", "x", "new"]


def test_nothing_to_compare_at_all() -> None:
    empty = pl.DataFrame({"x": pl.Series([None] * 10, dtype=pl.Float64)})
    found = compare(pl.DataFrame({"x": quantiles()}), empty, limit=0.2, max_share=0.3)
    assert (found.share, found.html) == (1.0, "")
