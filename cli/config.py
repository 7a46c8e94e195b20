"""`oddlog config`: what is in force, and where each value came from."""

from __future__ import annotations

import typer

from cli.console import (
    Config,
    Json,
    RegistryUrl,
    ScorerUrl,
    SourceUrl,
    StoreUrl,
    emit_json,
    show_table,
    url_flags,
    verb,
)
from oddlog.settings import load
from oddlog.settings_in_force import describe


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("config")(config)


@verb
def config(
    config: Config = None,
    source: SourceUrl = None,
    store: StoreUrl = None,
    registry: RegistryUrl = None,
    scorer: ScorerUrl = None,
    json: Json = False,
) -> None:
    """Print every setting in force, where its value came from, and what it means. Secrets are hidden."""
    flags = url_flags(source, store, registry, scorer)
    lines = list(describe(load(flags, file=config), flags))
    if json:
        emit_json({line.name: {"value": line.value, "origin": line.origin} for line in lines})
        return
    show_table(None, ["setting", "value", "from", "meaning"], [(s.name, s.value, s.origin, s.meaning) for s in lines])
