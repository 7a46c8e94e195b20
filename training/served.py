"""The baseline that the champion is served with: what stored features were computed under. Nothing is scored."""

from __future__ import annotations

import datetime as dt
import tempfile
from dataclasses import dataclass
from pathlib import Path

from oddlog.connectors.registry import CHAMPION, Registry
from oddlog.errors import UsageError
from oddlog.features.baseline import Baseline
from oddlog.scoring.model import Model


@dataclass(frozen=True, slots=True)
class ServedBaseline:
    """A baseline, and until when the events that it counted go."""

    version: str
    baseline: Baseline
    fit_until: dt.datetime
    """Events before it may be in its counts: their stored features flatter them."""


def served_baseline(registry: Registry) -> ServedBaseline:
    """The champion's. Raises UsageError where there is none, ArtifactError, RegistryError."""
    champion = registry.by_alias(CHAMPION)
    if champion is None:
        raise UsageError(
            "there is no champion whose stored features could be trained on",
            expected="a promoted model, and events that were enriched under it",
            mend="oddlog train --features refit, then oddlog promote and oddlog enrich",
        )
    model = version_model(registry, champion.version)
    return ServedBaseline(champion.version, model.baseline, model.card.dataset.fit_until)


def version_model(registry: Registry, version: str) -> Model:
    """The model of a registered version, loaded and checked. Raises ArtifactError, RegistryError."""
    with tempfile.TemporaryDirectory(prefix="oddlog-version-") as folder:
        return Model.load(registry.download(version, Path(folder)))
