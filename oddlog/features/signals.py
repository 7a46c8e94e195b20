"""Signals of events, and the formulas of them that fitting and serving share. No tables here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Signals:
    """Signals of n events: float64 `client` [n, 5] as CLIENT_SIGNALS, `event` [n, 6] as EVENT_FEATURES."""

    client: Floats
    event: Floats


def rarity(count: Ints, units: Ints) -> Floats:
    """Negative log likelihood of a key that `count` of `units` units have: -ln((c+.5)/(N+1)).

    >>> rarity(np.array([0, 9]), np.array(9)).round(3).tolist()
    [2.996, 0.051]
    """
    result: Floats = -np.log((count + 0.5) / (units + 1.0))
    return result


def conditional_rarity(pair: Ints, path: Ints, key: Ints, units: Ints) -> Floats:
    """How unusual a method or status is for its path, smoothed towards how usual it is at all.

    -ln((c(path,key) + 2q) / (max(c(path), c(path,key)) + 2)), q = min(1, (c(key)+.5)/(N+1)).
    """
    general = np.minimum(1.0, (key + 0.5) / (units + 1.0))
    result: Floats = -np.log((pair + 2.0 * general) / (np.maximum(path, pair) + 2.0))
    return result


def company(total: Floats, n: npt.NDArray[Any], prior: Floats) -> Floats:
    """How often those fail elsewhere who ask for this path: (sum over units of f(u,tpl) + 4 pb) / (n + 4)."""
    return (total + 4.0 * prior) / (n + 4.0)


def company_prior(total: Floats, n: npt.NDArray[Any], general: float) -> Floats:
    """The same for all paths as well known that answer with this class of status: (sum + 2 g) / (n + 2)."""
    return (total + 2.0 * general) / (n + 2.0)


def level(count: Ints) -> Ints:
    """floor(log2(1 + c)): how well known a path is, exactly (no rounding at powers of two).

    >>> level(np.array([0, 1, 2, 3, 7, 8])).tolist()
    [0, 1, 1, 2, 3, 3]
    """
    result: Ints = np.frexp((1 + count).astype(np.float64))[1].astype(np.int64) - 1
    return result


def status_class(status: Ints) -> Ints:
    """status // 100, with everything that HTTP does not know as 0."""
    classes = status // 100
    return np.where((classes < 0) | (classes > 9), 0, classes)


def is_error(status: Ints) -> npt.NDArray[np.bool_]:
    """The request failed: status >= 400 (no status: no)."""
    return status >= 400
