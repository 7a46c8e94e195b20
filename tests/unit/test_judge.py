"""What the judge measures, on an embedded store and models of a test's own; and what it never looks at."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
from onnx import ModelProto
from sklearn.metrics import average_precision_score
from sklearn.tree import DecisionTreeRegressor

from oddlog.connectors.by_url import open_store
from oddlog.connectors.marks import new_mark
from oddlog.connectors.registry import ModelVersion
from oddlog.connectors.store import EventQuery, Store
from oddlog.detectors.catalogue import create
from oddlog.detectors.detector import Detector
from oddlog.detectors.graph import INPUT, Graph, tree_ensemble
from oddlog.events.logfile import records_from_lines
from oddlog.events.parse import parse
from oddlog.features.compute import FeatureComputer, FitData, fit_features
from oddlog.features.declaration import FEATURE_NAMES, feature_digest
from oddlog.scoring.artifact import make_golden, write_artifact
from oddlog.scoring.model import Model
from oddlog.scoring.reference import make_reference
from oddlog.settings import StoreSettings
from oddlog.simulation import simulate
from tests.small_model import parts_of, small_model
from training import limits
from training.change import change_since
from training.cost import measure_cost, resident_mb
from training.evaluate import ATTACK, truth_of
from training.gates import load_gates
from training.judge import KEPT_BASELINES, SHADOW_SCORE, SHADOW_VERSION, Bench, Loaded, collect
from training.marks import Marks
from training.record import GRAPH_TAG
from training.verdicts import judge

TRAFFIC = simulate(seed=21, lines=4_000, days=3, attack_share=0.06)
MIDDLE = TRAFFIC.start + (TRAFFIC.end - TRAFFIC.start) / 2
LEAD_IN = dt.timedelta(days=14)
GATES = load_gates(Path(__file__).parents[2] / "gates.toml")

Matrix = npt.NDArray[np.float32]
Known = npt.NDArray[np.bool_]


class Memoriser:
    """Knows by heart which rows it was told are attacks: a tree that is grown until every leaf is pure."""

    name = "surprise"

    def __init__(self, rows: Matrix, attacks: Known) -> None:
        self._tree = DecisionTreeRegressor(random_state=0).fit(rows, attacks.astype(float))

    def fit(self, data: FitData, *, seed: int) -> Self:
        return self

    def score(self, features: Matrix) -> npt.NDArray[np.float32]:
        found: npt.NDArray[np.float32] = self._tree.predict(features).astype(np.float32)
        return found

    def contributions(self, features: Matrix) -> Matrix:
        return np.zeros_like(features)

    def parameters(self) -> dict[str, Any]:
        return {}

    def score_graph(self) -> ModelProto:
        graph = Graph(len(FEATURE_NAMES))
        tree = self._tree.tree_
        return graph.model(graph.vector(tree_ensemble(graph, INPUT, [tree], [tree.value[:, 0, :]], 1)), "score")

    def contribution_graph(self) -> ModelProto:
        graph = Graph(len(FEATURE_NAMES))
        nothing = graph.node("Mul", INPUT, graph.constant(0.0))
        return graph.model(nothing, "contributions", len(FEATURE_NAMES))


@dataclass(frozen=True)
class Place:
    """A store whose labels before MIDDLE are chance's, and after it the simulation's."""

    store: Store
    early: pl.DataFrame
    folder: Path


def events_of(lines: list[str], labels: list[str]) -> pl.DataFrame:
    records = records_from_lines([line.encode() for line in lines], labels=labels)
    return parse(records).events.with_columns(pl.lit("pending").alias("anomaly.status"))


def fill(folder: Path, events: pl.DataFrame) -> Store:
    store = open_store(StoreSettings(url=f"sqlite:///{folder}/oddlog.sqlite"))
    store.setup()
    assert not store.write_events(events).rejected
    return store


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("judge")
    events = events_of(TRAFFIC.lines, TRAFFIC.labels)
    tossed = np.where(np.random.default_rng(1).random(events.height) < 0.1, "attack:chance", "benign")
    early = pl.col("@timestamp") < MIDDLE
    events = events.with_columns(pl.when(early).then(pl.Series(tossed)).otherwise("labels.truth").alias("labels.truth"))
    store = fill(folder, events)
    yield Place(store, events.filter(early), folder)
    store.close()


def loaded(place: Place, version: str, detector: Detector | None = None) -> Loaded:
    """A registered version, fitted on the events before MIDDLE."""
    parts = parts_of([line.encode() for line in place.early["event.original"]], create("surprise"))
    info = parts["dataset"].model_copy(update={"fit_until": MIDDLE})
    if detector is not None:
        rows = np.asarray(parts["golden"].features, dtype=np.float32)
        golden = make_golden(detector, rows, detector.score(rows))
        threshold = parts["threshold"].model_copy(update={"value": 0.5})
        parts |= {"detector": detector, "golden": golden, "threshold": threshold, "novelty": None}
    target = place.folder / f"model-{version}"
    write_artifact(target, **{**parts, "dataset": info})
    before = resident_mb()
    model = Model.load(target)
    tags = {GRAPH_TAG: "1e-7"}
    registered = ModelVersion("oddlog", version, f"run-{version}", model.card.algorithm, 0, tags=tags)
    return Loaded(registered, model, feature_digest(), cost=measure_cost(model, before))


@pytest.fixture(scope="module")
def honest(place: Place) -> Loaded:
    return loaded(place, "1")


@pytest.fixture(scope="module")
def bench(place: Place, honest: Loaded) -> Bench:
    return Bench(place.store, [honest], lead_in=LEAD_IN, seed=0)


def test_a_model_that_memorised_its_training_period_gains_nothing(place: Place, honest: Loaded) -> None:
    assert honest.model is not None
    fitted = FeatureComputer(honest.model.baseline).compute(place.early)
    told = truth_of(place.early["labels.truth"]) == ATTACK
    memoriser = loaded(place, "2", Memoriser(fitted, told))
    assert memoriser.model is not None
    # On what it was fitted on it is all but perfect, by labels that were tossed.
    assert average_precision_score(told, memoriser.model.score(fitted)) > 0.9

    found = [collect_both(place.store, memoriser, honest)]
    assert found[0].champion is not None
    assert found[0].champion.average_precision is not None
    assert found[0].average_precision is not None
    assert found[0].basis == "labels"
    assert found[0].average_precision < found[0].champion.average_precision / 2
    said = {verdict.gate: verdict.outcome for verdict in judge(GATES, found[0])}
    assert (said["quality"], said["not_worse"], said["agreement"]) == ("fail", "fail", "fail")

    # Whatever that period's labels say, no figure moves: nothing of it is judged.
    for number, label in enumerate(("benign", "attack:all", None)):
        later = events_of(TRAFFIC.lines, TRAFFIC.labels).filter(pl.col("@timestamp") >= MIDDLE)
        other = place.early.with_columns(pl.lit(label, dtype=pl.String).alias("labels.truth"))
        folder = place.folder / f"relabelled-{number}"
        folder.mkdir()
        store = fill(folder, pl.concat([other, later.select(other.columns)]))
        try:
            found.append(collect_both(store, memoriser, honest))
        finally:
            store.close()
    assert all(asdict(one) == asdict(found[0]) for one in found)


def collect_both(store: Store, memoriser: Loaded, honest: Loaded) -> Any:
    bench = Bench(store, [memoriser, honest], lead_in=LEAD_IN, seed=0)
    assert bench.events["@timestamp"].min() >= MIDDLE
    return collect(bench, memoriser, honest, budget=20.0)


def test_the_evidence_of_an_honest_model_passes_the_projects_gates(bench: Bench, honest: Loaded) -> None:
    evidence = collect(bench, honest, None, budget=20.0)
    said = {verdict.gate: verdict for verdict in judge(GATES, evidence)}
    skipped = {"marks", "not_worse", "agreement", "shadow"}
    for gate, verdict in said.items():
        if gate != "latency":  # how fast this machine is just now says nothing about the judge
            assert verdict.outcome == ("skipped" if gate in skipped else "pass"), verdict
    assert evidence.clients > 10
    assert evidence.cost is not None
    assert min(evidence.cost.one_row_ms, evidence.cost.batch_ms) > 0


def test_what_does_not_fit_into_memory_is_judged_on_a_sample_of_clients(
    place: Place, honest: Loaded, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = collect(bench, honest, None, budget=20.0)
    monkeypatch.setattr(limits, "BYTES_PER_EVENT", 25_000)  # so that 2,000 of the 4,000 events fit
    evidence = collect(Bench(place.store, [honest], lead_in=LEAD_IN, seed=0, memory_mb=1), honest, None, budget=20.0)
    assert (whole.sample, evidence.sample) == (1.0, 0.5)
    assert 0.3 < evidence.clients / whole.clients < 0.7
    # Alerts are told of all clients.
    assert evidence.alerts_per_day == pytest.approx(whole.alerts_per_day, rel=0.5)


def test_features_of_a_few_baselines_are_kept_however_many_candidates_there_are(place: Place, honest: Loaded) -> None:
    lines = [line.encode() for line in place.early["event.original"]]
    others = []
    for number in (1, 2):
        model = small_model(place.folder / f"shorter-{number}", lines[: -100 * number])
        others.append(Loaded(ModelVersion("oddlog", f"1{number}", "run", "surprise", 0), model, feature_digest()))
    bench = Bench(place.store, [honest, *others], lead_in=LEAD_IN, seed=0)
    first = bench.change(honest)
    for one in [honest, *others]:
        assert bench.measure(one).scores is not None
    assert len({one.model.baseline.digest for one in [honest, *others] if one.model}) == 3
    assert len(bench._features) == KEPT_BASELINES == 2
    assert bench.change(honest) == first  # computed once more


def test_marks_are_labels_and_are_counted(place: Place, honest: Loaded, bench: Bench) -> None:
    plain = collect(bench, honest, None, budget=20.0)
    assert honest.model is not None
    assert honest.threshold is not None
    events = bench.events
    scores = honest.model.score(bench._features_by(honest.model.baseline)[0])
    flagged = events.filter(pl.Series(scores >= honest.threshold.value))["_id"].to_list()
    quiet = events.filter(pl.Series(scores < honest.threshold.value))["_id"].to_list()
    assert len(flagged) > 8
    marks = [
        *(new_mark("false-alarm", by="ada", event=id) for id in [*flagged[:5], quiet[0]]),
        *(new_mark("true-anomaly", by="ada", event=id) for id in [*flagged[5:8], *quiet[1:3]]),
    ]
    marked = Bench(place.store, [honest], lead_in=LEAD_IN, seed=0, marks=Marks.of(marks))
    evidence = collect(marked, honest, None, budget=20.0)
    assert evidence.marked is not None
    assert evidence.marked.false_alarms == 6
    assert 5 <= evidence.marked.flagged_false_alarms <= 6  # the second channel flags some beside
    assert evidence.marked.true_anomalies == 5
    assert 3 <= evidence.marked.flagged_true_anomalies <= 5
    assert plain.average_precision is not None
    assert evidence.average_precision is not None
    assert evidence.average_precision < plain.average_precision
    assert {v.gate: v.outcome for v in judge(GATES, evidence)}["marks"] == "fail"


def test_live_scores_of_the_challenger_are_held_against_those_of_the_judge(place: Place, honest: Loaded) -> None:
    assert honest.model is not None
    bench = Bench(place.store, [honest], lead_in=LEAD_IN, seed=0)
    assert bench.shadowed(honest) is None
    scores = bench.measure(honest).scores
    assert scores is not None
    stored = pl.concat(place.store.read_events(EventQuery(since=MIDDLE), order="position", with_version=True))
    assert stored["_id"].equals(bench.events["_id"])
    live = stored.select("_id", "@timestamp", "_version").with_columns(
        pl.lit("1").alias(SHADOW_VERSION), pl.Series(SHADOW_SCORE, scores, dtype=pl.Float64)
    )[::2]
    assert place.store.update_events(live) == live.height
    again = Bench(place.store, [honest], lead_in=LEAD_IN, seed=0)
    shadowed = again.shadowed(honest)
    assert shadowed is not None
    assert (shadowed.events, shadowed.agreement) == (live.height, pytest.approx(1.0))
    # Of another version there are none.
    other = Loaded(ModelVersion("oddlog", "9", "run", "surprise", 0), honest.model, honest.feature_digest)
    assert again.shadowed(other) is None


def test_a_model_agrees_with_itself_in_full(bench: Bench, honest: Loaded) -> None:
    assert bench.agreement(honest, honest) == pytest.approx(1.0)


@pytest.mark.parametrize("hours", [False, True], ids=["whole", "by-hour"])
def test_change_is_measured_on_events_that_the_model_was_not_made_from(place: Place, hours: bool) -> None:
    events = place.early
    _, data = fit_features(events)
    names = list(FEATURE_NAMES)
    times = events["@timestamp"] if hours else None
    reference = make_reference(data.features, names, np.zeros(events.height), np.zeros(events.height), times=times)
    parts = parts_of([line.encode() for line in events["event.original"]], create("surprise"))
    target = place.folder / f"reference-{hours}"
    write_artifact(target, **{**parts, "reference": reference})
    model = Model.load(target)
    assert change_since(model, events, data.features).events == 0  # it was made from all of them

    following = events.with_columns(pl.col("@timestamp") + dt.timedelta(days=10))
    same = change_since(model, following, data.features)
    assert 0 < same.events < events.height  # the newest day of them
    assert same.worth > 5
    assert set(same.distances) == set(names)
    spread = data.features.std(axis=0)
    moved = change_since(model, following, data.features + 2 * spread)
    assert moved.distances["path_rarity"] > same.distances["path_rarity"] + 1
    assert np.median(list(same.distances.values())) < 0.3
