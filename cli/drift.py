"""`oddlog drift`: a recent batch against the champion's reference."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.console import Config, Json, RegistryUrl, StoreUrl, emit_json, out, settings_from, show_table, verb
from cli.logs import LogJson, log_flags, start_logging
from cli.stages import stages
from cli.times import Since, Until, period

Last = Annotated[
    str | None,
    typer.Option(
        "--last", help="Instead: the time up to now, as in 30m, 1h, 7d.", metavar="LENGTH", show_default=False
    ),
]
Version = Annotated[
    str | None,
    typer.Option("--model-version", help="Another version than the champion.", metavar="VERSION", show_default=False),
]
Report = Annotated[
    Path | None,
    typer.Option("--report", help="Where the HTML report goes; JSON beside it.", show_default=False),
]


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("drift")(drift)


@verb
def drift(
    since: Since = None,
    until: Until = None,
    last: Last = None,
    model_version: Version = None,
    report: Report = None,
    config: Config = None,
    store: StoreUrl = None,
    registry: RegistryUrl = None,
    log_json: LogJson = False,
    json: Json = False,
) -> None:
    """Compare a batch, by default all since the training data, with the champion's reference. Exit 1: it drifted."""
    start, end = period(since, until, last)
    settings = settings_from(config, store=store, registry=registry, log=log_flags(log_json))
    start_logging(settings)

    with stages(quiet=json) as tell:
        from monitoring.drift import check_drift
        from oddlog.connectors.by_url import open_registry, using_store

        with using_store(settings.store) as opened:
            result = check_drift(
                settings, opened, open_registry(settings.registry), since=start, until=end, version=model_version,
                report=report, progress=tell,
            )  # fmt: skip
    if json:
        emit_json(result.document())
    else:
        show_table(
            f"{result.events:,} events from {result.since:%Y-%m-%d %H:%M:%S} to "
            f"{result.until:%Y-%m-%d %H:%M:%S} UTC, against the reference of version {result.model_version}",
            ["column", "distance", "limit", "mean", "reference", ""],
            [
                (c.name, _number(c.distance), f"{c.limit:g}", _number(c.mean), _number(c.reference_mean),
                 " ".join(filter(None, ["drifted" if c.drifted else "", c.note])))
                for c in result.columns
            ],
        )  # fmt: skip
        out.print(result.verdict, style="bold red" if result.drifted else "bold green", highlight=False)
        for caution in result.cautions:
            out.print(f"caution: {caution}", style="yellow", highlight=False)
        out.print(f"report: {result.report}", highlight=False, soft_wrap=True)
    if result.drifted:
        raise typer.Exit(1)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"
