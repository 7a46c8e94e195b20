"""The drift reference of a model: how its features and scores were distributed. Judging: monitoring/."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

POINTS = 5_000
"""Quantile points a column: enough for a Wasserstein distance, and no raw row among them."""


def make_reference(
    features: npt.NDArray[np.float32],
    names: Sequence[str],
    scores: npt.ArrayLike,
    severities: npt.ArrayLike,
    *,
    points: int = POINTS,
) -> pl.DataFrame:
    """Quantiles of every feature [n, d], and of `score` and `severity` [n]: Float32 columns of `points` rows.

    Every column is sorted for itself, so that a row of the frame is no event. Values that are not finite are
    left out; a column without any is all null.
    """
    columns = {name: features[:, i] for i, name in enumerate(names)}
    columns |= {"score": np.asarray(scores), "severity": np.asarray(severities)}
    at = (np.arange(points) + 0.5) / points
    frame = {}
    for name, values in columns.items():
        finite = np.asarray(values, dtype=np.float64)
        finite = finite[np.isfinite(finite)]
        frame[name] = (
            pl.Series(np.quantile(finite, at).astype(np.float32))
            if finite.size
            else pl.Series([None] * points, dtype=pl.Float32)
        )
    return pl.DataFrame(frame)
