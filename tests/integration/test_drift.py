"""Drift on simulated traffic, from training to verdict: quiet days are quiet, a release and a bot wave are not."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from mlflow import MlflowClient
from typer.testing import CliRunner

from cli.main import app
from monitoring.drift import DriftResult, check_drift
from oddlog.connectors.by_url import open_registry, open_store
from oddlog.connectors.registry import CHAMPION, Registry
from oddlog.connectors.store import EventQuery, Store
from oddlog.errors import UsageError
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
DAYS, PER_DAY = 6, 2_500
HALF = dt.timedelta(days=DAYS / 2)


@dataclass
class Site:
    """A store with one site's traffic, scored by a model of its first half, and the registry that has it."""

    settings: Settings
    store: Store
    registry: Registry
    start: dt.datetime

    @property
    def half(self) -> dt.datetime:
        return self.start + HALF

    def check(self, **more: Any) -> DriftResult:
        return check_drift(self.settings, self.store, self.registry, **more)

    def command(self, *arguments: str) -> Any:
        registry = self.settings.registry
        environment = {
            "ODDLOG_REGISTRY__ARTIFACTS": registry.artifacts,
            "ODDLOG_DRIFT__WORKSPACE": str(self.settings.drift.workspace),
        }
        urls = ["--store", self.settings.store.url, "--registry", registry.url]
        return CliRunner().invoke(app, ["drift", *urls, *arguments], env=environment)


@contextmanager
def build(folder: Path, store: StoreSettings, **traffic: Any) -> Iterator[Site]:
    """A site in `folder`, whose second half is other than its first by what `traffic` says."""
    settings = Settings(
        store=store,
        registry=registry_in(folder),
        drift=DriftSettings(workspace=folder / "drift"),
    )
    registry = open_registry(settings.registry)
    with closing(open_store(store)) as opened:
        opened.setup()
        simulated = simulate(seed=2, days=DAYS, lines_per_day=PER_DAY, **traffic)
        events = parse(records_from_lines([line.encode() for line in simulated.lines])).events
        history = pl.col("@timestamp") < simulated.start + HALF
        write(opened, pending_events(events.filter(history), None, None))
        with prepare(settings, store=opened) as prepared:
            trained = train_prepared(settings, prepared, algorithm="surprise", registry=registry)
        registry.set_alias(CHAMPION, trained.version)

        shelf = ModelShelf(settings.registry.model)
        shelf.hold(trained.version, Model.load(registry.download(trained.version, folder / "model")))
        shelf.set_champion(trained.version)
        scorer = LocalScorer(shelf)
        features = FeatureComputer(scorer.baseline(trained.version)).compute(events)
        recent = events.with_row_index("row").filter(~history)
        scored = features[recent["row"].to_numpy()]
        write(opened, scored_events(recent.drop("row"), scored, NAMES, scorer.score(scored, NAMES)))
        yield Site(settings, opened, registry, simulated.start)


def embedded(folder: Path) -> StoreSettings:
    return StoreSettings(url=f"sqlite:///{folder}/events.sqlite")


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Days like those before."""
    folder = tmp_path_factory.mktemp("quiet")
    with build(folder, embedded(folder), attacks=[]) as site:
        yield site


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A release moved the paths half-way."""
    folder = tmp_path_factory.mktemp("released")
    with build(folder, embedded(folder), attacks=[], release_after=0.5) as site:
        yield site


@pytest.fixture(scope="module")
def quiet_result(quiet: Site) -> DriftResult:
    return quiet.check()


@pytest.fixture(scope="module")
def result(released: Site) -> DriftResult:
    """Of the site with a release."""
    return released.check()


def test_days_like_those_before_are_not_drifted(quiet: Site, quiet_result: DriftResult) -> None:
    result = quiet_result
    assert not result.drifted, result.verdict
    assert result.verdict.startswith("not drifted: ")
    assert {column.name for column in result.columns} == {*NAMES, "score", "severity"}
    assert all(column.distance is not None and column.missing == 0 for column in result.columns)
    distances = [column.distance or 0 for column in result.columns]
    assert distances == sorted(distances, reverse=True)
    assert result.events == quiet.store.count_events(EventQuery(status="scored"))
    assert result.compared == min(result.events, quiet.settings.drift.sample_rows)
    # The training data ends where the batch begins.
    assert result.reference_until < result.since <= quiet.half


def test_a_release_that_moves_paths_is_drift(result: DriftResult) -> None:
    assert result.drifted, result.verdict
    drifted = {column.name for column in result.columns if column.drifted}
    assert {"section_rarity", "status_rarity"} <= drifted
    assert result.share == pytest.approx(len(drifted) / len(result.columns))


def test_a_wave_of_bots_is_drift(tmp_path: Path) -> None:
    traffic = {"attacks": ["directory_scan"], "attack_share": 0.2, "attacks_after": 0.5}
    with build(tmp_path, embedded(tmp_path), **traffic) as site:
        result = site.check()
    assert result.drifted, result.verdict
    assert {"client_error_1h", "score", "severity"} <= {c.name for c in result.columns if c.drifted}


def test_the_same_check_again_replaces_its_traces(released: Site, result: DriftResult) -> None:
    first, second = result, released.check()
    assert (first.id, first.run_id, first.report) == (second.id, second.run_id, second.report)
    assert [c.distance for c in first.columns] == [c.distance for c in second.columns]
    documents = [d for d in released.store.list_documents("drift") if d["id"] == first.id]
    assert len(documents) == 1
    assert documents[0]["run_id"] == first.run_id
    assert json.loads(first.report.with_suffix(".json").read_text()) == second.document()


def test_mlflow_has_the_check_beside_its_model(released: Site, result: DriftResult) -> None:
    client = MlflowClient(released.settings.registry.url, released.settings.registry.url)
    run = client.get_run(result.run_id)
    assert client.get_experiment(run.info.experiment_id).name == "oddlog-monitoring"
    assert run.info.status == "FINISHED"
    assert run.data.metrics["drift.share"] == pytest.approx(result.share)
    assert run.data.metrics["distance/score"] > 0
    assert run.data.tags["oddlog.model.version"] == result.model_version
    assert {file.path for file in client.list_artifacts(result.run_id)} == {"drift.html", "drift.json"}
    version = client.get_model_version(result.model_name, result.model_version)
    assert result.run_id in version.tags["oddlog.drift.last"]
    assert [f"models:/{model.model_id}" for model in run.inputs.model_inputs] == [version.source]


def test_the_report_says_what_was_compared(released: Site, result: DriftResult) -> None:
    page = result.report.read_text()
    assert result.report.parent == released.settings.drift.workspace
    assert len(page) < 6_000_000
    assert "<title>Drift of oddlog version 1</title>" in page
    assert f"{result.events:,} events" in page
    assert "D" + result.verdict[1:] in page
    assert 'src="http' not in page  # it is whole without the network


def test_part_of_a_day_is_judged_with_a_caution(quiet: Site) -> None:
    noon = quiet.half.replace(hour=12, minute=0, second=0, microsecond=0) + dt.timedelta(days=1)
    since, until = noon, noon + dt.timedelta(hours=6)
    result = quiet.check(since=since, until=until)
    assert (result.since, result.until) == (since, until)
    assert result.events == quiet.store.count_events(EventQuery(since=since, until=until, status="scored"))
    assert result.id == f"oddlog-1-{since:%Y%m%dT%H%M%SZ}-{until:%Y%m%dT%H%M%SZ}"
    assert any("day and night differ" in caution for caution in result.cautions)
    assert "day and night differ" in result.report.read_text()


def test_too_few_events_are_not_judged(quiet: Site) -> None:
    with pytest.raises(UsageError, match="too few to judge") as caught:
        quiet.check(since=quiet.start + dt.timedelta(days=400))
    assert "200 or more" in str(caught.value.expected)


def test_without_a_champion_there_is_nothing_to_compare_with(quiet: Site, tmp_path: Path) -> None:
    empty = RegistrySettings(url=f"sqlite:///{tmp_path}/mlflow.db", artifacts=f"{tmp_path}/artifacts")
    with pytest.raises(UsageError, match="no model is champion"):
        check_drift(quiet.settings, quiet.store, open_registry(empty))


def test_the_command_tells_by_its_exit_code(quiet: Site, released: Site, tmp_path: Path) -> None:
    sound = quiet.command("--json")
    assert sound.exit_code == 0, sound.output
    assert json.loads(sound.stdout)["drifted"] is False

    moved = released.command("--report", str(tmp_path / "r.html"))
    assert moved.exit_code == 1, moved.output
    assert "section_rarity" in moved.stdout
    assert "drifted: " in moved.stdout
    assert (tmp_path / "r.html").is_file()

    future = quiet.command("--since", "2090-01-01")
    assert future.exit_code == 2
    assert "too few to judge" in " ".join(future.stderr.split())

    away = CliRunner().invoke(app, ["drift", "--registry", "http://127.0.0.1:9", "--store", quiet.settings.store.url])
    assert away.exit_code == 3


@pytest.mark.parametrize(
    "arguments",
    [["--last", "1 fortnight"], ["--since", "yesterday"], ["--last", "1h", "--since", "2024-01-01"],
     ["--since", "2024-01-02", "--until", "2024-01-01"]],
)  # fmt: skip
def test_periods_that_are_none(arguments: list[str]) -> None:
    assert CliRunner().invoke(app, ["drift", *arguments]).exit_code == 2


@pytest.mark.elasticsearch
def test_drift_from_elasticsearch(released: Site, elasticsearch_url: str, tmp_path: Path) -> None:
    """The same site's events, in another store: the same verdict, and the document is there."""
    with elastic_place(elasticsearch_url) as place, closing(open_store(place)) as store:
        store.setup()
        for events in released.store.read_events(EventQuery(status="scored"), columns=[*STORED, "features.*"]):
            write(store, events)
        store.refresh()
        settings = released.settings.model_copy(update={"store": place, "drift": DriftSettings(workspace=tmp_path)})
        result = check_drift(settings, store, released.registry)
        assert result.drifted, result.verdict
        store.refresh()
        (document,) = store.list_documents("drift")
        assert document["verdict"] == result.verdict
        assert document["columns"][0]["name"] == result.columns[0].name
        here = released.check()
        assert (here.events, here.verdict) == (result.events, result.verdict)
