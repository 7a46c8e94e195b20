"""What a training leaves in MLflow: a run with its data set, figures and metrics, and a registered version.

What is measured and drawn comes from `training/`; versions and aliases are in `mlflow_registry.py`.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import math
import re
import threading
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oddlog.connectors import mlflow_connection as connection
from oddlog.connectors.mlflow_registry import ALGORITHM_TAG, ARTIFACT_FILES, THRESHOLD_TAG, MlflowRegistry
from oddlog.connectors.registry import ModelVersion
from oddlog.errors import RegistryError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import polars as pl
    from matplotlib.figure import Figure

    from oddlog.scoring.card import Threshold
    from oddlog.settings import RegistrySettings

SNAPSHOT_BYTES = 64_000_000
"""A snapshot up to this size is an artifact of its run; of a larger one the run only names the place."""

MODEL_NAME = "model"
_MODEL_FILE = "model.onnx"
_DIGEST_LENGTH = 36  # MLflow refuses a longer one
_IN_PROCESS = threading.RLock()  # MLflow's tracking URI belongs to the process, not to the call


@dataclass(frozen=True, slots=True)
class LoggedDataset:
    """The events that a run was made from."""

    events: pl.DataFrame
    """Rows in the order they were fitted on; gives MLflow the schema and the number of rows."""
    snapshot: Path
    """The same as Parquet."""
    digest: str
    source: str
    """The store and query they came from, in words."""
    context: str
    """What they were used for: "training"."""


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


def log_training(settings: RegistrySettings, run: TrainingRun) -> ModelVersion:
    """Log a run, register its model as a new version, tagged and with its threshold. Raises RegistryError.

    A run that cannot be logged to the end is marked as failed, and registers nothing.
    """
    experiment = connection.experiment_id(settings, settings.experiment)
    client = connection.client(settings)
    with _mlflow(settings) as mlflow:
        started = int(run.started_at.timestamp() * 1000)
        tags = {**run.tags, "mlflow.note.content": run.description}
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
            mlflow.log_text(run.description, "card.md")
            model = _log_model(mlflow, run)
            version = mlflow.register_model(
                f"models:/{model.model_id}",
                settings.model,
                tags={**run.tags, THRESHOLD_TAG: run.threshold.model_dump_json()},
            )
            client.update_model_version(settings.model, str(version.version), description=run.description)
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


def run_metrics(settings: RegistrySettings, run_id: str) -> dict[str, float]:
    """The metrics of a run, by name. Raises RegistryError."""
    with connection.registry_errors(settings.url):
        return dict(connection.client(settings).get_run(run_id).data.metrics)


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
                "rows": dataset.events.height,
                "columns": dataset.events.columns,
                "snapshot": str(dataset.snapshot.absolute()),
                "source": dataset.source,
            },
            "dataset/summary.json",
        )
    described = from_polars(
        dataset.events,
        source=dataset.snapshot.absolute().as_uri(),
        name="oddlog-events",
        digest=dataset.digest[:_DIGEST_LENGTH],
    )
    mlflow.log_input(described, context=dataset.context, tags={"source": dataset.source})


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
        extra_files=[str(run.artifact / name) for name in ARTIFACT_FILES if name != _MODEL_FILE],
        save_as_external_data=False,
        metadata={"oddlog": dict(run.tags)},
    )


def _metric(name: str) -> str:
    """A name that MLflow takes: letters, digits, `_-. :/`."""
    return re.sub(r"[^\w\-. :/]", "_", name)


def _text(value: Any) -> str:
    return str(value)[:6_000]
