"""Parity: the features of a stream are the same to the bit, however it comes: whole, event by event, cut, restarted."""

from __future__ import annotations

import itertools

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from oddlog.events.record import Partition
from oddlog.features import compute
from oddlog.features.compute import FeatureComputer
from oddlog.features.fitting import fit_baseline
from tests.plain_features import event, frame

PARTITIONS = [Partition("e1", "t", number) for number in (0, 1)]
CLIENTS = ["192.0.2.1", "192.0.2.2", "2001:db8::1", "host.example", "192.0.2.3"]
URLS = ["/", "/a", "/a/b.css", "/a/17?page=3", "/wp-login.php", "", "/favicon.ico", "/ä/ü?q=%27%20OR%201=1"]
MOMENTS = st.one_of(
    st.integers(0, 7_200),
    st.sampled_from([0, 3_600, 9 * 86_400, 10 * 86_400, 25 * 86_400, 60 * 86_400]),
)


@st.composite
def stream(draw: st.DrawFn, *, most: int) -> pl.DataFrame:
    """Events late, out of order, or, in half of the cases, in order; then some of them once more, anywhere."""
    rows = draw(
        st.lists(
            st.builds(
                lambda client, url, seconds, status, method, partition: event(
                    client, url, seconds=seconds, status=status, method=method, partition=partition
                ),
                st.sampled_from(CLIENTS),
                st.sampled_from(URLS),
                MOMENTS,
                st.sampled_from([200, 404, None]),
                st.sampled_from(["GET", "POST", ""]),
                st.integers(0, 1),
            ),
            min_size=1,
            max_size=most,
        )
    )
    if draw(st.booleans()):
        rows.sort(key=lambda row: row["time"])
    for row, place in draw(st.lists(st.tuples(st.sampled_from(rows), st.integers(0, most)), max_size=6)):
        rows.insert(place, row)
    return frame(rows)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(
    fitted=stream(most=20),
    events=stream(most=50),
    cuts=st.lists(st.integers(1, 50), max_size=8),
    max_clients=st.sampled_from([1, 2, 4, 1_000]),
)
def test_batch_form_and_incremental_form_agree(
    fitted: pl.DataFrame, events: pl.DataFrame, cuts: list[int], max_clients: int
) -> None:
    """Over late, out-of-order and repeated events, with room for every client and without."""
    baseline = fit_baseline(fitted).baseline

    def computer() -> FeatureComputer:
        return FeatureComputer(baseline, max_clients=max_clients)

    batch = computer().compute(events)
    one_by_one, in_batches, restarted = computer(), computer(), computer()
    incremental = [one_by_one.compute(events[row : row + 1]) for row in range(len(events))]
    np.testing.assert_array_equal(np.concatenate(incremental), batch)
    bounds = sorted({0, len(events), *(cut for cut in cuts if cut < len(events))})
    parts = [in_batches.compute(events[a:b]) for a, b in itertools.pairwise(bounds)]
    np.testing.assert_array_equal(np.concatenate(parts), batch)
    after_restarts = []
    for a, b in itertools.pairwise(bounds):
        after_restarts.append(restarted.compute(events[a:b]))
        tables = [restarted.client_table(partition) for partition in PARTITIONS]
        restarted = computer()
        for partition, table in zip(PARTITIONS, tables, strict=True):
            restarted.take_client_table(partition, table)
    np.testing.assert_array_equal(np.concatenate(after_restarts), batch)


def test_busy_clients_and_many_clients_agree_too() -> None:
    """Long batches take other ways through the arithmetic than short ones: wide rounds, then narrow ones."""
    chance = np.random.default_rng(1)
    busy = np.minimum(chance.geometric(0.02, 3_000), 400)
    rows = [
        event(f"c{client}", f"/p{n % 11}", seconds=int(n / 7 - 90 * (n % 13 == 0)), status=404 if n % 5 == 0 else 200)
        for n, client in enumerate(busy.tolist())
    ]
    events = frame(rows)
    baseline = fit_baseline(events[:300]).baseline
    whole = FeatureComputer(baseline).compute(events)
    for size in (1, 37, 1_024):
        computer = FeatureComputer(baseline)
        parts = [computer.compute(part) for part in events[:1_500].iter_slices(size)]
        np.testing.assert_array_equal(np.concatenate(parts), whole[:1_500])


def test_a_frame_longer_than_a_slice_is_computed_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    events = frame([event(f"c{n % 7}", f"/p{n % 5}", seconds=n, status=404 if n % 3 else 200) for n in range(50)])
    baseline = fit_baseline(events).baseline
    whole = FeatureComputer(baseline).compute(events)
    monkeypatch.setattr(compute, "SLICE_ROWS", 7)
    np.testing.assert_array_equal(FeatureComputer(baseline).compute(events), whole)
