"""A model that is fitted, written and loaded as everywhere, small enough to be made by any test."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import numpy as np

from oddlog.detectors.catalogue import create
from oddlog.detectors.detector import Detector
from oddlog.detectors.novelty import Novelty
from oddlog.events.logfile import records_from_lines
from oddlog.events.parse import parse
from oddlog.features.compute import fit_features
from oddlog.features.declaration import FEATURE_NAMES
from oddlog.scoring.artifact import NoveltyPart, make_golden, write_artifact
from oddlog.scoring.calibration import fit_calibration, severity
from oddlog.scoring.card import DatasetInfo
from oddlog.scoring.model import Model
from oddlog.scoring.reference import make_reference
from oddlog.scoring.threshold import fit_threshold


def parts_of(lines: list[bytes], detector: Detector, *, seed: int = 0, novelty: bool = True) -> dict[str, Any]:
    """What `write_artifact` is given, beside the folder, for a detector that is fitted to lines here.

    `novelty`: with a second channel, which makes it an artifact of format 2."""
    events = parse(records_from_lines(lines)).events
    baseline, data = fit_features(events)
    detector = detector.fit(data, seed=seed)
    scores = detector.score(data.features)
    calibration = fit_calibration(scores)
    channel = Novelty().fit(data)
    novel = channel.score(data.features)
    since, until = events["@timestamp"].min(), events["@timestamp"].max()
    assert isinstance(since, dt.datetime)
    assert isinstance(until, dt.datetime)
    names = list(FEATURE_NAMES)
    return {
        "detector": detector,
        "baseline": baseline,
        "typical": dict(zip(names, np.median(data.features, axis=0).astype(float).tolist(), strict=True)),
        "calibration": calibration,
        "threshold": fit_threshold(
            scores, events["source.address"], events["@timestamp"], 20.0, novelty=novel if novelty else None
        ),
        "dataset": DatasetInfo(
            digest="d" * 32,
            since=since,
            fit_until=until,
            until=until,
            events=events.height,
            clients=events["source.address"].n_unique(),
            source="a test's lines",
        ),
        "reference": make_reference(data.features, names, scores, severity(calibration, scores), points=50),
        "golden": make_golden(detector, data.features, scores),
        "seed": seed,
        "created_at": dt.datetime.now(dt.UTC),
        "novelty": NoveltyPart(channel, float(np.median(novel)), fit_calibration(novel)) if novelty else None,
    }


def small_model(
    folder: Path, lines: list[bytes], *, algorithm: str = "surprise", seed: int = 0, novelty: bool = True
) -> Model:
    """Write a model of `lines` into `folder` and load it from there."""
    write_artifact(folder, **parts_of(lines, create(algorithm), seed=seed, novelty=novelty))
    return Model.load(folder)
