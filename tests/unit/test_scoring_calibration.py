"""Severity: counted where it was seen, extrapolated beyond, monotone, comparable between models."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from oddlog.errors import UsageError
from oddlog.scoring.calibration import fit_calibration, severity
from oddlog.scoring.card import Calibration

RNG = np.random.default_rng(7)
FINITE = st.floats(-1e6, 1e6, width=32)


def test_a_severity_of_three_is_one_event_in_a_thousand() -> None:
    scores = RNG.normal(size=50_000)
    curve = fit_calibration(scores)
    for rarity in (10, 100, 1_000, 10_000):
        threshold = np.sort(scores)[-50_000 // rarity]
        assert severity(curve, [threshold])[0] == pytest.approx(np.log10(rarity), abs=0.02)


def test_fresh_events_are_as_rare_as_their_severity_says() -> None:
    curve = fit_calibration(RNG.exponential(size=50_000))
    fresh = severity(curve, RNG.exponential(size=200_000))
    for level in (1, 2, 3):
        assert np.mean(fresh >= level) == pytest.approx(10.0**-level, rel=0.3)


def test_the_far_tail_goes_on_with_the_slope_of_an_exponential() -> None:
    curve = fit_calibration(RNG.exponential(size=20_000))
    # P(score > s) = e^-s, so that every ln 10 is a decade: within the 30 % that 100 exceedances allow.
    ten, twenty = severity(curve, [12.0 + np.log(10) * 10, 12.0 + np.log(10) * 20])
    assert twenty - ten == pytest.approx(10, rel=0.3)
    assert ten > np.log10(curve.events + 1), "beyond what was counted"


def test_models_of_other_scales_agree() -> None:
    scores = RNG.gumbel(size=5_000)
    one, other = fit_calibration(scores), fit_calibration(scores * 1e3 - 77)
    probes = np.linspace(scores.min(), scores.max() * 2, 500)
    np.testing.assert_allclose(severity(one, probes), severity(other, probes * 1e3 - 77), rtol=1e-6, atol=1e-6)


def test_all_scores_equal_say_only_that_more_was_never_seen() -> None:
    curve = fit_calibration(np.full(999, 0.5))
    assert severity(curve, [0.4, 0.5]).tolist() == pytest.approx([0, 0], abs=1e-3)
    assert severity(curve, [0.6, 100.0]).tolist() == pytest.approx([3, 3])


def test_a_tie_shares_one_severity() -> None:
    curve = fit_calibration(np.concatenate([np.zeros(900), np.ones(99)]))
    assert severity(curve, [1.0])[0] == pytest.approx(1.0, abs=0.01)
    assert severity(curve, [2.0])[0] > severity(curve, [1.0])[0]


@pytest.mark.parametrize("scores", [[], [1.0, float("nan")], [float("inf")]])
def test_nothing_to_learn_from_is_refused(scores: list[float]) -> None:
    with pytest.raises(UsageError, match="scores to calibrate on"):
        fit_calibration(scores)


def test_the_curve_is_small_and_survives_json() -> None:
    curve = fit_calibration(RNG.normal(size=200_000).astype(np.float32))
    assert len(curve.scores) == len(curve.severities) <= 300
    again = Calibration.model_validate(json.loads(curve.model_dump_json()))
    assert again == curve


@given(
    arrays.arrays(np.float32, st.integers(1, 300), elements=FINITE),
    arrays.arrays(np.float32, st.integers(2, 50), elements=FINITE),
)
def test_monotone_finite_and_never_negative(
    scores: np.ndarray[tuple[int], np.dtype[np.float32]], probes: np.ndarray[tuple[int], np.dtype[np.float32]]
) -> None:
    curve = fit_calibration(scores)
    assert (np.diff(curve.scores) > 0).all()
    assert (np.diff(curve.severities) > 0).all() or curve.events == 1
    found = severity(curve, np.sort(np.concatenate([probes, scores])))
    assert np.isfinite(found).all()
    assert (found >= 0).all()
    assert (np.diff(found) >= -1e-12).all()


def test_an_empty_batch_has_no_severities() -> None:
    assert severity(fit_calibration([1.0, 2.0]), np.empty(0, dtype=np.float32)).shape == (0,)
