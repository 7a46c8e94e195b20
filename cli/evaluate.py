"""`oddlog evaluate`: what a registered version is worth over a period of the store. Measuring is in `training/`."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Annotated

import typer

from cli.console import Config, Json, RegistryUrl, StoreUrl, emit_json, out, settings_from, show_table, verb
from cli.logs import LogJson, log_flags, start_logging
from cli.stages import stages
from cli.times import Since, Until, period

if TYPE_CHECKING:
    from oddlog.settings import Settings
    from training.metrics import Metrics
    from training.period import Evaluation


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("evaluate")(evaluate)


@verb
def evaluate(
    version: Annotated[
        str | None,
        typer.Option(help="A version or alias; the champion unless given.", metavar="VERSION", show_default=False),
    ] = None,
    since: Since = None,
    until: Until = None,
    budget: Annotated[
        str | None,
        typer.Option(help="Alerts to see, as in 20/day; the version's own unless given.", show_default=False),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Of the planted attacks. Beats train.seed.", show_default=False)
    ] = None,
    config: Config = None,
    store: StoreUrl = None,
    registry: RegistryUrl = None,
    log_json: LogJson = False,
    json: Json = False,
) -> None:
    """Measure a registered version on stored events: by labels, by marks, and by attacks planted among them.

    Without a period: the events after those that the version was fitted on.
    """
    start, end = period(since, until)
    settings = settings_from(
        config, store=store, registry=registry, log=log_flags(log_json), train={"seed": seed}
    )  # fmt: skip
    start_logging(settings)
    started = dt.datetime.now(dt.UTC)
    with stages(quiet=json) as tell:
        from oddlog.scoring.threshold import parse_budget
        from training.period import as_document, evaluate_version

        found = evaluate_version(
            settings,
            version=version,
            since=start,
            until=end,
            budget=None if budget is None else parse_budget(budget),
            progress=tell,
        )
        tell("logging to MLflow")
        run_id = _log(settings, found, started)
    if json:
        emit_json({**as_document(found), "run_id": run_id})
    else:
        _tell(settings, found, run_id)


def _log(settings: Settings, found: Evaluation, started: dt.datetime) -> str:
    from oddlog.connectors.mlflow_evaluation import EvaluationRun, log_evaluation
    from training.period import as_document, as_metrics

    planted = found.planted.events["ap"]
    by_labels = "" if found.labelled is None else f"{found.labelled.events['ap']:.3f} by labels, "
    over = f"{found.since:%Y-%m-%d} to {found.until:%Y-%m-%d}, {found.events:,} events"
    summary = f"average precision {by_labels}{planted:.3f} by planted attacks, {over}"
    return log_evaluation(
        settings.registry,
        found.version,
        EvaluationRun(
            name=f"version {found.version.version} over {over}",
            started_at=started,
            parameters={
                "data.since": found.since.isoformat(),
                "data.until": found.until.isoformat(),
                "evaluate.budget_per_day": found.budget_per_day,
                "evaluate.seed": settings.train.seed,
            },
            metrics=as_metrics(found),
            document=as_document(found),
            summary=summary,
            description="\n\n".join([summary[0].upper() + summary[1:] + ".", *found.cautions]),
        ),
    )


def _tell(settings: Settings, found: Evaluation, run_id: str) -> None:
    from oddlog.connectors.mlflow_connection import ui_command

    out.print(
        f"[bold]version {found.version.version}[/] of {found.version.name}, {found.version.algorithm}: "
        f"{found.events:,} events of {found.clients:,} clients, {found.since:%Y-%m-%d %H:%M} to "
        f"{found.until:%Y-%m-%d %H:%M} UTC",
        highlight=False,
    )
    out.print(
        f"{found.alerts_per_day:.1f} alerts a day at its threshold {found.threshold:.6g}"
        + ("" if found.novelty is None else f", {found.novelty.alerts_per_day:.1f} of them by novelty")
        + (
            ""
            if found.false_alarms_left is None
            else f"; {found.false_alarms_left:,} marked false alarms still flagged"
        ),
        highlight=False,
    )
    at = f"at {found.budget_per_day:g}/day"
    heads = ["", "average precision", "ROC-AUC", "precision at 1 %", f"recall {at}", f"precision {at}"]
    rows = []
    judged = [("planted attacks", found.planted)]
    if found.labelled is not None:
        judged.insert(0, ("labels and marks" if found.marked else "labels", found.labelled))
    for name, one in judged:
        rows.append((name, *_cells(one.events)))
        rows.append((f"{name}, client-hours", *_cells(one.client_hours)))
    show_table(None, heads, rows)
    if found.labelled is None:
        out.print(
            f"labels: {found.attacks:,} attack and {found.benign:,} benign events; it takes both to judge by them",
            highlight=False,
        )
    kinds = [
        (name, label.removeprefix("attack:"), f"{one['events']:,.0f}", f"{one['ap']:.3f}",
         f"{one['recall_at_budget']:.3f}",
         f"{found.detected[label.removeprefix('attack:')]:.0%}" if name == "planted" else "")
        for name, side in (("labels", found.labelled), ("planted", found.planted))
        if side is not None
        for label, one in side.by_type.items()
    ]  # fmt: skip
    show_table(
        None,
        ["", "attack", "events", "average precision", f"recall {at}", "instances with an alert at the threshold"],
        kinds,
    )
    for caution in found.cautions:
        out.print(f"[yellow]be careful:[/] {caution}", highlight=False)
    out.print(f"run {run_id}; look at it: {ui_command(settings.registry)}", highlight=False, soft_wrap=True)


def _cells(figures: Metrics) -> tuple[str, ...]:
    names = ("ap", "roc_auc", "precision_at_1pct", "recall_at_budget", "precision_at_budget")
    return tuple(f"{figures[name]:.3f}" for name in names)
