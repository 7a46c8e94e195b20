"""From events in a store to a champion in MLflow, and back: the whole way, embedded, on simulated traffic."""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from cli.main import app
from oddlog.connectors import mlflow_connection
from oddlog.connectors.by_url import open_registry, open_store
from oddlog.connectors.registry import CHAMPION, PREVIOUS, Registry
from oddlog.connectors.store import EventQuery, Store
from oddlog.detectors.catalogue import NAMES
from oddlog.errors import OutsideError, UsageError
from oddlog.events.logfile import records_from_lines
from oddlog.events.parse import parse
from oddlog.features.compute import FeatureComputer
from oddlog.scoring.model import Model
from oddlog.settings import Settings
from oddlog.simulation import simulate
from training.prepare import prepare
from training.promote import promote, refusal, rollback
from training.record import GRAPH_TAG
from training.train import TrainResult, train, train_prepared

LINES, DAYS = 6_000, 3
EASY = "[data]\nmin_events = 200\n[schema]\n[graph]\nmax_difference = 1e-3\n[golden]\nmax_difference = 1e-3\n"
GATES = EASY + "[quality]\nmin_average_precision = 0.2\n[not_worse]\nmargin = 0.02\n[alert_rate]\nmax_factor = 3.0\n"


@dataclass(frozen=True)
class Place:
    """A store with events, an empty registry, and the settings that name them."""

    settings: Settings
    store: Store
    registry: Registry
    folder: Path


def make_place(folder: Path, *, attack_share: float = 0.05) -> Place:
    (folder / "gates.toml").write_text(GATES)
    settings = Settings(
        store={"url": f"sqlite:///{folder}/oddlog.sqlite"},
        registry={"url": f"sqlite:///{folder}/mlflow.db", "artifacts": str(folder / "artifacts")},
        promote={"gates": folder / "gates.toml", "reports": folder / "reports"},
        train={"seed": 3},
    )
    store = open_store(settings.store)
    store.setup()
    made = simulate(seed=11, lines=LINES, days=DAYS, attack_share=attack_share)
    records = records_from_lines([text.encode() for text in made.lines], labels=made.labels)
    pending = parse(records).events.with_columns(pl.lit("pending").alias("anomaly.status"))
    outcome = store.write_events(pending)
    assert not outcome.rejected
    assert not outcome.retry
    return Place(settings, store, open_registry(settings.registry), folder)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    made = make_place(tmp_path_factory.mktemp("training"))
    yield made
    made.store.close()


@pytest.fixture(scope="module")
def trained(place: Place) -> dict[str, TrainResult]:
    """One training of every algorithm, on one pull of the events."""
    with prepare(place.settings, store=place.store) as prepared:
        return {
            name: train_prepared(place.settings, prepared, algorithm=name, registry=place.registry) for name in NAMES
        }


@pytest.fixture
def fresh(place: Place, trained: dict[str, TrainResult]) -> Place:
    """The trained place, as it was before any promotion."""
    for alias in (CHAMPION, PREVIOUS):
        place.registry.delete_alias(alias)
    for version in place.registry.versions():
        ours = version.version in {result.version for result in trained.values()}
        place.registry.set_tags(version.version, {"status": "candidate" if ours else "retired"})
    (place.folder / "gates.toml").write_text(GATES)
    return place


def test_every_algorithm_is_a_run_and_a_candidate(place: Place, trained: dict[str, TrainResult]) -> None:
    versions = {version.version: version for version in place.registry.versions()}
    assert len({result.run_id for result in trained.values()}) == len(NAMES)
    assert len({result.dataset_digest for result in trained.values()}) == 1
    for name, result in trained.items():
        registered = versions[result.version]
        assert (registered.algorithm, registered.tags["status"]) == (name, "candidate")
        assert registered.run_id == result.run_id
        assert registered.threshold == result.threshold
        assert registered.tags["dataset_digest"] == result.dataset_digest
        assert registered.tags["model_digest"] == result.model_digest
        assert float(registered.tags[GRAPH_TAG]) < 1e-3
        assert registered.tags["quality_basis"] == "labels"
        assert result.events == LINES
        assert result.metrics["labels/average_precision"] > 0.4
        assert result.metrics["planted/average_precision"] > 0.4
        assert 0 < result.metrics["threshold/alerts_per_day"] <= 20


def test_the_run_page_has_what_a_person_looks_for(place: Place, trained: dict[str, TrainResult]) -> None:
    client = mlflow_connection.client(place.settings.registry)
    run = client.get_run(trained["iforest"].run_id)
    assert run.info.status == "FINISHED"
    assert run.info.run_name.startswith("iforest 20")
    assert {name.split(".")[0] for name in run.data.params} >= {"data", "train", "features", "detector"}
    groups = {name.split("/")[0] for name in run.data.metrics}
    assert groups >= {"quality", "labels", "planted", "threshold", "graph", "data", "seconds"}
    figures = {Path(entry.path).name for entry in client.list_artifacts(run.info.run_id, "figures")}
    assert figures == {
        "score_histogram.png",
        "precision_recall.png",
        "scores_over_time.png",
        "contributions.png",
    }
    (data,) = run.inputs.dataset_inputs
    assert data.dataset.digest == trained["iforest"].dataset_digest
    snapshot = client.download_artifacts(run.info.run_id, f"dataset/{data.dataset.digest}.parquet")
    assert pl.read_parquet(snapshot).height == LINES
    version = client.get_model_version(place.settings.registry.model, trained["iforest"].version)
    assert version.description.startswith("# iforest")
    assert "| average precision |" in version.description


def test_the_registered_artifact_scores_as_the_training_did(
    place: Place, trained: dict[str, TrainResult], tmp_path: Path
) -> None:
    for name, result in trained.items():
        model = Model.load(place.registry.download(result.version, tmp_path / name))
        assert model.card.model_digest == result.model_digest
        assert model.card.algorithm == name
        events = pl.concat(place.store.read_events(EventQuery(), order="position"))
        scores = model.score(FeatureComputer(model.baseline).compute(events))
        later = (events["@timestamp"] >= model.card.dataset.fit_until).to_numpy()
        assert int(later.sum()) == model.card.calibration.events
        flagged = later & (scores >= result.threshold.value)
        assert 0 < flagged.sum() < later.sum() / 4
        assert np.isfinite(scores).all()


def test_the_same_events_and_seed_give_the_same_model(place: Place, trained: dict[str, TrainResult]) -> None:
    again = train(place.settings, algorithm="surprise", store=place.store, registry=place.registry)
    assert again.model_digest == trained["surprise"].model_digest
    assert again.dataset_digest == trained["surprise"].dataset_digest
    assert again.version != trained["surprise"].version


def test_the_best_candidate_becomes_champion_with_evidence(fresh: Place) -> None:
    told: list[str] = []
    done = promote(fresh.settings, store=fresh.store, registry=fresh.registry, progress=told.append)
    champion = fresh.registry.by_alias(CHAMPION)
    assert champion is not None
    assert champion.version == done.promoted
    ranked = [round(one.evidence.average_precision or -1, 3) for one in done.judged]
    assert ranked == sorted(ranked, reverse=True)
    assert len(ranked) == len(NAMES)
    tags = champion.tags
    assert tags["status"] == "champion"
    assert tags["gate.quality"].startswith("pass: average precision")
    assert tags["gate.not_worse"].startswith("skipped: there is no champion yet")
    text = done.report.read_text()
    assert text.startswith(f"# Version {done.promoted} is champion\n")
    assert "| alert_rate | pass |" in text
    client = mlflow_connection.client(fresh.settings.registry)
    assert [entry.path for entry in client.list_artifacts(champion.run_id, "promotion")][-1].endswith(done.report.name)
    # The others had their chance: a second promotion does not take a worse one.
    others = [one.version.version for one in done.judged if one.version.version != done.promoted]
    assert all(fresh.registry.version(v).tags["status"] in {"outranked", "rejected"} for v in others)
    with pytest.raises(UsageError, match="holds no candidate"):
        promote(fresh.settings, store=fresh.store, registry=fresh.registry)
    assert told


def test_a_dry_run_changes_nothing_in_the_registry(fresh: Place) -> None:
    before = fresh.registry.versions()
    done = promote(fresh.settings, dry_run=True, store=fresh.store, registry=fresh.registry)
    assert done.promoted is not None
    assert done.report.read_text().startswith(f"# Dry run: version {done.promoted} would become champion")
    # Nor in the store: it takes no lock, so that it holds up nobody and nobody holds it up.
    lock = f"promote-{fresh.settings.registry.model}"
    assert fresh.store.acquire_lock(lock, "someone else", 60) is None
    try:
        assert promote(fresh.settings, dry_run=True, store=fresh.store, registry=fresh.registry).promoted
    finally:
        fresh.store.release_lock(lock, "someone else")
    assert fresh.registry.versions() == before
    assert fresh.registry.by_alias(CHAMPION) is None


def test_a_gate_that_says_no_rejects_and_leaves_the_champion(fresh: Place, trained: dict[str, TrainResult]) -> None:
    fresh.registry.set_alias(CHAMPION, trained["iforest"].version)
    (fresh.folder / "gates.toml").write_text("[quality]\nmin_average_precision = 1.0")
    done = promote(fresh.settings, store=fresh.store, registry=fresh.registry)
    assert done.promoted is None
    assert "quality (average precision" in refusal(fresh.settings, done).found
    champion = fresh.registry.by_alias(CHAMPION)
    assert champion is not None
    assert champion.version == trained["iforest"].version
    assert fresh.registry.by_alias(PREVIOUS) is None
    rejected = fresh.registry.version(trained["surprise"].version)
    assert rejected.tags["status"] == "rejected"
    assert rejected.tags["gate.quality"].startswith("fail:")


def test_a_candidate_is_compared_with_the_champion_on_the_same_events(
    fresh: Place, trained: dict[str, TrainResult]
) -> None:
    fresh.registry.set_alias(CHAMPION, trained["iforest"].version)
    named = trained["surprise"].version
    done = promote(fresh.settings, candidate=named, dry_run=True, store=fresh.store, registry=fresh.registry)
    (one,) = done.judged
    assert one.version.version == named
    rival = one.evidence.champion
    assert rival is not None
    assert rival.version == trained["iforest"].version
    # Judged on the later part of one data set, both give what their trainings measured.
    for found, result in ((one.evidence.average_precision, "surprise"), (rival.average_precision, "iforest")):
        assert found == pytest.approx(trained[result].metrics["labels/average_precision"], abs=1e-6)


def test_promotion_and_rollback_move_both_aliases(fresh: Place, trained: dict[str, TrainResult]) -> None:
    first, second = trained["iforest"].version, trained["surprise"].version
    (fresh.folder / "gates.toml").write_text(EASY)
    for version in (first, second):
        promote(fresh.settings, candidate=version, store=fresh.store, registry=fresh.registry)
    assert _aliases(fresh) == (second, first)
    assert fresh.registry.version(first).tags["status"] == "previous"
    with pytest.raises(UsageError, match="is champion already"):
        promote(fresh.settings, candidate=second, store=fresh.store, registry=fresh.registry)
    done = rollback(fresh.settings, store=fresh.store, registry=fresh.registry)
    assert (done.champion, done.previous) == (first, second)
    assert _aliases(fresh) == (first, second)
    assert fresh.registry.version(second).tags["status"] == "rolled_back"


def test_there_is_no_way_back_without_a_previous_champion(fresh: Place, trained: dict[str, TrainResult]) -> None:
    with pytest.raises(UsageError, match="there is no champion"):
        rollback(fresh.settings, store=fresh.store, registry=fresh.registry)
    fresh.registry.set_alias(CHAMPION, trained["iforest"].version)
    with pytest.raises(UsageError, match="no other version is `previous`"):
        rollback(fresh.settings, store=fresh.store, registry=fresh.registry)


def test_two_promotions_do_not_work_at_once(fresh: Place) -> None:
    lock = f"promote-{fresh.settings.registry.model}"
    assert fresh.store.acquire_lock(lock, "someone else", 60) is None
    try:
        with pytest.raises(OutsideError, match="someone else holds the lock"):
            promote(fresh.settings, store=fresh.store, registry=fresh.registry)
        with pytest.raises(OutsideError, match="someone else holds the lock"):
            rollback(fresh.settings, store=fresh.store, registry=fresh.registry)
    finally:
        fresh.store.release_lock(lock, "someone else")
    assert fresh.registry.by_alias(CHAMPION) is None
    promote(fresh.settings, store=fresh.store, registry=fresh.registry)
    # And the lock was given back.
    assert fresh.store.acquire_lock(lock, "the next", 60) is None
    fresh.store.release_lock(lock, "the next")


def test_a_champion_that_changes_while_candidates_are_judged_stops_the_promotion(
    fresh: Place, trained: dict[str, TrainResult]
) -> None:
    def change(stage: str) -> None:
        if stage.startswith("judging"):
            fresh.registry.set_alias(CHAMPION, trained["autoencoder"].version)

    with pytest.raises(OutsideError, match="the champion changed from none"):
        promote(fresh.settings, store=fresh.store, registry=fresh.registry, progress=change)
    assert _aliases(fresh) == (trained["autoencoder"].version, None)
    assert fresh.registry.version(trained["surprise"].version).tags["status"] == "candidate"


def test_a_broken_artifact_is_a_failed_gate_and_the_next_candidate_is_tried(
    fresh: Place, trained: dict[str, TrainResult], tmp_path: Path
) -> None:
    order = promote(fresh.settings, dry_run=True, store=fresh.store, registry=fresh.registry).judged
    best = order[0].version
    client = mlflow_connection.client(fresh.settings.registry)
    source = client.get_model_version(best.name, best.version).source
    location = client.get_logged_model(source.removeprefix("models:/")).artifact_location
    graph = Path(location.removeprefix("file://")) / "model.onnx"
    whole = graph.read_bytes()
    try:
        graph.write_bytes(whole[:-1])
        done = promote(fresh.settings, store=fresh.store, registry=fresh.registry)
    finally:
        graph.write_bytes(whole)
    assert done.promoted != best.version
    # It could not be measured, so it ranks last, and the gates had no need to ask it.
    assert done.judged[-1].version.version == best.version
    assert "digest" in done.judged[-1].evidence.problem


def test_too_few_later_events_leave_a_candidate_a_candidate(fresh: Place, trained: dict[str, TrainResult]) -> None:
    (fresh.folder / "gates.toml").write_text("[data]\nmin_events = 1_000_000")
    done = promote(fresh.settings, store=fresh.store, registry=fresh.registry)
    assert done.promoted is None
    assert re.search(r"data \(1,\d+ events", refusal(fresh.settings, done).found)
    assert fresh.registry.version(trained["iforest"].version).tags["status"] == "candidate"


def test_the_verbs_tell_the_story(fresh: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ODDLOG_STORE__URL", fresh.settings.store.url)
    monkeypatch.setenv("ODDLOG_REGISTRY__URL", fresh.settings.registry.url)
    monkeypatch.setenv("ODDLOG_REGISTRY__ARTIFACTS", fresh.settings.registry.artifacts)
    monkeypatch.setenv("ODDLOG_PROMOTE__REPORTS", str(fresh.settings.promote.reports))
    gates = str(fresh.settings.promote.gates)
    run = CliRunner().invoke

    made = run(app, ["train", "--algorithm", "surprise", "--budget", "5/day", "--json"])
    assert made.exit_code == 0, made.output
    document = json.loads(made.stdout)
    assert document["threshold"]["budget_per_day"] == 5
    assert document["ui"] == f"mlflow ui --backend-store-uri {fresh.settings.registry.url}"

    listed = run(app, ["models", "--json"])
    newest = json.loads(listed.stdout)[0]
    assert (newest["version"], newest["status"], newest["aliases"]) == (document["version"], "candidate", [])
    assert newest["threshold"]["budget_per_day"] == 5
    assert "surprise" in run(app, ["models"]).stdout

    done = run(app, ["promote", "--gates", gates, "--json"])
    assert done.exit_code == 0, done.output
    promoted = json.loads(done.stdout)["promoted"]
    assert fresh.registry.by_alias(CHAMPION) is not None
    assert _aliases(fresh)[0] == promoted

    none = run(app, ["promote", "--gates", gates])
    assert none.exit_code == 2
    assert "holds no candidate" in " ".join(none.output.split())
    Path(gates).write_text("[quality]\nmin_average_precision = 1.0")
    other = next(v.version for v in fresh.registry.versions() if v.version != promoted)
    refused = run(app, ["promote", "--gates", gates, "--candidate", other])
    assert refused.exit_code == 1
    assert "stays champion" in " ".join(refused.output.split())
    assert run(app, ["rollback"]).exit_code == 2


def test_too_few_events_are_refused_with_what_the_store_holds(place: Place) -> None:
    since = dt.datetime(2031, 1, 1, tzinfo=dt.UTC)
    with pytest.raises(UsageError, match=f"the store holds {LINES:,}"):
        train(place.settings, algorithm="surprise", since=since, store=place.store)
    greedy = place.settings.model_copy(
        update={"train": place.settings.train.model_copy(update={"min_events": LINES + 1})}
    )
    with pytest.raises(UsageError, match=f"{LINES:,} events to train on"):
        train(greedy, algorithm="surprise", store=place.store)


def test_events_without_labels_are_judged_by_planted_attacks(tmp_path: Path) -> None:
    made = make_place(tmp_path, attack_share=0.0)
    try:
        result = train(made.settings, algorithm="surprise", store=made.store, registry=made.registry)
    finally:
        made.store.close()
    assert "labels/average_precision" not in result.metrics
    assert result.metrics["quality/average_precision"] == result.metrics["planted/average_precision"]
    assert made.registry.version(result.version).tags["quality_basis"] == "planted"


def _aliases(place: Place) -> tuple[str | None, str | None]:
    champion, previous = place.registry.by_alias(CHAMPION), place.registry.by_alias(PREVIOUS)
    return champion and champion.version, previous and previous.version
