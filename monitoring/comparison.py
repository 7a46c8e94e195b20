"""A batch against a reference, column by column, by Evidently. Where they come from is not its business."""

from __future__ import annotations

import math
import os
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl

if TYPE_CHECKING:
    import pandas as pd

METHOD = "wasserstein"
"""Evidently's normed Wasserstein distance: in standard deviations of the reference (of 0.001 at least).

Named here, for Evidently's own choice of method depends on the reference's size.
"""


@dataclass(frozen=True, slots=True)
class ColumnDrift:
    """How far a column of the batch is from its reference."""

    name: str
    distance: float | None
    """None where there was nothing to measure; `note` says why."""
    limit: float
    drifted: bool
    mean: float | None
    reference_mean: float | None
    missing: float
    """Share of the batch's rows without a value."""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Columns, farthest first; the share of them that drifted; Evidently's report of them as HTML."""

    columns: list[ColumnDrift]
    share: float
    html: str


def compare(reference: pl.DataFrame, batch: pl.DataFrame, *, limit: float, max_share: float) -> Comparison:
    """Compare the columns that the reference has.

    A column that is empty in the batch has drifted as far as can be: what it told is gone. One that is empty
    in the reference cannot be judged, and does not count. Infinite values count as missing.
    """
    names = reference.columns
    reference, batch = _finite(reference), _finite(batch.select(names))
    known = [name for name in names if reference.get_column(name).null_count() < reference.height]
    measured = [name for name in known if batch.get_column(name).null_count() < batch.height]
    distances, html = _evidently(reference, batch, measured, limit, max_share) if measured else ({}, "")
    columns = []
    for name in names:
        note = ""
        if name not in known:
            note = "not judged: the reference has no values"
        elif name not in measured:
            note = "the batch has no values"
        distance = distances.get(name)
        columns.append(
            ColumnDrift(
                name=name,
                distance=distance,
                limit=limit,
                drifted=distance >= limit if distance is not None else name in known,
                mean=_mean(batch, name),
                reference_mean=_mean(reference, name),
                missing=batch.get_column(name).null_count() / max(1, batch.height),
                note=note,
            )
        )
    unmeasured = {True: math.inf, False: -1.0}
    columns.sort(key=lambda c: (-(unmeasured[c.drifted] if c.distance is None else c.distance), c.name))
    return Comparison(columns, sum(c.drifted for c in columns) / max(1, len(known)), html)


def _evidently(
    reference: pl.DataFrame, batch: pl.DataFrame, names: list[str], limit: float, max_share: float
) -> tuple[dict[str, float], str]:
    os.environ.setdefault("DO_NOT_TRACK", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of numpy, about the parts of its report that we do not read
        from evidently import DataDefinition, Dataset, Report
        from evidently.presets import DataDriftPreset

        definition = DataDefinition(numerical_columns=names)

        def dataset(frame: pl.DataFrame) -> Any:
            return Dataset.from_pandas(_pandas(frame, names), data_definition=definition)

        preset = DataDriftPreset(columns=names, method=METHOD, threshold=limit, drift_share=max_share)
        snapshot = Report([preset], include_tests=False).run(dataset(batch), dataset(reference))
        found = {
            metric["config"]["column"]: float(metric["value"])
            for metric in snapshot.dict()["metrics"]
            if metric["config"].get("column") in names
        }
        return found, str(snapshot.get_html_str(as_iframe=False))


def _pandas(frame: pl.DataFrame, names: list[str]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame({name: frame.get_column(name).to_numpy() for name in names})


def _finite(frame: pl.DataFrame) -> pl.DataFrame:
    """Float64, and null wherever there is no finite number."""
    whole = pl.all().cast(pl.Float64)
    return frame.select(pl.when(whole.is_finite()).then(whole))


def _mean(frame: pl.DataFrame, name: str) -> float | None:
    value = frame.get_column(name).mean()
    return float(value) if isinstance(value, int | float) else None
