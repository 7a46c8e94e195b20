"""`oddlog retention`: delete days of events that are old enough."""

from __future__ import annotations

import datetime as dt
from typing import Annotated

import typer

from cli.console import Config, Json, StoreUrl, emit_json, out, settings_from, show_table, verb
from cli.logs import LogJson, log_flags, start_logging
from oddlog.errors import UsageError


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("retention")(retention)


@verb
def retention(
    keep_days: Annotated[
        int | None,
        typer.Option(
            help="Days before today (UTC) that stay. Beats setting store.keep_days.", min=0, show_default=False
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell what would be deleted; delete nothing.")] = False,
    everything: Annotated[bool, typer.Option("--everything", help="Delete even where no event would be left.")] = False,
    config: Config = None,
    store: StoreUrl = None,
    log_json: LogJson = False,
    json: Json = False,
) -> None:
    """Delete the events of all days but today and the --keep-days before it. Dead letters and models stay."""
    settings = settings_from(config, store=store, log=log_flags(log_json))
    start_logging(settings)
    days_kept = settings.store.keep_days if keep_days is None else keep_days
    if days_kept is None:
        raise UsageError(
            "it is not said how many days stay", expected="--keep-days N, or the setting store.keep_days",
            mend="oddlog retention --keep-days 90 --dry-run",
        )  # fmt: skip
    from oddlog.connectors.by_url import using_store
    from serving.retention import retain

    with using_store(settings.store) as opened:
        today = dt.datetime.now(dt.UTC).date()
        result = retain(opened, days_kept, today=today, dry_run=dry_run, everything=everything)
    if json:
        days = {day.isoformat(): count for day, count in result.days.items()}
        emit_json({"dry_run": dry_run, "before": result.before, "events": result.events, "days": days})
        return
    if result.days:
        rows = [(day, "closed" if count is None else f"{count:,}") for day, count in result.days.items()]
        show_table(None, ["day (UTC)", "events"], rows)
    verdict = "would be deleted" if dry_run else "deleted"
    out.print(
        f"{result.events:,} events of {len(result.days):,} days before {result.before} {verdict}", highlight=False
    )
    if days_kept < (needed := settings.enrich.lead_in_days):
        out.print(
            f"note: backfill reads {needed:g} days before what it scores (enrich.lead_in_days), and training all "
            "there is",
            highlight=False,
        )
