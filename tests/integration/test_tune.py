"""`oddlog tune`: trials below one run in MLflow, the best trained and registered, the later part out of the search."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.main import app
from oddlog.connectors import mlflow_connection
from oddlog.errors import UsageError
from oddlog.scoring.model import Model
from tests.trained_place import Place, trained_place
from training.train import train
from training.tune import SPACES, Tuned, tune


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with trained_place(tmp_path_factory.mktemp("tune")) as made:
        yield made


@pytest.fixture(scope="module")
def found(place: Place) -> Tuned:
    return tune(place.settings, algorithm="autoencoder", trials=4, store=place.store, registry=place.registry)


def test_trials_are_runs_below_the_search_and_the_best_is_registered(place: Place, found: Tuned) -> None:
    client = mlflow_connection.client(place.settings.registry)
    parent = client.get_run(found.run_id)
    assert parent.info.status == "FINISHED"
    below = client.search_runs(
        [parent.info.experiment_id], f"tags.`mlflow.parentRunId` = '{found.run_id}'", order_by=["attributes.start_time"]
    )
    trials = [run for run in below if run.data.tags.get("kind") == "trial"]
    assert len(trials) == len(found.trials) == 4
    assert [run.info.run_id for run in below if run not in trials] == [found.trained.run_id]
    qualities = [run.data.metrics["quality/average_precision"] for run in trials]
    assert sorted(qualities) == pytest.approx(sorted(one.quality for one in found.trials))
    assert parent.data.metrics["tune/best_inner_quality"] == pytest.approx(max(qualities))
    # The detector as it is goes first: the best is never worse where it was searched.
    assert found.defaults.parameters == {"outer": 8, "inner": 2, "alpha": 1e-3, "sound_share": 0.3}
    assert found.best.quality >= found.defaults.quality
    registered = place.registry.version(found.trained.version)
    assert (registered.algorithm, registered.tags["status"]) == ("autoencoder", "candidate")


def test_the_registered_model_has_the_best_parameters_and_can_be_repeated(
    place: Place, found: Tuned, tmp_path: Path
) -> None:
    model = Model.load(place.registry.download(found.trained.version, tmp_path))
    best = found.best.parameters
    assert model.card.parameters["alpha"] == best["alpha"]
    assert model.card.parameters["hidden_layer_sizes"] == [best["outer"], best["inner"], best["outer"]]
    again = train(place.settings, from_run=found.trained.run_id, store=place.store, registry=place.registry)
    assert again.model_digest == found.trained.model_digest


def test_the_verb_ends_by_the_clock_too(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ODDLOG_STORE__URL", place.settings.store.url)
    monkeypatch.setenv("ODDLOG_REGISTRY__URL", place.settings.registry.url)
    monkeypatch.setenv("ODDLOG_REGISTRY__ARTIFACTS", place.settings.registry.artifacts)
    monkeypatch.setenv("ODDLOG_TRAIN__PULLS", str(place.settings.train.pulls))
    # A hundredth of a minute: the first trial is begun before it is over, and none after.
    done = CliRunner().invoke(app, ["tune", "--algorithm", "iforest", "--minutes", "0.01", "--json"])
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert 1 <= len(document["trials"]) <= 20
    assert set(document["parameters"]) == set(SPACES["iforest"])
    refused = CliRunner().invoke(app, ["tune", "--algorithm", "surprise"])
    assert refused.exit_code == 2
    assert "no parameters to search for" in " ".join(refused.output.split())


def test_a_search_needs_an_end(place: Place) -> None:
    with pytest.raises(UsageError, match="a search without an end"):
        tune(place.settings, algorithm="iforest", store=place.store, registry=place.registry)
