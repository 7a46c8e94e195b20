"""From a data set to a fitted detector whose graphs are checked: baseline, features, detector, ONNX.

What the model is worth is measured in `evaluate.py`; what is logged of it is in `record.py`.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from oddlog.detectors.detector import Detector, FitData
from oddlog.detectors.novelty import Novelty
from oddlog.errors import ArtifactError
from oddlog.features.baseline import Baseline
from oddlog.features.capping import MOST_KEYS, capped
from oddlog.features.compute import FeatureComputer, fit_features
from oddlog.features.declaration import FEATURE_NAMES
from oddlog.features.fitting import units_of
from oddlog.scoring.artifact import NoveltyPart
from oddlog.scoring.calibration import fit_calibration
from oddlog.scoring.model import Model
from training.dataset import STORED_FEATURES

Matrix = npt.NDArray[np.float32]

SCORE_RTOL, SCORE_ATOL = 1e-4, 1e-5
"""How far a graph's score may be from the reference's (oddlog/detectors/detector.py)."""
CONTRIBUTION_RTOL, CONTRIBUTION_ATOL = 1e-3, 1e-4
CONTRIBUTION_ROWS = 2_000
"""Contributions are compared on the highest scores, where they are read, and as many rows spread evenly."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """What is the same for every detector that is trained on a data set."""

    baseline: Baseline
    fit_data: FitData
    typical: dict[str, float]
    """Median of each feature over the fitted rows."""
    later: Matrix
    """Float32 [m, d]: features of the rows after the boundary, as serving computes them."""
    keys_left_out: int = 0
    """Keys and pairs that the baseline's tables had no room for."""


@dataclass(frozen=True, slots=True)
class GraphCheck:
    """Largest differences between graphs and reference, and over how many rows."""

    rows: int
    score: float
    contribution: float


def fit_baseline(
    chosen: pl.DataFrame, batches: Iterable[pl.DataFrame], since: dt.datetime, *, most_keys: int = MOST_KEYS
) -> Fitted:
    """Fit the baseline on the `chosen` events, and compute the features of those from `since` on.

    `batches` are all events of the data set in record order: the later ones' features carry the clients' state over
    everything before them, as serving does, whether it was chosen or not. One batch is in memory at a time.
    Of more than `most_keys` keys a table the commonest are kept; the fitted rows' own features are of all of them.
    """
    whole, data = fit_features(chosen)
    baseline = capped(whole, most_keys)
    return Fitted(
        baseline=baseline,
        fit_data=data,
        typical=typical_of(data),
        later=features_since(baseline, batches, since),
        keys_left_out=whole.entries - baseline.entries,
    )


def features_since(baseline: Baseline, batches: Iterable[pl.DataFrame], since: dt.datetime) -> Matrix:
    """Float32 [m, d] of the events from `since` on; those before are their lead-in. All in record order, in batches."""
    computer = FeatureComputer(baseline)
    parts = [np.empty((0, len(FEATURE_NAMES)), dtype=np.float32)]
    parts += [computer.compute(batch)[(batch["@timestamp"] >= since).to_numpy()] for batch in batches]
    return np.concatenate(parts)


def fit_stored(baseline: Baseline, chosen: pl.DataFrame, later: pl.DataFrame) -> Fitted:
    """What detectors are fitted on and judged by where features were stored under `baseline` (STORED_FEATURES).

    The baseline has counted none of these events, so that each is a newcomer to it, and nothing is left out.
    """
    behaviour, client_hour = units_of(chosen)
    data = FitData(
        features=stored_features(chosen),
        weights=1.0 / np.bincount(client_hour)[client_hour],
        behaviour=behaviour,
        names=FEATURE_NAMES,
    )
    return Fitted(baseline=baseline, fit_data=data, typical=typical_of(data), later=stored_features(later))


def stored_features(events: pl.DataFrame) -> Matrix:
    """Float32 [n, d] of events that carry STORED_FEATURES."""
    matrix: Matrix = events.select(STORED_FEATURES).to_numpy().astype(np.float32, order="C")
    return matrix


def typical_of(data: FitData) -> dict[str, float]:
    """Median of each feature over the fitted rows, by name: what reasons tell an odd value against."""
    return dict(zip(data.names, np.nanmedian(data.features, axis=0).astype(float).tolist(), strict=True))


def second_channel(
    data: FitData, later: Matrix, calibrating: npt.NDArray[np.bool_]
) -> tuple[NoveltyPart, npt.NDArray[np.float32]]:
    """The second channel, fitted on the early rows and calibrated on some of the later ones; and their novelty [m]."""
    channel = Novelty().fit(data)
    novelty = channel.score(later)
    usual = float(np.median(channel.score(data.features)))
    return NoveltyPart(channel, usual, fit_calibration(novelty[calibrating])), novelty


def check_graphs(detector: Detector, model: Model, features: Matrix, novelty: Novelty | None = None) -> GraphCheck:
    """Compare the compiled model with the detector itself, row by row. Raises ArtifactError where they differ.

    `novelty`: the model's second channel, where it has one."""
    expected = detector.score(features)
    found = model.score(features)
    _compare("score", found, expected, SCORE_RTOL, SCORE_ATOL)
    if novelty is not None and (second := model.novelty(features)) is not None:
        _compare("novelty", second, novelty.score(features), SCORE_RTOL, SCORE_ATOL)
    order = np.argsort(expected, kind="stable")
    even = np.linspace(0, len(order) - 1, min(CONTRIBUTION_ROWS, len(order))).astype(np.intp)
    rows = features[np.unique(np.concatenate([order[-CONTRIBUTION_ROWS:], order[even]]))]
    reference = detector.contributions(rows)
    parts = model.contributions(rows)
    _compare("contribution", parts, reference, CONTRIBUTION_RTOL, CONTRIBUTION_ATOL)
    return GraphCheck(rows=len(features), score=_largest(found, expected), contribution=_largest(parts, reference))


def _largest(found: Matrix, expected: Matrix) -> float:
    return float(np.max(np.abs(found.astype(np.float64) - expected), initial=0.0))


def _compare(what: str, found: Matrix, expected: Matrix, rtol: float, atol: float) -> None:
    close = np.isclose(found, expected, rtol=rtol, atol=atol)
    if close.all():
        return
    place = tuple(int(i) for i in np.argwhere(~close)[0])
    raise ArtifactError(
        f"the compiled graph gives another {what} than its reference in {int((~close).sum())} places of "
        f"{close.size}, the first at {place}: {found[place]:.6g}",
        expected=f"{expected[place]:.6g} (rtol {rtol:g}, atol {atol:g})",
        mend="report it with the versions of onnx, onnxruntime and scikit-learn; no model was registered",
    )
