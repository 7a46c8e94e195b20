"""How alike two scores order the same things. What is ordered, and what follows, is the callers'."""

from __future__ import annotations

import polars as pl


def rank_correlation(one: pl.Series, other: pl.Series) -> float | None:
    """Spearman's, of two columns [n]; None where one is all the same.

    >>> rank_correlation(pl.Series([1.0, 2.0, 9.0]), pl.Series([1, 2, 3]))
    1.0
    >>> rank_correlation(pl.Series([1.0, 2.0]), pl.Series([7, 7])) is None
    True
    """
    if one.n_unique() < 2 or other.n_unique() < 2:
        return None
    found = pl.select(pl.corr(one, other, method="spearman")).item()
    return None if found is None else float(found)
