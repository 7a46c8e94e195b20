"""`oddlog models`: what the registry holds, and `oddlog models challenger`: who is tried beside the champion. What two
versions decide differently is told by diff.py."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Annotated

import typer

from cli.console import Config, Json, RegistryUrl, emit_json, err, out, settings_from, show_table, verb
from cli.diff import diff
from oddlog.errors import UsageError
from oddlog.settings import without_credentials

if TYPE_CHECKING:
    from oddlog.connectors.registry import ModelVersion


def register(app: typer.Typer) -> None:
    """Add the verb and what stands below it."""
    group = typer.Typer(name="models", invoke_without_command=True)
    group.callback()(models)
    group.command("challenger")(challenger)
    group.command("diff")(diff)
    app.add_typer(group)


@verb
def models(context: typer.Context, config: Config = None, registry: RegistryUrl = None, json: Json = False) -> None:
    """List the registered versions, newest first: algorithm, aliases, status, quality, threshold."""
    if (below := context.invoked_subcommand) is not None:
        if config or registry or json:
            raise UsageError(
                f"flags before {below}, which would not reach it",
                expected=f"flags behind it: oddlog models {below} ... --json",
            )
        return
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


@verb
def challenger(
    version: Annotated[str | None, typer.Argument(help="Registered version.", show_default=False)] = None,
    none: Annotated[bool, typer.Option("--none", help="Have no challenger.")] = False,
    config: Config = None,
    registry: RegistryUrl = None,
    json: Json = False,
) -> None:
    """Have a version score a sample of the traffic beside the champion (`anomaly.shadow.*`), or no version any more."""
    if (version is None) != none:
        raise UsageError(
            "a version and --none" if none else "no version", expected="VERSION, or --none", mend="oddlog models"
        )
    settings = settings_from(config, registry=registry)
    from training.challenger import set_challenger

    done = set_challenger(settings, version)
    if json:
        emit_json({"challenger": done.challenger, "before": done.before})
        return
    before = f" (before: {done.before})" if done.before is not None else ""
    if done.challenger is None:
        out.print(f"no version is challenger{before}", highlight=False)
    else:
        out.print(
            f"version {done.challenger} is challenger{before}; services and consumers follow within seconds",
            highlight=False,
        )


def _quality(version: ModelVersion) -> float | None:
    """Its average precision; None where the tag is missing, or was edited to something else."""
    try:
        return float(version.tags["quality"])
    except (KeyError, ValueError):
        return None


def _created(milliseconds: int) -> dt.datetime:
    return dt.datetime.fromtimestamp(milliseconds / 1000, dt.UTC)
