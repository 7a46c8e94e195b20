"""A training, from prepared events to a registered candidate. The steps are in the files beside this one.

with prepare(settings) as prepared:  # read once, fit the baseline once
    for algorithm in NAMES:
        train_prepared(settings, prepared, algorithm=algorithm)
"""

from __future__ import annotations

import datetime as dt
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from oddlog.connectors.by_url import open_registry
from oddlog.connectors.registry import Registry
from oddlog.connectors.store import Store
from oddlog.detectors.catalogue import create
from oddlog.features.declaration import FEATURE_NAMES
from oddlog.features.fitting import units_of
from oddlog.scoring.alert_curve import fit_alert_curve
from oddlog.scoring.artifact import make_golden, write_artifact
from oddlog.scoring.calibration import fit_calibration, severity
from oddlog.scoring.card import DatasetInfo, Threshold
from oddlog.scoring.model import Model, Verdict
from oddlog.scoring.reference import make_reference
from oddlog.scoring.threshold import Behaviours, anomalies, fit_threshold, flagged_per_day, parse_budget
from oddlog.settings import Settings
from training.alerts import first_alerts
from training.evaluate import ATTACK, judge_labelled, judge_planted, truth_of
from training.fit import check_graphs, second_channel
from training.hours import later_slots
from training.prepare import Prepared, prepare, timed
from training.progress import Progress
from training.record import Outcome, training_run
from training.repeat import Original, prepare_again
from training.threshold_tags import CURVE_TAG

Scores = npt.NDArray[np.float32]


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
    cautions: dict[str, str]
    """What checks and limits have to say of the events, by name."""
    repeats: Repeats | None = None


@dataclass(frozen=True, slots=True)
class Repeats:
    """The run that a training repeated, and whether the same model came of it."""

    run_id: str
    same_model: bool


def train_prepared(
    settings: Settings,
    prepared: Prepared,
    *,
    algorithm: str,
    registry: Registry | None = None,
    progress: Progress | None = None,
    original: Original | None = None,
    parent: str | None = None,
) -> TrainResult:
    """Fit, evaluate, compile, check, log and register one detector.

    `original`: the run that is repeated, if one is; `parent`: the run that this one is shown below. Raises
    UsageError, ArtifactError, RegistryError.
    """
    from oddlog.connectors.mlflow_training import log_training

    tell = progress or (lambda _: None)
    started_at, seconds = dt.datetime.now(dt.UTC), dict(prepared.seconds)
    options, later, features = settings.train, prepared.later, prepared.fitted.later
    budget = _Budget(parse_budget(options.budget), prepared.options.sample)

    with timed(seconds, "fit"):
        tell(f"fitting {algorithm}")
        detector = create(algorithm, options.parameters.get(algorithm)).fit(prepared.fitted.fit_data, seed=options.seed)
    with timed(seconds, "calibrate"):
        tell(f"calibrating {algorithm} on {later.height:,} later events")
        scores = detector.score(features)
        others = prepared.calibrating
        second, novelty = second_channel(prepared.fitted.fit_data, features, others)
        behaviours = units_of(later)[0]
        usual = scores[others], novelty[others], later.filter(others), behaviours[others]
        threshold = budget.threshold(*usual)
        calibration = fit_calibration(scores[others])
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
                reference=make_reference(
                    features,
                    FEATURE_NAMES,
                    scores,
                    severity(calibration, scores),
                    times=later["@timestamp"],
                    slots=later_slots(
                        prepared.fitted,
                        later,
                        anomalies(threshold, scores, novelty)[0],
                        prepared.split.boundary,
                        prepared.dataset.batches(["@timestamp", "source.address"]),
                    ),
                ),
                golden=make_golden(detector, features, scores),
                seed=options.seed,
                created_at=started_at,
                novelty=second,
                privacy=prepared.dataset.privacy,
            )
            model = Model.load(artifact)
            rows = np.concatenate([features, prepared.planted_features])
            check = check_graphs(detector, model, rows, second.channel)
        with timed(seconds, "evaluate"):
            tell(f"evaluating {algorithm}")
            outcome = _evaluate(prepared, model, budget, behaviours)
        with timed(seconds, "log"):
            tell(f"logging {algorithm} to MLflow")
            repeats = None if original is None else Repeats(original.run_id, card.model_digest == original.model_digest)
            run = training_run(settings, prepared, card, outcome, check, seconds, artifact, model)
            run = replace(run, tags={**run.tags, CURVE_TAG: budget.curve(*usual)})
            if repeats is not None:
                run = replace(run, tags={**run.tags, "repeats": repeats.run_id,
                                         "repeats_same_model": str(repeats.same_model).lower()})  # fmt: skip
            version = log_training(settings.registry, replace(run, parent=parent))
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
        events=prepared.dataset.rows,
        cautions={caution.name: caution.text for caution in prepared.cautions},
        repeats=repeats,
    )


def train(
    settings: Settings,
    *,
    algorithm: str | None = None,
    since: dt.datetime | None = None,
    until: dt.datetime | None = None,
    from_run: str | None = None,
    store: Store | None = None,
    registry: Registry | None = None,
    progress: Progress | None = None,
) -> TrainResult:
    """`prepare` and `train_prepared` in one, for one algorithm (default: setting train.algorithm).

    `from_run`: repeat this run instead, with its events and settings."""
    registry = registry or open_registry(settings.registry)
    if from_run is not None:
        with prepare_again(settings, from_run, registry=registry, progress=progress) as again:
            return train_prepared(
                again.settings,
                again.prepared,
                algorithm=again.original.algorithm,
                registry=registry,
                progress=progress,
                original=again.original,
            )
    with prepare(
        settings, since=since, until=until, store=store, registry=registry, progress=progress
    ) as prepared:  # fmt: skip
        return train_prepared(
            settings,
            prepared,
            algorithm=algorithm or settings.train.algorithm,
            registry=registry,
            progress=progress,
        )


@dataclass(frozen=True, slots=True)
class _Budget:
    """Alerts a day over all clients, of which a share is there: it holds pro rata."""

    per_day: float
    share: float

    def threshold(
        self, scores: Scores, novelty: Scores, events: pl.DataFrame, behaviours: Behaviours
    ) -> Threshold:  # fmt: skip
        return fit_threshold(
            scores,
            events["source.address"],
            events["@timestamp"],
            self.per_day,
            novelty=novelty,
            behaviours=behaviours,
            share=self.share,
        )

    def curve(self, scores: Scores, novelty: Scores, events: pl.DataFrame, behaviours: Behaviours) -> str:
        """What other budgets would give, as the tag that `oddlog threshold` reads."""
        found = fit_alert_curve(
            scores,
            events["source.address"],
            events["@timestamp"],
            novelty=novelty,
            behaviours=behaviours,
            share=self.share,
            budget_per_day=self.per_day,
        )
        return found.model_dump_json()

    def alerts(self, flagged: npt.NDArray[np.bool_], events: pl.DataFrame, behaviours: Behaviours) -> float:
        """Alerts a day that all clients together may be expected to raise."""
        return flagged_per_day(flagged, events["source.address"], events["@timestamp"], behaviours) / self.share


def _evaluate(prepared: Prepared, model: Model, budget: _Budget, behaviours: Behaviours) -> Outcome:
    later, planted, value = prepared.later, prepared.planted, model.card.threshold.value
    verdict, among_planted = model.judge(prepared.fitted.later), model.judge(prepared.planted_features)
    return Outcome(
        verdict=verdict,
        planted_scores=among_planted.score,
        labelled=judge_labelled(verdict.score, truth_of(later["labels.truth"]), value, flagged=verdict.is_anomaly),
        planted=judge_planted(
            among_planted.score,
            planted.scenario,
            planted.instance,
            value,
            known_attacks=truth_of(planted.events["labels.truth"]) == ATTACK,
            flagged=among_planted.is_anomaly,
        ),
        held_out_alerts=_held_out_alerts(verdict, later, budget, behaviours, prepared.calibrating),
        first_alerts=first_alerts(later, verdict),
    )


def _held_out_alerts(
    verdict: Verdict, later: pl.DataFrame, budget: _Budget, behaviours: Behaviours, calibrating: npt.NDArray[np.bool_]
) -> float | None:
    """Alerts a day on the second half of the later events, at thresholds chosen on the first: an honest estimate."""
    times = later["@timestamp"]
    first = times < times.sort()[later.height // 2]
    if not first.any() or verdict.novelty is None:
        return None
    early, late = first.to_numpy() & calibrating, ~first.to_numpy()
    if not early.any():
        return None
    novelty = verdict.novelty.score
    chosen = budget.threshold(verdict.score[early], novelty[early], later.filter(early), behaviours[early])
    flagged, _ = anomalies(chosen, verdict.score[late], novelty[late])
    return budget.alerts(flagged, later.filter(~first), behaviours[late])


def _dataset_info(prepared: Prepared) -> DatasetInfo:
    dataset = prepared.dataset
    return DatasetInfo(
        digest=dataset.digest,
        since=dataset.since,
        fit_until=prepared.split.boundary,
        until=dataset.until,
        events=dataset.rows,
        clients=dataset.clients,
        source=dataset.source,
    )
