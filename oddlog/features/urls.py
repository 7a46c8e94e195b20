"""What URLs give under a baseline, remembered by URL: a site is asked for the same ones again and again.

The baseline is frozen, so remembering changes no number. What is computed of a URL is in `lookup.py` and `keys.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

MOST_URLS = 50_000
MOST_CHARACTERS = 8_000_000
"""Past either, all are forgotten before the next batch: what is remembered is bounded by these and one batch."""

_SCHEMA = {"original": pl.String, "path": pl.String}


@dataclass(frozen=True, slots=True)
class UrlValues:
    """Of m URLs: `path` int64 [m], the code of its template (the padding's where it is unknown); `rarity` float64
    [m, 4]: p1, p2, tpl, tok; `standard`, `asset` bool [m]."""

    path: Ints
    rarity: Floats
    standard: Bools
    asset: Bools

    def rows(self, numbers: Ints) -> UrlValues:
        """Values of some URLs, by their number."""
        return UrlValues(self.path[numbers], self.rarity[numbers], self.standard[numbers], self.asset[numbers])


class UrlMemory:
    """Values of URLs, computed once each."""

    def __init__(self, values_of: Callable[[pl.DataFrame], UrlValues]) -> None:
        """`values_of` computes them for a frame of `original` and `path`, all different."""
        self._values_of = values_of
        self._nothing = values_of(pl.DataFrame(schema=_SCHEMA))
        self._number: dict[tuple[str, str], int] = {}
        self._characters = 0
        self._values = self._nothing

    def __len__(self) -> int:
        """URLs remembered."""
        return len(self._number)

    def values(self, events: pl.DataFrame) -> UrlValues:
        """Values of every event's URL, row by row."""
        if len(self._number) > MOST_URLS or self._characters > MOST_CHARACTERS:
            self._number, self._characters, self._values = {}, 0, self._nothing
        urls = events.select(pl.col("url.original", "url.path").fill_null(""))
        pairs = list(zip(*(column.to_list() for column in urls), strict=True))
        numbers = list(map(self._number.get, pairs))
        if None in numbers:
            self._learn(dict.fromkeys(p for p, number in zip(pairs, numbers, strict=True) if number is None))
            numbers = list(map(self._number.get, pairs))
        return self._values.rows(np.array(numbers, dtype=np.int64))

    def _learn(self, pairs: dict[tuple[str, str], None]) -> None:
        first = len(self._number)
        self._number.update(zip(pairs, range(first, first + len(pairs)), strict=True))
        self._characters += sum(len(original) + len(path) for original, path in pairs)
        new = self._values_of(pl.DataFrame(list(pairs), schema=_SCHEMA, orient="row"))
        known = self._values
        self._values = UrlValues(
            *(
                np.concatenate([getattr(known, name), getattr(new, name)])
                for name in ("path", "rarity", "standard", "asset")
            )
        )
