"""Features against a plain reading of their definition, on any traffic, and against how batches are cut."""

from __future__ import annotations

import itertools

import numpy as np
import polars as pl
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from oddlog.features.baseline import Baseline
from oddlog.features.compute import FeatureComputer, fit_features
from oddlog.features.fitting import fit_baseline
from tests.plain_features import STANDARD, Plain, event, frame

CLIENTS = ["192.0.2.1", "192.0.2.2", "2001:db8::1", "host.example", "192.0.2.3"]
URLS = [
    "/",
    "/a",
    "/a/b.css",
    "/a/17?page=3",
    "/a/18?page=4",
    "/shop/0123456789abcdef/cart",
    "/wp-login.php",
    "",
    "*",
    "//x//y",
    "http://other.example/a",
    "\\x16\\x03\\x01",
    "/ä/ü?q=%27%20OR%201=1",
    "/a?" + "x=1&" * 200,
    *STANDARD,
    "/.well-known/shell.php",
]
MOMENTS = st.one_of(
    st.integers(0, 7_200),
    st.integers(0, 3 * 86_400),
    st.sampled_from([0, 3_600, 9 * 86_400, 10 * 86_400, 25 * 86_400, 60 * 86_400]),
)


@st.composite
def traffic(draw: st.DrawFn, *, most: int = 40, agents: int = 4) -> pl.DataFrame:
    """Events late, repeated, out of order, with everything missing that may be missing."""
    rows = draw(
        st.lists(
            st.builds(
                lambda client, url, seconds, status, method, agent, partition: event(
                    client, url, seconds=seconds, status=status, method=method, agent=agent, partition=partition
                ),
                st.sampled_from(CLIENTS),
                st.sampled_from(URLS),
                MOMENTS,
                st.sampled_from([200, 200, 304, 404, 500, None, 999, 1200]),
                st.sampled_from(["GET", "POST", "", "HEAD"]),
                st.one_of(st.none(), st.integers(0, agents).map(lambda n: f"agent {n}")),
                st.integers(0, 1),
            ),
            min_size=1,
            max_size=most,
        )
    )
    if draw(st.booleans()):
        rows.sort(key=lambda row: row["time"])
    return frame(rows)


SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large]


@settings(max_examples=30, deadline=None, suppress_health_check=SLOW)
@given(fitted=traffic(), later=traffic())
def test_features_are_what_the_definition_says(fitted: pl.DataFrame, later: pl.DataFrame) -> None:
    baseline, data = fit_features(fitted)
    plain = Plain(fitted)
    np.testing.assert_allclose(data.features, plain.fitted, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(FeatureComputer(baseline).compute(later), plain.features(later), rtol=1e-5, atol=1e-6)
    same = np.array(plain.behaviour, dtype=object)
    assert all((data.behaviour == data.behaviour[i]).tolist() == [b == same[i] for b in same] for i in range(len(same)))


@settings(max_examples=15, deadline=None, suppress_health_check=SLOW)
@given(fitted=traffic(most=60, agents=60), later=traffic(most=20))
def test_user_agents_are_counted_too_where_there_are_enough(fitted: pl.DataFrame, later: pl.DataFrame) -> None:
    many = frame([event("192.0.2.9", f"/p{n % 7}", agent=f"more {n}", status=404 if n % 5 else 200) for n in range(22)])
    fitted = pl.concat([fitted, many])
    baseline, data = fit_features(fitted)
    plain = Plain(fitted)
    assert len(baseline.units) == len(plain.counted) == 2
    np.testing.assert_allclose(data.features, plain.fitted, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(FeatureComputer(baseline).compute(later), plain.features(later), rtol=1e-5, atol=1e-6)


@settings(max_examples=30, deadline=None, suppress_health_check=SLOW)
@given(fitted=traffic(most=20), stream=traffic(most=60), cuts=st.lists(st.integers(0, 60)))
def test_batches_may_be_cut_anywhere(fitted: pl.DataFrame, stream: pl.DataFrame, cuts: list[int]) -> None:
    baseline = fit_baseline(fitted).baseline
    whole = FeatureComputer(baseline).compute(stream)
    bounds = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    in_batches, one_by_one = FeatureComputer(baseline), FeatureComputer(baseline)
    parts = [in_batches.compute(stream[a:b]) for a, b in itertools.pairwise(bounds)]
    single = [one_by_one.compute(stream[row : row + 1]) for row in range(len(stream))]
    np.testing.assert_array_equal(np.concatenate(parts), whole)  # bit for bit
    np.testing.assert_array_equal(np.concatenate(single), whole)


@settings(max_examples=30, deadline=None, suppress_health_check=SLOW)
@given(fitted=traffic(most=20), stream=traffic(most=40))
def test_partitions_do_not_mix(fitted: pl.DataFrame, stream: pl.DataFrame) -> None:
    baseline = fit_baseline(fitted).baseline
    whole = FeatureComputer(baseline).compute(stream)
    for number in (0, 1):
        rows = (stream["oddlog.position.partition"] == number).to_numpy()
        np.testing.assert_array_equal(FeatureComputer(baseline).compute(stream.filter(rows)), whole[rows])


@settings(max_examples=20, deadline=None, suppress_health_check=SLOW)
@given(fitted=traffic(), later=traffic(most=10))
def test_a_baseline_survives_its_bytes(fitted: pl.DataFrame, later: pl.DataFrame) -> None:
    baseline = fit_baseline(fitted).baseline
    again = Baseline.from_arrow(baseline.to_arrow())
    assert again.digest == baseline.digest
    assert again.to_arrow() == baseline.to_arrow()
    np.testing.assert_array_equal(FeatureComputer(again).compute(later), FeatureComputer(baseline).compute(later))
