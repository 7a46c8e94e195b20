"""`oddlog backfill`: score what was written as pending."""

from __future__ import annotations

import datetime as dt

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
    config: Config = None,
    store: StoreUrl = None,
    registry: RegistryUrl = None,
    scorer: ScorerUrl = None,
    log_json: LogJson = False,
    json: Json = False,
) -> None:
    """Score pending events with the champion: partition by partition, in order, after a lead-in."""
    start, end = period(since, until)
    settings = settings_from(config, store=store, registry=registry, scorer=scorer, log=log_flags(log_json))
    start_logging(settings)
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from oddlog.connectors.by_url import open_store
    from serving.backfill import BackfillResult
    from serving.backfill import backfill as run
    from serving.scorers import open_scorer

    opened_store, opened_scorer = open_store(settings.store), open_scorer(settings)
    bar = Progress(
        TextColumn("backfill"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=err, transient=True,
        disable=json or logs_are_json() or not err.is_terminal,
    )  # fmt: skip
    try:
        with bar:
            task = bar.add_task("backfill", total=None)

            def show(result: BackfillResult) -> None:
                bar.update(task, total=result.pending, completed=result.updated + result.left_alone)

            result = run(
                opened_store,
                opened_scorer,
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
        f"{result.updated:,} of {result.pending:,} pending events scored by version {result.version}, "
        f"{result.anomalies:,} anomalies" + (f"; {result.left_alone:,} changed meanwhile" if result.left_alone else "")
    )
