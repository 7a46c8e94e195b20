"""Client state: a few decayed sums per client, advanced in row order. What is summed is decided elsewhere."""

from __future__ import annotations

import itertools
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

MAX_CLIENTS = 1_000_000
"""Most clients of a partition that are kept, where nobody says otherwise."""

_HORIZONS = len(HORIZONS)
_MEANS = _HORIZONS * len(CLIENT_SIGNALS)
_COLUMNS = _HORIZONS + _MEANS
"""A client's sums: its weights by horizon, then, for every signal, its sums by horizon."""
_FRESH = -np.inf
"""`last` of a client without a past."""
_SWEEP_FROM = 1_024
_NARROW = 6
"""Fewer clients than this are taken further one by one: a step of numpy costs as much as some rows in Python."""


class ClientState:
    """Decayed sums of the clients of one partition.

    Event time: dt = max(0, t - last), last = max(last, t), n <- n exp(-dt/tau) + 1, s <- s exp(-dt/tau) + x.
    A client is forgotten at its next event when its weight, decayed to the partition's clock (the latest
    event time seen in the partition, this event included), is below EPSILON. The clock depends on the order
    of rows alone and never goes back, so that a forgotten client may leave the memory at any moment after.
    A fresh client starts with last = t; days behind the clock, with the clock.

    `limit` bounds the memory: at an event whose client is not kept while `limit` are, the lightest quarter is
    forgotten first (smallest weight decayed to the clock before that event; of equals, who came first). Who is
    kept follows from the order of rows alone too: nothing depends on how they are cut into batches.
    """

    def __init__(self, limit: int = MAX_CLIENTS) -> None:
        self._limit = limit
        self._slot: dict[str, int] = {}
        self._free: list[int] = []
        self._last = np.full(64, _FRESH)
        self._sums = np.zeros((64, _COLUMNS))
        self._clock = _FRESH
        self._sweep_at = min(_SWEEP_FROM, limit)

    def __len__(self) -> int:
        """Clients in memory; some of them may be forgotten already."""
        return len(self._slot)

    def advance(self, clients: Sequence[str], seconds: Floats, signals: Floats, prior: Floats) -> Floats:
        """Take events in order; give the client means at each, the event itself among them.

        `seconds` float64 [n], event time; `signals` float64 [n, 5] in the order of CLIENT_SIGNALS; `prior`
        float64 [5]. Returns float64 [n, 10]: for every signal its horizons.
        """
        means = np.empty((len(clients), _MEANS))
        start = 0
        while start < len(clients):
            slot = self._slots(clients[start:] if start else clients)
            if len(slot):
                rows = slice(start, start + len(slot))
                means[rows] = self._take(slot, seconds[rows], signals[rows], prior)
                start = rows.stop
            if start < len(clients):
                self._make_room()
        return means

    def table(self) -> dict[str, list[str] | Floats]:
        """The whole state by column, a row a client: what `of_table` takes. It shares nothing with the state."""
        names = list(self._slot)
        slot = np.fromiter(self._slot.values(), dtype=np.int64, count=len(names))
        columns = np.ascontiguousarray(self._sums[slot].T)
        return {
            "client": names,
            "clock": np.full(len(names), self._clock),
            "sweep_at": np.full(len(names), float(self._sweep_at)),
            "last": self._last[slot],
            **{f"weight_{i}": columns[i] for i in range(_HORIZONS)},
            **{f"sum_{i}": columns[_HORIZONS + i] for i in range(_MEANS)},
        }

    @classmethod
    def of_table(cls, table: Mapping[str, Sequence[str] | Floats], limit: int = MAX_CLIENTS) -> ClientState:
        """The state that gave `table`: every later number is the same, to the bit."""
        state, names = cls(limit), table["client"]
        n = len(names)
        if not n:
            return state
        state._slot = {str(name): slot for slot, name in enumerate(names)}
        state._reserve(n)
        state._last[:n] = table["last"]
        for i in range(_HORIZONS):
            state._sums[:n, i] = table[f"weight_{i}"]
        for i in range(_MEANS):
            state._sums[:n, _HORIZONS + i] = table[f"sum_{i}"]
        state._clock = float(np.asarray(table["clock"])[0])
        # A table of an earlier release does not tell; nor would a point chosen under another limit do.
        swept = int(np.asarray(table["sweep_at"])[0]) if "sweep_at" in table else max(_SWEEP_FROM, 2 * n)
        state._sweep_at = min(max(swept, n), limit)
        return state

    def _slots(self, clients: Sequence[str]) -> Ints:
        """Slots of the first clients, up to the one for whom room must be made."""
        known, free = self._slot, self._free
        slots = list(map(known.get, clients))
        if None in slots:
            new = dict.fromkeys(client for client, slot in zip(clients, slots, strict=True) if slot is None)
            room = self._sweep_at - len(known)
            if len(new) > room:
                stop = clients.index(next(itertools.islice(new, max(room, 0), None)))
                clients, new = clients[:stop], dict.fromkeys(itertools.islice(new, max(room, 0)))
            for client in new:
                known[client] = free.pop() if free else len(known)
            slots = list(map(known.get, clients))
        self._reserve(len(known) + len(free))
        return np.array(slots, dtype=np.int64)

    def _reserve(self, slots: int) -> None:
        if slots > len(self._last):
            more = slots + slots // 2 - len(self._last)
            self._last = np.concatenate([self._last, np.full(more, _FRESH)])
            self._sums = np.concatenate([self._sums, np.zeros((more, _COLUMNS))])

    def _take(self, slot: Ints, seconds: Floats, signals: Floats, prior: Floats) -> Floats:
        """Client means [n, 10] of rows in order, whose clients have their slots; the state moves on."""
        n = len(slot)
        clock = np.maximum(np.maximum.accumulate(seconds), self._clock)
        self._clock = float(clock[-1])

        by_client = np.argsort(slot, kind="stable")
        slot = slot[by_client]
        first = np.flatnonzero(np.r_[True, slot[1:] != slot[:-1]])
        rows_of = np.diff(np.r_[first, n])
        of_client = slot[first]
        group = np.repeat(np.arange(len(first)), rows_of)
        last, since = self._since(of_client, first, group, seconds[by_client], clock[by_client])

        # Rows are laid out in rounds: every client's first row, every client's second, ... Within a round clients
        # with more rows come first, so that those of a round are the head of those of the round before.
        place = np.empty(len(first), dtype=np.int64)
        place[np.argsort(-rows_of, kind="stable")] = np.arange(len(first))
        width = len(first) - np.cumsum(np.bincount(rows_of))[:-1]
        starts = np.r_[0, np.cumsum(width)]
        in_round = starts[np.arange(n) - first[group]] + place[group]
        laid = np.empty(n, dtype=np.int64)
        laid[in_round] = by_client

        decay = np.empty((n, _HORIZONS))
        decay[in_round] = np.exp(np.minimum(since, 0.0)[:, None] / _TAUS)
        added = np.ones((n, _COLUMNS))
        added[:, _HORIZONS:] = np.repeat(signals[laid], _HORIZONS, axis=1)
        sums = np.tile(decay, (1, 1 + len(CLIENT_SIGNALS)))
        before = np.empty((len(first), _COLUMNS))
        before[place] = self._sums[of_client]
        _recur(sums, added, before, starts.tolist())

        ends = starts[rows_of - 1] + place
        self._last[of_client] = last[np.r_[first[1:], n] - 1]
        self._sums[of_client] = sums[ends]
        weights = np.tile(sums[:, :_HORIZONS] + STRENGTH, (1, len(CLIENT_SIGNALS)))
        means = np.empty((n, _MEANS))
        means[laid] = (sums[:, _HORIZONS:] + np.repeat(STRENGTH * prior, _HORIZONS)) / weights
        return means

    def _since(
        self, of_client: Ints, first: Ints, group: Ints, seconds: Floats, clock: Floats
    ) -> tuple[Floats, Floats]:
        """`last` after each row [n], and `last` before it less the row's time [n], of rows grouped by client.

        The latter is -inf for a client without a past, so that it decays to nothing."""
        n = len(seconds)
        stored = self._last[of_client]
        latest = seconds
        if not ((seconds[1:] >= seconds[:-1]) | (group[1:] != group[:-1])).all():
            # The running maximum of each group at once: over ranks of time, each group above the one before.
            in_time = np.argsort(seconds, kind="stable")
            rank = np.empty(n, dtype=np.int64)
            rank[in_time] = np.arange(n)
            latest = seconds[in_time[np.maximum.accumulate(group * n + rank) - group * n]]
        last = np.maximum(latest, stored[group])
        before = np.r_[_FRESH, last[:-1]]
        before[first] = stored
        quiet = (clock - before > _QUIET) & ((before != _FRESH) | (clock - seconds >= _QUIET))
        since = before - seconds
        for one in np.unique(group[quiet]).tolist():
            start = int(first[one])
            stop = int(first[one + 1]) if one + 1 < len(first) else n
            self._forget(slice(start, stop), int(of_client[one]), seconds, clock, last, since)
        return last, since

    def _forget(self, rows: slice, slot: int, seconds: Floats, clock: Floats, last: Floats, since: Floats) -> None:
        """The same for the rows of one client, who was quiet for long: forgotten, perhaps, at some of them."""
        past, weight = float(self._last[slot]), float(self._sums[slot, _HORIZONS - 1])
        for row, t, now in zip(range(rows.start, rows.stop), seconds[rows].tolist(), clock[rows].tolist(), strict=True):
            gap = now - past
            if gap > _QUIET and (past == _FRESH or weight * exp(-gap / LONG) < EPSILON):
                since[row], weight = _FRESH, 1.0
                # Days behind the clock (an old file shipped after a new one), its own time would let it be
                # forgotten between any two of its events.
                past = t if now - t < _QUIET else now
            else:
                since[row] = past - t
                weight = weight * float(np.exp(min(past - t, 0.0) / LONG)) + 1.0
                past = max(past, t)
            last[row] = past

    def _make_room(self) -> None:
        """Let the forgotten leave the memory, now and then, so that the cost is spread over the events; where the
        limit is reached, forget the lightest."""
        full = len(self._slot) >= self._limit
        self._sweep()
        keep = self._limit - max(1, self._limit // 4)
        if full and len(self._slot) > keep:
            names = list(self._slot)
            slots = np.fromiter(self._slot.values(), dtype=np.int64, count=len(names))
            lightest = np.argsort(self._weights()[slots], kind="stable")[: len(names) - keep]
            self._remove([names[i] for i in lightest.tolist()])
        self._sweep_at = min(self._limit, max(_SWEEP_FROM, 2 * len(self._slot)))

    def _sweep(self) -> None:
        # The hundredth covers rounding: who leaves here must count as forgotten at every later event.
        gone = self._weights() < EPSILON * 0.99
        self._remove([client for client, slot in self._slot.items() if gone[slot]])

    def _weights(self) -> Floats:
        """Weight of every slot, by the longest horizon, decayed to the clock."""
        weights: Floats = self._sums[:, _HORIZONS - 1] * np.exp((self._last - self._clock) / LONG)
        return weights

    def _remove(self, clients: Sequence[str]) -> None:
        for client in clients:
            slot = self._slot.pop(client)
            self._free.append(slot)
            self._last[slot] = _FRESH
            self._sums[slot] = 0.0


_TAUS = np.array([SHORT, LONG])


def _recur(sums: Floats, added: Floats, before: Floats, starts: list[int]) -> None:
    """s <- s * decay + added, round by round; `sums` holds the decays and is overwritten, all [n, columns].

    One multiplication, one addition a row, in the rows' order: the same bits in every batch."""
    for this, following in itertools.pairwise(starts):
        width = following - this
        if width < _NARROW:
            _recur_narrow(sums, added, before, this, starts)
            return
        rows = sums[this:following]
        np.multiply(rows, before[:width], out=rows)
        np.add(rows, added[this:following], out=rows)
        before = rows


def _recur_narrow(sums: Floats, added: Floats, before: Floats, this: int, starts: list[int]) -> None:
    """The rest, from the round that begins at `this`: client by client, column by column."""
    rounds = np.array([start for start in starts if start >= this])
    for place in range(rounds[1] - rounds[0]):
        rows = rounds[:-1][np.diff(rounds) > place] + place
        for column in range(sums.shape[1]):
            total, totals = float(before[place, column]), []
            for keep, value in zip(sums[rows, column].tolist(), added[rows, column].tolist(), strict=True):
                total = total * keep + value
                totals.append(total)
            sums[rows, column] = totals
