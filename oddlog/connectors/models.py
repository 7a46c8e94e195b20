"""A trained model by what a person calls it: a version or alias of the registry, or a folder. Nothing is scored."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from oddlog.connectors.by_url import open_registry
from oddlog.connectors.registry import ModelVersion, Registry
from oddlog.errors import UsageError
from oddlog.scoring.artifact import CARD
from oddlog.scoring.card import Threshold
from oddlog.scoring.model import Model
from oddlog.settings import RegistrySettings


@dataclass(frozen=True, slots=True)
class FoundModel:
    """A model, what it is called, and the threshold in force for it (None: the one it was made with)."""

    model: Model
    name: str
    threshold: Threshold | None


def find_version(registry: Registry, wanted: str, *, besides: str = "") -> ModelVersion:
    """The version of a number ("7") or an alias ("champion"). Raises UsageError, RegistryError.

    `besides`: what else the caller would have taken, for the error's text."""
    found = registry.version(wanted) if wanted.isdigit() else registry.by_alias(wanted)
    if found is None:
        held = ", ".join(version.version for version in registry.versions()) or "none"
        raise UsageError(
            f"no version is called {wanted!r}",
            expected=f"{besides}an alias such as champion, or a version; registered: {held}",
            mend="oddlog models" if held != "none" else "oddlog train",
        )
    return found


def find_model(settings: RegistrySettings, wanted: str) -> FoundModel:
    """The model in a folder, or of a version ("7") or alias ("champion"). Raises UsageError, RegistryError."""
    folder = Path(wanted)
    if (folder / CARD).is_file():
        model = Model.load(folder)
        return FoundModel(model, f"{model.card.algorithm} of {folder}", None)
    if folder.is_dir():
        raise UsageError(f"{folder} holds no model", expected=f"a folder with {CARD}, or a version of the registry")
    registry = open_registry(settings)
    found = find_version(registry, wanted, besides=f"a folder with {CARD}, ")
    with tempfile.TemporaryDirectory(prefix="oddlog-model-") as into:
        model = Model.load(registry.download(found.version, Path(into)))
    name = f"version {found.version} of {found.name}, {found.algorithm}"
    return FoundModel(model, name, found.threshold)
