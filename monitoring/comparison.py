"""Distributions of a batch against those expected, column by column, by Evidently. Where they come from: elsewhere.

Both sides are quantile points, so that the cost does not depend on how many events stand behind them.
"""

from __future__ import annotations

import datetime as dt
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl

from monitoring.expected import SKETCH_POINTS
from oddlog.scoring.distance import normed_distance, weighted_points

if TYPE_CHECKING:
    import pandas as pd

METHOD = "wasserstein"
"""Evidently's normed Wasserstein distance: in standard deviations of the reference (of 0.001 at least).

Named here, for Evidently's own choice of method depends on the reference's size.
"""


@dataclass(frozen=True, slots=True)
class Compared:
    """Distances by column, of those that have values on both sides; Evidently's snapshot, None without any."""

    distances: dict[str, float]
    snapshot: Any


def compare(
    expected: pl.DataFrame,
    batch: pl.DataFrame,
    limits: Mapping[str, float],
    *,
    share: float = 0.5,
    name: str | None = None,
    time: dt.datetime | None = None,
    tags: Mapping[str, str] | None = None,
) -> Compared:
    """Measure the columns named in `limits` (their limits are what Evidently shows beside the distances).

    `name`, `time` and `tags` are the snapshot's. Infinite values count as missing."""
    expected, batch = _finite(expected), _finite(batch)
    names = measurable(expected, batch, limits)
    if not names:
        return Compared({}, None)
    os.environ.setdefault("DO_NOT_TRACK", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of numpy, about the parts of its report that we do not read
        from evidently import DataDefinition, Dataset, Report
        from evidently.presets import DataDriftPreset

        definition = DataDefinition(numerical_columns=names)

        def dataset(frame: pl.DataFrame) -> Any:
            return Dataset.from_pandas(_pandas(frame, names), data_definition=definition)

        preset = DataDriftPreset(
            columns=names,
            drift_share=share,
            method=METHOD,
            per_column_threshold={column: limits[column] for column in names},
        )
        report = Report([preset], include_tests=False, metadata=dict(tags or {}))
        snapshot = report.run(dataset(batch), dataset(expected), timestamp=time, name=name)
        found = {
            metric["config"]["column"]: float(metric["value"])
            for metric in snapshot.dict()["metrics"]
            if metric["config"].get("column") in names
        }
    return Compared(found, snapshot)


def distances(expected: pl.DataFrame, batch: pl.DataFrame, limits: Mapping[str, float]) -> dict[str, float]:
    """The same distances without Evidently's report: for thousands of batches at a time (benchmarks).

    Of evenly spaced quantiles, as many on both sides, the Wasserstein distance is their mean difference."""
    expected, batch = _finite(expected), _finite(batch)
    found = {}
    for name in measurable(expected, batch, limits):
        was, is_now = (
            weighted_points([frame[name].drop_nulls().to_numpy()], [1.0], SKETCH_POINTS) for frame in (expected, batch)
        )
        found[name] = normed_distance(was, is_now)
    return found


def measurable(expected: pl.DataFrame, batch: pl.DataFrame, limits: Mapping[str, float]) -> list[str]:
    """Columns with a limit that have values on both sides."""
    sides = (expected, batch)
    return [name for name in limits if all(name in s.columns and s[name].null_count() < s.height for s in sides)]


def _pandas(frame: pl.DataFrame, names: list[str]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame({name: frame.get_column(name).to_numpy() for name in names})


def _finite(frame: pl.DataFrame) -> pl.DataFrame:
    """Float64, and null wherever there is no finite number."""
    whole = pl.all().cast(pl.Float64)
    return frame.select(pl.when(whole.is_finite()).then(whole))
