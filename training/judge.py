"""Measures candidates and champion on the same later events: the evidence that gates ask for. It decides nothing."""

from __future__ import annotations

import datetime as dt
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from oddlog.connectors.privacy_stamp import stored_stamp
from oddlog.connectors.registry import ModelVersion, Registry
from oddlog.connectors.store import Store
from oddlog.errors import ArtifactError
from oddlog.events.privacy import PrivacyStamp
from oddlog.features.baseline import Baseline
from oddlog.features.compute import FeatureComputer
from oddlog.features.declaration import feature_digest
from oddlog.features.fitting import units_of
from oddlog.scoring.artifact import read_card
from oddlog.scoring.card import Threshold
from oddlog.scoring.model import Model
from oddlog.scoring.privacy import check_privacy
from oddlog.scoring.threshold import anomalies, flagged_per_day
from training.change import change_since
from training.cost import measure_cost, resident_mb
from training.dataset import COLUMNS, Selection
from training.evaluate import ATTACK, Planted, Quality, judge_labelled, judge_planted, quality_of, truth_of
from training.evidence import Change, Cost, Detected, Evidence, Marked, Rival, Shadowed
from training.limits import within_memory
from training.marks import Marks
from training.planting import PlantedEvents, plant_scenarios
from training.ranks import rank_correlation
from training.record import GRAPH_TAG
from training.sample import in_sample

Matrix = npt.NDArray[np.float32]
Scores = npt.NDArray[np.float32]

KEPT_BASELINES = 2
"""Features are by far the most of what a contender takes: those of a candidate, and of the champion beside it."""

SHADOW_VERSION, SHADOW_SCORE = "anomaly.shadow.version", "anomaly.shadow.score"


@dataclass(frozen=True, slots=True)
class Loaded:
    """A registered version and its model, or why that could not be loaded."""

    registered: ModelVersion
    model: Model | None
    feature_digest: str
    """Of the features that it was made for; "" where not even that is known."""
    problem: str = ""
    cost: Cost | None = None

    @property
    def threshold(self) -> Threshold | None:
        """The one in force: the registry's, else the one that the model was made with."""
        return self.registered.threshold or (self.model.card.threshold if self.model else None)


@dataclass(frozen=True, slots=True)
class Measured:
    """A model on the judged events; all None where it cannot be judged, or there are none."""

    quality: Quality | None = None
    alerts_per_day: float | None = None
    detected: Detected | None = None
    marked: Marked | None = None
    scores: Scores | None = None
    """Of every judged event [n]."""


def load(registry: Registry, version: ModelVersion, privacy: PrivacyStamp | None = None) -> Loaded:
    """Download and check a version, and measure what it costs. An artifact that is broken, or whose features are not
    those of events made under `privacy`, is a finding, not an error.

    Raises RegistryError."""
    import onnxruntime  # noqa: F401  what it takes itself is no model's

    with tempfile.TemporaryDirectory(prefix="oddlog-judge-") as folder:
        place = registry.download(version.version, Path(folder))
        try:
            digest = read_card(place).feature_digest
        except ArtifactError as error:
            return Loaded(version, None, "", error.found)
        before = resident_mb()
        try:
            model = Model.load(place)
            check_privacy(model.card, privacy)
        except ArtifactError as error:
            return Loaded(version, None, digest, error.found)
        return Loaded(version, model, digest, cost=measure_cost(model, before))


class Bench:
    """The events that all contenders are judged on: those after every one's fitted period, and none before.

    Events before that moment are their lead-in: they bring the clients' state, and no figure is over them. What depends
    on a contender alone is computed once for it. What depends on a baseline alone is kept for KEPT_BASELINES of them,
    so that memory does not grow with the candidates: measure those that share one, one after another.
    """

    def __init__(
        self,
        store: Store,
        contenders: Sequence[Loaded],
        *,
        lead_in: dt.timedelta,
        seed: int,
        marks: Marks | None = None,
        memory_mb: int | None = None,
    ) -> None:
        """Reads the store; a sample of its clients where all would not fit into `memory_mb`. Raises StoreError."""
        ends = [one.model.card.dataset.fit_until for one in contenders if one.model is not None]
        self.since = max(ends) if ends else None
        self.sample = 1.0
        """Share of the clients that is judged on, chosen by hash."""
        said = marks or Marks()
        self._features: dict[str, tuple[Matrix, Matrix]] = {}
        """By digest of the baseline, the latest last: of the judged events, and of these with the planted ones."""
        self._measured: dict[str, Measured] = {}
        self._planted: PlantedEvents | None = None
        self._events = pl.DataFrame()
        self.events = pl.DataFrame()
        if self.since is None:
            return
        selection = Selection(since=self.since - lead_in)
        if memory_mb is not None:
            selection, _ = within_memory(store, selection, memory_mb)
        self.sample = selection.sample
        columns = [*COLUMNS, SHADOW_VERSION, SHADOW_SCORE]
        frames = [
            frame.filter(in_sample(frame["source.address"], self.sample))
            for frame in store.read_events(selection.query, columns=columns, order="position")
        ]
        if not frames:
            return
        whole = pl.concat(frames)
        judged = whole.filter(pl.col("@timestamp") >= self.since)
        self._shadow = judged.select(SHADOW_VERSION, SHADOW_SCORE)
        self._events, self.events = whole.select(COLUMNS), judged.select(COLUMNS)
        if self.events.height:
            stamp = stored_stamp(store)
            self._planted = plant_scenarios(self._events, since=self.since, seed=seed, privacy=stamp)
            self._truth, self._planted_truth = (
                truth_of(said.labels(events)) for events in (self.events, self._planted.events)
            )
            self._false_alarms, self._true_anomalies = said.false_alarms(self.events), said.true_anomalies(self.events)
            self._behaviours = units_of(self.events)[0]

    @property
    def hours(self) -> float:
        """From the first to the last judged event."""
        if not self.events.height:
            return 0.0
        times = self.events["@timestamp"].sort()
        return float((times[-1] - times[0]) / dt.timedelta(hours=1))

    @property
    def clients(self) -> int:
        """Distinct ones of the judged events."""
        return self.events["source.address"].n_unique() if self.events.height else 0

    @property
    def until(self) -> dt.datetime | None:
        """Time of the last judged event."""
        last = self.events["@timestamp"].max() if self.events.height else None
        return last if isinstance(last, dt.datetime) else None

    def measure(self, contender: Loaded) -> Measured:
        """A contender on the judged events."""
        version = contender.registered.version
        if version not in self._measured:
            self._measured[version] = self._measure(contender)
        return self._measured[version]

    def shadowed(self, contender: Loaded) -> Shadowed | None:
        """The contender's live scores as challenger beside those of here; None where there are none, or no model."""
        scores = self.measure(contender).scores
        if scores is None:
            return None
        live = self._shadow.with_columns(pl.Series("here", scores, dtype=pl.Float64)).filter(
            (pl.col(SHADOW_VERSION) == contender.registered.version) & pl.col(SHADOW_SCORE).is_not_null()
        )
        return Shadowed(live.height, rank_correlation(live[SHADOW_SCORE], live["here"])) if live.height else None

    def change(self, contender: Loaded) -> Change | None:
        """The newest events beside the contender's reference; None without a model or events."""
        if contender.model is None or not self.events.height:
            return None
        return change_since(contender.model, self.events, self._features_by(contender.model.baseline)[0])

    def agreement(self, one: Loaded, other: Loaded) -> float | None:
        """Spearman's rank correlation of client-hours, each by its highest score; None where one cannot be judged."""
        first, second = self.measure(one).scores, self.measure(other).scores
        if first is None or second is None:
            return None
        highest = (
            self.events.select("source.address", pl.col("@timestamp").dt.truncate("1h").alias("hour"))
            .with_columns(pl.Series("first", first), pl.Series("second", second))
            .group_by("source.address", "hour")
            .agg(pl.col("first").max(), pl.col("second").max())
        )
        return rank_correlation(highest["first"], highest["second"])

    def _measure(self, contender: Loaded) -> Measured:
        model, threshold = contender.model, contender.threshold
        if model is None or threshold is None or self._planted is None:
            return Measured()
        planted = self._planted
        own, mixed = self._features_by(model.baseline)
        scores, mixed_scores = model.score(own), model.score(mixed)
        flagged, _ = anomalies(threshold, scores, model.novelty(own))
        among_planted = judge_planted(
            mixed_scores,
            planted.scenario,
            planted.instance,
            threshold.value,
            known_attacks=self._planted_truth == ATTACK,
            flagged=anomalies(threshold, mixed_scores, model.novelty(mixed))[0],
        )
        labelled = judge_labelled(scores, self._truth, threshold.value, flagged=flagged)
        false_alarms, true_anomalies = self._false_alarms, self._true_anomalies
        clients, times = self.events["source.address"], self.events["@timestamp"]
        return Measured(
            quality=quality_of(labelled, among_planted),
            alerts_per_day=flagged_per_day(flagged, clients, times, self._behaviours) / self.sample,
            detected=None if among_planted is None else _detected(among_planted),
            marked=Marked(
                false_alarms=int(false_alarms.sum()),
                flagged_false_alarms=int((false_alarms & flagged).sum()),
                true_anomalies=int(true_anomalies.sum()),
                flagged_true_anomalies=int((true_anomalies & flagged).sum()),
            ),
            scores=scores,
        )

    def _features_by(self, baseline: Baseline) -> tuple[Matrix, Matrix]:
        """Of the judged events, and of these with the planted ones."""
        assert self._planted is not None
        found = self._features.pop(baseline.digest, None)
        if found is None:
            while len(self._features) >= KEPT_BASELINES:
                del self._features[next(iter(self._features))]
            matrix = FeatureComputer(baseline).compute(self._events)
            own = matrix[(self._events["@timestamp"] >= self.since).to_numpy()]
            found = own, self._planted.features(baseline)
        self._features[baseline.digest] = found
        return found


def collect(bench: Bench, contender: Loaded, champion: Loaded | None, *, budget: float) -> Evidence:
    """Everything the gates ask for about a contender, the champion measured on the same events.

    `budget` is taken where no threshold tells its own.
    """
    measured = bench.measure(contender)
    quality, threshold = measured.quality, contender.threshold
    return Evidence(
        version=contender.registered.version,
        algorithm=contender.registered.algorithm,
        events=bench.events.height,
        clients=bench.clients,
        sample=bench.sample,
        hours=bench.hours,
        average_precision=quality.average_precision if quality else None,
        basis=quality.basis if quality else None,
        attacks=quality.attacks if quality else 0,
        alerts_per_day=measured.alerts_per_day,
        budget_per_day=threshold.budget_per_day if threshold else budget,
        graph_difference=_number(contender.registered.tags.get(GRAPH_TAG)),
        golden_difference=_golden_difference(contender.model),
        feature_digest=contender.feature_digest,
        serving_feature_digest=feature_digest(),
        problem=contender.problem,
        detected=measured.detected,
        marked=measured.marked,
        cost=contender.cost,
        shadowed=bench.shadowed(contender),
        change=bench.change(contender),
        champion=None if champion is None else _rival(bench, contender, champion),
    )


def _rival(bench: Bench, contender: Loaded, champion: Loaded) -> Rival:
    measured, version = bench.measure(champion), champion.registered.version
    if measured.quality is None:
        return Rival(version, None, champion.problem or "no events after its fitted period")
    return Rival(
        version,
        measured.quality.average_precision,
        marked=measured.marked,
        agreement=bench.agreement(contender, champion),
    )


def _detected(planted: Planted) -> Detected:
    missed = tuple(name for name, outcome in planted.by_scenario.items() if not outcome.detected)
    return Detected(planted.average_precision, planted.detected, missed)


def _golden_difference(model: Model | None) -> float | None:
    """Largest difference of a golden vector's score from the one on the card."""
    if model is None:
        return None
    golden = model.card.golden
    rows = np.asarray(golden.features, dtype=np.float32).reshape(-1, len(model.card.feature_names))
    return float(np.max(np.abs(model.score(rows).astype(np.float64) - np.asarray(golden.scores)), initial=0.0))


def _number(text: str | None) -> float | None:
    """A tag's number; None where there is none."""
    try:
        return None if text is None else float(text)
    except ValueError:
        return None
