"""A registered version over a period of the store: the benchmarks' figures, by labels, by marks, by planted attacks.

The figures themselves are in `metrics.py`; candidates and champion are compared for promotion in `judge.py`.
"""

from __future__ import annotations

import datetime as dt
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from oddlog.connectors.by_url import open_registry, using_store
from oddlog.connectors.models import find_version
from oddlog.connectors.registry import CHAMPION, ModelVersion, Registry
from oddlog.connectors.store import Store
from oddlog.features.fitting import units_of
from oddlog.scoring.model import Model
from oddlog.scoring.threshold import anomalies, flagged_per_day
from oddlog.settings import Settings
from training.dataset import BATCH_ROWS, COLUMNS, FEATURE_COLUMNS, Dataset, Selection
from training.evaluate import ATTACK, BENIGN, UNKNOWN, judge_planted, truth_of
from training.fit import features_since
from training.held import check_held
from training.marks import Marks, read_marks
from training.metrics import Cut, Judged, Scored, judge
from training.planting import plant_among
from training.pull import pull
from training.served import version_model

Scores = npt.NDArray[np.float32]
Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class NoveltyFigures:
    """What the second channel finds, alone or not."""

    threshold: float
    alerts_per_day: float
    detected: dict[str, float]
    """By planted scenario: share of its instances."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Figures of one version over one period."""

    version: ModelVersion
    since: dt.datetime
    until: dt.datetime
    """First and last event's time."""
    events: int
    clients: int
    budget_per_day: float
    threshold: float
    alerts_per_day: float
    """At the threshold in force, by either channel; like ones of a day count once."""
    novelty: NoveltyFigures | None
    """None where the version has no second channel."""
    attacks: int
    """By labels and marks."""
    benign: int
    marked: int
    """Events of the period with a mark."""
    false_alarms_left: int | None
    """Events marked as false alarm or expected that the threshold still flags; None where none is marked."""
    labelled: Judged | None
    """None where labels and marks are not of both kinds."""
    planted: Judged
    planted_events: int
    detected: dict[str, float]
    """By planted scenario: share of its instances with an anomaly, by either channel, at the threshold in force."""
    cautions: tuple[str, ...]


def evaluate_version(
    settings: Settings,
    *,
    version: str | None = None,
    since: dt.datetime | None = None,
    until: dt.datetime | None = None,
    budget: float | None = None,
    store: Store | None = None,
    registry: Registry | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Score a period by a version (default: the champion), and judge it.

    The period is half-open; by default it begins where the version's fitted one ends. Client state comes from the
    events before it, as far back as enrich.lead_in_days tells. `budget`: alerts a day; default: the threshold's own.
    Raises UsageError where there is no such version or no event, ArtifactError, StoreError, RegistryError.
    """
    tell = progress or (lambda _: None)
    registry = registry or open_registry(settings.registry)
    registered = find_version(registry, version or CHAMPION)
    tell(f"loading version {registered.version}, {registered.algorithm}")
    model = version_model(registry, registered.version)
    fit_until = model.card.dataset.fit_until
    since = since or fit_until
    with tempfile.TemporaryDirectory(prefix="oddlog-evaluate-") as folder, using_store(settings.store, store) as opened:
        check_held(
            opened, since, until,
            expected="events to judge by, by default those after the version's fitted period",
            mend="oddlog evaluate --since TIME --until TIME, or oddlog enrich",
        )  # fmt: skip
        tell("reading events from the store")
        selection = Selection(since=since - dt.timedelta(days=settings.enrich.lead_in_days), until=until)
        dataset = pull(
            opened,
            selection,
            url=settings.store.url,
            folder=Path(folder),
            pulls=settings.train.pulls,
            progress=progress,
        )
        marks = read_marks(opened)
        return _judge(settings, registered, model, dataset, since, fit_until, budget, marks, tell)


def _judge(
    settings: Settings,
    registered: ModelVersion,
    model: Model,
    dataset: Dataset,
    since: dt.datetime,
    fit_until: dt.datetime,
    budget: float | None,
    marks: Marks,
    tell: Progress,
) -> Evaluation:
    threshold = registered.threshold or model.card.threshold
    budget = budget or threshold.budget_per_day
    events = dataset.events(COLUMNS, since=since)
    tell(f"scoring {events.height:,} events")
    features = features_since(model.baseline, dataset.batches(FEATURE_COLUMNS), since)
    scores = model.score(features)
    flagged, novel = anomalies(threshold, scores, model.novelty(features))
    behaviours = units_of(events)[0]
    labels = marks.labels(events)
    truth = truth_of(labels)
    labelled = None
    scored = Scored.of(events, truth, labels)
    if (truth == ATTACK).any() and (truth == BENIGN).any():
        labelled = judge(scored, scores, budget)

    tell("planting attack scenarios, and scoring them")
    planted = plant_among(
        events,
        lead_in=lambda: (
            batch.filter(pl.col("@timestamp") < since)
            for batch in dataset.batches(FEATURE_COLUMNS, rows=BATCH_ROWS)
        ),
        seed=settings.train.seed,
        privacy=model.card.privacy,
    )  # fmt: skip
    mixed_features = planted.features(model.baseline)
    mixed_scores = model.score(mixed_features)
    mixed_flagged, mixed_novel = anomalies(threshold, mixed_scores, model.novelty(mixed_features))
    own_labels = marks.labels(planted.events)
    is_planted = planted.scenario.is_not_null().to_numpy()
    own_attack = ~is_planted & (truth_of(own_labels) == ATTACK)
    mixed_truth = np.where(is_planted, ATTACK, np.where(own_attack, UNKNOWN, BENIGN)).astype(np.int8)
    mixed = Scored.of(planted.events, mixed_truth, "attack:" + planted.scenario)
    # The budget is spent on what is there: planted attacks stand for some of which there are few.
    cut = Cut.at(scored.by_hour(scores)[1], budget * scored.days)
    outcome, by_novelty = (
        judge_planted(
            mixed_scores,
            planted.scenario,
            planted.instance,
            threshold.value,
            known_attacks=own_attack,
            flagged=flags,
        )
        for flags in (mixed_flagged, mixed_novel)
    )
    assert outcome is not None
    assert by_novelty is not None
    false_alarms = marks.false_alarms(events)
    first, last = events["@timestamp"].min(), events["@timestamp"].max()
    assert isinstance(first, dt.datetime)
    assert isinstance(last, dt.datetime)
    return Evaluation(
        version=registered,
        since=first,
        until=last,
        events=events.height,
        clients=events["source.address"].n_unique(),
        budget_per_day=budget,
        threshold=threshold.value,
        alerts_per_day=flagged_per_day(flagged, events["source.address"], events["@timestamp"], behaviours),
        novelty=None
        if threshold.novelty is None
        else NoveltyFigures(
            threshold=threshold.novelty.value,
            alerts_per_day=flagged_per_day(novel, events["source.address"], events["@timestamp"], behaviours),
            detected={name: one.detected for name, one in by_novelty.by_scenario.items()},
        ),
        attacks=int((truth == ATTACK).sum()),
        benign=int((truth == BENIGN).sum()),
        marked=marks.verdicts(events).drop_nulls().len(),
        false_alarms_left=int((false_alarms & flagged).sum()) if false_alarms.any() else None,
        labelled=labelled,
        planted=judge(mixed, mixed_scores, budget, cut=cut),
        planted_events=int(is_planted.sum()),
        detected={name: one.detected for name, one in outcome.by_scenario.items()},
        cautions=_cautions(since, fit_until),
    )


def _cautions(since: dt.datetime, fit_until: dt.datetime) -> tuple[str, ...]:
    if since >= fit_until:
        return ()
    return (
        f"the period begins before {fit_until:%Y-%m-%d %H:%M:%S} UTC, until when this version was fitted: what it has "
        "counted itself flatters it",
    )


def as_document(evaluation: Evaluation) -> dict[str, Any]:
    """For programs."""
    return {
        "model": evaluation.version.name,
        "version": evaluation.version.version,
        "algorithm": evaluation.version.algorithm,
        "since": evaluation.since.isoformat(),
        "until": evaluation.until.isoformat(),
        "events": evaluation.events,
        "clients": evaluation.clients,
        "budget_per_day": evaluation.budget_per_day,
        "threshold": evaluation.threshold,
        "alerts_per_day": evaluation.alerts_per_day,
        "novelty": None if evaluation.novelty is None else asdict(evaluation.novelty),
        "attacks": evaluation.attacks,
        "benign": evaluation.benign,
        "marked": evaluation.marked,
        "false_alarms_left": evaluation.false_alarms_left,
        "labelled": _figures(evaluation.labelled),
        "planted": _figures(evaluation.planted),
        "planted_events": evaluation.planted_events,
        "detected": evaluation.detected,
        "cautions": list(evaluation.cautions),
    }


def _figures(judged: Judged | None) -> dict[str, Any] | None:
    if judged is None:
        return None
    return {**judged.events, "client_hours": judged.client_hours, "by_type": judged.by_type}


def as_metrics(evaluation: Evaluation) -> dict[str, float]:
    """For MLflow, grouped by what they were judged by."""
    found: dict[str, float] = {
        "data/events": evaluation.events,
        "data/clients": evaluation.clients,
        "data/marked": evaluation.marked,
        "threshold/value": evaluation.threshold,
        "threshold/alerts_per_day": evaluation.alerts_per_day,
        "planted/events": evaluation.planted_events,
    }
    if evaluation.novelty is not None:
        found["novelty/threshold"] = evaluation.novelty.threshold
        found["novelty/alerts_per_day"] = evaluation.novelty.alerts_per_day
        found |= {f"novelty/{name}/detected": share for name, share in evaluation.novelty.detected.items()}
    if evaluation.false_alarms_left is not None:
        found["threshold/false_alarms_left"] = evaluation.false_alarms_left
    for group, judged in (("labels", evaluation.labelled), ("planted", evaluation.planted)):
        if judged is None:
            continue
        found |= {f"{group}/{name}": value for name, value in judged.events.items()}
        found |= {f"{group}/client_hours/{name}": value for name, value in judged.client_hours.items()}
        for label, figures in judged.by_type.items():
            kind = label.removeprefix("attack:")
            found |= {f"{group}/{kind}/{name}": value for name, value in figures.items()}
    found |= {f"planted/{name}/detected": share for name, share in evaluation.detected.items()}
    return found
