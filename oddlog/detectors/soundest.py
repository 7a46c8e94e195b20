"""Which rows of a contaminated period to learn from: those that `surprise` finds least surprising. Not the learning."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

PER_BEHAVIOUR = 3
"""Lines drawn from every behaviour for the second quantile: a flood of equal requests must not set the limit."""


def soundest(
    surprise: npt.NDArray[np.float32],
    behaviour: npt.NDArray[np.int64],
    share: float,
    rng: np.random.Generator,
) -> npt.NDArray[np.int64]:
    """Row numbers with a surprise up to the lower of two quantiles `share`, in order; never empty.

    One quantile is over all lines, the other over up to PER_BEHAVIOUR random lines of every behaviour.
    """
    order = rng.permutation(len(surprise))
    drawn = order[_rank_in_group(behaviour[order]) < PER_BEHAVIOUR]
    limit = min(np.quantile(surprise, share), np.quantile(surprise[drawn], share))
    return np.flatnonzero(surprise <= max(limit, surprise.min()))


def _rank_in_group(group: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """How many earlier rows have the same group [n].

    >>> _rank_in_group(np.array([7, 3, 7, 7, 3])).tolist()
    [0, 0, 1, 2, 1]
    """
    by_group = np.argsort(group, kind="stable")
    ordered = group[by_group]
    first = np.r_[True, ordered[1:] != ordered[:-1]] if len(group) else np.zeros(0, dtype=np.bool_)
    starts = np.flatnonzero(first)
    rank = np.empty(len(group), dtype=np.int64)
    rank[by_group] = np.arange(len(group)) - starts[np.cumsum(first) - 1]
    return rank
