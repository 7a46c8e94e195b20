"""What the service tells of its models while the follower is in the middle of a look."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from oddlog.scoring.shelf import ModelShelf
from oddlog.settings import RegistrySettings, ServeSettings
from oddlog.simulation.traffic import simulate
from serving.backend import Backend
from serving.follow import AliasFollower, Observer
from serving.metrics import service_metrics
from tests.named_registry import Named
from tests.small_model import small_model


class Asks(Observer):
    """Asks the service for its models in the middle of each look: when a version is refused, and when one is swapped
    in."""

    def __init__(self) -> None:
        self.backend: Backend | None = None
        self.told: list[tuple[str | None, list[str], str]] = []

    def refused(self, version: str) -> None:
        self._ask()

    def swapped(self, version: str, before: str | None) -> None:
        self._ask()

    def _ask(self) -> None:
        assert self.backend is not None
        told = self.backend.models()
        champion = told["champion"]
        self.told.append(
            (champion and champion["version"], [one["version"] for one in told["refused"]], told["detail"])
        )


def test_refused_versions_roles_and_detail_are_those_of_one_look(tmp_path: Path) -> None:
    lines = [line.encode() for line in simulate(seed=5, lines=2_000, days=1.0, attack_share=0.0).lines]
    artifact = tmp_path / "artifact"
    small_model(artifact, lines)
    registry = Named(artifact, champion="1", damaged={"2"})
    one: Any = registry
    shelf, observer = ModelShelf("oddlog"), Asks()
    settings = RegistrySettings(url="sqlite:///none.db", cache_dir=tmp_path / "cache")
    follower = AliasFollower(settings, shelf, lambda: one, observer)
    observer.backend = Backend(ServeSettings(), shelf, follower, service_metrics())

    for champion in ("1", "2", "3"):
        registry.champion = champion
        follower.look()
        observer._ask()

    assert observer.told == [
        ("1", [], "version 1 is champion"),  # in the look, and after it
        ("1", [], "version 1 is champion"),
        ("1", [], "version 1 is champion"),  # version 2 is refused, and the look is not over
        ("1", ["2"], "version 1 goes on; the registry names 2"),
        ("3", [], "version 3 is champion"),  # in place, and not before the view names it
        ("3", [], "version 3 is champion"),
    ]
