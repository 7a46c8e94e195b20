"""A search for detector parameters: trials on an inner split of the fitted part, then one training with the best.

The later part judges nothing until the search is over: what is chosen by it would look better there than it is.
"""

from __future__ import annotations

import datetime as dt
import inspect
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from oddlog.connectors.by_url import open_registry
from oddlog.connectors.registry import Registry
from oddlog.connectors.store import Store
from oddlog.detectors.catalogue import create
from oddlog.errors import UsageError
from oddlog.scoring.threshold import fit_threshold, parse_budget
from oddlog.settings import Settings
from training.evaluate import ATTACK, Quality, judge_labelled, judge_planted, quality_of, truth_of
from training.prepare import Prepared, prepare, work_on
from training.train import TrainResult, train_prepared

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial, Trial

Parameters = dict[str, int | float]
Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Range:
    """Where a parameter is looked for. Whole numbers where both ends are."""

    low: int | float
    high: int | float
    log: bool = False

    def suggest(self, trial: Trial, name: str) -> int | float:
        """A value for a trial."""
        if isinstance(self.low, int) and isinstance(self.high, int):
            return trial.suggest_int(name, self.low, self.high, log=self.log)
        return trial.suggest_float(name, self.low, self.high, log=self.log)


SPACES: dict[str, dict[str, Range]] = {
    "iforest": {
        "trees": Range(50, 400),
        "max_samples": Range(64, 1_024, log=True),
        "sound_share": Range(0.2, 0.8),
        "background": Range(0.05, 0.5),
    },
    "autoencoder": {
        "outer": Range(4, 16),
        "inner": Range(1, 4),
        "alpha": Range(1e-5, 1e-1, log=True),
        "sound_share": Range(0.1, 0.7),
    },
}
"""By algorithm. `surprise` has nothing to search for: its weights are its definition."""


@dataclass(frozen=True, slots=True)
class TrialResult:
    """One set of parameters on the inner split."""

    number: int
    parameters: Parameters
    quality: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Tuned:
    """What a search found, and the candidate that it registered."""

    run_id: str
    """Of the search; trials and the training are runs below it."""
    trials: list[TrialResult]
    best: TrialResult
    defaults: TrialResult
    """The first trial: the detector as it is."""
    basis: str
    """What the inner quality is measured by: "labels" or "planted"."""
    later_quality: float
    """Of the registered model, on the later part."""
    later_quality_of_defaults: float
    """Of the detector as it is, fitted and judged the same way: what the search brought is the difference."""
    trained: TrainResult


def tune(
    settings: Settings,
    *,
    algorithm: str | None = None,
    trials: int | None = None,
    minutes: float | None = None,
    since: dt.datetime | None = None,
    until: dt.datetime | None = None,
    store: Store | None = None,
    registry: Registry | None = None,
    progress: Progress | None = None,
) -> Tuned:
    """Search until so many trials or minutes are over, whichever is first; train with the best and register it.

    The same events, seed and number of trials give the same parameters. Raises UsageError where the algorithm has
    nothing to search for or no budget is given; else as `train`.
    """
    from oddlog.connectors.mlflow_tuning import TuningRun, finish_tuning, log_trial, start_tuning

    tell = progress or (lambda _: None)
    algorithm = algorithm or settings.train.algorithm
    space = _space(algorithm)
    if trials is None and minutes is None:
        raise UsageError("a search without an end", expected="a number of trials or minutes", mend="--trials 30")
    registry = registry or open_registry(settings.registry)
    with (
        tempfile.TemporaryDirectory(prefix="oddlog-tune-") as folder,
        prepare(settings, since=since, until=until, store=store, registry=registry, progress=progress) as prepared,
    ):
        tell("an inner split of the fitted part, for the trials")
        inner = work_on(
            prepared.dataset.before(prepared.split.boundary, Path(folder)),
            prepared.options,
            baseline=prepared.fitted.baseline if prepared.options.features == "stored" else None,
        )
        run = TuningRun(
            name=f"tune {algorithm} {prepared.dataset.since:%Y-%m-%d} to {prepared.dataset.until:%Y-%m-%d}",
            parameters={
                "tune.algorithm": algorithm,
                "tune.trials": trials,
                "tune.minutes": minutes,
                "tune.seed": settings.train.seed,
                "data.digest": prepared.dataset.digest,
                "data.source": prepared.dataset.source,
                **{f"tune.space.{name}": f"{one.low:g} to {one.high:g}" for name, one in space.items()},
            },
        )
        parent = start_tuning(settings.registry, run)
        results: list[TrialResult] = []
        finished = False
        try:

            def done(result: TrialResult) -> None:
                results.append(result)
                best = max(results, key=lambda one: one.quality)
                log_trial(settings.registry, parent, algorithm, result.number, result.parameters,
                          {"quality/average_precision": result.quality, "seconds/fit": result.seconds})  # fmt: skip
                tell(f"trial {len(results)}: {result.quality:.4f}; best so far {best.quality:.4f}")

            basis = _search(settings, inner, algorithm, space, trials, minutes, done)
            best = max(results, key=lambda one: one.quality)
            defaults = _quality(settings, prepared, algorithm, results[0].parameters)
            chosen = settings.train.model_copy(
                update={"parameters": {**settings.train.parameters, algorithm: best.parameters}}
            )
            trained = train_prepared(
                settings.model_copy(update={"train": chosen}),
                prepared,
                algorithm=algorithm,
                registry=registry,
                progress=progress,
                parent=parent,
            )
            later = trained.metrics["quality/average_precision"]
            finish_tuning(
                settings.registry,
                parent,
                {
                    "tune/trials": len(results),
                    "tune/best_inner_quality": best.quality,
                    "tune/default_inner_quality": results[0].quality,
                    "tune/best_later_quality": later,
                    "tune/default_later_quality": defaults.average_precision,
                    **{f"tune/best/{name}": value for name, value in best.parameters.items()},
                },
            )
            finished = True
        finally:
            if not finished:
                finish_tuning(settings.registry, parent, {}, failed=True)
    return Tuned(parent, results, best, results[0], basis, later, defaults.average_precision, trained)


def _space(algorithm: str) -> Mapping[str, Range]:
    create(algorithm)  # a name that is none is refused as everywhere
    if algorithm not in SPACES:
        raise UsageError(
            f"{algorithm} has no parameters to search for", expected="one of " + ", ".join(SPACES), mend="oddlog train"
        )
    return SPACES[algorithm]


def _search(
    settings: Settings,
    inner: Prepared,
    algorithm: str,
    space: Mapping[str, Range],
    trials: int | None,
    minutes: float | None,
    done: Callable[[TrialResult], None],
) -> str:
    """Run the trials, the defaults first; what their quality was measured by."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    bases: set[str] = set()
    started = time.monotonic()

    def objective(trial: Trial) -> float:
        nonlocal started
        started = time.monotonic()
        quality = _quality(settings, inner, algorithm, {name: one.suggest(trial, name) for name, one in space.items()})
        bases.add(quality.basis)
        return quality.average_precision

    def told(_: optuna.Study, trial: FrozenTrial) -> None:
        assert trial.value is not None
        done(TrialResult(trial.number, dict(trial.params), trial.value, round(time.monotonic() - started, 3)))

    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=settings.train.seed))
    study.enqueue_trial(_defaults(algorithm, space))
    seconds = None if minutes is None else minutes * 60
    study.optimize(objective, n_trials=trials, timeout=seconds, callbacks=[told])
    (basis,) = bases
    return basis


def _defaults(algorithm: str, space: Mapping[str, Range]) -> Parameters:
    """The detector's own values of what is searched for."""
    own = inspect.signature(type(create(algorithm))).parameters
    return {name: own[name].default for name in space}


def _quality(settings: Settings, prepared: Prepared, algorithm: str, parameters: Parameters) -> Quality:
    """Of a detector on the later part of `prepared`, by labels where there are enough, else by planted attacks."""
    detector = create(algorithm, parameters).fit(prepared.fitted.fit_data, seed=settings.train.seed)
    later, planted = prepared.later, prepared.planted
    scores = detector.score(prepared.fitted.later)
    budget = parse_budget(settings.train.budget) * prepared.options.sample
    value = fit_threshold(scores, later["source.address"], later["@timestamp"], budget).value
    found = quality_of(
        judge_labelled(scores, truth_of(later["labels.truth"]), value),
        judge_planted(
            detector.score(prepared.planted_features),
            planted.scenario,
            planted.instance,
            value,
            known_attacks=truth_of(planted.events["labels.truth"]) == ATTACK,
        ),
    )
    assert found is not None  # attacks were planted
    return found
