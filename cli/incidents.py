"""`oddlog incidents list|show|watch|test`: alerts grouped, and who is told of them."""

from __future__ import annotations

import logging
import signal
from contextlib import AbstractContextManager, closing, nullcontext
from types import FrameType
from typing import Annotated, Any, Literal

import typer

from cli.console import Config, Json, StoreUrl, emit_json, err, out, settings_from, show_table, verb
from cli.logs import LogJson, log_flags, logs_are_json, start_logging
from oddlog.errors import OutsideError, UsageError

log = logging.getLogger(__name__)

Status = Annotated[
    Literal["open", "closed", "all"],
    typer.Option("--status", help="`all`: merged and withdrawn ones, too."),
]
Once = Annotated[bool, typer.Option("--once", help="One round, and end: for cron.")]
Every = Annotated[
    str, typer.Option("--every", help="Pause between two rounds: a number and s, m or h.", metavar="TIME")
]
From = Annotated[
    str | None,
    typer.Option(
        "--since", help="With --once: look at events from this time on, ISO-8601, UTC unless it names a zone.",
        metavar="TIME", show_default=False,
    ),
]  # fmt: skip
Port = Annotated[
    int | None,
    typer.Option("--metrics-port", help="Beats setting incidents.metrics_port.", min=0, max=65_535, show_default=False),
]


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    incidents = typer.Typer(
        name="incidents", help="Alerts grouped into incidents, and who is told of them.", no_args_is_help=True
    )
    incidents.command("list")(incidents_list)
    incidents.command("show")(incidents_show)
    incidents.command("watch")(incidents_watch)
    incidents.command("test")(incidents_test)
    app.add_typer(incidents)


@verb
def incidents_list(
    status: Status = "open",
    most: Annotated[int, typer.Option("--most", help="How many, the latest first.", min=1)] = 50,
    config: Config = None,
    store: StoreUrl = None,
    json: Json = False,
) -> None:
    """List incidents, those that lasted latest first."""
    from monitoring.incidents_documents import without_ours
    from oddlog.connectors.by_url import using_store

    with using_store(settings_from(config, store=store).store) as opened:
        found = [one for one in opened.list_documents("incidents") if status in ("all", one["status"])]
    found.sort(key=lambda one: (one["last_seen"], one["id"]), reverse=True)
    shown = found[:most]
    if json:
        emit_json({"count": len(found), "incidents": [without_ours(one) for one in shown]})
        return
    if not found:
        out.print("no incidents" if status == "all" else f"no incidents that are {status}")
        return
    show_table(
        None,
        ["id", "status", "severity", "alerts", "first seen", "last seen", "what"],
        [
            (one["id"], one["status"], f"{one['severity']:.1f}", one["alerts"], *_times(one), one["title"])
            for one in shown
        ],
    )
    if more := len(found) - len(shown):
        out.print(f"and {more:,} more: --most {len(found)}", highlight=False)


@verb
def incidents_show(
    id: Annotated[str, typer.Argument(help="Its id.", metavar="ID")],
    config: Config = None,
    store: StoreUrl = None,
    json: Json = False,
) -> None:
    """Show one incident: who, what, why, and who was told."""
    from monitoring.incidents_documents import without_ours
    from monitoring.incidents_words import lines
    from oddlog.connectors.by_url import using_store

    with using_store(settings_from(config, store=store).store) as opened:
        found = opened.get_document("incidents", id)
    if found is None:
        raise UsageError(f"there is no incident {id!r}", expected="an id", mend="oddlog incidents list --status all")
    if json:
        emit_json({**without_ours(found), "told": found["told"]})
        return
    told = [f"{name}: {entry['as']} {entry.get('at', '')}".rstrip() for name, entry in sorted(found["told"].items())]
    for line in [found["title"], *lines(found), *(f"told {one}" for one in told)]:
        out.print(line, markup=False, highlight=False, soft_wrap=True)


@verb
def incidents_watch(
    every: Every = "1m",
    once: Once = False,
    since: From = None,
    metrics_port: Port = None,
    config: Config = None,
    store: StoreUrl = None,
    log_json: LogJson = False,
    json: Json = False,
) -> None:
    """Group new alerts into incidents and tell of them, round after round; one instance at a time."""
    from cli.times import duration, moment

    settings = settings_from(config, store=store, incidents={"metrics_port": metrics_port}, log=log_flags(log_json))
    if since and not once:
        raise UsageError("--since without --once", expected="a single round", mend="add --once")
    pause, begin = duration(every, "--every"), moment("--since", since) if since else None
    start_logging(settings)
    from monitoring.gauges import metrics_port as serve
    from monitoring.incidents_gauges import IncidentGauges
    from monitoring.incidents_watch import Watch
    from monitoring.notify import Notifier
    from monitoring.notify_receivers import receivers
    from oddlog.connectors.by_url import using_store

    named, options = receivers(settings), settings.incidents
    gauges = IncidentGauges([one.name for one in named])
    served: AbstractContextManager[int | None] = (
        nullcontext(None) if options.metrics_port is None else serve(gauges, options.metrics_host, options.metrics_port)
    )
    with (
        closing(Notifier(settings.notify, named, gauges)) as notifier,
        using_store(settings.store) as opened,
        served as port,
    ):
        if port is not None:
            log.info("metrics at http://%s:%d/metrics", options.metrics_host, port)
        if not named:
            log.info("nobody is told: no setting of notify names a receiver")
        watch = Watch(options, opened, notifier, gauges)
        if not once:

            def stop(number: int, frame: FrameType | None) -> None:
                watch.stop()

            signal.signal(signal.SIGTERM, stop)
            signal.signal(signal.SIGINT, stop)
            watch.run(pause)
            return
        try:
            done = watch.round(begin)
        finally:
            watch.leave()
    if done.waiting_for:
        raise OutsideError(f"nothing was done: {done.waiting_for}")
    if json:
        told = {"found": done.found, "changed": done.changed, "closed": done.closed}
        emit_json({**told, "open": done.open, "messages": done.told})
    elif not logs_are_json():
        err.print(
            f"{done.found} incidents found, {done.closed} closed, {done.open} last; {done.told} messages sent",
            highlight=False,
        )


@verb
def incidents_test(config: Config = None, json: Json = False) -> None:
    """Send every receiver of the settings a test message."""
    from monitoring.notify_message import trial
    from monitoring.notify_receivers import receivers
    from oddlog.errors import NotifyError

    named = receivers(settings_from(config))
    if not named:
        raise UsageError(
            "no receiver is named", expected="one of notify.webhook, .slack, .mail_to, .kafka", mend="docs/incidents.md"
        )
    outcome: dict[str, str] = {}
    for receiver in named:
        try:
            receiver.send(trial())
            outcome[receiver.name] = "sent"
        except NotifyError as error:
            outcome[receiver.name] = str(error)
        finally:
            receiver.close()
    if json:
        emit_json(outcome)
    else:
        for name, what in outcome.items():
            told = f"{name}: sent" if what == "sent" else what  # an error begins with the receiver's name
            out.print(told, markup=False, highlight=False, soft_wrap=True)
    if any(what != "sent" for what in outcome.values()):
        raise OutsideError("not every receiver took the test message")


def _times(one: dict[str, Any]) -> tuple[str, str]:
    first, last = (str(one[name])[:16].replace("T", " ") for name in ("first_seen", "last_seen"))
    return first, last
