"""`oddlog backfill`: score what was written as pending, or a period anew with another version."""

from __future__ import annotations

import datetime as dt
from functools import partial
from typing import Annotated

import typer

from cli.console import (
    Config,
    Json,
    RegistryUrl,
    ScorerUrl,
    StoreUrl,
    emit_json,
    err,
    out,
    settings_from,
    verb,
)
from cli.logs import LogJson, log_flags, logs_are_json, start_logging
from cli.times import Since, Until, period


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("backfill")(backfill)


@verb
def backfill(
    since: Since = None,
    until: Until = None,
    rescore: Annotated[
        str | None,
        typer.Option(
            metavar="VERSION",
            help="Score every event of the period with this version, and keep the old score (anomaly.previous).",
            show_default=False,
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(help="Most partitions side by side. Beats backfill.workers.", min=1, show_default=False),
    ] = None,
    config: Config = None,
    store: StoreUrl = None,
    registry: RegistryUrl = None,
    scorer: ScorerUrl = None,
    log_json: LogJson = False,
    json: Json = False,
) -> None:
    """Score pending events with the champion: partitions side by side, in order within each, after a lead-in."""
    start, end = period(since, until)
    settings = settings_from(
        config, store=store, registry=registry, scorer=scorer, backfill={"workers": workers}, log=log_flags(log_json)
    )
    start_logging(settings)
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from oddlog.connectors.by_url import open_store
    from serving.backfill import BackfillResult
    from serving.backfill import backfill as score_pending
    from serving.backfill import rescore as score_anew
    from serving.scorers import open_scorer

    opened_store, opened_scorer = open_store(settings.store), open_scorer(settings)
    bar = Progress(
        TextColumn("backfill" if rescore is None else "rescore"), BarColumn(), MofNCompleteColumn(),
        TimeRemainingColumn(), console=err, transient=True,
        disable=json or logs_are_json() or not err.is_terminal,
    )  # fmt: skip
    try:
        with bar:
            task = bar.add_task("backfill", total=None)

            def show(result: BackfillResult) -> None:
                bar.update(task, total=result.due, completed=result.updated + result.left_alone)

            run = score_pending if rescore is None else partial(score_anew, version=rescore)
            result = run(
                opened_store,
                opened_scorer,
                workers=settings.backfill.workers,
                lead_in=dt.timedelta(days=settings.enrich.lead_in_days),
                since=start,
                until=end,
                progress=show,
            )
    finally:
        opened_scorer.close()
        opened_store.close()
    if json:
        from dataclasses import asdict

        emit_json(asdict(result))
        return
    out.print(
        f"{result.updated:,} of {result.due:,} {'pending ' if rescore is None else ''}events scored by version "
        f"{result.version}, "
        f"{result.anomalies:,} anomalies" + (f"; {result.left_alone:,} changed meanwhile" if result.left_alone else "")
    )
