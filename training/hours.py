"""How much came in each hour of the later events, for the drift reference. What a reference is: oddlog/scoring."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import polars as pl

from oddlog.events.schema import TIMESTAMP
from oddlog.features.declaration import FEATURE_NAMES
from oddlog.scoring.reference import NEW_AFTER, PATH_RARITY, slot_counts, unseen_from
from training.fit import Fitted


def later_slots(
    fitted: Fitted,
    later: pl.DataFrame,
    odd: npt.NDArray[np.bool_],
    boundary: dt.datetime,
    batches: Iterable[pl.DataFrame],
) -> pl.DataFrame:
    """COUNTS of every hour of the events after the boundary, row by row with `fitted.later`; `odd` [n] are anomalies.

    `batches`: all events, `@timestamp` and `source.address`, of which the days before the boundary tell who is new."""
    rarity = fitted.later[:, FEATURE_NAMES.index(PATH_RARITY)]
    events = later.select(
        pl.col("@timestamp").alias("time"),
        pl.col("source.address").alias("client"),
        pl.col("http.response.status_code").alias("status"),
        pl.Series("odd", odd),
        pl.Series("unseen", rarity >= unseen_from(fitted.baseline.units)),
    )
    hour = pl.col("@timestamp").dt.truncate("1h").cast(TIMESTAMP).alias("hour")
    lead_in = pl.col("@timestamp").is_between(boundary - 2 * NEW_AFTER, boundary, closed="left")
    before = [
        batch.filter(lead_in).select(pl.col("source.address").alias("client"), hour).unique() for batch in batches
    ]
    return slot_counts(events, pl.concat(before).unique())
