"""`oddlog models`: what the registry holds."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import typer

from cli.console import Config, Json, RegistryUrl, emit_json, err, settings_from, show_table, verb
from oddlog.settings import without_credentials

if TYPE_CHECKING:
    from oddlog.connectors.registry import ModelVersion


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("models")(models)


@verb
def models(config: Config = None, registry: RegistryUrl = None, json: Json = False) -> None:
    """List the registered versions, newest first: algorithm, aliases, status, quality, threshold."""
    settings = settings_from(config, registry=registry)
    from oddlog.connectors.by_url import open_registry

    versions = open_registry(settings.registry).versions()
    if json:
        emit_json(
            [
                {
                    "version": v.version,
                    "algorithm": v.algorithm,
                    "aliases": list(v.aliases),
                    "status": v.tags.get("status"),
                    "quality": _quality(v),
                    "quality_basis": v.tags.get("quality_basis"),
                    "threshold": v.threshold.model_dump(mode="json") if v.threshold else None,
                    "run_id": v.run_id,
                    "created": _created(v.created_ms).isoformat(),
                }
                for v in versions
            ]
        )
        return
    if not versions:
        url = without_credentials(settings.registry.url)
        err.print(f"no version of {settings.registry.model} is registered at {url}: oddlog train", soft_wrap=True)
        return
    show_table(
        None,
        ["version", "algorithm", "aliases", "status", "quality", "threshold", "created (UTC)"],
        [
            (
                v.version,
                v.algorithm,
                ", ".join(v.aliases),
                v.tags.get("status", ""),
                "" if (quality := _quality(v)) is None else f"{quality:.3f} on {v.tags.get('quality_basis', '?')}",
                f"{v.threshold.value:.4g}" if v.threshold else "",
                f"{_created(v.created_ms):%Y-%m-%d %H:%M}",
            )
            for v in versions
        ],
    )


def _quality(version: ModelVersion) -> float | None:
    """Its average precision; None where the tag is missing, or was edited to something else."""
    try:
        return float(version.tags["quality"])
    except (KeyError, ValueError):
        return None


def _created(milliseconds: int) -> dt.datetime:
    return dt.datetime.fromtimestamp(milliseconds / 1000, dt.UTC)
