"""`oddlog monitor`: the loop of drift checks."""

from __future__ import annotations

import logging
import signal
from contextlib import AbstractContextManager, nullcontext
from types import FrameType
from typing import Annotated, Literal

import typer

from cli.console import Config, Json, RegistryUrl, StoreUrl, emit_json, err, settings_from, verb
from cli.drift import AgainstOption, Limits
from cli.logs import LogJson, log_flags, logs_are_json, start_logging
from oddlog.errors import OutsideError

log = logging.getLogger(__name__)

Every = Annotated[Literal["1h", "6h", "1d"], typer.Option("--every", help="Length of the batches, by the clock (UTC).")]
Once = Annotated[bool, typer.Option("--once", help="Check what is due, and end. Exit 1: a batch has drifted.")]
Port = Annotated[
    int | None,
    typer.Option("--metrics-port", help="Beats setting monitor.metrics_port.", min=0, max=65_535, show_default=False),
]


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("monitor")(monitor)


@verb
def monitor(
    every: Every = "1h",
    against: AgainstOption = "reference",
    once: Once = False,
    metrics_port: Port = None,
    limits: Limits = None,
    config: Config = None,
    store: StoreUrl = None,
    registry: RegistryUrl = None,
    log_json: LogJson = False,
    json: Json = False,
) -> None:
    """Check every batch for drift as it ends, missed ones first; one instance at a time."""
    settings = settings_from(
        config, store=store, registry=registry, drift={"limits": limits}, monitor={"metrics_port": metrics_port},
        log=log_flags(log_json),
    )  # fmt: skip
    start_logging(settings)
    from monitoring import gauges as metrics
    from monitoring.limits import load_limits
    from monitoring.monitor import Monitor
    from oddlog.connectors.by_url import open_registry, using_store

    load_limits(settings.drift.limits)  # a file that is wrong ends it now, not at the first batch
    options, gauges = settings.monitor, metrics.DriftGauges()
    served: AbstractContextManager[int | None] = (
        nullcontext(None)
        if options.metrics_port is None
        else metrics.metrics_port(gauges, options.metrics_host, options.metrics_port)
    )
    with using_store(settings.store) as opened, served as port:
        if port is not None:
            log.info("metrics at http://%s:%d/metrics", options.metrics_host, port)
        loop = Monitor(settings, opened, open_registry(settings.registry), every=every, against=against, observe=gauges)
        if not once:

            def stop(number: int, frame: FrameType | None) -> None:
                loop.stop()

            signal.signal(signal.SIGTERM, stop)
            signal.signal(signal.SIGINT, stop)
            loop.run()
            return
        done = loop.catch_up()
    if done.waiting_for:
        raise OutsideError(f"nothing was checked: {done.waiting_for}")
    if json:
        emit_json({"checked": done.checked, "drifted": done.drifted, "skipped": done.skipped})
    elif not logs_are_json():
        err.print(f"{done.checked} batches checked, {done.drifted} drifted, {done.skipped} passed over")
    if done.drifted:
        raise typer.Exit(1)
