"""Signals of requests under a baseline, remembered by request: a site is asked for the same ones again and again.

The baseline is frozen, so remembering changes no number. What is computed of a request is in `lookup.py`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import polars as pl

from oddlog.features.declaration import CLIENT_SIGNALS, EVENT_FEATURES
from oddlog.features.signals import Signals

MOST_REQUESTS = 50_000
MOST_CHARACTERS = 8_000_000
"""Past either, all are forgotten before the next batch: what is remembered is bounded by these and one batch."""

REQUEST = ("url.original", "http.request.method", "http.response.status_code")
"""The columns of an event that its signals depend on."""

_METHOD = pl.col("http.request.method").fill_null("")
_KEY = pl.format(
    "{} {} {}{}",
    pl.col("http.response.status_code").fill_null(0),
    _METHOD.str.len_bytes(),  # so that no two requests have the same key, whatever is in them
    _METHOD,
    pl.col("url.original").fill_null(""),
)
_CLIENT = len(CLIENT_SIGNALS)


class RequestMemory:
    """Signals of requests, computed once each."""

    def __init__(self, signals_of: Callable[[pl.DataFrame], Signals]) -> None:
        """`signals_of` computes them for a frame of the columns REQUEST, row by row."""
        self._signals_of = signals_of
        self._forget()

    def __len__(self) -> int:
        """Requests remembered."""
        return len(self._number)

    def signals(self, events: pl.DataFrame) -> Signals:
        """Signals of every event's request, row by row."""
        if len(self._number) > MOST_REQUESTS or self._characters > MOST_CHARACTERS:
            self._forget()
        # Texts, not tuples: Python's garbage collector need not look at them.
        requests = events.select(_KEY).to_series().to_list()
        numbers = list(map(self._number.get, requests))
        if None in numbers:
            self._learn(events, {requests[row]: row for row, number in enumerate(numbers) if number is None})
            numbers = list(map(self._number.get, requests))
        values = self._values[np.array(numbers, dtype=np.int64)]
        return Signals(values[:, :_CLIENT], values[:, _CLIENT:])

    def _forget(self) -> None:
        self._number: dict[str, int] = {}
        self._characters = 0
        self._values = np.empty((0, _CLIENT + len(EVENT_FEATURES)))

    def _learn(self, events: pl.DataFrame, row_of: dict[str, int]) -> None:
        """Take in new requests, each with a row of `events` that has it."""
        first = len(self._number)
        self._number.update(zip(row_of, range(first, first + len(row_of)), strict=True))
        self._characters += sum(map(len, row_of))
        found = self._signals_of(events.select(REQUEST)[list(row_of.values())])
        if len(self._number) > len(self._values):
            more = len(self._number) + len(self._number) // 2 - len(self._values)
            self._values = np.concatenate([self._values, np.empty((more, self._values.shape[1]))])
        self._values[first : len(self._number)] = np.concatenate([found.client, found.event], axis=1)
