"""Registering a small model in a real MLflow, as a training does. The model itself is small_model's."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import numpy as np
import polars as pl

from oddlog.connectors.mlflow_training import LoggedDataset, TrainingRun, log_training
from oddlog.features.declaration import FEATURE_NAMES
from oddlog.scoring.artifact import read_card
from oddlog.settings import RegistrySettings


def registry_in(folder: Path) -> RegistrySettings:
    """An embedded registry of a test's own."""
    return RegistrySettings(
        url=f"sqlite:///{folder}/mlflow.db", artifacts=f"{folder}/artifacts", cache_dir=folder / "cache"
    )


def register(settings: RegistrySettings, artifact: Path) -> str:
    """Log a run with the model in `artifact` and register it; the version."""
    card = read_card(artifact)
    events = pl.DataFrame({"@timestamp": [card.dataset.since]}, schema={"@timestamp": pl.Datetime("ms", "UTC")})
    snapshot = artifact.with_suffix(".parquet")
    events.write_parquet(snapshot)
    run = TrainingRun(
        name=artifact.name,
        started_at=dt.datetime.now(dt.UTC),
        tags={"algorithm": card.algorithm, "status": "candidate"},
        parameters={},
        metrics={},
        figures={},
        documents={},
        dataset=LoggedDataset(events, snapshot, card.dataset.digest, card.dataset.source, "training"),
        artifact=artifact,
        description="A model of a test.",
        example=np.zeros((2, len(FEATURE_NAMES)), dtype=np.float32),
        threshold=card.threshold,
    )
    return log_training(settings, run).version
