"""What a detector must beat: trivial rules, and the isolation forest of tutorials. They are judged elsewhere."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import polars as pl

from oddlog.features.keys import keys_of

Scores = npt.NDArray[np.float64]

FAILED = pl.col("http.response.status_code").fill_null(0) >= 400


def failed(events: pl.DataFrame, fitted: int) -> Scores:
    """status >= 400."""
    return events.select(FAILED.cast(pl.Float64)).to_series().to_numpy()[fitted:]


def failed_share(events: pl.DataFrame, fitted: int) -> Scores:
    """Share of the client's requests so far, this one included, with status >= 400."""
    failures = FAILED.cast(pl.Int64).cum_sum()
    share = (failures / pl.int_range(1, pl.len() + 1)).over("source.address")
    return events.select(share).to_series().to_numpy()[fitted:]


def rare_path(events: pl.DataFrame, fitted: int) -> Scores:
    """How few clients have asked for the path's first segment so far, this one included."""
    keys = keys_of(events)
    rows = events.select("source.address").with_columns(keys.paths["p1"][keys.url])
    newcomer = pl.int_range(pl.len()).over("p1", "source.address") == 0
    clients = rows.select(newcomer.cast(pl.Int64).cum_sum().over("p1")).to_series()
    return -clients.cast(pl.Float64).to_numpy()[fitted:]


def tutorial_iforest(events: pl.DataFrame, fitted: int, seed: int = 0) -> Scores:
    """scikit-learn's IsolationForest with its defaults on status, bytes, URL length, hour and method."""
    from sklearn.ensemble import IsolationForest

    table = events.select(
        pl.col("http.response.status_code").fill_null(0),
        pl.col("http.response.body.bytes").fill_null(0),
        pl.col("url.original").str.len_bytes(),
        pl.col("@timestamp").dt.hour(),
        pl.col("http.request.method").rank("dense"),
    ).to_numpy()
    table = table.astype(np.float64)
    forest = IsolationForest(random_state=seed).fit(table[:fitted])
    scores: Scores = -forest.score_samples(table[fitted:])
    return scores


RULES: dict[str, Callable[[pl.DataFrame, int], Scores]] = {
    "status>=400": failed,
    "client_4xx_share": failed_share,
    "rare_path": rare_path,
    "tutorial_iforest": tutorial_iforest,
}
"""By name: events in order and how many of them are the fitted part -> scores of the rest, higher = odder."""
