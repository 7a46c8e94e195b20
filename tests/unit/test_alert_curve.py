"""The curve gives the thresholds that fit_threshold gives, for budgets that were not asked for when it was learnt."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from oddlog.errors import UsageError
from oddlog.scoring.alert_curve import BUDGETS, AlertCurve, fit_alert_curve
from oddlog.scoring.threshold import alerts_per_day, anomalies, fit_threshold, flagged_per_day
from training.threshold import cautions_of, threshold_for

START = dt.datetime(2024, 3, 1, tzinfo=dt.UTC)


def traffic(
    days: float, clients: int, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, pl.Series, pl.Series, np.ndarray]:
    """Scores, novelty, clients, times and behaviours of 20 events a client, with ties."""
    rng = np.random.default_rng(seed)
    n = clients * 20
    seconds = np.sort(rng.uniform(0, days * 86_400, n))
    times = pl.Series([START + dt.timedelta(seconds=float(s)) for s in seconds])
    number = rng.integers(0, clients, n)
    scores, novelty = (rng.gumbel(size=n).round(2).astype(np.float32) for _ in range(2))
    return scores, novelty, pl.Series([f"192.0.2.{i}" for i in number]), times, number // 3


@settings(deadline=None, max_examples=12)
@given(st.integers(0, 10_000), st.floats(0.02, 4), st.booleans(), st.booleans())
def test_usual_budgets_are_exact(seed: int, days: float, second: bool, alike: bool) -> None:
    scores, novelty, clients, times, behaviours = traffic(days, 60, seed)
    options: Any = {"novelty": novelty if second else None, "behaviours": behaviours if alike else None}
    curve = fit_alert_curve(scores, clients, times, budget_per_day=17.3, **options)
    for budget in (*BUDGETS, 17.3, 1e6):
        exact = fit_threshold(scores, clients, times, budget, version="4", **options)
        assert curve.threshold(budget, version="4") == exact
    assert AlertCurve.model_validate_json(curve.model_dump_json()) == curve


@settings(deadline=None, max_examples=12)
@given(st.integers(0, 10_000), st.floats(0.3, 400))
def test_any_other_budget_is_kept_and_nearly_spent(seed: int, budget: float) -> None:
    scores, novelty, clients, times, _ = traffic(3, 200, seed)
    curve = fit_alert_curve(scores, clients, times, novelty=novelty)
    found = curve.threshold(budget, version="2")
    flagged, _ = anomalies(found, scores, novelty)
    exact = fit_threshold(scores, clients, times, budget, novelty=novelty)
    assert found.expected_per_day == pytest.approx(flagged_per_day(flagged, clients, times))
    assert 0.85 * exact.expected_per_day - 0.7 <= found.expected_per_day <= budget + 1e-6
    assert found.novelty is not None


def test_alerts_of_any_value_are_told() -> None:
    scores, novelty, clients, times, _ = traffic(5, 300)
    curve = fit_alert_curve(scores, clients, times, novelty=novelty)
    assert curve.alerts_per_day(1e9) == 0
    assert curve.alerts_per_day(-1e9) is None
    for value in np.linspace(curve.values[-1], scores.max(), 30):
        exact = alerts_per_day(scores, clients, times, value)
        told = curve.alerts_per_day(float(value))
        assert told is not None
        assert exact - 1e-9 <= told <= 1.11 * exact + 1 / curve.days


def test_a_sample_of_the_clients_stands_for_all_of_them() -> None:
    scores, novelty, clients, times, _ = traffic(4, 400)
    curve = fit_alert_curve(scores, clients, times, novelty=novelty, share=0.25)
    found = curve.threshold(20, version="1")
    flagged, _ = anomalies(found, scores, novelty)
    alerts = flagged_per_day(flagged, clients, times)
    assert 4.2 < alerts <= 5  # scores tie
    assert found.expected_per_day == pytest.approx(4 * alerts)
    assert found.budget_per_day == 20
    assert found.novelty is not None
    assert found.novelty.budget_per_day == 1


def test_what_is_no_curve_or_no_budget_is_refused() -> None:
    scores, _, clients, times, _ = traffic(1, 40)
    curve = fit_alert_curve(scores, clients, times)
    with pytest.raises(UsageError, match="0 a day"):
        curve.threshold(0, version="1")
    wrong: list[dict[str, Any]] = [{"values": []}, {"allowed": curve.allowed[::-1]}, {"days": 0}, {"novelties": [1.0]}]
    for broken in wrong:
        with pytest.raises(ValidationError):
            AlertCurve.model_validate(curve.model_dump() | broken)
    with pytest.raises(UsageError, match="no events"):
        fit_alert_curve([], [], pl.Series([], dtype=pl.Datetime("ms", "UTC")))


def test_a_channel_that_is_not_there_cannot_be_told_to_alert() -> None:
    scores, novelty, clients, times, _ = traffic(0.5, 60)
    alone, both = (fit_alert_curve(scores, clients, times, novelty=one, share=0.25) for one in (None, novelty))
    before = alone.threshold(20, version="1")
    with pytest.raises(UsageError, match="no second channel"):
        threshold_for(alone, 20, before, True)
    for novel in (False, None):
        assert threshold_for(alone, 20, before, novel).novelty is None
    assert threshold_for(both, 20, before, True).novelty is not None
    assert threshold_for(both, 20, before, None).novelty is None  # silent before
    # A sample makes the budget smaller, not the time that was looked at shorter.
    assert any("learnt from 12.0 hours" in caution for caution in cautions_of(both, before))
