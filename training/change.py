"""The newest events beside the reference that a model brings: how far its site has moved since. Whether too far: gates.

The reference (oddlog/scoring/reference.py) is of the later part of the training's own period. Drift of every batch,
with counts and flow, is monitoring's.
"""

from __future__ import annotations

import datetime as dt

import numpy as np
import numpy.typing as npt
import polars as pl

from oddlog.scoring.distance import normed_distance, standard_error, weighted_points, worth_of
from oddlog.scoring.model import Matrix, Model
from oddlog.scoring.reference import HOUR, SLOT
from training.evidence import Change

NEWEST = dt.timedelta(days=1)
"""How much of the newest events is compared: a day has every hour, and older ones may hide what came last."""

POINTS = 500


def change_since(model: Model, events: pl.DataFrame, features: Matrix) -> Change:
    """How the newest of `events` [n] (`@timestamp`, `source.address`), with `features` [n, d] under the model's
    baseline, differ from its reference; only those count that came after everything it was made from.

    Like hours of the day are compared: each hour of the reference has the weight that it has among the newest."""
    times = events["@timestamp"]
    last = times.max()
    since = model.card.dataset.until
    if isinstance(last, dt.datetime):
        since = max(since, last - NEWEST)
    newest = (times > since).to_numpy()
    frame = model.reference()
    hours = _hours(frame)
    of_day = times.dt.hour().to_numpy()
    if hours and not set(of_day[newest].tolist()).isdisjoint(hours):
        newest &= np.isin(of_day, list(hours))
        numbers, counts = np.unique(of_day[newest], return_counts=True)
        parts = [hours[int(number)] for number in numbers]
        weights = counts.astype(float).tolist()
    else:
        parts, weights = [_whole(frame)], [1.0]
    first = times.filter(pl.Series(newest)).min()
    clients = events["source.address"].filter(pl.Series(newest))
    worth = worth_of(clients)
    distances = {}
    if newest.any():
        for column, name in enumerate(model.card.feature_names):
            usual = weighted_points([_values(part, name) for part in parts], weights, POINTS)
            found = weighted_points([_finite(features[newest, column])], [1.0], POINTS)
            if usual.size and found.size:
                distances[name] = normed_distance(usual, found)
    return Change(
        events=int(newest.sum()),
        worth=worth,
        since=first if isinstance(first, dt.datetime) else None,
        distances=distances,
        error=standard_error(worth, _reference_worth(frame, model)),
    )


def _hours(frame: pl.DataFrame) -> dict[int, pl.DataFrame]:
    """The reference by hour of the day; empty in models that were made before references had hours."""
    if HOUR not in frame.columns:
        return {}
    rows = frame.filter(pl.col(HOUR).is_not_null())
    return {int(key[0]): part for key, part in rows.partition_by(HOUR, as_dict=True).items()}


def _whole(frame: pl.DataFrame) -> pl.DataFrame:
    for kind in (HOUR, SLOT):
        if kind in frame.columns:
            frame = frame.filter(pl.col(kind).is_null())
    return frame


def _reference_worth(frame: pl.DataFrame, model: Model) -> float:
    """Clients that the reference is worth: by its hourly counts (Kish), else every client that the model knows."""
    if SLOT in frame.columns:
        slots = frame.filter(pl.col(SLOT).is_not_null())
        events, squares = float(slots[f"{SLOT}.events"].sum()), float(slots[f"{SLOT}.squares"].sum())
        if squares:
            return events**2 / squares
    return float(model.card.dataset.clients)


def _values(frame: pl.DataFrame, name: str) -> npt.NDArray[np.float64]:
    return _finite(frame[name].drop_nulls().to_numpy()) if name in frame.columns else np.empty(0)


def _finite(values: npt.ArrayLike) -> npt.NDArray[np.float64]:
    found = np.asarray(values, dtype=np.float64)
    return found[np.isfinite(found)]
