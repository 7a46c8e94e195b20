"""The bound on clients in memory, against a plain reading of its definition; and what leaves the memory."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oddlog.features.clients import EPSILON, STRENGTH, ClientState

DAY = 86_400.0
PRIOR = np.array([0.1, 2.0, 0.2, 0.5, 0.05])


class Plain:
    """One event at a time, a dictionary of clients in the order in which they came."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.kept: dict[str, tuple[float, list[float], npt.NDArray[np.float64]]] = {}
        self.clock = -math.inf

    def weight(self, client: str) -> float:
        last, weights, _ = self.kept[client]
        return weights[1] * math.exp((last - self.clock) / DAY)

    def take(self, client: str, t: float, signals: npt.NDArray[np.float64]) -> list[float]:
        if client not in self.kept and len(self.kept) >= self.limit:
            self.kept = {one: kept for one, kept in self.kept.items() if self.weight(one) >= EPSILON * 0.99}
            room = self.limit - max(1, self.limit // 4)
            for one in sorted(self.kept, key=self.weight)[: max(0, len(self.kept) - room)]:
                del self.kept[one]
        self.clock = max(self.clock, t)
        if client in self.kept and self.weight(client) >= EPSILON:
            last, weights, sums = self.kept[client]
        else:
            last = t if self.clock - t < 9 * DAY else self.clock
            weights, sums = [0.0, 0.0], np.zeros((5, 2))
        gap = max(0.0, t - last)
        decay = [math.exp(-gap / tau) for tau in (3_600.0, DAY)]
        weights = [weight * d + 1.0 for weight, d in zip(weights, decay, strict=True)]
        sums = sums * np.array(decay) + signals[:, None]
        self.kept[client] = (max(last, t), weights, sums)
        means = (sums + STRENGTH * PRIOR[:, None]) / (np.array(weights) + STRENGTH)
        return [float(value) for value in means.ravel()]


@settings(max_examples=60, deadline=None)
@given(
    limit=st.integers(1, 9),
    events=st.lists(
        st.tuples(st.integers(0, 14), st.floats(0, 3_000, width=16), st.integers(0, 3)), min_size=1, max_size=80
    ),
    jumps=st.sets(st.integers(0, 79), max_size=3),
    cut=st.integers(0, 80),
)
def test_who_is_kept_is_what_the_definition_says(
    limit: int, events: list[tuple[int, float, int]], jumps: set[int], cut: int
) -> None:
    state, plain = ClientState(limit), Plain(limit)
    clients = [f"c{client}" for client, _, _ in events]
    ahead = np.cumsum([12 * DAY if row in jumps else 0.0 for row in range(len(events))])
    seconds = 30.0 * np.arange(len(events)) + np.array([late for _, late, _ in events]) + ahead
    signals = np.array([[n, 1.0, n / 2, 1.0, 0.0] for _, _, n in events])
    expected = [plain.take(c, t, x) for c, t, x in zip(clients, seconds.tolist(), signals, strict=True)]
    found = [
        state.advance(clients[part], seconds[part], signals[part], PRIOR) for part in (slice(0, cut), slice(cut, None))
    ]
    np.testing.assert_allclose(np.concatenate(found), expected, rtol=1e-9)
    assert list(state.table()["client"]) == list(plain.kept)
    assert len(state) <= limit


@pytest.mark.parametrize("limit", [1, 50, 1_000, 3_000])
def test_memory_stays_within_the_limit(limit: int) -> None:
    state, n = ClientState(limit), min(4_000, 100 + 20 * limit)  # a state of one makes room at every event
    for start in range(0, 5 * n, n):
        names = [f"c{number}" for number in range(start, start + n)]
        state.advance(names, np.arange(start, start + n, dtype=float), np.ones((n, 5)), PRIOR)
        assert len(state) <= limit
        assert len(state._last) <= 2 * limit + 64
    assert len(state) >= limit - max(1, limit // 4)


def test_a_state_of_before_the_limit_is_taken_and_brought_within_it() -> None:
    n = 100
    wide = ClientState()
    wide.advance([f"c{i}" for i in range(n)], np.arange(n, dtype=float), np.ones((n, 5)), PRIOR)
    table = wide.table()
    del table["sweep_at"]  # as an earlier release wrote it
    narrow = ClientState.of_table(table, 10)
    assert len(narrow) == n
    narrow.advance(["c99"], np.array([100.0]), np.ones((1, 5)), PRIOR)
    assert len(narrow) == n
    narrow.advance(["new"], np.array([101.0]), np.ones((1, 5)), PRIOR)
    assert list(narrow.table()["client"]) == [*(f"c{i}" for i in range(92, 100)), "new"]
