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

from oddlog.connectors.registry import ModelVersion, Registry
from oddlog.connectors.store import EventQuery, Store
from oddlog.errors import ArtifactError
from oddlog.features.baseline import Baseline
from oddlog.features.compute import FeatureComputer
from oddlog.features.declaration import feature_digest
from oddlog.features.fitting import units_of
from oddlog.scoring.artifact import read_card
from oddlog.scoring.card import Threshold
from oddlog.scoring.model import Model
from oddlog.scoring.threshold import anomalies, flagged_per_day
from training.dataset import COLUMNS
from training.evaluate import ATTACK, Quality, judge_labelled, judge_planted, quality_of, truth_of
from training.gates import Evidence, Rival
from training.planting import PlantedEvents, plant_scenarios
from training.record import GRAPH_TAG

Matrix = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Loaded:
    """A registered version and its model, or why that could not be loaded."""

    registered: ModelVersion
    model: Model | None
    feature_digest: str
    """Of the features that it was made for; "" where not even that is known."""
    problem: str = ""

    @property
    def threshold(self) -> Threshold | None:
        """The one in force: the registry's, else the one that the model was made with."""
        return self.registered.threshold or (self.model.card.threshold if self.model else None)


@dataclass(frozen=True, slots=True)
class Measured:
    """A model on the judged events."""

    quality: Quality | None
    alerts_per_day: float | None


def load(registry: Registry, version: ModelVersion) -> Loaded:
    """Download and check a version. An artifact that is broken is a finding, not an error. Raises RegistryError."""
    with tempfile.TemporaryDirectory(prefix="oddlog-judge-") as folder:
        place = registry.download(version.version, Path(folder))
        try:
            digest = read_card(place).feature_digest
        except ArtifactError as error:
            return Loaded(version, None, "", error.found)
        try:
            return Loaded(version, Model.load(place), digest)
        except ArtifactError as error:
            return Loaded(version, None, digest, error.found)


class Bench:
    """The events that all contenders are judged on: those after every one's fitted period.

    Events before that moment are their lead-in. What depends on a baseline alone is computed once for it.
    """

    def __init__(self, store: Store, contenders: Sequence[Loaded], *, lead_in: dt.timedelta, seed: int) -> None:
        """Reads the store. Raises StoreError."""
        ends = [one.model.card.dataset.fit_until for one in contenders if one.model is not None]
        self.since = max(ends) if ends else None
        self._features: dict[str, Matrix] = {}
        self._planted_features: dict[str, Matrix] = {}
        self._planted: PlantedEvents | None = None
        if self.since is None:
            self._events = pl.DataFrame()
            self.events = pl.DataFrame()
            return
        query = EventQuery(since=self.since - lead_in)
        frames = list(store.read_events(query, columns=COLUMNS, order="position"))
        self._events = pl.concat(frames) if frames else pl.DataFrame()
        self.events = self._events.filter(pl.col("@timestamp") >= self.since) if frames else pl.DataFrame()
        if self.events.height:
            self._planted = plant_scenarios(self._events, since=self.since, seed=seed)

    @property
    def hours(self) -> float:
        """From the first to the last judged event."""
        if not self.events.height:
            return 0.0
        times = self.events["@timestamp"].sort()
        return float((times[-1] - times[0]) / dt.timedelta(hours=1))

    @property
    def until(self) -> dt.datetime | None:
        """Time of the last judged event."""
        last = self.events["@timestamp"].max() if self.events.height else None
        return last if isinstance(last, dt.datetime) else None

    def measure(self, contender: Loaded) -> Measured:
        """Quality and alerts of a contender on the judged events."""
        model, threshold = contender.model, contender.threshold
        if model is None or threshold is None or self._planted is None:
            return Measured(None, None)
        own, planted = self._own_features(model.baseline), self._planted
        mixed = self._mixed_features(model.baseline, planted)
        scores, mixed_scores = model.score(own), model.score(mixed)
        flagged, _ = anomalies(threshold, scores, model.novelty(own))
        quality = quality_of(
            judge_labelled(scores, truth_of(self.events["labels.truth"]), threshold.value, flagged=flagged),
            judge_planted(
                mixed_scores,
                planted.scenario,
                planted.instance,
                threshold.value,
                known_attacks=truth_of(planted.events["labels.truth"]) == ATTACK,
                flagged=anomalies(threshold, mixed_scores, model.novelty(mixed))[0],
            ),
        )
        events, behaviours = self.events, units_of(self.events)[0]
        alerts = flagged_per_day(flagged, events["source.address"], events["@timestamp"], behaviours)
        return Measured(quality, alerts)

    def _own_features(self, baseline: Baseline) -> Matrix:
        if baseline.digest not in self._features:
            matrix = FeatureComputer(baseline).compute(self._events)
            self._features[baseline.digest] = matrix[(self._events["@timestamp"] >= self.since).to_numpy()]
        return self._features[baseline.digest]

    def _mixed_features(self, baseline: Baseline, planted: PlantedEvents) -> Matrix:
        if baseline.digest not in self._planted_features:
            self._planted_features[baseline.digest] = planted.features(baseline)
        return self._planted_features[baseline.digest]


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
        champion=None if champion is None else _rival(bench, champion),
    )


def _rival(bench: Bench, champion: Loaded) -> Rival:
    quality = bench.measure(champion).quality
    if quality is None:
        return Rival(champion.registered.version, None, champion.problem or "no events after its fitted period")
    return Rival(champion.registered.version, quality.average_precision)


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
