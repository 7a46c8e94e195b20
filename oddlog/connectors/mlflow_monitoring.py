"""What a drift check leaves in MLflow: one run for a model version and batch, and a note on the version.

What is measured comes from `monitoring/`; training's runs are in `mlflow_training.py`.
"""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from oddlog.connectors import mlflow_connection as connection
from oddlog.connectors.mlflow_experiments import monitoring_experiment, monitoring_name
from oddlog.connectors.registry import ModelVersion

if TYPE_CHECKING:
    from oddlog.settings import RegistrySettings

CHECK_TAG = "oddlog.drift.check"
"""On a monitoring run: the id of its drift document, the same for the same version and batch."""
VERSION_TAG = "oddlog.drift.last"
"""On a model version: the latest verdict, in words, and the run that has the report."""


@dataclass(frozen=True, slots=True)
class MonitoringRun:
    """Everything about one drift check."""

    check: str
    """Id of the check; a run that carries it already is written anew, not doubled."""
    name: str
    verdict: str
    tags: Mapping[str, str]
    parameters: Mapping[str, Any]
    metrics: Mapping[str, float]
    """Those that are not finite are left out."""
    artifacts: Mapping[str, str]
    """Text by file name."""
    description: str
    """Markdown."""


def log_monitoring(settings: RegistrySettings, version: ModelVersion, run: MonitoringRun) -> str:
    """Log a check into the experiment `<experiment>-monitoring`, linked with `version`. Returns the run's id.

    Raises RegistryError."""
    experiment = monitoring_experiment(settings)
    client = connection.client(settings)
    with connection.registry_errors(settings.url):
        from mlflow.entities import LoggedModelInput, Metric, Param, RunTag

        tags = {
            **run.tags,
            CHECK_TAG: run.check,
            "oddlog.model.name": version.name,
            "oddlog.model.version": version.version,
            "oddlog.model.run_id": version.run_id,
            "mlflow.note.content": run.description,
        }
        found = client.search_runs([experiment], f"tags.`{CHECK_TAG}` = '{run.check}'", max_results=1)
        if found:
            run_id = str(found[0].info.run_id)
        else:
            created = client.create_run(experiment, run_name=run.name, tags={CHECK_TAG: run.check})
            run_id = str(created.info.run_id)
            client.log_batch(run_id, params=[Param(name, str(value)) for name, value in run.parameters.items()])
            if model_id := logged_model_of(client.get_model_version(version.name, version.version)):
                client.log_inputs(run_id, models=[LoggedModelInput(model_id=model_id)])
        now = int(client.get_run(run_id).info.start_time)
        client.log_batch(
            run_id,
            metrics=[Metric(name, float(value), now, 0) for name, value in run.metrics.items() if math.isfinite(value)],
            tags=[RunTag(name, value) for name, value in tags.items()],
        )
        for name, text in run.artifacts.items():
            client.log_text(run_id, text, name)
        client.set_terminated(run_id, "FINISHED")
        client.set_model_version_tag(version.name, version.version, VERSION_TAG, f"{run.verdict} (run {run_id})")
    return run_id


def delete_monitoring(settings: RegistrySettings, before: dt.datetime) -> int:
    """Delete the runs of drift checks that began before a time, and their artifacts. Returns how many.

    A deleted run's metrics stay in the database until `mlflow gc`. Raises RegistryError."""
    if not connection.exists(settings):
        return 0
    client = connection.client(settings)
    with connection.registry_errors(settings.url):
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        experiment = client.get_experiment_by_name(monitoring_name(settings))
        if experiment is None:
            return 0
        old = f"tags.`{CHECK_TAG}` != '' AND attributes.start_time < {int(before.timestamp() * 1000)}"
        deleted = 0
        while runs := client.search_runs([experiment.experiment_id], old, max_results=100):
            for run in runs:
                get_artifact_repository(run.info.artifact_uri, connection.tracking_uri(settings)).delete_artifacts()
                client.delete_run(run.info.run_id)
                deleted += 1
    return deleted


def logged_model_of(version: Any) -> str | None:
    """The logged model that a version was registered from; a database tells it by the version's source alone."""
    if version.model_id:
        return str(version.model_id)
    found = re.fullmatch(r"models:/(m-[0-9a-f]+)", str(version.source or ""))
    return found[1] if found else None
