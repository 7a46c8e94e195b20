"""What an evaluation of a registered version leaves in MLflow: a run linked with the model, and a note on the version.

What is measured comes from `training/`; the runs of trainings are in `mlflow_training.py`.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from oddlog.connectors import mlflow_connection as connection
from oddlog.connectors.mlflow_experiments import evaluation_experiment
from oddlog.connectors.mlflow_monitoring import logged_model_of
from oddlog.connectors.registry import ModelVersion

if TYPE_CHECKING:
    from oddlog.settings import RegistrySettings

VERSION_TAG = "oddlog.evaluation.last"
"""On a model version: the latest evaluation in words, and the run that has it."""


@dataclass(frozen=True, slots=True)
class EvaluationRun:
    """Everything about one evaluation."""

    name: str
    started_at: dt.datetime
    parameters: Mapping[str, Any]
    metrics: Mapping[str, float]
    """Those that are not finite are left out."""
    document: Mapping[str, Any]
    """All figures, as `evaluation.json`."""
    summary: str
    """One sentence, for the version."""
    description: str
    """Markdown."""


def log_evaluation(settings: RegistrySettings, version: ModelVersion, run: EvaluationRun) -> str:
    """Log into the experiment `<experiment>-evaluation`, linked with `version`. Returns the run's id.

    Raises RegistryError. A run that cannot be logged to the end stays unfinished, and the version is not noted on.
    """
    experiment = evaluation_experiment(settings)
    client = connection.client(settings)
    with connection.registry_errors(settings.url):
        from mlflow.entities import LoggedModelInput, Metric, Param

        started = int(run.started_at.timestamp() * 1000)
        tags = {
            "oddlog.model.name": version.name,
            "oddlog.model.version": version.version,
            "oddlog.model.run_id": version.run_id,
            "algorithm": version.algorithm,
            "mlflow.note.content": run.description,
        }
        created = client.create_run(experiment, start_time=started, run_name=run.name, tags=tags)
        run_id = str(created.info.run_id)
        client.log_batch(
            run_id,
            metrics=[Metric(name, value, started, 0) for name, value in run.metrics.items() if math.isfinite(value)],
            params=[Param(name, str(value)[:6_000]) for name, value in run.parameters.items()],
        )
        client.log_dict(run_id, dict(run.document), "evaluation.json")
        if model_id := logged_model_of(client.get_model_version(version.name, version.version)):
            client.log_inputs(run_id, models=[LoggedModelInput(model_id=model_id)])
        client.set_terminated(run_id, "FINISHED")
        client.set_model_version_tag(version.name, version.version, VERSION_TAG, f"{run.summary} (run {run_id})")
    return run_id
