"""The port Registry, over an embedded MLflow and over a real `mlflow server`: the same promises."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import polars as pl
import pytest
from matplotlib.figure import Figure
from onnx import TensorProto, helper

from oddlog.connectors import mlflow_connection, mlflow_training
from oddlog.connectors.by_url import open_registry
from oddlog.connectors.mlflow_experiments import evaluation_experiment, monitoring_experiment, training_experiment
from oddlog.connectors.mlflow_registry import ARTIFACT_FILES, HISTORY_TAG, MlflowRegistry
from oddlog.connectors.mlflow_training import LoggedDataset, TrainingRun, log_training
from oddlog.connectors.registry import CHAMPION, PREVIOUS, ModelVersion
from oddlog.errors import RegistryError, UsageError
from oddlog.scoring.card import Threshold
from oddlog.settings import RegistrySettings
from tests.children import mlflow_server

START = dt.datetime(2024, 5, 1, tzinfo=dt.UTC)


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> RegistrySettings:
    folder = tmp_path_factory.mktemp("embedded")
    return RegistrySettings(
        url=f"sqlite:///{folder}/deep/mlruns/mlflow.db", artifacts=f"{folder}/deep/mlruns/artifacts"
    )


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistrySettings]:
    """A real `mlflow server` with a database and artifacts of its own."""
    folder = tmp_path_factory.mktemp("server")
    with mlflow_server(f"sqlite:///{folder}/mlflow.db", folder / "server.log", artifacts=folder / "artifacts") as url:
        yield RegistrySettings(url=url)


@pytest.fixture(params=["embedded", "server"])
def settings(request: pytest.FixtureRequest) -> RegistrySettings:
    """Settings of one of the two, with a model and an experiment of the test's own."""
    base: RegistrySettings = request.getfixturevalue(request.param)
    name = f"model-{uuid.uuid4().hex[:12]}"
    return base.model_copy(update={"model": name, "experiment": f"{name} runs"})


def threshold(value: float, version: str = "1") -> Threshold:
    return Threshold(
        value=value,
        version=version,
        budget_per_day=20,
        expected_per_day=18.5,
        since=START,
        until=START + dt.timedelta(days=2),
    )


def make_artifact(folder: Path) -> dict[str, bytes]:
    """The files of an artifact: real graphs, made-up tables. The registry looks into none of them."""
    folder.mkdir()
    weights = helper.make_tensor("w", TensorProto.FLOAT, [3, 1], np.arange(3, dtype=np.float32).tobytes(), raw=True)
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["features", "w"], ["columns"]),
            helper.make_node("Flatten", ["columns"], ["score"]),
        ],
        "sum",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, ["n", 1])],
        [weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    (folder / "model.onnx").write_bytes(model.SerializeToString(deterministic=True))
    (folder / "contributions.onnx").write_bytes(model.SerializeToString(deterministic=True) + b"")
    for name in ("baseline.arrow", "reference.arrow"):
        (folder / name).write_bytes(uuid.uuid4().bytes * 100)
    (folder / "card.json").write_text(json.dumps({"made": uuid.uuid4().hex}))
    return {name: (folder / name).read_bytes() for name in ARTIFACT_FILES}


def train_once(
    settings: RegistrySettings, folder: Path, *, algorithm: str = "surprise"
) -> tuple[ModelVersion, dict[str, bytes]]:
    """Log and register one version, as a training does."""
    artifact = folder / uuid.uuid4().hex
    contents = make_artifact(artifact)
    events = pl.DataFrame(
        {
            "@timestamp": pl.Series([START] * 4, dtype=pl.Datetime("ms", "UTC")),
            "url.path": ["/", "/a", None, "/b"],
            "http.response.status_code": pl.Series([200, 404, 200, None], dtype=pl.Int32),
        }
    )
    snapshot = folder / f"{uuid.uuid4().hex}.parquet"
    events.write_parquet(snapshot)
    figure = Figure()
    figure.subplots().plot([1, 2])
    version = log_training(
        settings,
        TrainingRun(
            name=f"{algorithm} of four events",
            started_at=dt.datetime.now(dt.UTC),
            tags={"algorithm": algorithm, "status": "candidate"},
            parameters={"fit.share": 0.7, "detector.long": "x" * 9_000},
            metrics={"quality/ap": 0.9, "quality/undefined": float("nan"), "injected/web shell, slow": 1.0},
            figures={"scores.png": figure},
            documents={"quality.json": {"ap": 0.9}},
            dataset=LoggedDataset(
                events, snapshot, hashlib.sha256(b"x").hexdigest()[:32], "four events of a test", "training"
            ),
            artifact=artifact,
            description="# A card",
            example=np.ones((2, 3), dtype=np.float32),
            threshold=threshold(1.5),
        ),
    )
    return version, contents


def test_nothing_is_registered_at_first(settings: RegistrySettings) -> None:
    registry = open_registry(settings)
    assert registry.versions() == []
    assert registry.by_alias(CHAMPION) is None
    registry.delete_alias(CHAMPION)
    with pytest.raises(RegistryError, match="holds no version '1'") as caught:
        registry.version("1")
    assert caught.value.mend == "oddlog train"


def test_a_training_is_registered_with_tags_threshold_and_files(settings: RegistrySettings, tmp_path: Path) -> None:
    registry = open_registry(settings)
    version, contents = train_once(settings, tmp_path)
    assert registry.versions() == [version]
    assert (version.name, version.version, version.algorithm) == (settings.model, "1", "surprise")
    assert version.tags["status"] == "candidate"
    assert version.threshold == threshold(1.5)
    assert version.run_id
    folder = registry.download("1", tmp_path / "cache")
    assert sorted(path.name for path in folder.iterdir()) == sorted(ARTIFACT_FILES)
    assert {name: (folder / name).read_bytes() for name in ARTIFACT_FILES} == contents
    # Again, over the folder that is there, and once more where it has lost a file.
    assert registry.download("1", tmp_path / "cache") == folder
    (folder / "card.json").unlink()
    assert (registry.download("1", tmp_path / "cache") / "card.json").read_bytes() == contents["card.json"]
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [folder.name]


def test_the_run_shows_what_was_logged(settings: RegistrySettings, tmp_path: Path) -> None:
    version, _ = train_once(settings, tmp_path)
    client = mlflow_connection.client(settings)
    run = client.get_run(version.run_id)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "surprise of four events"
    assert run.data.params["fit.share"] == "0.7"
    assert run.data.metrics == {"quality/ap": 0.9, "injected/web shell_ slow": 1.0}
    (data,) = run.inputs.dataset_inputs
    assert data.dataset.digest == hashlib.sha256(b"x").hexdigest()[:32]
    assert json.loads(data.dataset.profile)["num_rows"] == 4
    from mlflow.data import get_source

    assert pl.read_parquet(Path(get_source(data.dataset).load(str(tmp_path)))).height == 4
    assert {tag.key: tag.value for tag in data.tags} == {
        "mlflow.data.context": "training",
        "source": "four events of a test",
    }
    assert [entry.path for entry in client.list_artifacts(version.run_id, "figures")] == ["figures/scores.png"]
    assert client.list_artifacts(version.run_id, "dataset")[0].path.endswith(".parquet")
    report = tmp_path / "report.md"
    report.write_text("# Verdict")
    mlflow_training.attach(settings, version.run_id, report, "promotion")
    assert [entry.path for entry in client.list_artifacts(version.run_id, "promotion")] == ["promotion/report.md"]


def test_the_model_is_one_that_mlflow_itself_can_use(settings: RegistrySettings, tmp_path: Path) -> None:
    train_once(settings, tmp_path)
    with mlflow_training._mlflow(settings) as mlflow:
        model = mlflow.pyfunc.load_model(f"models:/{settings.model}/1")
        assert model.metadata.signature is not None
        answer = model.predict({"features": np.ones((2, 3), dtype=np.float32)})
    np.testing.assert_allclose(answer["score"].ravel(), [3, 3])
    assert onnx.load(MlflowRegistry(settings).download("1", tmp_path / "x") / "model.onnx").graph.name == "sum"


def test_versions_come_newest_first_with_their_aliases(settings: RegistrySettings, tmp_path: Path) -> None:
    registry = open_registry(settings)
    train_once(settings, tmp_path, algorithm="iforest")
    train_once(settings, tmp_path, algorithm="autoencoder")
    registry.set_alias(PREVIOUS, "1")
    registry.set_alias(CHAMPION, "1")
    assert [(v.version, v.algorithm, v.aliases) for v in registry.versions()] == [
        ("2", "autoencoder", ()),
        ("1", "iforest", (CHAMPION, PREVIOUS)),
    ]
    registry.set_alias(CHAMPION, "2")
    champion, previous = registry.by_alias(CHAMPION), registry.by_alias(PREVIOUS)
    assert champion is not None
    assert previous is not None
    assert (champion.version, champion.threshold) == ("2", threshold(1.5))
    assert (previous.version, previous.aliases) == ("1", (PREVIOUS,))
    registry.delete_alias(PREVIOUS)
    assert registry.by_alias(PREVIOUS) is None
    registry.delete_alias(PREVIOUS)


def test_an_unknown_version_is_refused_and_the_known_ones_are_named(settings: RegistrySettings, tmp_path: Path) -> None:
    registry = open_registry(settings)
    train_once(settings, tmp_path)
    for use in (
        lambda: registry.version("7"),
        lambda: registry.download("7", tmp_path / "cache"),
        lambda: registry.set_alias(CHAMPION, "7"),
        lambda: registry.set_tags("7", {"a": "b"}),
        lambda: registry.set_threshold("7", threshold(2)),
        lambda: registry.version("newest"),
    ):
        with pytest.raises(RegistryError) as caught:
            use()
        assert caught.value.expected == "one of 1"


def test_tags_are_added_and_replaced(settings: RegistrySettings, tmp_path: Path) -> None:
    registry = open_registry(settings)
    train_once(settings, tmp_path)
    registry.set_tags("1", {"status": "rejected", "gate.quality": "fail: 0.2 < 0.5"})
    tags = registry.version("1").tags
    assert (tags["status"], tags["gate.quality"], tags["algorithm"]) == (
        "rejected",
        "fail: 0.2 < 0.5",
        "surprise",
    )


def test_a_threshold_is_replaced_and_earlier_ones_are_kept(settings: RegistrySettings, tmp_path: Path) -> None:
    registry = open_registry(settings)
    train_once(settings, tmp_path)
    registry.set_alias(CHAMPION, "1")
    registry.set_threshold("1", threshold(2.5, "2"))
    registry.set_threshold("1", threshold(3.5, "3"))
    champion = registry.by_alias(CHAMPION)
    assert champion is not None
    assert champion.threshold == threshold(3.5, "3")
    history = [Threshold.model_validate(entry) for entry in json.loads(champion.tags[HISTORY_TAG])]
    assert history == [threshold(1.5, "1"), threshold(2.5, "2")]
    assert registry.thresholds("1") == [*history, threshold(3.5, "3")]
    registry.set_tags("1", {HISTORY_TAG: '[{"value": "high"}]'})
    with pytest.raises(RegistryError, match=r"history.*is no list of thresholds"):
        registry.thresholds("1")


def test_a_broken_threshold_tag_is_told(settings: RegistrySettings, tmp_path: Path) -> None:
    registry = open_registry(settings)
    train_once(settings, tmp_path)
    good = threshold(2.5, "2").model_dump_json()
    for broken in ('{"value": "high"}', "2.5", "", good.replace("2.5", "NaN", 1), good.replace("Z", "")):
        registry.set_tags("1", {"oddlog.threshold": broken})
        for read in (lambda: registry.version("1"), registry.versions):
            with pytest.raises(RegistryError, match=r"oddlog\.threshold.*is no threshold") as caught:
                read()
            assert "delete oddlog.threshold" in str(caught.value.mend)
    registry.set_threshold("1", threshold(2.5, "2"))  # gives way, and is no part of the history
    found = registry.version("1")
    assert found.threshold == threshold(2.5, "2")
    assert json.loads(found.tags[HISTORY_TAG]) == []
    registry.set_tags("1", {HISTORY_TAG: "none"})
    with pytest.raises(RegistryError, match=r"no list of thresholds"):
        registry.set_threshold("1", threshold(3.5, "3"))
    assert registry.version("1").threshold == threshold(2.5, "2")


def test_a_version_that_is_no_artifact_of_ours_is_refused(settings: RegistrySettings, tmp_path: Path) -> None:
    client = mlflow_connection.client(settings)
    run = client.create_run(training_experiment(settings))
    client.log_text(run.info.run_id, "something", "model/model.pkl")
    client.create_registered_model(settings.model)
    client.create_model_version(settings.model, f"{run.info.artifact_uri}/model", run.info.run_id)
    with pytest.raises(RegistryError, match=r"lacks model\.onnx, contributions\.onnx"):
        open_registry(settings).download("1", tmp_path / "cache")


def test_experiments_say_what_they_hold_and_keep_what_people_wrote(settings: RegistrySettings) -> None:
    client = mlflow_connection.client(settings)
    made = {training_experiment(settings), monitoring_experiment(settings), evaluation_experiment(settings)}
    assert len(made) == 3
    for id in made:
        assert "`oddlog " in client.get_experiment(id).tags["mlflow.note.content"]
    client.set_experiment_tag(training_experiment(settings), "mlflow.note.content", "ours")
    assert client.get_experiment(training_experiment(settings)).tags["mlflow.note.content"] == "ours"


def test_a_run_that_fails_half_way_registers_nothing(settings: RegistrySettings, tmp_path: Path) -> None:
    artifact = tmp_path / "artifact"
    make_artifact(artifact)
    (artifact / "baseline.arrow").unlink()
    with pytest.raises(RegistryError):
        _log_broken(settings, artifact, tmp_path)
    registry = open_registry(settings)
    assert registry.versions() == []
    client = mlflow_connection.client(settings)
    (run,) = client.search_runs([training_experiment(settings)])
    assert run.info.status == "FAILED"


def _log_broken(settings: RegistrySettings, artifact: Path, folder: Path) -> None:
    events = pl.DataFrame({"url.path": ["/"]})
    events.write_parquet(folder / "events.parquet")
    log_training(
        settings,
        TrainingRun(
            name="broken",
            started_at=START,
            tags={"algorithm": "surprise"},
            parameters={},
            metrics={},
            figures={},
            documents={},
            dataset=LoggedDataset(events, folder / "events.parquet", "d", "a test", "training"),
            artifact=artifact,
            description="",
            example=np.ones((1, 3), dtype=np.float32),
            threshold=threshold(1),
        ),
    )


# What only one of the two can do.


def test_reading_an_embedded_registry_that_is_not_there_makes_nothing(tmp_path: Path) -> None:
    settings = RegistrySettings(url=f"sqlite:///{tmp_path}/mlruns/mlflow.db")
    registry = MlflowRegistry(settings)
    assert registry.versions() == []
    assert registry.by_alias(CHAMPION) is None
    assert list(tmp_path.iterdir()) == []


_OPEN = """
import sys
from oddlog.connectors.mlflow_experiments import training_experiment
from oddlog.connectors.mlflow_registry import MlflowRegistry
from oddlog.settings import RegistrySettings

settings = RegistrySettings(url=f"sqlite:///{sys.argv[1]}/mlflow.db", artifacts=f"{sys.argv[1]}/artifacts")
print(training_experiment(settings), len(MlflowRegistry(settings).versions()))
"""


def test_several_processes_may_make_an_embedded_registry_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "mlruns"
    command = [sys.executable, "-c", _OPEN, str(folder)]
    children = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    try:
        answers = {child.communicate(timeout=300)[0] for child in children}
    finally:
        for child in children:
            child.kill()  # harmless to one that has ended
    assert [child.returncode for child in children] == [0] * 3
    assert answers == {"1 0\n"}
    assert sorted(path.name for path in folder.iterdir() if not path.name.startswith("mlflow.db-")) == [
        "mlflow.db",
        "mlflow.db.lock",
    ]


def test_an_embedded_registry_may_be_named_by_a_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = RegistrySettings(url="sqlite:///mlruns/mlflow.db", artifacts="mlruns/artifacts")
    _, contents = train_once(settings, tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    absolute = RegistrySettings(url=f"sqlite:///{tmp_path}/mlruns/mlflow.db")
    folder = MlflowRegistry(absolute).download("1", tmp_path / "cache")
    assert (folder / "card.json").read_bytes() == contents["card.json"]
    assert list(elsewhere.iterdir()) == []


def test_a_server_that_is_away_is_told_and_how_to_mend_it() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
        with pytest.raises(RegistryError, match="failed") as caught:
            MlflowRegistry(RegistrySettings(url=url)).by_alias(CHAMPION)
    assert caught.value.mend is not None
    assert f"curl {url}/health" in caught.value.mend


def test_a_folder_is_no_registry_url() -> None:
    with pytest.raises(UsageError, match="neither a server nor a database file"):
        MlflowRegistry(RegistrySettings(url="./mlruns"))
