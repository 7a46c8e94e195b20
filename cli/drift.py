"""`oddlog drift`: a recent batch against the champion's reference."""

from __future__ import annotations

import datetime as dt
import re
from pathlib import Path
from typing import Annotated

import typer

from cli.console import (
    Config,
    Json,
    RegistryUrl,
    StoreUrl,
    emit_json,
    err,
    out,
    settings_from,
    show_table,
    verb,
)
from cli.logs import LogJson, log_flags, start_logging
from oddlog.errors import UsageError

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}

Since = Annotated[
    str | None,
    typer.Option("--since", help="Oldest event, ISO-8601, UTC unless it names a zone. Without it and --last: "
                 "everything later than the champion's training data.", show_default=False),
]  # fmt: skip
Until = Annotated[str | None, typer.Option("--until", help="Events before this time, ISO-8601.", show_default=False)]
Last = Annotated[str | None, typer.Option("--last", help="The time up to now: 30m, 1h, 7d.", show_default=False)]
Version = Annotated[
    str | None, typer.Option("--model-version", help="Another version than the champion.", show_default=False)
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
    """Compare a recent batch with the champion's reference. Exit code 1 when it drifted past the limit."""
    start, end = period(since, until, last, now=dt.datetime.now(dt.UTC))
    settings = settings_from(config, store=store, registry=registry, log=log_flags(log_json))
    start_logging(settings)

    from monitoring.drift import check_drift
    from oddlog.connectors.by_url import open_registry, open_store

    events = open_store(settings.store)
    try:
        with err.status("drift") as status:
            result = check_drift(
                settings,
                events,
                open_registry(settings.registry),
                since=start,
                until=end,
                version=model_version,
                report=report,
                progress=lambda step: status.update(f"drift: {step}"),
            )
    finally:
        events.close()

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


def period(
    since: str | None, until: str | None, last: str | None, *, now: dt.datetime
) -> tuple[dt.datetime | None, dt.datetime | None]:
    """Both ends, UTC, None where open. Raises UsageError.

    >>> noon = dt.datetime(2024, 3, 1, 12, tzinfo=dt.UTC)
    >>> [end.isoformat() for end in period(None, None, "1h", now=noon)]
    ['2024-03-01T11:00:00+00:00', '2024-03-01T12:00:00+00:00']
    """
    if last is not None:
        if since or until:
            raise UsageError("--last together with --since or --until", expected="one of the two ways")
        return now - duration(last), now
    start, end = moment("--since", since), moment("--until", until)
    if start and end and start >= end:
        raise UsageError(f"--since {since} is not before --until {until}", expected="an earlier --since")
    return start, end


def moment(flag: str, text: str | None) -> dt.datetime | None:
    """A time of a flag, UTC. Raises UsageError."""
    if text is None:
        return None
    try:
        time = dt.datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{flag} {text!r} is no time", expected=f"ISO-8601: {flag} 2024-03-01T10:00:00Z") from None
    return time.replace(tzinfo=dt.UTC) if time.tzinfo is None else time.astimezone(dt.UTC)


def duration(text: str) -> dt.timedelta:
    """A length of time. Raises UsageError.

    >>> duration("90m")
    datetime.timedelta(seconds=5400)
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])", text)
    if found is None or float(found[1]) == 0:
        raise UsageError(f"--last {text!r} is no length of time", expected="a number and s, m, h, d or w: --last 1h")
    return dt.timedelta(**{_UNITS[found[2]]: float(found[1])})


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"
