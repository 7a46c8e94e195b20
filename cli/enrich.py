"""`oddlog enrich`: run the enrichment consumer."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from cli.console import Config, Json, ScorerUrl, SourceUrl, StoreUrl, emit_json, err, settings_from, verb
from cli.logs import LogJson, log_flags, logs_are_json, start_logging

if TYPE_CHECKING:
    from oddlog.settings import EnrichSettings
    from serving.consumer_metrics import ConsumerObserver
    from serving.counts import Counts

log = logging.getLogger(__name__)


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
    metrics_port: Annotated[
        int | None,
        typer.Option(
            help="Serve /metrics, /livez and /readyz there. Beats enrich.metrics_port.",
            min=0,
            max=65_535,
            show_default=False,
        ),
    ] = None,
    log_json: LogJson = False,
    json: Json = False,
) -> None:
    """Read records, score them, write them, commit: nothing lost, nothing twice. SIGTERM and SIGINT end it cleanly."""
    settings = settings_from(
        config, source=source, store=store, scorer=scorer, group=group,
        enrich={"metrics_port": metrics_port}, log=log_flags(log_json),
    )  # fmt: skip
    start_logging(settings)
    from oddlog.connectors.by_url import open_source, open_store
    from oddlog.events.privacy import reader_of
    from serving.enrich import Enricher
    from serving.scorers import open_scorer

    reader = reader_of(settings.privacy)
    with _status(quiet=json or logs_are_json()) as show, _observer(settings.enrich) as observe:
        # The port answers before anything is opened: whoever probes it sees a consumer that starts.
        opened_store = open_store(settings.store)
        opened_source = open_source(settings.source)
        opened_scorer = open_scorer(settings)
        enricher = Enricher(
            settings.enrich, opened_source, opened_store, opened_scorer, progress=show, observe=observe, reader=reader
        )

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
    elif logs_are_json():
        from dataclasses import asdict

        log.info("ended: %s", _line(counts), extra=asdict(counts))
    else:
        err.print(_line(counts))


@contextmanager
def _observer(settings: EnrichSettings) -> Iterator[ConsumerObserver | None]:
    """The metrics of this consumer, served while it runs; None where no port is set."""
    if settings.metrics_port is None:
        yield None
        return
    from serving.consumer_metrics import ConsumerMetrics
    from serving.consumer_port import consumer_port

    metrics = ConsumerMetrics(live_seconds=settings.live_seconds)
    with consumer_port(metrics, settings.metrics_host, settings.metrics_port) as port:
        log.info("metrics at http://%s:%d/metrics, /livez, /readyz", settings.metrics_host, port)
        yield metrics


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
