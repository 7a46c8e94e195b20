"""Score -> severity: log10 N of "rarer than one event in N". Not the alert threshold: threshold.py."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from oddlog.errors import UsageError
from oddlog.scoring.card import Calibration

POINTS = 200
"""Points of the curve below its top, spaced evenly in severity: a few kilobytes of card."""
TOP = 50
"""The rarest distinct scores are all kept: that is where severities are read."""
EXCEEDANCES = 100
"""Most events that the slope of the tail is estimated from."""


def fit_calibration(scores: npt.ArrayLike) -> Calibration:
    """The curve learnt from the scores [n] of a period later than the fitted one.

    Inside what was seen, the severity of s is log10((n + 1) / number of events with a score >= s): empirical,
    equal for any two models calibrated on the same period, and at most log10(n + 1). Ties share the severity
    of the whole tie. Beyond the highest score the tail is taken as exponential: its scale is the mean excess
    of the k = min(100, n/10) highest scores over the next lower one (the maximum-likelihood estimate), and
    the last segment of the curve, a decade long, has that slope. Severities above log10(events + 1) are
    therefore an extrapolation, and rank events rather than count them. Scores that are all equal have no
    scale: anything above them gets log10(n + 1), and no more.

    Raises UsageError where there is no score, or one is not finite.

    >>> curve = fit_calibration(range(999))
    >>> severity(curve, [0, 899, 989, 998]).round(2).tolist()
    [0.0, 1.0, 2.0, 3.0]
    """
    values = np.asarray(scores, dtype=np.float64).ravel()
    if values.size == 0 or not np.isfinite(values).all():
        raise UsageError(
            f"{values.size} scores to calibrate on, {int((~np.isfinite(values)).sum())} of them not finite",
            expected="finite scores of at least one event",
            mend="train on more events, or on a longer period",
        )
    distinct, counts = np.unique(values, return_counts=True)
    at_least = np.cumsum(counts[::-1])[::-1]
    severities = np.log10((values.size + 1) / at_least)
    keep = _thin(severities)
    points, heights = distinct[keep], severities[keep]
    end, rise = _beyond(values, distinct)
    return Calibration(
        scores=[*points.tolist(), end],
        severities=[*heights.tolist(), float(heights[-1]) + rise],
        events=int(values.size),
    )


class Curve:
    """A calibration, its points made arrays once: for who asks for severities again and again."""

    def __init__(self, calibration: Calibration) -> None:
        self._x = np.asarray(calibration.scores, dtype=np.float64)
        self._y = np.asarray(calibration.severities, dtype=np.float64)
        # Of scores that were all equal the curve has two points, and no slope to go on with.
        x, y = self._x, self._y
        self._slope = float((y[-1] - y[-2]) / (x[-1] - x[-2])) if x.size > 2 else 0.0

    def severity(self, scores: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Severities float64 [n] of scores [n]: never below 0, rising with the score, finite for finite
        scores."""
        values = np.asarray(scores, dtype=np.float64)
        result = np.asarray(np.interp(values, self._x, self._y), dtype=np.float64)
        beyond = values > self._x[-1]
        if self._slope and beyond.any():
            result = np.where(beyond, self._y[-1] + (values - self._x[-1]) * self._slope, result)
        return result


def severity(calibration: Calibration, scores: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Severities float64 [n] of scores [n], as `Curve` has them."""
    return Curve(calibration).severity(scores)


def _thin(severities: npt.NDArray[np.float64]) -> npt.NDArray[np.intp]:
    """Which of the rising severities stay: the first, the highest TOP, and POINTS evenly spaced between."""
    even = np.searchsorted(severities, np.linspace(severities[0], severities[-1], POINTS))
    top = np.arange(max(0, severities.size - TOP), severities.size)
    return np.unique(np.concatenate([[0], even, top])).astype(np.intp)


def _beyond(values: npt.NDArray[np.float64], distinct: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Where the curve ends past the highest score, and by how much the severity rises up to there."""
    highest = float(distinct[-1])
    if distinct.size == 1:
        return highest + max(abs(highest), 1.0) * 1e-6, float(np.log10(values.size))
    k = max(1, min(EXCEEDANCES, values.size // 10))
    ordered = np.partition(values, values.size - k - 1)
    floor = ordered[values.size - k - 1]
    excess = float((ordered[values.size - k :] - floor).mean())
    if excess <= 0:  # a tie fills the tail: the gap below it is the only scale there is
        excess = highest - float(distinct[-2])
    return highest + excess * float(np.log(10)), 1.0
