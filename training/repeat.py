"""A training repeated: the events and settings of an earlier run, as MLflow keeps them. Nothing is fitted here."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from oddlog.connectors.by_url import open_registry
from oddlog.connectors.mlflow_training import RunRecord, fetch_artifact, run_record
from oddlog.connectors.registry import Registry
from oddlog.errors import ArtifactError, UsageError
from oddlog.events.privacy import PrivacyStamp
from oddlog.features.baseline import Baseline
from oddlog.features.declaration import feature_digest
from oddlog.settings import Settings, TrainSettings
from training.checks import Caution
from training.dataset import Dataset, RowDigest, batches_of
from training.prepare import Prepared, work_on
from training.progress import Progress
from training.record import CAUTION_TAG, PRIVACY
from training.served import version_model

_REPEATED = (
    "algorithm", "budget", "fit_share", "seed", "features", "sample", "exclude_alerted", "exclude_up_to",
)  # fmt: skip
"""The settings that a run's parameters tell."""


@dataclass(frozen=True, slots=True)
class Original:
    """The run that is repeated."""

    run_id: str
    algorithm: str
    model_digest: str


@dataclass(frozen=True, slots=True)
class Again:
    """What a run was made from, prepared once more."""

    original: Original
    settings: Settings
    """With the run's own training settings."""
    prepared: Prepared


@contextlib.contextmanager
def prepare_again(
    settings: Settings, run_id: str, *, registry: Registry | None = None, progress: Progress | None = None
) -> Iterator[Again]:
    """The events of a run from its snapshot, its settings, and for stored features its baseline.

    Raises UsageError where the run cannot be repeated (no training, other features, snapshot not kept), ArtifactError
    where the snapshot is not what was trained on, RegistryError.
    """
    tell = progress or (lambda _: None)
    record = run_record(settings.registry, run_id)
    options = _options(settings.train, record)
    original = Original(run_id, record.parameters["train.algorithm"], record.tags.get("model_digest", ""))
    digest = record.parameters["data.digest"]
    with tempfile.TemporaryDirectory(prefix="oddlog-repeat-") as folder:
        tell(f"fetching the events of run {run_id}")
        snapshot = fetch_artifact(settings.registry, run_id, f"dataset/{digest}.parquet", Path(folder))
        if snapshot is None:
            raise UsageError(
                f"run {run_id} kept no snapshot of its {record.parameters.get('data.source', 'events')}",
                expected=f"dataset/{digest}.parquet among its artifacts; very large ones are not kept",
                mend="oddlog train with the period, budget, seed and sample that its parameters tell",
            )
        if (found := _digest(snapshot)) != digest:
            raise ArtifactError(f"the snapshot of run {run_id} has the digest {found}", expected=digest)
        privacy = record.parameters.get(PRIVACY)
        dataset = Dataset.of(
            snapshot,
            digest=digest,
            source=record.parameters["data.source"],
            privacy=None if privacy is None else PrivacyStamp.model_validate_json(privacy),
        )
        baseline = None
        if options.features == "stored":
            baseline = _baseline_of(registry or open_registry(settings.registry), run_id)
        prepared = work_on(dataset, options, baseline=baseline, cautions=_limits(record, options), progress=progress)
        yield Again(original, settings.model_copy(update={"train": options}), prepared)


def _options(base: TrainSettings, record: RunRecord) -> TrainSettings:
    """The run's training settings; what it does not tell is taken from those in force."""
    parameters = record.parameters
    if missing := [name for name in ("train.algorithm", "data.digest", "data.source") if name not in parameters]:
        raise UsageError(
            f"run {record.run_id} is no training: it has no parameter {', '.join(missing)}",
            expected="the id of a run that oddlog train logged",
            mend="oddlog models lists versions and their runs",
        )
    if (made_for := parameters.get("features.digest", "")) != feature_digest():
        raise UsageError(
            f"run {record.run_id} was made for other features (digest {made_for[:12]})",
            expected=f"digest {feature_digest()[:12]}, of the features of this version of oddlog",
            mend="run the version of oddlog that its card names",
        )
    # A run tells of a bound only where it had one: that of today's settings would leave out other clients.
    unbounded = {"exclude_up_to": None}
    told = {name: parameters[f"train.{name}"] for name in _REPEATED if f"train.{name}" in parameters}
    chosen = json.loads(parameters.get("train.parameters", "{}"))
    try:
        return TrainSettings.model_validate(
            {**base.model_dump(), "parameters": {parameters["train.algorithm"]: chosen}, **unbounded, **told}
        )
    except ValidationError as error:
        raise UsageError(f"parameters of run {record.run_id} cannot be taken: {error.errors()[0]['msg']}") from None


def _limits(record: RunRecord, options: TrainSettings) -> list[Caution]:
    """The caution of a sample that memory asked for: nothing in the snapshot tells of it."""
    name = "sampled_for_memory"
    text = record.tags.get(CAUTION_TAG + name)
    return [] if text is None else [Caution(name, text, round(options.sample, 4))]


def _baseline_of(registry: Registry, run_id: str) -> Baseline:
    for version in registry.versions():
        if version.run_id == run_id:
            return version_model(registry, version.version).baseline
    raise UsageError(
        f"no registered version comes from run {run_id}, whose features were stored under its baseline",
        expected="the version that it registered",
        mend="oddlog models",
    )


def _digest(snapshot: Path) -> str:
    whole: RowDigest | None = None
    for frame in batches_of(snapshot):
        whole = whole or RowDigest(frame.columns)
        whole.add(frame)
    return "" if whole is None else whole.hex()
