"""How far two samples of a column lie apart, and how much chance alone explains. Whether that is too far: elsewhere."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl

Values = npt.NDArray[np.float64]

LEAST_DEVIATION = 0.001
"""A column that hardly varies is measured in this, as Evidently does."""


def weighted_points(parts: list[Values], weights: list[float], points: int) -> Values:
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
    found: Values = values[order][np.searchsorted(below, at)]
    return found


def normed_distance(expected: Values, found: Values) -> float:
    """Wasserstein distance of evenly spaced quantiles [n] and [n], in standard deviations of the expected ones.

    Of as many such points on both sides it is their mean difference.

    >>> normed_distance(np.array([0.0, 2.0]), np.array([1.0, 3.0]))
    1.0
    """
    return float(np.abs(found - expected).mean()) / max(float(expected.std()), LEAST_DEVIATION)


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


def standard_error(*worth: float) -> float:
    """Standard error of a difference between samples worth so many clients; one worth none is left out.

    >>> standard_error(50, 50)
    0.2
    """
    return float(np.sqrt(sum(1 / each for each in worth if each > 0)))
