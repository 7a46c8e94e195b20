"""What a training leaves in MLflow: a run with its data set, figures and metrics, and a registered version.

What is measured and drawn comes from `training/`; versions and aliases are in `mlflow_registry.py`.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import math
import re
import threading
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

from oddlog.connectors import mlflow_connection as connection
from oddlog.connectors.mlflow_experiments import training_experiment
from oddlog.connectors.mlflow_registry import (
    ALGORITHM_TAG,
    ARTIFACT_FILES,
    LATER_FILES,
    THRESHOLD_TAG,
    MlflowRegistry,
)
from oddlog.connectors.registry import ModelVersion
from oddlog.errors import RegistryError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import polars as pl
    from matplotlib.figure import Figure
    from mlflow import MlflowClient

    from oddlog.scoring.card import Threshold
    from oddlog.settings import RegistrySettings

SNAPSHOT_BYTES = 512_000_000
"""A snapshot up to this size is an artifact of its run; of a larger one only a summary is."""

MODEL_NAME = "model"
_MODEL_FILE = "model.onnx"
_DIGEST_LENGTH = 36  # MLflow refuses a longer one
_MODEL = (
    "Models that score log events, each with its card. The alias `champion` names the version that is served, "
    "`previous` the one before, `challenger` the one that scores beside it; `oddlog promote` moves them."
)
_IN_PROCESS = threading.RLock()  # MLflow's tracking URI belongs to the process, not to the call


@dataclass(frozen=True, slots=True)
class LoggedDataset:
    """The events that a run was made from."""

    events: pl.DataFrame
    """Rows in the order they were pulled; gives MLflow the schema."""
    snapshot: Path
    """The same as Parquet."""
    digest: str
    source: str
    """The store and query they came from, in words."""
    context: str
    """What they were used for: "training"."""
    rows: int | None = None
    """How many the snapshot holds, where `events` are only its first."""


@dataclass(frozen=True, slots=True)
class TrainingRun:
    """Everything about one training. Names with a prefix (`quality/...`, `fit.share`) are grouped by it."""

    name: str
    started_at: dt.datetime
    tags: Mapping[str, str]
    """Of the run and of the registered version."""
    parameters: Mapping[str, Any]
    metrics: Mapping[str, float]
    """Those that are not finite are left out: MLflow's databases cannot hold them all."""
    figures: Mapping[str, Figure]
    """By file name below `figures/`."""
    documents: Mapping[str, Mapping[str, Any]]
    """JSON by file name below `documents/`."""
    dataset: LoggedDataset
    artifact: Path
    """Folder of the model artifact (oddlog/scoring/artifact.py)."""
    description: str
    """The card for people, Markdown."""
    example: npt.NDArray[np.float32]
    """A few rows of the feature matrix: the model's input example."""
    threshold: Threshold
    texts: Mapping[str, str] = field(default_factory=dict)
    """Text by file name below `documents/`: pages for people."""
    parent: str | None = None
    """The run that this one is shown below."""


@dataclass(frozen=True, slots=True)
class RunRecord:
    """What a run was given, as MLflow keeps it."""

    run_id: str
    parameters: dict[str, str]
    tags: dict[str, str]


def log_training(settings: RegistrySettings, run: TrainingRun) -> ModelVersion:
    """Log a run, register its model as a new version, tagged and with its threshold. Raises RegistryError.

    A run that cannot be logged to the end is marked as failed, and registers nothing.
    """
    experiment = training_experiment(settings)
    client = connection.client(settings)
    with _mlflow(settings) as mlflow:
        started = int(run.started_at.timestamp() * 1000)
        tags = {**run.tags, "mlflow.note.content": run.description}
        if run.parent is not None:
            tags["mlflow.parentRunId"] = run.parent
        created = client.create_run(experiment, start_time=started, run_name=run.name, tags=tags)
        with mlflow.start_run(run_id=created.info.run_id) as active:
            mlflow.log_params({name: _text(value) for name, value in run.parameters.items()})
            finite = {name: value for name, value in run.metrics.items() if math.isfinite(value)}
            mlflow.log_metrics({_metric(name): value for name, value in finite.items()})
            _log_dataset(mlflow, run.dataset)
            for name, figure in run.figures.items():
                mlflow.log_figure(figure, f"figures/{name}", save_kwargs={"dpi": 110})
            for name, document in run.documents.items():
                mlflow.log_dict(dict(document), f"documents/{name}")
            for name, text in run.texts.items():
                mlflow.log_text(text, f"documents/{name}")
            mlflow.log_text(run.description, "card.md")
            model = _log_model(mlflow, run)
            version = _register(client, settings.model, model.model_id, active.info.run_id, run)
            run_id = active.info.run_id
    found = MlflowRegistry(settings).version(str(version.version))
    if found.run_id != run_id or found.algorithm != run.tags.get(ALGORITHM_TAG, ""):
        raise RegistryError(
            f"version {found.version} of {settings.model!r} belongs to the run {found.run_id or 'of nobody'}",
            expected=f"the run {run_id} that was just logged",
        )
    return found


def attach(settings: RegistrySettings, run_id: str, file: Path, folder: str) -> None:
    """Add a file to the artifacts of a run. Raises RegistryError."""
    with connection.registry_errors(settings.url):
        connection.client(settings).log_artifact(run_id, str(file), folder)


def run_record(settings: RegistrySettings, run_id: str) -> RunRecord:
    """Parameters and tags of a run. Raises RegistryError, where there is no such run too."""
    with connection.registry_errors(settings.url):
        run = connection.client(settings).get_run(run_id)
        return RunRecord(run_id, dict(run.data.params), dict(run.data.tags))


def fetch_artifact(settings: RegistrySettings, run_id: str, name: str, into: Path) -> Path | None:
    """A file of a run's artifacts, fetched below `into`; None where the run has none of this name.

    Raises RegistryError."""
    folder = name.rpartition("/")[0]
    with connection.registry_errors(settings.url):
        client = connection.client(settings)
        if name not in {entry.path for entry in client.list_artifacts(run_id, folder or None)}:
            return None
        return Path(client.download_artifacts(run_id, name, str(into)))


@contextlib.contextmanager
def _mlflow(settings: RegistrySettings) -> Iterator[Any]:
    """MLflow's own module, pointed at this registry for as long as it is needed."""
    connection.prepare_environment()
    with _IN_PROCESS, connection.registry_errors(settings.url), warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"mlflow\..*")
        import mlflow
        import mlflow.onnx

        before = mlflow.get_tracking_uri(), mlflow.get_registry_uri()
        uri = connection.tracking_uri(settings)
        mlflow.set_tracking_uri(uri)
        mlflow.set_registry_uri(uri)
        try:
            yield mlflow
        finally:
            mlflow.set_tracking_uri(before[0])
            mlflow.set_registry_uri(before[1])


def _log_dataset(mlflow: Any, dataset: LoggedDataset) -> None:
    from mlflow.data import from_polars

    small = dataset.snapshot.stat().st_size <= SNAPSHOT_BYTES
    if small:
        mlflow.log_artifact(str(dataset.snapshot), "dataset")
    else:
        mlflow.log_dict(
            {
                "digest": dataset.digest,
                "rows": _rows(dataset),
                "columns": dataset.events.columns,
                "source": dataset.source,
            },
            "dataset/summary.json",
        )
    described = from_polars(
        dataset.events,
        source=_address(mlflow, f"dataset/{dataset.snapshot.name if small else 'summary.json'}"),
        name="oddlog-events",
        digest=dataset.digest[:_DIGEST_LENGTH],
    )
    if dataset.rows is not None:
        described = _with_rows(described, dataset.rows)
    mlflow.log_input(described, context=dataset.context, tags={"source": dataset.source})


def _rows(dataset: LoggedDataset) -> int:
    return dataset.events.height if dataset.rows is None else dataset.rows


def _with_rows(described: Any, rows: int) -> Any:
    """MLflow's description of a part of the rows, telling of all: it counts what it is given, and has no other way."""
    profile = {**described.profile, "num_rows": rows, "num_elements": rows * len(described.df.columns)}
    whole = type("WholeDataset", (type(described),), {"profile": property(lambda _: profile)})
    described.__class__ = whole
    return described


def _address(mlflow: Any, artifact: str) -> str:
    """Where an artifact of the active run can be fetched from: its own URI, or the tracking server's answer."""
    uri = str(mlflow.get_artifact_uri(artifact))
    if not uri.startswith("mlflow-artifacts:"):
        return uri
    server = urlsplit(mlflow.get_tracking_uri())
    base = f"{server.scheme}://{server.netloc}{server.path.rstrip('/')}"
    return f"{base}/get-artifact?" + urlencode({"path": artifact, "run_uuid": mlflow.active_run().info.run_id})


def _log_model(mlflow: Any, run: TrainingRun) -> Any:
    import numpy as np
    import onnx
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    # Loaded anew from the artifact: that is what was checked, and log_model may change what it is given.
    graph = onnx.load(run.artifact / _MODEL_FILE)
    columns = run.example.shape[1]
    return mlflow.onnx.log_model(
        graph,
        name=MODEL_NAME,
        signature=ModelSignature(
            inputs=Schema([TensorSpec(np.dtype(np.float32), (-1, columns), "features")]),
            outputs=Schema([TensorSpec(np.dtype(np.float32), (-1,), "score")]),
        ),
        input_example={"features": run.example},
        # Written out: to infer them MLflow would start the model in an environment of its own.
        pip_requirements=[f"{name}=={installed_version(name)}" for name in ("onnx", "onnxruntime", "numpy")],
        extra_files=[
            str(run.artifact / name)
            for name in (*ARTIFACT_FILES, *LATER_FILES)
            if name != _MODEL_FILE and (name in ARTIFACT_FILES or (run.artifact / name).is_file())
        ],
        save_as_external_data=False,
        onnx_execution_providers=["CPUExecutionProvider"],
        metadata={"oddlog": dict(run.tags)},
    )


def _register(client: MlflowClient, name: str, model_id: str, run_id: str, run: TrainingRun) -> Any:
    """What mlflow.register_model does, without its prints: status and threshold are there from the first moment."""
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name, description=_MODEL)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    version = client.create_model_version(
        name,
        source=f"models:/{model_id}",
        run_id=run_id,
        tags={**run.tags, THRESHOLD_TAG: run.threshold.model_dump_json()},
        description=run.description,
        model_id=model_id,
    )
    # The link from the run's model to its version, which MLflow's pages show.
    registered = [{"name": name, "version": int(version.version)}]
    client.set_logged_model_tags(model_id, {"mlflow.modelVersions": json.dumps(registered)})
    return version


def _metric(name: str) -> str:
    """A name that MLflow takes: letters, digits, `_-. :/`."""
    return re.sub(r"[^\w\-. :/]", "_", name)


def _text(value: Any) -> str:
    return str(value)[:6_000]
