"""`oddlog doctor`: every part that the settings name, and the command that mends it."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import typer
from rich.markup import escape

from cli.console import (
    Config,
    Json,
    RegistryUrl,
    ScorerUrl,
    SourceUrl,
    StoreUrl,
    emit_json,
    out,
    settings_from,
    verb,
)
from oddlog.settings import without_credentials

if TYPE_CHECKING:
    from collections.abc import Iterator

    from serving.doctor import Check

_SHOWN = {"ok": "[green]ok[/]     ", "no": "[red]no[/]     ", "failed": "[red]failed[/] ", "skipped": "[dim]skipped[/]"}


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("doctor")(doctor)


@verb
def doctor(
    config: Config = None,
    source: SourceUrl = None,
    store: StoreUrl = None,
    registry: RegistryUrl = None,
    scorer: ScorerUrl = None,
    json: Json = False,
) -> None:
    """Look at every part that the settings name; changes nothing. Exit 1: a check said no; 3: a part failed."""
    settings = settings_from(config, source=source, store=store, registry=registry, scorer=scorer)
    from serving.doctor import examine, exit_code

    checks: list[Check] = []
    with _kafka_client_silent():
        for found in examine(settings):
            check = replace(
                found, text=without_credentials(found.text), mend=found.mend and without_credentials(found.mend)
            )
            checks.append(check)
            if not json:
                _tell(check)
    code = exit_code(checks)
    if json:
        emit_json({"exit_code": code, "checks": [asdict(check) for check in checks]})
    if code:
        raise typer.Exit(code)


@contextmanager
def _kafka_client_silent() -> Iterator[None]:
    """Without what kafka-python logs of a broker that is away: a line here says it. The level before comes back."""
    client = logging.getLogger("kafka")
    before = client.level
    client.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        client.setLevel(before)


def _tell(check: Check) -> None:
    mend = f"  [dim]to mend:[/] {escape(check.mend)}" if check.mend else ""
    text = escape(" ".join(check.text.split()))
    out.print(f"{_SHOWN[check.verdict]} {check.part:<14} {text}{mend}", highlight=False, soft_wrap=True)
