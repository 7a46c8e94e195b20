"""A training, from prepared events to a registered candidate. The steps are in the files beside this one.

with prepare(settings) as prepared:  # read once, fit the baseline once
    for algorithm in NAMES:
        train_prepared(settings, prepared, algorithm=algorithm)
"""

from __future__ import annotations

import datetime as dt
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from oddlog.connectors.by_url import open_registry
from oddlog.connectors.registry import Registry
from oddlog.connectors.store import Store
from oddlog.detectors.catalogue import create
from oddlog.features.declaration import FEATURE_NAMES
from oddlog.scoring.artifact import make_golden, write_artifact
from oddlog.scoring.calibration import fit_calibration, severity
from oddlog.scoring.card import DatasetInfo, Threshold
from oddlog.scoring.model import Model
from oddlog.scoring.reference import make_reference
from oddlog.scoring.threshold import alerts_per_day, fit_threshold, parse_budget
from oddlog.settings import Settings
from training.evaluate import ATTACK, judge_labelled, judge_planted, truth_of
from training.fit import check_graphs
from training.prepare import Prepared, Progress, prepare, timed
from training.record import Outcome, training_run


@dataclass(frozen=True, slots=True)
class TrainResult:
    """A registered candidate."""

    version: str
    run_id: str
    algorithm: str
    metrics: dict[str, float]
    threshold: Threshold
    model_digest: str
    dataset_digest: str
    events: int


def train_prepared(
    settings: Settings,
    prepared: Prepared,
    *,
    algorithm: str,
    registry: Registry | None = None,
    progress: Progress | None = None,
) -> TrainResult:
    """Fit, evaluate, compile, check, log and register one detector. Raises UsageError, ArtifactError, RegistryError."""
    from oddlog.connectors.mlflow_training import log_training

    tell = progress or (lambda _: None)
    started_at, seconds = dt.datetime.now(dt.UTC), dict(prepared.seconds)
    options, later, features = settings.train, prepared.later, prepared.fitted.later
    clients, times = later["source.address"], later["@timestamp"]
    budget = parse_budget(options.budget)

    with timed(seconds, "fit"):
        tell(f"fitting {algorithm}")
        detector = create(algorithm).fit(prepared.fitted.fit_data, seed=options.seed)
    with timed(seconds, "calibrate"):
        tell(f"calibrating {algorithm} on {later.height:,} later events")
        scores = detector.score(features)
        threshold = fit_threshold(scores, clients, times, budget)
        calibration = fit_calibration(scores)
    with tempfile.TemporaryDirectory(prefix="oddlog-model-") as folder:
        with timed(seconds, "compile"):
            tell(f"compiling {algorithm} to ONNX, and checking it row by row")
            artifact = Path(folder) / "model"
            card = write_artifact(
                artifact,
                detector=detector,
                baseline=prepared.fitted.baseline,
                typical=prepared.fitted.typical,
                calibration=calibration,
                threshold=threshold,
                dataset=_dataset_info(prepared),
                reference=make_reference(features, FEATURE_NAMES, scores, severity(calibration, scores)),
                golden=make_golden(detector, features, scores),
                seed=options.seed,
                created_at=started_at,
            )
            model = Model.load(artifact)
            check = check_graphs(detector, model, np.concatenate([features, prepared.planted_features]))
        with timed(seconds, "evaluate"):
            tell(f"evaluating {algorithm}")
            outcome = _evaluate(prepared, model, threshold, budget)
        with timed(seconds, "log"):
            tell(f"logging {algorithm} to MLflow")
            run = training_run(settings, prepared, card, outcome, check, seconds, artifact, model)
            version = log_training(settings.registry, run)
    if registry is not None:
        version = registry.version(version.version)
    return TrainResult(
        version=version.version,
        run_id=version.run_id,
        algorithm=algorithm,
        metrics=dict(run.metrics),
        threshold=threshold,
        model_digest=card.model_digest,
        dataset_digest=prepared.dataset.digest,
        events=prepared.dataset.events.height,
    )


def train(
    settings: Settings,
    *,
    algorithm: str | None = None,
    since: dt.datetime | None = None,
    until: dt.datetime | None = None,
    store: Store | None = None,
    registry: Registry | None = None,
    progress: Progress | None = None,
) -> TrainResult:
    """`prepare` and `train_prepared` in one, for one algorithm (default: setting train.algorithm)."""
    with prepare(settings, since=since, until=until, store=store, progress=progress) as prepared:
        return train_prepared(
            settings,
            prepared,
            algorithm=algorithm or settings.train.algorithm,
            registry=registry or open_registry(settings.registry),
            progress=progress,
        )


def _evaluate(prepared: Prepared, model: Model, threshold: Threshold, budget: float) -> Outcome:
    later, planted = prepared.later, prepared.planted
    scores = model.score(prepared.fitted.later)
    planted_scores = model.score(prepared.planted_features)
    return Outcome(
        scores=scores,
        planted_scores=planted_scores,
        labelled=judge_labelled(scores, truth_of(later["labels.truth"]), threshold.value),
        planted=judge_planted(
            planted_scores,
            planted.scenario,
            planted.instance,
            threshold.value,
            known_attacks=truth_of(planted.events["labels.truth"]) == ATTACK,
        ),
        held_out_alerts=_held_out_alerts(scores, later, budget),
    )


def _held_out_alerts(scores: npt.NDArray[np.float32], later: pl.DataFrame, budget: float) -> float | None:
    """Alerts a day on the second half of the later events, at a threshold chosen on the first: an honest estimate."""
    times = later["@timestamp"]
    middle = times.sort()[later.height // 2]
    first, second = (times < middle).to_numpy(), (times >= middle).to_numpy()
    if not first.any():
        return None
    clients = later["source.address"]
    chosen = fit_threshold(scores[first], clients.filter(pl.Series(first)), times.filter(pl.Series(first)), budget)
    rest = pl.Series(second)
    return alerts_per_day(scores[second], clients.filter(rest), times.filter(rest), chosen.value)


def _dataset_info(prepared: Prepared) -> DatasetInfo:
    dataset = prepared.dataset
    return DatasetInfo(
        digest=dataset.digest,
        since=dataset.since,
        fit_until=prepared.split.boundary,
        until=dataset.until,
        events=dataset.events.height,
        clients=dataset.events["source.address"].n_unique(),
        source=dataset.source,
    )
