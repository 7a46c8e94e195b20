"""Client state: a few decayed sums per client, advanced in row order. What is summed is decided elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import exp

import numpy as np
import numpy.typing as npt

from oddlog.features.declaration import CLIENT_SIGNALS, HORIZONS

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

EPSILON = 1e-4
"""A client is forgotten when the decayed number of its requests (longest horizon) falls below this.

One request is forgotten after 9.2 days, ten thousand after 18.4. What is forgotten would have moved a mean by
less than 1e-4 of a signal's range."""

STRENGTH = 0.3
"""k: how many requests the prior g counts for in a client mean (s + k g) / (n + k)."""

SHORT, LONG = HORIZONS.values()
_QUIET = 9.0 * LONG
"""No client is forgotten sooner: after an event its weight is 1 or more, and exp(-9) > EPSILON."""

_HORIZONS = len(HORIZONS)
_MEANS = _HORIZONS * len(CLIENT_SIGNALS)
_FRESH = -np.inf
"""`last` of a client without a past."""


class ClientState:
    """Decayed sums of the clients of one partition.

    Event time: dt = max(0, t - last), last = max(last, t), n <- n exp(-dt/tau) + 1, s <- s exp(-dt/tau) + x.
    A client is forgotten at its next event when its weight, decayed to the partition's clock (the latest
    event time seen in the partition, this event included), is below EPSILON. The clock depends on the order
    of rows alone and never goes back, so that a forgotten client may leave the memory at any moment after:
    batch sizes change nothing. A fresh client starts with last = t; days behind the clock, with the clock.
    """

    def __init__(self) -> None:
        self._slot: dict[str, int] = {}
        self._free: list[int] = []
        self._last = np.full(64, _FRESH)
        self._weight = np.zeros((64, _HORIZONS))
        self._sums = np.zeros((64, _MEANS))
        self._clock = _FRESH
        self._sweep_at = 1_024

    def __len__(self) -> int:
        """Clients in memory; some of them may be forgotten already."""
        return len(self._slot)

    def advance(self, clients: Sequence[str], seconds: Floats, signals: Floats, prior: Floats) -> Floats:
        """Take events in order; give the client means at each, the event itself among them.

        `seconds` float64 [n], event time; `signals` float64 [n, 5] in the order of CLIENT_SIGNALS; `prior`
        float64 [5]. Returns float64 [n, 10]: for every signal its horizons.
        """
        n = len(clients)
        if n == 0:
            return np.empty((0, _MEANS))
        slot = self._slots(clients)
        clock = np.maximum(np.maximum.accumulate(seconds), self._clock)
        self._clock = float(clock[-1])

        order = np.argsort(slot, kind="stable")
        slot = slot[order]
        begins = np.r_[True, slot[1:] != slot[:-1]]
        first = np.flatnonzero(begins)
        ends = np.r_[first[1:], n] - 1
        of_client = slot[first]
        weights, decays, last = self._weigh(of_client, begins, seconds[order], clock[order])

        means, sums = np.empty((_MEANS, n)), np.empty((_MEANS, n))
        for h, decay in enumerate(decays):
            # A client's first row takes its stored sum in at once, and nothing from the row above it.
            carry = np.where(begins, 0.0, decay).tolist()
            for i in range(len(CLIENT_SIGNALS)):
                column = i * _HORIZONS + h
                taken = signals[order, i]
                taken[first] = self._sums[of_client, column] * decay[first] + taken[first]
                sums[column] = _recur(carry, taken.tolist())
                means[column, order] = (sums[column] + STRENGTH * prior[i]) / (weights[h] + STRENGTH)

        self._last[of_client] = last[ends]
        self._weight[of_client] = weights[:, ends].T
        self._sums[of_client] = sums[:, ends].T
        self._sweep()
        return np.ascontiguousarray(means.T)

    def table(self) -> dict[str, list[str] | Floats]:
        """The whole state by column, a row a client: what `of_table` takes. It shares nothing with the state."""
        names = list(self._slot)
        slot = np.fromiter(self._slot.values(), dtype=np.int64, count=len(names))
        return {
            "client": names,
            "clock": np.full(len(names), self._clock),
            "last": self._last[slot],
            **{f"weight_{i}": self._weight[slot, i] for i in range(_HORIZONS)},
            **{f"sum_{i}": self._sums[slot, i] for i in range(_MEANS)},
        }

    @classmethod
    def of_table(cls, table: Mapping[str, Sequence[str] | Floats]) -> ClientState:
        """The state that gave `table`: every later number is the same, to the bit."""
        state, names = cls(), table["client"]
        if not len(names):
            return state
        state._slots([str(name) for name in names])
        n = len(names)
        state._last[:n] = table["last"]
        for i in range(_HORIZONS):
            state._weight[:n, i] = table[f"weight_{i}"]
        for i in range(_MEANS):
            state._sums[:n, i] = table[f"sum_{i}"]
        state._clock = float(np.asarray(table["clock"])[0])
        state._sweep_at = max(1_024, 2 * n)
        return state

    def _slots(self, clients: Sequence[str]) -> Ints:
        known, free, slots = self._slot, self._free, []
        for client in clients:
            slot = known.get(client)
            if slot is None:
                slot = known[client] = free.pop() if free else len(known)
            slots.append(slot)
        more = 2 * len(known) - len(self._last)
        if len(known) > len(self._last):
            self._last = np.concatenate([self._last, np.full(more, _FRESH)])
            self._weight = np.concatenate([self._weight, np.zeros((more, _HORIZONS))])
            self._sums = np.concatenate([self._sums, np.zeros((more, _MEANS))])
        return np.array(slots, dtype=np.int64)

    def _weigh(
        self, of_client: Ints, begins: npt.NDArray[np.bool_], seconds: Floats, clock: Floats
    ) -> tuple[Floats, Floats, Floats]:
        """Weights [2, n], decays since the row before [2, n], and `last` [n], of rows grouped by client.

        `begins` marks each client's first row, `of_client` is its slot. A fresh client's decay is 0.
        """
        stored = iter(zip(self._last[of_client].tolist(), *self._weight[of_client].T.tolist(), strict=True))
        shorts, longs, short_decays, long_decays, lasts = [], [], [], [], []
        last = short = long = 0.0
        for starts, t, now in zip(begins.tolist(), seconds.tolist(), clock.tolist(), strict=True):
            if starts:
                last, short, long = next(stored)
            gap = now - last
            if gap > _QUIET and (last == _FRESH or long * exp(-gap / LONG) < EPSILON):
                a = b = 0.0
                # Days behind the clock (an old file shipped after a new one), its own time would let it be
                # forgotten between any two of its events.
                last = t if now - t < _QUIET else now
            elif t > last:
                a, b = exp((last - t) / SHORT), exp((last - t) / LONG)
                last = t
            else:
                a = b = 1.0
            short, long = short * a + 1.0, long * b + 1.0
            shorts.append(short)
            longs.append(long)
            short_decays.append(a)
            long_decays.append(b)
            lasts.append(last)
        return np.array([shorts, longs]), np.array([short_decays, long_decays]), np.array(lasts)

    def _sweep(self) -> None:
        """Let the forgotten leave the memory; now and then, so that the cost is spread over the events."""
        if len(self._slot) < self._sweep_at:
            return
        weight = self._weight[:, -1] * np.exp((self._last - self._clock) / LONG)
        # The hundredth covers rounding: who leaves here must count as forgotten at every later event.
        gone = weight < EPSILON * 0.99
        for client in [client for client, slot in self._slot.items() if gone[slot]]:
            slot = self._slot.pop(client)
            self._free.append(slot)
            self._last[slot] = _FRESH
            self._weight[slot] = 0.0
            self._sums[slot] = 0.0
        self._sweep_at = max(1_024, 2 * len(self._slot))


def _recur(carry: list[float], taken: list[float]) -> list[float]:
    """s[i] = s[i-1] * carry[i] + taken[i], one operation after the other: the same bits in every batch."""
    total, totals = 0.0, []
    for keep, value in zip(carry, taken, strict=True):
        total = total * keep + value
        totals.append(total)
    return totals
