"""What a search for parameters leaves in MLflow: a run, and below it one for every trial. What is searched comes from
`training/`; the training with the best parameters is logged by `mlflow_training.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from oddlog.connectors import mlflow_connection as connection
from oddlog.connectors.mlflow_experiments import training_experiment

if TYPE_CHECKING:
    from oddlog.settings import RegistrySettings

PARENT_TAG = "mlflow.parentRunId"


@dataclass(frozen=True, slots=True)
class TuningRun:
    """A search as it begins."""

    name: str
    parameters: Mapping[str, Any]
    """None where one was not given."""


def start_tuning(settings: RegistrySettings, run: TuningRun) -> str:
    """Open the run of a search; its id. Raises RegistryError."""
    experiment = training_experiment(settings)
    client = connection.client(settings)
    with connection.registry_errors(settings.url):
        run_id = str(client.create_run(experiment, run_name=run.name, tags={"kind": "search"}).info.run_id)
        for name, value in run.parameters.items():
            if value is not None:
                client.log_param(run_id, name, str(value)[:6_000])
    return run_id


def log_trial(
    settings: RegistrySettings,
    parent: str,
    algorithm: str,
    number: int,
    parameters: Mapping[str, int | float],
    metrics: Mapping[str, float],
) -> str:
    """Log a finished trial below the run of its search; its id. Raises RegistryError."""
    client = connection.client(settings)
    with connection.registry_errors(settings.url):
        from mlflow.entities import Metric, Param

        experiment = client.get_run(parent).info.experiment_id
        tags = {PARENT_TAG: parent, "kind": "trial", "algorithm": algorithm}
        run = client.create_run(experiment, run_name=f"trial {number}", tags=tags)
        run_id, now = str(run.info.run_id), int(run.info.start_time)
        client.log_batch(
            run_id,
            metrics=[Metric(name, value, now, 0) for name, value in metrics.items() if math.isfinite(value)],
            params=[Param(f"detector.{name}", str(value)) for name, value in parameters.items()],
        )
        client.set_terminated(run_id, "FINISHED")
    return run_id


def finish_tuning(
    settings: RegistrySettings, run_id: str, metrics: Mapping[str, float], *, failed: bool = False
) -> None:
    """Close the run of a search. Raises RegistryError."""
    client = connection.client(settings)
    with connection.registry_errors(settings.url):
        for name, value in metrics.items():
            if math.isfinite(value):
                client.log_metric(run_id, name, value)
        client.set_terminated(run_id, "FAILED" if failed else "FINISHED")
