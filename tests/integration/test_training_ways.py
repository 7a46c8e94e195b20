"""The ways a training can go: refit or stored features, without alerted clients, on a sample, and a run repeated."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from cli.main import app
from oddlog.connectors import mlflow_connection
from oddlog.connectors.by_url import open_registry, open_store
from oddlog.connectors.store import EventQuery, Store
from oddlog.errors import ArtifactError, RegistryError, UsageError
from oddlog.features.compute import FeatureComputer
from oddlog.scoring.local import LocalScorer
from oddlog.scoring.model import Model
from oddlog.scoring.shelf import ModelShelf
from oddlog.settings import StoreSettings
from serving.backfill import backfill
from tests.elastic_place import elastic_place
from tests.trained_place import LINES, TRAFFIC, Place, fill, trained_place
from training.dataset import COLUMNS, Selection
from training.fit import stored_features
from training.prepare import prepare
from training.pull import pull
from training.threshold_tags import curve_of
from training.train import train


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with trained_place(tmp_path_factory.mktemp("ways")) as made:
        yield made


def test_refit_and_stored_give_what_serving_computed(place: Place, tmp_path: Path) -> None:
    """Equal baseline, order and lead-in: the features of a pull computed anew are those that serving stored."""
    _same_features(place.store, place.champion, tmp_path)


@pytest.mark.elasticsearch
def test_refit_and_stored_give_what_serving_computed_in_elasticsearch(
    place: Place, elasticsearch_url: str, tmp_path: Path
) -> None:
    with elastic_place(elasticsearch_url) as settings:
        store = open_store(StoreSettings(url=settings.url, prefix=settings.prefix, timeout=120.0))
        store.setup()
        fill(store)
        shelf = ModelShelf("oddlog")
        shelf.hold("1", place.champion)
        shelf.set_champion("1")
        backfill(store, LocalScorer(shelf), lead_in=dt.timedelta(days=14))
        store.refresh()
        _same_features(store, place.champion, tmp_path)
        store.close()


def _same_features(store: Store, champion: Model, folder: Path) -> None:
    baseline = champion.baseline
    stored = pull(store, Selection(baseline=baseline.digest), url="x", folder=folder)
    parsed = pull(store, Selection(), url="x", folder=folder)
    assert stored.rows > 0.9 * LINES
    assert stored.events(COLUMNS).equals(parsed.events())
    computer = FeatureComputer(baseline)
    refit = np.concatenate([computer.compute(batch) for batch in parsed.batches(rows=331)])
    np.testing.assert_allclose(stored_features(stored.events()), refit, rtol=1e-5)


def test_stored_features_teach_a_model_under_the_champions_baseline(place: Place) -> None:
    settings = place.training(features="stored", algorithm="iforest")
    with prepare(settings, store=place.store, registry=place.registry) as prepared:
        assert prepared.fitted.baseline.digest == place.champion.baseline.digest
        # What the baseline has counted itself would flatter: those events are left out.
        assert prepared.dataset.since >= place.champion.card.dataset.fit_until
        assert prepared.fitted.fit_data.features.shape[0] == prepared.fitted_events == prepared.split.fitted.sum()
        assert prepared.fitted.later.shape[0] == prepared.later.height
        hours = prepared.dataset.events(until=prepared.split.boundary).select(
            pl.struct("source.address", pl.col("@timestamp").dt.truncate("1h")).n_unique()
        )
        assert prepared.fitted.fit_data.weights.sum() == pytest.approx(hours.item())
    made = train(settings, store=place.store, registry=place.registry)
    registered = place.registry.version(made.version)
    assert registered.tags["baseline_digest"] == place.champion.baseline.digest
    assert made.model_digest != place.first.model_digest
    assert made.metrics["planted/average_precision"] > 0.4
    run = mlflow_connection.client(settings.registry).get_run(made.run_id)
    assert run.data.params["train.features"] == "stored"
    assert f"stored under the baseline {place.champion.baseline.digest[:12]}" in run.data.params["data.source"]
    again = train(place.settings, from_run=made.run_id, store=place.store, registry=place.registry)
    assert again.model_digest == made.model_digest


def test_stored_features_need_a_champion_and_events_under_it(place: Place, tmp_path: Path) -> None:
    empty = place.settings.registry.model_copy(
        update={"url": f"sqlite:///{tmp_path}/mlflow.db", "artifacts": str(tmp_path / "artifacts")}
    )
    settings = place.training(features="stored")
    with (
        pytest.raises(UsageError, match="no champion whose stored features"),
        prepare(settings, store=place.store, registry=open_registry(empty)),
    ):
        pass
    with (
        pytest.raises(UsageError, match="with features stored under the baseline"),
        prepare(settings, since=TRAFFIC.end, store=place.store, registry=place.registry),
    ):
        pass


def test_clients_that_were_alerted_on_before_the_boundary_are_left_out_of_what_is_learnt(place: Place) -> None:
    made = train(place.training(exclude_alerted=True), store=place.store, registry=place.registry)
    whole = train(place.training(), store=place.store, registry=place.registry)
    model = place.registry.version(made.version)
    with prepare(place.training(exclude_alerted=True), store=place.store, registry=place.registry) as prepared:
        boundary = prepared.split.boundary
        later = set(prepared.later["source.address"])
    columns = ["source.address", "@timestamp", "anomaly.is_anomaly"]
    events = pl.concat(place.store.read_events(EventQuery(until=boundary), columns=columns))
    alerted = set(events.filter("anomaly.is_anomaly")["source.address"])
    assert made.metrics["data/alerted_clients_left_out"] == len(alerted) > 0
    left_out = events.filter(pl.col("source.address").is_in(list(alerted))).height
    assert made.metrics["data/alerted_events_left_out"] == left_out
    assert made.metrics["data/fitted_events"] == whole.metrics["data/fitted_events"] - left_out
    assert made.metrics["data/baseline_entries"] < whole.metrics["data/baseline_entries"]
    # They are judged all the same.
    assert made.metrics["data/later_events"] == whole.metrics["data/later_events"]
    assert alerted & later
    description = mlflow_connection.client(place.settings.registry).get_model_version(model.name, made.version)
    assert f"{len(alerted):,} clients alerted on before" in description.description
    assert whole.metrics["data/alerted_clients_left_out"] == 0


def test_a_sample_says_what_it_does_to_the_counts_and_keeps_the_budget(place: Place) -> None:
    made = train(place.training(sample=0.5, budget="8/day"), store=place.store, registry=place.registry)
    run = mlflow_connection.client(place.settings.registry).get_run(made.run_id)
    assert run.data.params["train.sample"] == "0.5"
    assert run.data.params["data.source"].endswith("50 % of the clients by hash")
    assert 0.2 * LINES < made.events < 0.8 * LINES
    card = run.data.tags["mlflow.note.content"]
    behaviours = int(made.metrics["data/behaviours"])
    assert "| sample | 50 % of the clients, chosen by hash" in card
    assert f"nothing is rarer than 1 in {2 * (behaviours + 1):,}" in card
    # Half of the clients may raise half of the alerts; the threshold tells what all of them would.
    assert made.threshold.budget_per_day == 8
    assert 0 < made.threshold.expected_per_day <= 8
    curve = curve_of(place.registry.version(made.version))  # what `oddlog threshold set` reads other budgets off
    assert curve is not None
    assert curve.threshold(8, version="1") == made.threshold
    assert 0 < curve.threshold(4, version="2").expected_per_day <= 4


def test_a_repeated_run_gives_the_same_model(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    made = train(
        place.training(
            algorithm="iforest",
            parameters={"iforest": {"trees": 30, "sound_share": 0.4}, "autoencoder": {"inner": 3}},
            seed=9,
            budget="5/day",
            fit_share=0.6,
            sample=0.7,
            exclude_alerted=True,
        ),
        store=place.store,
        registry=place.registry,
    )
    parameters = mlflow_connection.client(place.settings.registry).get_run(made.run_id).data.params
    assert parameters["train.parameters"] == '{"sound_share": 0.4, "trees": 30}'
    assert parameters["detector.n_estimators"] == "30"
    # Through the command line, with other settings in force: the run's own count.
    monkeypatch.setenv("ODDLOG_STORE__URL", "sqlite:////nonexistent/never/opened.sqlite")
    monkeypatch.setenv("ODDLOG_REGISTRY__URL", place.settings.registry.url)
    monkeypatch.setenv("ODDLOG_REGISTRY__ARTIFACTS", place.settings.registry.artifacts)
    monkeypatch.setenv("ODDLOG_TRAIN__FIT_SHARE", "0.8")
    done = CliRunner().invoke(app, ["train", "--from-run", made.run_id, "--json"])
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert document["model_digest"] == made.model_digest
    assert document["dataset_digest"] == made.dataset_digest
    assert document["repeats"] == {"run_id": made.run_id, "same_model": True}
    assert document["version"] != made.version
    assert place.registry.version(document["version"]).tags["repeats_same_model"] == "true"
    refused = CliRunner().invoke(app, ["train", "--from-run", made.run_id, "--seed", "1"])
    assert refused.exit_code == 2
    assert "--from-run with --seed" in " ".join(refused.output.split())


def test_what_cannot_be_repeated_is_refused(place: Place) -> None:
    client = mlflow_connection.client(place.settings.registry)
    with pytest.raises(RegistryError):
        train(place.settings, from_run="0" * 32, registry=place.registry)
    experiment = client.get_experiment_by_name(place.settings.registry.experiment).experiment_id
    other = client.create_run(experiment).info.run_id
    with pytest.raises(UsageError, match="is no training"):
        train(place.settings, from_run=other, registry=place.registry)

    record = client.get_run(place.first.run_id)
    changed = client.create_run(experiment).info.run_id
    for name, value in record.data.params.items():
        client.log_param(changed, name, value)
    with pytest.raises(UsageError, match="kept no snapshot"):
        train(place.settings, from_run=changed, registry=place.registry)
    name = f"{record.data.params['data.digest']}.parquet"
    snapshot = Path(client.download_artifacts(place.first.run_id, f"dataset/{name}"))
    altered = snapshot.parent / "altered" / name
    altered.parent.mkdir(exist_ok=True)
    pl.read_parquet(snapshot)[:-1].write_parquet(altered)
    client.log_artifact(changed, str(altered), "dataset")
    with pytest.raises(ArtifactError, match="has the digest"):
        train(place.settings, from_run=changed, registry=place.registry)


def test_a_run_shows_the_first_alerts_and_what_to_be_careful_about(place: Place) -> None:
    client = mlflow_connection.client(place.settings.registry)
    run = client.get_run(place.first.run_id)
    # Trained on a day and a half.
    assert set(place.first.cautions) == {"few_days"}
    assert run.data.tags["caution.few_days"].startswith("1.5 days of events")
    assert run.data.metrics["checks/few_days"] == pytest.approx(1.5, abs=0.1)
    assert "## To be careful about\n\n- 1.5 days of events" in run.data.tags["mlflow.note.content"]
    document = json.loads(Path(client.download_artifacts(run.info.run_id, "documents/first_alerts.json")).read_text())
    alerts = document["alerts"]
    assert 0 < len(alerts) <= 20
    threshold = place.first.threshold
    assert all(alert["score"] >= threshold.value and alert["reasons"] for alert in alerts)
    per_day = place.first.metrics["threshold/alerts_per_day"]
    days = (threshold.until - threshold.since) / dt.timedelta(days=1)
    assert len(alerts) == min(20, round(per_day * days))
    page = Path(client.download_artifacts(run.info.run_id, "documents/first_alerts.html")).read_text()
    assert alerts[0]["client"] in page
    assert "typical" in page
