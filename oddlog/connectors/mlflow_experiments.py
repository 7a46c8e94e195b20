"""MLflow's experiments: their names, and what their pages say of themselves. Runs are the other files'."""

from __future__ import annotations

from urllib.parse import quote

from oddlog.connectors import mlflow_connection as connection
from oddlog.settings import RegistrySettings

_TRAINING = """\
Models that score log events, made by `oddlog train` and `oddlog tune` from the events in the store. A run is one model;
its name says algorithm, period and number of events. A search has its trials below it.

- **Description** of a run: the model's card. **Artifacts**: figures, the first twenty alerts of the later events in
  words (`documents/first_alerts.html`), and after `oddlog promote` what every gate found (`promotion/`).
- **Metrics** by prefix: `labels/` against labels and marks, `planted/` against attacks that were planted into the later
  events, by scenario; `threshold/` alerts a day; `data/` events and clients; `seconds/` and `size/` what it took.
- **Parameters** by prefix: `data.` the period and its digest, `train.` settings, by which a run can be repeated
  (`oddlog train --from-run RUN`).

The last part of a run's period is not fitted on: it calibrates the model and judges it. What is served is the version
that has the alias `champion` in the model registry.
"""

_MONITORING = """\
What `oddlog drift` and `oddlog monitor` found: a run is one batch of events, held against what its model version was
made for. Metrics `effect/` say how far each feature, score or share is off, `limit/` how far it may be (`drift.toml`);
`drift.drifted` is the verdict, the run's description says it in a sentence, the artifact `drift.html` shows it.
"""

_EVALUATION = """\
What `oddlog evaluate` found: a run is one registered version, judged over a period of the store by labels, marks and
planted attacks.
"""


def training_experiment(settings: RegistrySettings) -> str:
    """The id of the experiment of trainings and searches, created where it is not there. Raises RegistryError."""
    return experiment_id(settings, settings.experiment, _TRAINING)


def monitoring_name(settings: RegistrySettings) -> str:
    """The name of the experiment of drift checks."""
    return f"{settings.experiment}-monitoring"


def monitoring_experiment(settings: RegistrySettings) -> str:
    """The id of the experiment of drift checks, created where it is not there. Raises RegistryError."""
    return experiment_id(settings, monitoring_name(settings), _MONITORING)


def evaluation_experiment(settings: RegistrySettings) -> str:
    """The id of the experiment of evaluations, created where it is not there. Raises RegistryError."""
    return experiment_id(settings, f"{settings.experiment}-evaluation", _EVALUATION)


def experiment_id(settings: RegistrySettings, name: str, description: str) -> str:
    """The id of an experiment, created where it is not there; one that is keeps what people wrote. Raises
    RegistryError.

    An embedded one gets its artifacts in an absolute folder: a relative one would be another folder for every
    process.
    """
    from mlflow.exceptions import MlflowException

    mlflow = connection.client(settings)
    with connection.registry_errors(settings.url):
        if (found := mlflow.get_experiment_by_name(name)) is not None:
            return str(found.experiment_id)
        location = None
        if connection.database_file(settings.url) is not None:
            location = f"{connection.artifact_root(settings)}/{quote(name, safe='')}"
        tags = {"mlflow.note.content": description}
        try:
            return str(mlflow.create_experiment(name, artifact_location=location, tags=tags))
        except MlflowException:
            # Two processes at once: whoever comes second finds the other's.
            if (found := mlflow.get_experiment_by_name(name)) is not None:
                return str(found.experiment_id)
            raise
