"""Drift on simulated traffic, from training to verdict: quiet days are quiet, a release and a bot wave are not.

One model, trained once; stores with what came after it, clean or changed.
"""

from __future__ import annotations

import datetime as dt
import json
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from mlflow import MlflowClient
from typer.testing import CliRunner

from cli.main import app
from monitoring.documents import Check
from monitoring.drift import DriftResult, check_drift, measure
from monitoring.gauges import DriftGauges
from monitoring.limits import DEFAULT
from monitoring.monitor import Monitor
from monitoring.prune import prune
from monitoring.reference import Reference, fetch_reference
from oddlog.connectors.by_url import open_registry, open_store
from oddlog.connectors.registry import CHAMPION, Registry
from oddlog.connectors.store import EventQuery, Store
from oddlog.events.logfile import records_from_lines
from oddlog.events.parse import parse
from oddlog.features.compute import FeatureComputer
from oddlog.features.declaration import FEATURE_NAMES
from oddlog.scoring.local import LocalScorer
from oddlog.scoring.model import Model
from oddlog.scoring.shelf import ModelShelf
from oddlog.settings import DriftSettings, RegistrySettings, Settings, StoreSettings
from oddlog.simulation.traffic import simulate
from serving.documents import pending_events, scored_events
from tests.elastic_place import elastic_place
from tests.small_registry import registry_in
from tests.store_frames import STORED, write
from training.prepare import prepare
from training.train import train_prepared

NAMES = list(FEATURE_NAMES)
DAYS, PER_DAY, BEFORE = 8, 6_000, 5
DAY = dt.timedelta(days=1)


@dataclass
class Site:
    """A store with what came after the trained days, scored; the registry and settings are shared by all."""

    settings: Settings
    store: Store
    registry: Registry
    begin: dt.datetime
    """The end of the trained days; two whole days are stored from there on, and the day before."""

    def measure(self, reference: Reference, days: int = 2, **more: Any) -> Check:
        asked = {"since": self.begin, "until": self.begin + days * DAY, "against": "reference", **more}
        return measure(self.store, reference, DEFAULT, sample_rows=20_000, **asked)

    def command(self, *arguments: str) -> Any:
        drift = self.settings.drift
        environment = {
            "ODDLOG_REGISTRY__ARTIFACTS": self.settings.registry.artifacts,
            "ODDLOG_DRIFT__WORKSPACE": str(drift.workspace),
            "ODDLOG_DRIFT__EVIDENTLY": str(drift.evidently),
        }
        urls = ["--store", self.settings.store.url, "--registry", self.settings.registry.url]
        return CliRunner().invoke(app, [*arguments, *urls], env=environment)


@dataclass
class Trained:
    """A registry whose champion was trained on clean days."""

    settings: Settings
    registry: Registry
    begin: dt.datetime
    model: Model
    folder: Path

    @contextmanager
    def site(self, name: str, **traffic: Any) -> Iterator[Site]:
        """What came after, as `traffic` says."""
        made = simulate(seed=2, days=DAYS, lines_per_day=PER_DAY, **{"attacks": [], **traffic})
        events = parse(records_from_lines([line.encode() for line in made.lines])).events
        scorer = scorer_of(self.model)
        features = FeatureComputer(scorer.baseline("1")).compute(events)
        recent = events.with_row_index("row").filter(
            pl.col("@timestamp").is_between(self.begin - DAY, self.begin + 2 * DAY, closed="left")
        )
        scored = features[recent["row"].to_numpy()]
        place = StoreSettings(url=f"sqlite:///{self.folder}/{name}.sqlite")
        with closing(open_store(place)) as store:
            store.setup()
            write(store, scored_events(recent.drop("row"), scored, NAMES, scorer.score(scored, NAMES)))
            yield Site(self.settings.model_copy(update={"store": place}), store, self.registry, self.begin)


def few_limits(folder: Path) -> str:
    """A file without limits of distances, so that Evidently is not needed."""
    file = folder / "few.toml"
    file.write_text("[unseen_paths]\nlimit = 0.1\n[volume]\nfactor = 9.0\n")
    return str(file)


def scorer_of(model: Model) -> LocalScorer:
    shelf = ModelShelf("oddlog")
    shelf.hold("1", model)
    shelf.set_champion("1")
    return LocalScorer(shelf)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("drift")
    made = simulate(seed=2, days=DAYS, lines_per_day=PER_DAY, attacks=[])
    begin = made.start + BEFORE * DAY
    settings = Settings(
        store=StoreSettings(url=f"sqlite:///{folder}/history.sqlite"),
        registry=registry_in(folder),
        drift=DriftSettings(workspace=folder / "drift", evidently=folder / "evidently"),
    )
    registry = open_registry(settings.registry)
    events = parse(records_from_lines([line.encode() for line in made.lines])).events
    with closing(open_store(settings.store)) as store:
        store.setup()
        write(store, pending_events(events.filter(pl.col("@timestamp") < begin), None, None))
        with prepare(settings, store=store) as prepared:
            result = train_prepared(settings, prepared, algorithm="surprise", registry=registry)
    registry.set_alias(CHAMPION, result.version)
    model = Model.load(registry.download(result.version, folder / "model"))
    return Trained(settings, registry, begin, model, folder)


@pytest.fixture(scope="module")
def quiet(trained: Trained) -> Iterator[Site]:
    """Days like those before."""
    with trained.site("quiet") as site:
        yield site


@pytest.fixture(scope="module")
def released(trained: Trained) -> Iterator[Site]:
    """A release moved the paths when the trained days ended."""
    with trained.site("released", release_after=BEFORE / DAYS) as site:
        yield site


@pytest.fixture(scope="module")
def reference(trained: Trained) -> Reference:
    return fetch_reference(trained.registry)


@pytest.fixture(scope="module")
def result(released: Site) -> DriftResult:
    """Of the site with a release: everything kept."""
    return check_drift(
        released.settings, released.store, released.registry, since=released.begin, until=released.begin + 2 * DAY
    )


def test_the_reference_travels_with_the_model_by_hour(reference: Reference) -> None:
    assert sorted(reference.hours) == list(range(24))
    assert reference.slots is not None
    assert reference.slots.height > 24
    assert reference.slots["new"].null_count() == 0
    assert 0 < reference.slots["unseen"].sum() < 0.5 * reference.slots["events"].sum()
    assert reference.frame.columns == [*NAMES, "score", "severity"]
    assert reference.frame.height == 5_000


def test_days_like_those_before_are_not_drifted(quiet: Site, reference: Reference) -> None:
    found = quiet.measure(reference)
    assert not found.verdict.drifted, found.text
    assert found.text.startswith("not drifted: ")
    assert found.batch.scored == found.batch.compared
    names = {measured.name for measured in found.verdict.measures}
    assert names > {*NAMES, "score", "severity", "alert_rate", "volume", "new_clients", "unseen_paths", "lateness"}
    assert [m.name for m in found.verdict.measures if m.effect is None] == []
    before = quiet.measure(reference, 1, since=quiet.begin + DAY, until=quiet.begin + 2 * DAY, against="previous")
    assert not before.verdict.drifted, before.text
    assert before.expected.since == quiet.begin
    week = quiet.measure(reference, 1, against="same-time-last-week")
    assert "has no event that this version scored" in week.cautions[0]


def test_a_part_of_a_day_is_compared_with_like_hours(quiet: Site, reference: Reference) -> None:
    events = []
    for hour in (1, 7, 13, 19):
        since = quiet.begin + dt.timedelta(hours=hour)
        found = quiet.measure(reference, since=since, until=since + dt.timedelta(hours=4))
        assert not found.verdict.drifted, found.text
        assert found.expected.figures is not None
        events.append(found.expected.figures.events)
    assert min(events[1:]) > 1.5 * events[0]  # the night's share of the day is expected of the night


def test_a_wave_of_bots_is_drift(trained: Trained, reference: Reference) -> None:
    traffic = {"attacks": ["directory_scan"], "attack_share": 0.2, "attacks_after": BEFORE / DAYS}
    with trained.site("bots", **traffic) as site:
        found = site.measure(reference)
    assert found.verdict.drifted, found.text
    assert {"score", "status_4xx"} & set(found.verdict.by)


def test_a_release_that_moves_paths_is_drift(result: DriftResult) -> None:
    assert result.drifted, result.verdict
    past = {m.name for m in result.check.verdict.measures if m.drifted}
    assert past & {"section_rarity", "unseen_paths"}


def test_the_same_check_again_replaces_its_traces(released: Site, result: DriftResult) -> None:
    store, id = released.store, result.id
    before = {d["_id"]: d for d in store.list_documents("drift") if d["check"] == id}
    again = check_drift(
        released.settings, store, released.registry, since=released.begin, until=released.begin + 2 * DAY
    )
    assert (result.id, result.run_id, result.report) == (again.id, again.run_id, again.report)
    after = {d["_id"]: d for d in store.list_documents("drift") if d["check"] == id}
    assert before.keys() == after.keys()
    batch = after.pop(id)
    assert (batch["kind"], batch["run_id"], batch["by"]) == ("batch", result.run_id, result.check.verdict.by)
    assert {d["name"] for d in after.values()} == {m.name for m in result.check.verdict.measures}
    assert after[f"{id}-path_rarity"]["sentence"].startswith("how rare its path is: ")
    assert json.loads(result.report.with_suffix(".json").read_text()) == json.loads(json.dumps(again.document()))
    workspace = released.settings.drift.evidently
    assert workspace is not None
    assert len(list(workspace.glob("*/snapshots/*.json"))) == 1


def test_mlflow_has_the_check_beside_its_model(released: Site, result: DriftResult) -> None:
    client = MlflowClient(released.settings.registry.url, released.settings.registry.url)
    run = client.get_run(result.run_id)
    assert client.get_experiment(run.info.experiment_id).name == "oddlog-monitoring"
    assert run.info.status == "FINISHED"
    assert run.data.metrics["drift.share"] == pytest.approx(result.check.verdict.share)
    assert run.data.metrics["effect/score"] > 0
    assert run.data.tags["oddlog.model.version"] == "1"
    assert {file.path for file in client.list_artifacts(result.run_id)} == {"drift.html", "drift.json"}
    version = client.get_model_version("oddlog", "1")
    assert result.run_id in version.tags["oddlog.drift.last"]
    assert [f"models:/{model.model_id}" for model in run.inputs.model_inputs] == [version.source]


def test_the_report_says_what_was_compared(result: DriftResult) -> None:
    page = result.report.read_text()
    assert len(page) < 2_000_000
    assert "<title>Drift of oddlog version 1</title>" in page
    assert f"{int(result.check.batch.figures.events):,} events" in page
    assert "D" + result.verdict[1:] in page
    assert page.count("<svg") == 12  # ten features, score, severity
    assert 'src="' not in page


def test_the_command_tells_by_its_exit_code(quiet: Site, released: Site, tmp_path: Path) -> None:
    few = few_limits(tmp_path)
    ends = f"{quiet.begin:%Y-%m-%d}..{quiet.begin + 2 * DAY:%Y-%m-%d}"
    sound = quiet.command("drift", "--batch", ends, "--json", "--limits", few, "--report", str(tmp_path / "r.html"))
    assert sound.exit_code == 0, sound.output
    assert json.loads(sound.stdout)["drifted"] is False
    assert (tmp_path / "r.html").is_file()

    moved = released.command("drift", "--batch", ends, "--limits", few)
    assert moved.exit_code == 1, moved.output
    assert "drifted: " in moved.stdout

    future = quiet.command("drift", "--since", "2090-01-01")
    assert future.exit_code == 2
    assert "there are no events" in " ".join(future.stderr.split())
    away = CliRunner().invoke(app, ["drift", "--registry", "http://127.0.0.1:9", "--store", quiet.settings.store.url])
    assert away.exit_code == 3
    nobody = RegistrySettings(url=f"sqlite:///{tmp_path}/mlflow.db", artifacts=f"{tmp_path}/artifacts")
    none = CliRunner().invoke(app, ["drift", "--registry", nobody.url, "--store", quiet.settings.store.url])
    assert none.exit_code == 2
    assert "no model is champion" in none.stderr


@pytest.mark.parametrize(
    "arguments",
    [["--last", "1 fortnight"], ["--since", "yesterday"], ["--last", "1h", "--since", "2024-01-01"],
     ["--since", "2024-01-02", "--until", "2024-01-01"], ["--batch", "2h"], ["--batch", "1h", "--last", "1h"],
     ["--limits", "none.toml"]],
)  # fmt: skip
def test_periods_and_limits_that_are_none(arguments: list[str]) -> None:
    assert CliRunner().invoke(app, ["drift", *arguments]).exit_code == 2


def test_a_monitor_catches_up_in_order_once_and_alone(trained: Trained, released: Site) -> None:
    """Started, then away for a batch; killed between a batch's document and its own; another beside it."""
    clock = [released.begin + DAY + dt.timedelta(minutes=10)]
    gauges = DriftGauges()
    drift = released.settings.drift.model_copy(update={"limits": Path(few_limits(trained.folder))})
    settings = released.settings.model_copy(update={"drift": drift})

    def monitor() -> Monitor:
        return Monitor(settings, released.store, released.registry, every="1d", observe=gauges, now=lambda: clock[0])

    def batches() -> list[str]:
        """Ends of the batches of a day; other tests have checked other lengths in this store."""
        found = [d["batch"] for d in released.store.list_documents("drift") if d["kind"] == "batch"]
        ends = [(dt.datetime.fromisoformat(one["since"]), dt.datetime.fromisoformat(one["until"])) for one in found]
        return sorted(f"{until:%Y-%m-%d}" for since, until in ends if until - since == DAY)

    first, second = (f"{released.begin + n * DAY:%Y-%m-%d}" for n in (1, 2))
    done = monitor().catch_up()
    assert (done.checked, done.drifted, batches()) == (1, 1, [first])
    assert monitor().catch_up().checked == 0

    clock[0] += DAY
    key = "monitor-oddlog-1d"
    assert released.store.acquire_lock(key, "another", 60) is None
    assert monitor().catch_up().waiting_for == f"another holds the lock '{key}'"
    released.store.release_lock(key, "another")
    place = released.store.get_document("runs", key)
    assert place is not None
    assert monitor().catch_up().checked == 1
    assert batches() == [first, second]
    runs = released.store.list_documents("drift")
    released.store.put_document("runs", key, place)  # as if it had died before its own document
    again = monitor().catch_up()
    assert (again.checked, again.skipped) == (0, 1)
    assert released.store.list_documents("drift") == runs

    clock[0] += 40 * DAY  # older than catch_up_days: passed over
    released.store.put_document("runs", key, {"until": f"{clock[0] - 8.5 * DAY:%Y-%m-%dT00:00:00Z}"})
    loop = Monitor(
        settings.model_copy(update={"monitor": settings.monitor.model_copy(update={"catch_up_days": 0.5})}),
        released.store, released.registry, every="1d", observe=gauges, now=lambda: clock[0],
    )  # fmt: skip
    done = loop.catch_up()
    assert done.checked == 1
    assert done.skipped >= 7
    assert gauges.registry.get_sample_value("oddlog_drift_batch_events") == 0
    assert gauges.registry.get_sample_value("oddlog_drift_drifted") == 1  # nothing came at all
    assert gauges.registry.get_sample_value("oddlog_monitor_checks_total", {"outcome": "drifted"}) == 3
    labels = {"measure": "volume", "unit": "factor"}
    assert gauges.registry.get_sample_value("oddlog_drift_past_limit", labels) == 1


def test_the_loop_as_a_command(released: Site, tmp_path: Path) -> None:
    """The last whole day of the real clock, of which nothing is stored; then there is nothing more to do."""
    arguments = ["monitor", "--every", "1d", "--against", "previous", "--limits", few_limits(tmp_path)]
    first = released.command(*arguments, "--once", "--json")
    assert first.exit_code == 0, first.output
    assert json.loads(first.stdout) == {"checked": 1, "drifted": 0, "skipped": 0}  # as empty as the day before
    again = released.command(*arguments, "--once")
    assert again.exit_code == 0
    assert "0 batches checked" in again.stderr
    wrong = released.command("monitor", "--once", "--limits", "none.toml")
    assert wrong.exit_code == 2


def test_old_reports_are_pruned(released: Site, result: DriftResult) -> None:
    settings, now = released.settings, dt.datetime.now(dt.UTC)
    old = result.report.with_name("old.html")
    old.write_text("old")
    os.utime(old, ((now - 91 * DAY).timestamp(),) * 2)
    assert prune(settings, now) == {"files": 1, "snapshots": 0, "runs": 0}
    assert result.report.is_file()
    late = prune(settings, now + 91 * DAY)
    assert late["files"] >= 2
    assert late["snapshots"] >= 1
    assert late["runs"] >= 2
    assert not result.report.exists()
    assert released.store.get_document("drift", result.id) is not None
    client = MlflowClient(settings.registry.url, settings.registry.url)
    assert client.get_run(result.run_id).info.lifecycle_stage == "deleted"
    assert client.list_artifacts(result.run_id) == []


@pytest.mark.elasticsearch
def test_drift_from_elasticsearch(released: Site, reference: Reference, elasticsearch_url: str, tmp_path: Path) -> None:
    """The same site's events, in another store: the same verdict, and its documents can be asked for."""
    with elastic_place(elasticsearch_url) as place, closing(open_store(place)) as store:
        store.setup()
        for events in released.store.read_events(EventQuery(status="scored"), columns=[*STORED, "features.*"]):
            write(store, events)
        here, there = (replace(released, store=one).measure(reference) for one in (released.store, store))
        assert there.verdict.by == here.verdict.by
        found = {m.name: m for m in there.verdict.measures}
        for one in here.verdict.measures:
            assert found[one.name].effect == pytest.approx(one.effect, abs=0.02), one.name
        drift = DriftSettings(workspace=tmp_path, evidently=None, limits=None)
        settings = released.settings.model_copy(update={"store": place, "drift": drift})
        result = check_drift(settings, store, released.registry, since=released.begin, until=released.begin + DAY)
        documents = store.list_documents("drift")
        assert len(documents) == 1 + len(result.check.verdict.measures)
        assert not store.setup_problems()
