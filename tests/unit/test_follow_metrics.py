"""What the service's gauges tell of the model that is served, and of versions that are refused."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import prometheus_client
import pytest

from oddlog.connectors.registry import CHAMPION, ModelVersion
from oddlog.errors import RegistryError
from oddlog.scoring.model import Model
from oddlog.scoring.shelf import ModelShelf
from oddlog.settings import RegistrySettings
from oddlog.simulation.traffic import simulate
from serving.follow import AliasFollower
from serving.metrics import service_metrics
from tests.small_model import small_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Model]:
    lines = [line.encode() for line in simulate(seed=5, lines=2_000, days=1.0, attack_share=0.0).lines]
    folder = tmp_path_factory.mktemp("followed") / "artifact"
    return folder, small_model(folder, lines)


@dataclass
class Named:
    """A registry that names a champion, and hands out copies of one artifact: whole ones, or damaged."""

    artifact: Path
    champion: str | None = None
    damaged: set[str] = field(default_factory=set)
    away: bool = False

    def by_alias(self, alias: str) -> ModelVersion | None:
        if self.away:
            raise RegistryError("away")
        if alias != CHAMPION or self.champion is None:
            return None
        return ModelVersion("oddlog", self.champion, f"run{self.champion}", "surprise", 0)

    def download(self, version: str, into: Path) -> Path:
        shutil.copytree(self.artifact, into / "model")
        if version in self.damaged:
            (into / "model" / "model.onnx").write_bytes(b"no graph")
        return into / "model"


def gauge(name: str) -> float | None:
    return prometheus_client.REGISTRY.get_sample_value(name)


def test_age_of_the_champion_and_refused_versions_are_told(model: tuple[Path, Model], tmp_path: Path) -> None:
    artifact, made = model
    registry = Named(artifact)
    one: Any = registry
    settings = RegistrySettings(url="sqlite:///none.db", cache_dir=tmp_path)
    shelf = ModelShelf("oddlog")
    follower = AliasFollower(settings, shelf, lambda: one, service_metrics())
    follower.look()
    assert gauge("oddlog_champion_created_timestamp_seconds") == 0
    registry.champion = "1"
    follower.look()
    assert gauge("oddlog_champion_created_timestamp_seconds") == made.card.created_at.timestamp()
    assert gauge("oddlog_versions_refused") == 0
    registry.champion, registry.damaged = "2", {"2"}
    follower.look()
    held = shelf.champion()
    assert held is not None
    assert held.version == "1"
    assert gauge("oddlog_versions_refused") == 1
    registry.champion = "1"  # a rollback
    follower.look()
    assert gauge("oddlog_versions_refused") == 0

    registry.away = True
    again = AliasFollower(settings, ModelShelf("oddlog"), lambda: one, service_metrics())
    service_metrics().stands(None, 0)
    again.look()
    assert gauge("oddlog_serving_from_cache") == 1
    assert gauge("oddlog_registry_up") == 0
    assert gauge("oddlog_champion_created_timestamp_seconds") == made.card.created_at.timestamp()
