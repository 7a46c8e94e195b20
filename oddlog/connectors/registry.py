"""The port of the model registry. Its one implementation is MLflow (`mlflow_registry.py`); MLflow itself runs
embedded (sqlite:///mlruns/mlflow.db) or as a server (http://mlflow:5000), and the client library hides which.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from oddlog.scoring.card import Threshold

CHAMPION, PREVIOUS, CHALLENGER = "champion", "previous", "challenger"


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """A registered model version, as one look at the registry tells it."""

    name: str
    version: str
    run_id: str
    algorithm: str
    created_ms: int
    aliases: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    threshold: Threshold | None = None


class Registry(Protocol):
    """Versions, aliases and tags of one registered model, and the artifacts behind them."""

    def versions(self) -> list[ModelVersion]:
        """Every version, newest first; empty before the first training."""

    def version(self, version: str) -> ModelVersion:
        """One version. Raises RegistryError, naming those that exist."""

    def by_alias(self, alias: str) -> ModelVersion | None:
        """The version that an alias points at, its threshold included, in one call; None where there is none."""

    def download(self, version: str, into: Path) -> Path:
        """The folder with the model artifact (oddlog/scoring/artifact.py) of a version, fetched below `into`.

        Raises RegistryError."""

    def set_alias(self, alias: str, version: str) -> None:
        """Point an alias at a version."""

    def delete_alias(self, alias: str) -> None:
        """Remove an alias; harmless when it is not there."""

    def set_tags(self, version: str, tags: Mapping[str, str]) -> None:
        """Set tags of a version."""

    def thresholds(self, version: str) -> list[Threshold]:
        """Every threshold that a version had since it was registered, oldest first, the one in force last; the latest
        hundred of them. Empty where its tag was deleted, and there was no other. Raises RegistryError."""

    def set_threshold(self, version: str, threshold: Threshold) -> None:
        """Replace the threshold of a version; earlier ones are kept in its history tag."""
