"""The threshold keeps its budget of alerts, and is the lowest that does."""

from __future__ import annotations

import datetime as dt

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oddlog.errors import UsageError
from oddlog.scoring.threshold import (
    MOST_SHARE,
    NOVELTY_SHARE,
    alerts_per_day,
    anomalies,
    count_alerts,
    fit_threshold,
    flagged_per_day,
    parse_budget,
)

START = dt.datetime(2024, 3, 1, tzinfo=dt.UTC)


def traffic(days: float, clients: int, seed: int = 0, per_client: int = 20) -> tuple[np.ndarray, pl.Series, pl.Series]:
    rng = np.random.default_rng(seed)
    n = clients * per_client
    seconds = np.sort(rng.uniform(0, days * 86_400, n))
    times = pl.Series([START + dt.timedelta(seconds=float(s)) for s in seconds])
    names = pl.Series([f"192.0.2.{i}" for i in rng.integers(0, clients, n)])
    return rng.gumbel(size=n).astype(np.float32), names, times


def test_an_alert_is_a_client_in_an_hour() -> None:
    times = [START + dt.timedelta(minutes=m) for m in (0, 59, 60, 61, 0)]
    clients = ["a", "a", "a", "a", "b"]
    assert count_alerts([9, 9, 9, 1, 9], clients, times, 9) == 3
    assert count_alerts([9, 9, 9, 1, 9], clients, times, 9.5) == 0
    assert count_alerts([9, 9, 9, 1, 9], clients, times, 1) == 3


@pytest.mark.parametrize("budget", [1, 5, 20])
def test_budget_is_spent_and_not_overspent(budget: float) -> None:
    scores, clients, times = traffic(3, 60)
    fitted = fit_threshold(scores, clients, times, budget)
    days = (fitted.until - fitted.since) / dt.timedelta(days=1)
    alerts = count_alerts(scores, clients, times, fitted.value)
    assert alerts == int(budget * days)
    assert fitted.expected_per_day == pytest.approx(alerts / days)
    assert fitted.expected_per_day == pytest.approx(alerts_per_day(scores, clients, times, fitted.value))


def test_the_lowest_value_that_keeps_the_budget() -> None:
    scores, clients, times = traffic(2, 50)
    fitted = fit_threshold(scores, clients, times, 10)
    next_lower = scores[scores < fitted.value].max()
    days = (fitted.until - fitted.since) / dt.timedelta(days=1)
    assert count_alerts(scores, clients, times, float(next_lower)) > 10 * days


def test_half_a_day_may_spend_half() -> None:
    scores, clients, times = traffic(0.5, 80)
    since, until = START, START + dt.timedelta(hours=12)
    fitted = fit_threshold(scores, clients, times, 20, since=since, until=until)
    assert count_alerts(scores, clients, times, fitted.value) == 10
    assert (fitted.since, fitted.until) == (since, until)
    assert fitted.expected_per_day == pytest.approx(20)


def test_minutes_count_as_an_hour_and_allow_what_an_hour_does() -> None:
    scores, clients, times = traffic(5 / 1440, 90)
    assert count_alerts(scores, clients, times, fit_threshold(scores, clients, times, 20).value) == 0
    assert count_alerts(scores, clients, times, fit_threshold(scores, clients, times, 49).value) == 2


def test_a_generous_budget_does_not_make_the_common_odd() -> None:
    scores, clients, times = traffic(1, 10)
    fitted = fit_threshold(scores, clients, times, 1e6)
    hours = count_alerts(scores, clients, times, -np.inf)
    assert count_alerts(scores, clients, times, fitted.value) == int(hours * MOST_SHARE)


def test_a_tie_that_would_break_the_budget_stays_silent() -> None:
    times = [START + dt.timedelta(hours=h) for h in range(25)]
    clients = [f"c{h}" for h in range(25)]
    scores = [1.0] * 20 + [5.0] * 5
    fitted = fit_threshold(scores, clients, times, 2)
    assert count_alerts(scores, clients, times, fitted.value) == 0
    assert fitted.value == pytest.approx(5.0, rel=1e-4)
    assert fitted.expected_per_day == 0


def test_all_scores_equal_alert_on_nothing() -> None:
    scores, clients, times = traffic(1, 40)
    flat = np.full_like(scores, 0.25)
    assert count_alerts(flat, clients, times, fit_threshold(flat, clients, times, 20).value) == 0


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.floats(0.5, 100), st.floats(0.01, 4))
def test_never_over_budget(seed: int, budget: float, days: float) -> None:
    scores, clients, times = traffic(days, 12, seed, per_client=6)
    scores = np.round(scores, 1)  # ties
    fitted = fit_threshold(scores, clients, times, budget, since=START, until=START + dt.timedelta(days=days))
    assert count_alerts(scores, clients, times, fitted.value) <= budget * max(days, 1 / 24)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.floats(0.5, 100), st.floats(0.01, 4), st.booleans())
def test_both_channels_together_keep_the_budget(seed: int, budget: float, days: float, alike: bool) -> None:
    scores, clients, times = traffic(days, 30, seed=seed)
    novelty = scores if alike else np.random.default_rng(seed + 1).gumbel(size=len(scores)).astype(np.float32)
    first, last = times.min(), times.max()
    found = fit_threshold(scores, clients, times, budget, novelty=novelty)
    assert found.novelty is not None
    either, second = anomalies(found, scores, novelty)
    length = max((last - first) / dt.timedelta(days=1), 1 / 24)  # type: ignore[operator]
    alerts = flagged_per_day(either, clients, times) * length
    assert alerts <= budget * length + 1e-6
    assert found.expected_per_day * length == pytest.approx(alerts)
    assert found.novelty.expected_per_day * length <= NOVELTY_SHARE * budget * length + 1e-6
    assert (either == ((scores >= found.value) | second)).all()


def test_novelty_has_its_share_and_spends_it_on_what_the_first_channel_leaves() -> None:
    scores, clients, times = traffic(4, 200)
    novelty = scores.copy()  # what the first channel alerts on is the most novel too: that costs novelty nothing
    quiet = np.argsort(scores)[:400]
    novelty[quiet] = np.linspace(3, 4, 400, dtype=np.float32)
    found = fit_threshold(scores, clients, times, 20, novelty=novelty)
    assert found.novelty is not None
    share = 20 * NOVELTY_SHARE
    assert found.novelty.budget_per_day == pytest.approx(share)
    assert found.novelty.expected_per_day == pytest.approx(share, abs=0.3)
    either, second = anomalies(found, scores, novelty)
    first, _ = anomalies(found, scores)
    assert flagged_per_day(first, clients, times) == pytest.approx(20 - share, abs=0.3)
    assert flagged_per_day(either, clients, times) == pytest.approx(20.0, abs=0.5)
    assert (second & ~first).any()


def test_a_budget_too_small_to_share_is_the_first_channels() -> None:
    scores, clients, times = traffic(4, 200)
    novelty = np.random.default_rng(2).gumbel(size=len(scores)).astype(np.float32)
    alone, both = fit_threshold(scores, clients, times, 2), fit_threshold(scores, clients, times, 2, novelty=novelty)
    assert both.novelty is not None
    assert both.value == alone.value
    _, second = anomalies(both, scores, novelty)
    first, _ = anomalies(alone, scores)
    assert both.novelty.expected_per_day == 0
    assert not (second & ~first).any()


def test_like_alerts_of_a_day_count_once() -> None:
    """A thousand clients ask for one thing once each and score highest: one place of the budget, not all of them."""
    scores, clients, times = traffic(4, 200)
    rng = np.random.default_rng(3)
    bots = pl.Series([f"203.0.113.{i}" for i in range(1_000)])
    at = pl.Series([START + dt.timedelta(seconds=float(s)) for s in rng.uniform(0, 4 * 86_400, 1_000)])
    both = np.concatenate([scores, np.full(1_000, 50.0, np.float32)])
    names, when = pl.concat([clients, bots]), pl.concat([times, at])
    behaviours = np.concatenate([np.arange(len(scores)), np.full(1_000, 10**6)])
    clean = fit_threshold(scores, clients, times, 20)
    spent = fit_threshold(both, names, when, 20)
    once = fit_threshold(both, names, when, 20, behaviours=behaviours)
    assert count_alerts(scores, clients, times, spent.value) == 0
    assert flagged_per_day(both >= once.value, names, when, behaviours) <= 20
    assert once.expected_per_day == pytest.approx(20, abs=0.3)
    found, before = (count_alerts(scores, clients, times, one.value) for one in (once, clean))
    assert found == pytest.approx(before - 4, abs=3)  # the attack takes one place a day
    assert flagged_per_day(both >= once.value, names, when) > 200


def test_without_a_second_threshold_novelty_says_nothing() -> None:
    scores, clients, times = traffic(1, 50)
    alone = fit_threshold(scores, clients, times, 20)
    assert alone.novelty is None
    either, second = anomalies(alone, scores, np.full(len(scores), 1e9))
    assert (either == (scores >= alone.value)).all()
    assert not second.any()


def test_versions_and_naive_times() -> None:
    times = np.array(["2024-03-01T00:00", "2024-03-02T00:00"], dtype="datetime64[ms]")
    fitted = fit_threshold([1.0, 2.0], ["a", "b"], times, 20, version="3")
    assert fitted.version == "3"
    assert fitted.since == START


@pytest.mark.parametrize("text", ["20", "20/hour", "-3/day", "lots", "1e3/day"])
def test_budgets_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="alert budget"):
        parse_budget(text)


def test_a_budget_of_part_of_an_alert() -> None:
    assert parse_budget(" 0.5 / day ") == 0.5


def test_nothing_to_learn_from() -> None:
    with pytest.raises(UsageError, match="no events"):
        fit_threshold([], [], pl.Series([], dtype=pl.Datetime("ms", "UTC")), 20)
    with pytest.raises(UsageError, match="0 a day"):
        fit_threshold([1.0], ["a"], [START], 0)
    with pytest.raises(UsageError, match="2 scores, 1 clients"):
        fit_threshold([1.0, 2.0], ["a"], [START], 20)
