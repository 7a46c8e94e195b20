"""`oddlog enrich`: run the enrichment consumer."""

from __future__ import annotations

import logging
import signal
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from cli.console import Config, Json, ScorerUrl, SourceUrl, StoreUrl, emit_json, err, settings_from, verb

if TYPE_CHECKING:
    from serving.enrich import Counts


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("enrich")(enrich)


@verb
def enrich(
    config: Config = None,
    source: SourceUrl = None,
    store: StoreUrl = None,
    scorer: ScorerUrl = None,
    group: Annotated[str | None, typer.Option(help="Beats setting source.group.", show_default=False)] = None,
    until_idle: Annotated[
        float | None,
        typer.Option(help="End after this many seconds without a record; default: run until stopped.", min=0),
    ] = None,
    json: Json = False,
) -> None:
    """Read records, score them, write them, commit: nothing lost, nothing twice. SIGTERM and SIGINT end it cleanly."""
    settings = settings_from(config, source=source, store=store, scorer=scorer, group=group)
    from oddlog.connectors.source import open_source
    from oddlog.connectors.store import open_store
    from serving.enrich import Enricher
    from serving.scorers import open_scorer

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for chatty in ("kafka", "elastic_transport", "httpx", "httpcore"):
        logging.getLogger(chatty).setLevel(logging.WARNING)

    opened_store = open_store(settings.store)
    opened_store.setup()
    opened_source = open_source(settings.source)
    opened_scorer = open_scorer(settings)
    with _status(quiet=json) as show:
        enricher = Enricher(settings.enrich, opened_source, opened_store, opened_scorer, progress=show)

        def stop(number: int, frame: FrameType | None) -> None:
            enricher.stop()

        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)
        try:
            counts = enricher.run(until_idle=until_idle)
        finally:
            opened_source.close()
            opened_scorer.close()
            opened_store.close()
    if json:
        from dataclasses import asdict

        emit_json(asdict(counts))
    else:
        err.print(_line(counts))


def _line(counts: Counts) -> str:
    return (
        f"{counts.records:,} records: {counts.scored:,} scored, {counts.pending:,} pending, "
        f"{counts.dead_letters:,} dead letters, {counts.anomalies:,} anomalies"
        + (f", {counts.settled:,} settled" if counts.settled else "")
    )


class _status:
    """One line that is rewritten in a terminal; nothing where standard error is no terminal."""

    def __init__(self, *, quiet: bool) -> None:
        self._shown = None if quiet or not err.is_terminal else err.status("waiting for records")

    def __enter__(self) -> _status:
        if self._shown is not None:
            self._shown.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._shown is not None:
            self._shown.stop()

    def __call__(self, counts: Counts) -> None:
        if self._shown is not None:
            self._shown.update(_line(counts))
