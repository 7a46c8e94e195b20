"""What a period was like beside its distributions: counts and shares, of a batch or expected of it. No judging."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from oddlog.connectors.store import STATUS_CLASSES


@dataclass(frozen=True, slots=True)
class Figures:
    """Of a period. Shares are of its events, unless they say otherwise; None where they are not known."""

    events: float
    worth: float
    """Clients that the events are worth: (sum of n)^2 / sum of n^2 over clients with n events each (Kish). What one
    client does, it does alike: this many are independent."""
    alert_rate: float | None
    """Share of the client-hours that alert."""
    statuses: dict[str, float]
    """By class, "1xx" to "5xx"."""
    unseen_paths: float | None
    """Events whose path template the baseline does not have."""
    new_clients: float | None
    """Events of clients that were not there in the day before their hour."""
    busiest: float | None
    """Share of the client with most; expected: the most that one has had in an hour."""


def worth_of(clients: pl.Series) -> float:
    """Clients that a random sample of events, by client, says the whole is worth; at most as many as its events.

    By Simpson's unbiased estimate of the sum of squared shares, n (n - 1) over m (m - 1).

    >>> worth_of(pl.Series(["a", "a", "b", "b", "c", "c", "d", "d"]))
    7.0
    >>> worth_of(pl.Series(["a"] * 8))
    1.0
    """
    size = len(clients)
    if size < 2:
        return float(size)
    counts = clients.value_counts()["count"].to_numpy().astype(np.float64)
    pairs = float((counts * (counts - 1)).sum())
    return float(size) if pairs == 0 else min(size, size * (size - 1) / pairs)


def share(part: float, whole: float) -> float | None:
    """`part` / `whole`; None where there is no whole."""
    return part / whole if whole else None


def status_shares(counts: dict[str, float], events: float) -> dict[str, float]:
    """By class; empty where there are no events."""
    return {name: counts.get(name, 0.0) / events for name in STATUS_CLASSES} if events else {}


def weighted_points(parts: list[npt.NDArray[np.float64]], weights: list[float], points: int) -> npt.NDArray[np.float64]:
    """`points` evenly spaced quantiles of a mixture; each part is a sample of its share `weights`, and may be empty.

    >>> weighted_points([np.array([0.0, 0.0]), np.array([1.0])], [3, 1], 4).tolist()
    [0.0, 0.0, 0.0, 1.0]
    """
    filled = [(part, weight / part.size) for part, weight in zip(parts, weights, strict=True) if part.size and weight]
    if not filled:
        return np.empty(0)
    values = np.concatenate([part for part, _ in filled])
    weight = np.concatenate([np.full(part.size, each) for part, each in filled])
    order = np.argsort(values, kind="stable")
    below = np.cumsum(weight[order])
    at = (np.arange(points) + 0.5) / points * below[-1]
    found: npt.NDArray[np.float64] = values[order][np.searchsorted(below, at)]
    return found
