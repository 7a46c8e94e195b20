"""The champion's reference: what its features and scores were distributed like when it was made."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from oddlog.connectors.registry import CHAMPION, ModelVersion, Registry
from oddlog.errors import UsageError
from oddlog.scoring.artifact import REFERENCE, frame_from_arrow, read_verified
from oddlog.scoring.card import Card


@dataclass(frozen=True, slots=True)
class Reference:
    """Quantile points of a model version: one Float32 column a feature, and `score` and `severity`."""

    version: ModelVersion
    card: Card
    frame: pl.DataFrame


def fetch_reference(registry: Registry, version: str | None = None) -> Reference:
    """The reference of a version (None: the champion), its artifact verified.

    Raises UsageError while there is no champion, RegistryError, ArtifactError."""
    chosen = registry.by_alias(CHAMPION) if version is None else registry.version(version)
    if chosen is None:
        raise UsageError(
            "no model is champion, so that there is no reference to compare with",
            expected="a promoted model",
            mend="oddlog train && oddlog promote",
        )
    # Fetched afresh: a cached folder of that number may stem from another registry, and it is small.
    with tempfile.TemporaryDirectory(prefix="oddlog-reference-") as folder:
        card, contents = read_verified(registry.download(chosen.version, Path(folder)))
    return Reference(chosen, card, frame_from_arrow(contents[REFERENCE]))
