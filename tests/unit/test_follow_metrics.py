"""What the service's gauges tell of the model that is served, and of versions that are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import prometheus_client
import pytest

from oddlog.scoring.model import Model
from oddlog.scoring.shelf import ModelShelf
from oddlog.settings import RegistrySettings
from oddlog.simulation.traffic import simulate
from serving.follow import AliasFollower
from serving.metrics import service_metrics
from tests.named_registry import Named
from tests.small_model import small_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Model]:
    lines = [line.encode() for line in simulate(seed=5, lines=2_000, days=1.0, attack_share=0.0).lines]
    folder = tmp_path_factory.mktemp("followed") / "artifact"
    return folder, small_model(folder, lines)


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
