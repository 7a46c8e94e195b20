"""How far a long step is, in words: done of how many, at what rate, how much time is left. Showing it is the caller's.

A progress function takes the name of every stage as it begins. What tells how far the present one is, is `Underway`:
whoever shows stages shows it beside the stage's name, or now and then, or not at all.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl

Progress = Callable[[str], None]

EVERY = 2.0
"""Seconds between two of them: rates are read by people."""


class Underway(str):
    """How far the present stage is; no new stage."""

    __slots__ = ()


class Counted:
    """Counts what is done of a whole, and tells it every EVERY seconds; nothing of what is over before.

    >>> told, now = [], iter([0.0, 1.0, 4.0, 4.5]).__next__
    >>> counted = Counted(told.append, 10_000, clock=now)
    >>> for _ in range(3):
    ...     counted.add(2_000)
    >>> told
    ['4,000 of 10,000 events (40 %), 1,000/s, 0:06 left']
    """

    def __init__(
        self, tell: Progress, whole: int, what: str = "events", *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._tell, self._whole, self._what, self._clock = tell, whole, what, clock
        self._done = 0
        self._began = self._told = clock()

    def spare(self, count: int) -> None:
        """So many fewer have to be done."""
        self._whole -= count

    def add(self, count: int) -> None:
        """So many more are done."""
        self._done += count
        now = self._clock()
        if now - self._told < EVERY:
            return
        self._told = now
        rate = self._done / (now - self._began)
        whole = max(self._whole, self._done)  # events may come while others are read
        left = round((whole - self._done) / rate) if rate else 0
        self._tell(
            Underway(
                f"{self._done:,} of {whole:,} {self._what} ({self._done / whole:.0%}), "
                f"{rate:,.0f}/s, {left // 60}:{left % 60:02d} left".replace("%)", " %)")
            )
        )


def counting(batches: Iterable[pl.DataFrame], tell: Progress, whole: int) -> Iterator[pl.DataFrame]:
    """The same frames, their rows counted once each was worked on."""
    counted = Counted(tell, whole)
    for batch in batches:
        yield batch
        counted.add(batch.height)
