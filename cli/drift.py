"""`oddlog drift`: a batch against what was to be expected of it."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cli.console import Config, Json, RegistryUrl, StoreUrl, emit_json, out, settings_from, show_table, verb
from cli.logs import LogJson, log_flags, start_logging
from cli.stages import stages
from cli.times import Since, Until, period
from oddlog.errors import UsageError

if TYPE_CHECKING:
    from monitoring.drift import DriftResult

Last = Annotated[
    str | None,
    typer.Option(
        "--last", help="Instead: the time up to now, as in 30m, 1h, 7d.", metavar="LENGTH", show_default=False
    ),
]
BatchOption = Annotated[
    str | None,
    typer.Option(
        "--batch", help="Instead: the last whole one by the clock, 1h, 6h or 1d (UTC), or a period, SINCE..UNTIL.",
        metavar="1h|6h|1d|SINCE..UNTIL", show_default=False,
    ),
]  # fmt: skip
AgainstOption = Annotated[
    Literal["reference", "previous", "same-time-last-week"],
    typer.Option(
        "--against",
        help="The model's reference, by like hours of the day; the batch before; the same time a week earlier.",
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
Limits = Annotated[
    Path | None,
    typer.Option("--limits", help="File of limits. Beats setting drift.limits.", show_default=False),
]

SHOWN = 10


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("drift")(drift)


@verb
def drift(
    batch: BatchOption = None,
    against: AgainstOption = "reference",
    since: Since = None,
    until: Until = None,
    last: Last = None,
    model_version: Version = None,
    report: Report = None,
    limits: Limits = None,
    config: Config = None,
    store: StoreUrl = None,
    registry: RegistryUrl = None,
    log_json: LogJson = False,
    json: Json = False,
) -> None:
    """Compare a batch, by default all since the training data, with what was to be expected. Exit 1: it drifted."""
    start, end = _period(batch, since, until, last)
    settings = settings_from(config, store=store, registry=registry, drift={"limits": limits}, log=log_flags(log_json))
    start_logging(settings)

    with stages(quiet=json) as tell:
        from monitoring.drift import check_drift
        from monitoring.prune import prune
        from oddlog.connectors.by_url import open_registry, using_store

        with using_store(settings.store) as opened:
            result = check_drift(
                settings, opened, open_registry(settings.registry), since=start, until=end, against=against,
                version=model_version, report=report, progress=tell,
            )  # fmt: skip
        prune(settings, dt.datetime.now(dt.UTC))
    if json:
        emit_json(result.document())
    else:
        show(result)
    if result.drifted:
        raise typer.Exit(1)


def show(result: DriftResult) -> None:
    """The result for people: what has drifted, else what came nearest to it, then the verdict."""
    document = result.document()
    batch = document["batch"]
    past = [m for m in document["measures"] if m["drifted"]]
    show_table(
        f"{batch['events']:,} events from {batch['since']} to {batch['until']}, against {document['against']} "
        f"(version {document['model']['version']})",
        ["measure", "effect", "limit", "in words", ""],
        [
            (m["name"], _number(m["effect"]), _number(m["limit"]), m["sentence"], "drifted" if m["drifted"] else "")
            for m in document["measures"][: max(len(past), SHOWN)]
        ],
    )
    out.print(result.verdict, style="bold red" if result.drifted else "bold green", highlight=False)
    for caution in document["cautions"]:
        out.print(f"caution: {caution}", style="yellow", highlight=False)
    out.print(f"report: {result.report}", highlight=False, soft_wrap=True)


def _period(
    batch: str | None, since: str | None, until: str | None, last: str | None
) -> tuple[dt.datetime | None, dt.datetime | None]:
    if batch is None:
        return period(since, until, last)
    if since or until or last:
        raise UsageError("--batch together with --since, --until or --last", expected="one of the ways")
    from monitoring.period import read_batch_flag

    return read_batch_flag(batch, dt.datetime.now(dt.UTC))


def _number(value: Any) -> str:
    return "–" if value is None else f"{value:.3g}"
