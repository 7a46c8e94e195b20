"""The drift reference of a model: how its features and scores were distributed, by hour of the day, and how much came.

One frame, three kinds of rows, no raw row among them:

    hour and slot null    quantile points of the whole period
    hour 0 to 23          quantile points of that hour of the day (UTC), over all days of the period
    slot a time           counts of that one hour, in the columns `slot.*`

References of models that were made before have rows of the first kind alone, and none of the last two's columns.
Judging a batch by it: monitoring/.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from oddlog.events.schema import TIMESTAMP

POINTS = 5_000
"""Quantile points a column: enough for a Wasserstein distance, and no raw row among them."""
HOUR_POINTS = 200
"""The same for an hour of the day, which are put together with others."""

HOUR, SLOT = "hour", "slot"
COUNTS = ("events", "squares", "clients", "alerts", "unseen", "new", "busiest", "1xx", "2xx", "3xx", "4xx", "5xx")
"""Of one hour: events; sum of their squares by client; distinct clients; those with an anomaly; events whose path the
baseline does not have; events of clients that were not there in the day before (null where that is not known); events
of the client with most; events by class of status."""

NEW_AFTER = dt.timedelta(days=1)
"""A client is new in an hour where it was away from so long before it."""

PATH_RARITY = "path_rarity"


def make_reference(
    features: npt.NDArray[np.float32],
    names: Sequence[str],
    scores: npt.ArrayLike,
    severities: npt.ArrayLike,
    *,
    points: int = POINTS,
    times: pl.Series | None = None,
    slots: pl.DataFrame | None = None,
) -> pl.DataFrame:
    """Quantiles of every feature [n, d], and of `score` and `severity` [n]: Float32 columns of `points` rows.

    Every column is sorted for itself, so that a row of the frame is no event. Values that are not finite are
    left out; a column without any is all null. With `times` [n] (Datetime, UTC) rows of the hours of the day follow,
    with `slots` (of `slot_counts`) those of single hours.
    """
    columns = {name: features[:, i] for i, name in enumerate(names)}
    columns |= {"score": np.asarray(scores), "severity": np.asarray(severities)}
    parts = [quantile_points(columns, points)]
    if times is not None:
        hour = times.dt.hour().to_numpy()
        for one in np.unique(hour):
            part = quantile_points({name: values[hour == one] for name, values in columns.items()}, HOUR_POINTS)
            parts.append(part.with_columns(pl.lit(int(one), dtype=pl.Int8).alias(HOUR)))
    if slots is not None:
        parts.append(slots.rename({name: f"{SLOT}.{name}" for name in COUNTS}))
    return pl.concat(parts, how="diagonal")


def quantile_points(columns: dict[str, npt.NDArray[np.float32]], points: int) -> pl.DataFrame:
    """Evenly spaced quantiles, (i + 1/2) / points, of the finite values of each column: Float32."""
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


def slot_counts(events: pl.DataFrame, before: pl.DataFrame) -> pl.DataFrame:
    """COUNTS of every hour of `events`, by time, empty hours included; the first and last, if cut, left out.

    `events`: `time` (Datetime ms, UTC), `client`, `status`, `odd`, `unseen` (Boolean). `before`: the distinct
    (`client`, `hour`) of what came before them, for at least NEW_AFTER where it is to be known which are new.
    """
    hourly = events.with_columns(pl.col("time").dt.truncate("1h").cast(TIMESTAMP).alias("hour"))
    pairs = pl.concat([before.select("client", "hour"), hourly.select("client", "hour")]).unique()
    known = hourly.join(new_clients(pairs), on=["client", "hour"], how="left")
    by_client = known.group_by("hour", "client").agg(
        pl.len().alias("events"), pl.col("odd").any(), pl.col("unseen").sum(), pl.col("new").first(),
        *((pl.col("status") // 100 == n).sum().alias(f"{n}xx") for n in range(1, 6)),
    )  # fmt: skip
    mine = pl.col("events")
    counted = by_client.group_by("hour").agg(
        mine.sum().alias("events"), (mine.cast(pl.Float64) ** 2).sum().alias("squares"), pl.len().alias("clients"),
        pl.col("odd").sum().alias("alerts"), pl.col("unseen").sum(),
        pl.when(pl.col("new").null_count() == 0).then((pl.col("new") * mine).sum()).alias("new"),
        mine.max().alias("busiest"), *(pl.col(f"{n}xx").sum() for n in range(1, 6)),
    )  # fmt: skip
    first, last = events["time"].min(), events["time"].max()
    assert isinstance(first, dt.datetime)
    assert isinstance(last, dt.datetime)
    begin = first.replace(minute=0, second=0, microsecond=0)
    end = last.replace(minute=0, second=0, microsecond=0)
    if end - begin > dt.timedelta(hours=1):  # else there is nothing but what is cut
        begin, end = begin + dt.timedelta(hours=1), end - dt.timedelta(hours=1)
    every = pl.datetime_range(begin, end, "1h", eager=True).cast(TIMESTAMP).alias("hour").to_frame()
    filled = every.join(counted, on="hour", how="left").with_columns(
        pl.col(name).fill_null(0) for name in COUNTS if name != "new"
    )
    return filled.select(pl.col("hour").alias(SLOT), *(pl.col(name).cast(pl.Float64) for name in COUNTS))


def new_clients(pairs: pl.DataFrame) -> pl.DataFrame:
    """`pairs` of distinct (`client`, `hour`) with `new`: whether the client was away in all of NEW_AFTER before.

    Null in hours that have less than that before them among the pairs."""
    hour = pl.col("hour")
    ordered = pairs.sort("client", "hour").with_columns(hour.shift(1).over("client").alias("previous"))
    away = pl.col("previous").is_null() | (hour - pl.col("previous") > NEW_AFTER)
    return ordered.select("client", "hour", pl.when(hour - hour.min() > NEW_AFTER).then(away).alias("new"))


def unseen_from(units: npt.ArrayLike) -> float:
    """The `path_rarity` from which on a path is in no unit of a baseline with so many units of each kind.

    That of a path in none is the mean of ln(2 (N + 1)) over the kinds; one in a single unit has ln 3 / kinds less.

    >>> unseen_from([99])
    4.749...
    """
    counts = np.asarray(units, dtype=np.float64)
    return float(np.log(2 * (counts + 1)).mean() - np.log(3) / counts.size / 2)
