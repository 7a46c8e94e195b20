"""`oddlog threshold show|set|recalibrate`: from which score on events are anomalies. It is worked out in training/."""

from __future__ import annotations

import datetime as dt
import re
from typing import TYPE_CHECKING, Annotated

import typer

from cli.console import Config, Json, RegistryUrl, StoreUrl, emit_json, out, settings_from, show_table, verb
from cli.logs import LogJson, log_flags, start_logging
from cli.stages import stages
from cli.times import Until, duration, moment
from cli.who import By, who
from oddlog.errors import UsageError
from oddlog.events.printable import printable

if TYPE_CHECKING:
    from oddlog.scoring.card import Threshold
    from training.threshold import Learnt, ThresholdChange, ThresholdView
    from training.threshold_tags import Change

Version = Annotated[
    str | None,
    typer.Option(help="A version or alias; the champion unless given.", metavar="VERSION", show_default=False),
]
Note = Annotated[str, typer.Option(help="Why, for whoever reads it later.", show_default=False)]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Work it out and tell; change nothing.")]
Novelty = Annotated[
    bool | None,
    typer.Option(
        "--novelty/--no-novelty", help="Whether the second channel may alert; as before unless given.",
        show_default=False,
    ),
]  # fmt: skip

SHOWN = 5
"""Earlier thresholds that are listed for people."""


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    threshold = typer.Typer(
        name="threshold",
        help="Show and change from which score on an event is an anomaly: for a budget of alerts, without a training.",
        no_args_is_help=True,
    )
    threshold.command("show")(show)
    threshold.command("set")(set_)
    threshold.command("recalibrate")(recalibrate)
    app.add_typer(threshold)


@verb
def show(version: Version = None, config: Config = None, registry: RegistryUrl = None, json: Json = False) -> None:
    """Tell the threshold in force: its budget, what it was learnt from, who changed it, what alerts to expect."""
    settings = settings_from(config, registry=registry)
    from training.threshold import show_threshold, view_document

    view = show_threshold(settings, version=version)
    if json:
        emit_json(view_document(view))
    else:
        _show(view)


@verb
def set_(
    budget: Annotated[str, typer.Option(help="Alerts to see, distinct (client, hour): 20/day.", metavar="N/day")],
    version: Version = None,
    novelty: Novelty = None,
    note: Note = "",
    by: By = None,
    dry_run: DryRun = False,
    config: Config = None,
    store: StoreUrl = None,
    registry: RegistryUrl = None,
    json: Json = False,
) -> None:
    """Take the threshold for another budget of alerts, from what was kept when the present one was learnt."""
    from oddlog.scoring.threshold import parse_budget

    wanted = parse_budget(budget)
    settings = settings_from(config, store=store, registry=registry)
    from training.threshold import set_budget

    done = set_budget(settings, wanted, by=who(by), note=note, version=version, novelty=novelty, dry_run=dry_run)
    _tell(done, json=json)


@verb
def recalibrate(
    since: Annotated[
        str,
        typer.Option(
            help="From this time on (ISO-8601, UTC unless it names a zone), or so long before the last event: 7d.",
            metavar="TIME|LENGTH",
        ),
    ],
    until: Until = None,
    budget: Annotated[
        str | None,
        typer.Option(help="Alerts to see, as in 20/day; that of the present threshold unless given.", metavar="N/day",
                     show_default=False),
    ] = None,
    exclude_alerted: Annotated[
        bool | None,
        typer.Option(
            "--exclude-alerted", help="Leave out clients that were alerted on before. Beats train.exclude_alerted.",
            show_default=False,
        ),
    ] = None,
    version: Version = None,
    novelty: Novelty = None,
    note: Note = "",
    by: By = None,
    dry_run: DryRun = False,
    config: Config = None,
    store: StoreUrl = None,
    registry: RegistryUrl = None,
    log_json: LogJson = False,
    json: Json = False,
) -> None:  # fmt: skip
    """Learn the threshold anew from newer events of the store: for logs that have moved, without a training."""
    start, end = _since(since), None if until is None else moment("--until", until)
    if isinstance(start, dt.datetime) and end is not None and start >= end:
        raise UsageError(f"--since {since} is not before --until {until}", expected="an earlier --since")
    from oddlog.scoring.threshold import parse_budget

    wanted = None if budget is None else parse_budget(budget)
    settings = settings_from(
        config, store=store, registry=registry, log=log_flags(log_json), train={"exclude_alerted": exclude_alerted}
    )
    start_logging(settings)
    with stages(quiet=json) as tell:
        from training.recalibrate import recalibrate as run

        done = run(
            settings, by=who(by), note=note, since=start, until=end, budget=wanted, version=version, novelty=novelty,
            dry_run=dry_run, progress=tell,
        )  # fmt: skip
    _tell(done, json=json)


def _since(text: str) -> dt.datetime | dt.timedelta:
    """A time, or a length of it. Raises UsageError.

    >>> _since("7d"), _since("2024-03-01").isoformat()
    (datetime.timedelta(days=7), '2024-03-01T00:00:00+00:00')
    """
    if re.fullmatch(r"\d+(\.\d+)?[a-z]", text):
        return duration(text, "--since")
    try:
        return moment("--since", text)
    except UsageError as error:
        raise UsageError(error.found, expected=f"{error.expected}, or a length of time: --since 7d") from None


def _show(view: ThresholdView) -> None:
    threshold, registered = view.threshold, view.registered
    aliases = f" ({', '.join(registered.aliases)})" if registered.aliases else ""
    out.print(
        f"[bold]threshold {threshold.version}[/] of version {registered.version}{aliases} of {registered.name}, "
        f"{registered.algorithm}: {_values(threshold)}",
        highlight=False,
    )
    out.print(_origin(threshold, view.change), highlight=False, markup=False)
    out.print(
        f"for {threshold.budget_per_day:g} alerts a day; {threshold.expected_per_day:.1f} on the period that it was "
        f"learnt from, {threshold.since:%Y-%m-%d %H:%M} to {threshold.until:%Y-%m-%d %H:%M} UTC"
        + ("" if threshold.novelty is None else f", {threshold.novelty.expected_per_day:.1f} of them by novelty alone"),
        highlight=False,
    )
    if view.expected:
        from oddlog.scoring.explanation import rarer_than

        show_table(
            "alerts to expect of the first channel",
            ["severity from", "in words", "score from", "alerts a day"],
            [
                (f"{one.severity:.2f}", rarer_than(one.severity), f"{one.score:.4g}", f"{one.alerts_per_day:.1f}")
                for one in view.expected
            ],
        )
    if view.earlier:
        show_table(
            "before",
            ["threshold", "value", "budget", "learnt from (UTC)", "by"],
            [
                (
                    one.version,
                    _values(one),
                    f"{one.budget_per_day:g}/day",
                    f"{one.since:%Y-%m-%d %H:%M} to {one.until:%Y-%m-%d %H:%M}",
                    "training" if change is None else _said(change),
                )
                for one, change in view.earlier[:SHOWN]
            ],
        )


def _tell(done: ThresholdChange, *, json: bool) -> None:
    if json:
        from training.threshold import change_document

        emit_json(change_document(done))
        return
    before, threshold, version = done.before, done.threshold, done.registered.version
    if threshold == before:
        out.print(
            f"threshold {before.version} of version {version} stays as it is: {_values(before)}, "
            f"{before.budget_per_day:g} alerts a day",
            highlight=False,
        )
    else:
        verb = "would replace" if done.dry_run else "replaces"
        out.print(
            f"[bold]threshold {threshold.version}[/] {verb} {before.version} of version {version}"
            + ("" if done.dry_run else "; services follow within seconds"),
            highlight=False,
        )
    show_table(
        None,
        ["", "value", "budget", "alerts a day there", "learnt from (UTC)"],
        [
            (
                "before",
                _values(before),
                f"{before.budget_per_day:g}/day",
                f"{before.expected_per_day:.1f}",
                f"{before.since:%Y-%m-%d %H:%M} to {before.until:%Y-%m-%d %H:%M}",
            ),
            (
                "new",
                _values(threshold),
                f"{threshold.budget_per_day:g}/day",
                f"{threshold.expected_per_day:.1f}",
                f"{threshold.since:%Y-%m-%d %H:%M} to {threshold.until:%Y-%m-%d %H:%M}",
            ),
        ],
    )
    if done.learnt is not None:
        _tell_learnt(done.learnt)
    for caution in done.cautions:
        out.print(f"[yellow]be careful:[/] {caution}", highlight=False)


def _tell_learnt(learnt: Learnt) -> None:
    share = "" if learnt.share >= 1 else f", {100 * learnt.share:.3g} % of all, by hash"
    out.print(
        f"from {learnt.events:,} events of {learnt.clients:,} clients{share}, with features as "
        f"{'they were stored' if learnt.features == 'stored' else 'computed anew'}; the threshold before gives "
        f"{learnt.alerts_per_day_before:.1f} alerts a day on them",
        highlight=False,
    )
    if learnt.marked_clients:
        out.print(
            f"left out: {learnt.marked_events:,} events of {learnt.marked_clients:,} clients with a mark: true anomaly",
            highlight=False,
        )
    if learnt.alerted_clients:
        out.print(
            f"left out: {learnt.alerted_events:,} events of {learnt.alerted_clients:,} clients that were alerted on "
            "before",
            highlight=False,
        )
    if learnt.hushed_events:
        out.print(f"left out: {learnt.hushed_events:,} events that a mark hushes", highlight=False)


def _values(threshold: Threshold) -> str:
    """Of both channels."""
    second = "novelty silent" if threshold.novelty is None else f"novelty from {threshold.novelty.value:.6g}"
    return f"score from {threshold.value:.6g}, {second}"


def _origin(threshold: Threshold, change: Change | None) -> str:
    if change is not None:
        return _said(change)
    return "made by the training" if threshold.version == "1" else "made by a training, or by who left no note"


def _said(change: Change) -> str:
    way = "set" if change.way == "set" else "recalibrated"
    note = f": {printable(change.note)}" if change.note else ""
    return f"{way} by {printable(change.by)} on {change.at:%Y-%m-%d %H:%M} UTC{note}"
