"""`oddlog train`: from the stored events to a registered candidate."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from cli.console import Config, Json, RegistryUrl, StoreUrl, emit_json, out, settings_from, show_table, verb
from cli.logs import LogJson, log_flags, start_logging
from cli.stages import stages
from cli.times import Since, Until, period
from oddlog.errors import UsageError

if TYPE_CHECKING:
    from oddlog.settings import Settings
    from training.train import TrainResult


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("train")(train)


@verb
def train(
    algorithm: Annotated[
        str | None,
        typer.Option(help="iforest, autoencoder or surprise. Beats train.algorithm.", show_default=False),
    ] = None,
    since: Since = None,
    until: Until = None,
    budget: Annotated[
        str | None, typer.Option(help="Alerts to see, as in 20/day. Beats train.budget.", show_default=False)
    ] = None,
    fit_share: Annotated[
        float | None,
        typer.Option(help="Share of the events to fit on, oldest first. Beats train.fit_share.", show_default=False),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Beats train.seed.", show_default=False)] = None,
    features: Annotated[
        str | None,
        typer.Option(
            help="refit: a new baseline (default). stored: the champion's, with the features stored under it.",
            metavar="refit|stored",
            show_default=False,
        ),
    ] = None,
    exclude_alerted: Annotated[
        bool | None,
        typer.Option(
            "--exclude-alerted",
            help="Leave clients that were alerted on in the fitted part out of baseline and detector.",
            show_default=False,
        ),
    ] = None,
    sample: Annotated[
        float | None,
        typer.Option(help="Share of the clients to train on, chosen by hash. Beats train.sample.", show_default=False),
    ] = None,
    from_run: Annotated[
        str | None,
        typer.Option(help="Repeat a run: its events, its settings.", metavar="RUN", show_default=False),
    ] = None,
    config: Config = None,
    store: StoreUrl = None,
    registry: RegistryUrl = None,
    log_json: LogJson = False,
    json: Json = False,
) -> None:
    """Fit a detector on the stored events, evaluate it, and register it in MLflow as a candidate."""
    start, end = period(since, until)
    chosen = {
        "algorithm": algorithm,
        "budget": budget,
        "fit_share": fit_share,
        "seed": seed,
        "features": features,
        "exclude_alerted": exclude_alerted,
        "sample": sample,
    }
    if from_run is not None and (given := [name for name, value in {**chosen, "since": since, "until": until}.items()
                                           if value is not None]):  # fmt: skip
        raise UsageError(
            f"--from-run with {', '.join('--' + name.replace('_', '-') for name in given)}",
            expected="--from-run alone: a run is repeated with its own events and settings",
        )
    settings = settings_from(config, store=store, registry=registry, log=log_flags(log_json), train=chosen)
    start_logging(settings)
    with stages(quiet=json) as tell:
        from training.train import train as run

        result = run(settings, since=start, until=end, from_run=from_run, progress=tell)
    if json:
        emit_json(_document(settings, result))
    else:
        _tell(settings, result)


def _document(settings: Settings, result: TrainResult) -> dict[str, object]:
    from oddlog.connectors.mlflow_connection import ui_command

    return {
        "model": settings.registry.model,
        "version": result.version,
        "run_id": result.run_id,
        "algorithm": result.algorithm,
        "events": result.events,
        "metrics": result.metrics,
        "threshold": result.threshold.model_dump(mode="json"),
        "model_digest": result.model_digest,
        "dataset_digest": result.dataset_digest,
        "cautions": result.cautions,
        "repeats": None if result.repeats is None else asdict(result.repeats),
        "ui": ui_command(settings.registry),
    }


def _tell(settings: Settings, result: TrainResult) -> None:
    from oddlog.connectors.mlflow_connection import ui_command

    metrics, threshold = result.metrics, result.threshold
    out.print(
        f"[bold]version {result.version}[/] of {settings.registry.model}: {result.algorithm} on {result.events:,} "
        "events, a candidate now",
        highlight=False,
    )
    rows = [
        ("run", result.run_id),
        ("threshold", f"{threshold.value:.6g}, {threshold.expected_per_day:.1f} alerts a day (budget "
         f"{threshold.budget_per_day:g})"),
        ("graph against reference", f"{metrics['graph/largest_score_difference']:.2g} at most, over "
         f"{metrics['graph/rows_compared']:,.0f} rows"),
    ]  # fmt: skip
    if "labels/average_precision" in metrics:
        rows.append(
            ("against labels", f"average precision {metrics['labels/average_precision']:.3f}, recall "
             f"{metrics['labels/recall_at_budget']:.3f} and precision {metrics['labels/precision_at_budget']:.3f} "
             f"at the budget ({metrics['labels/attacks']:,.0f} attack events)")
        )  # fmt: skip
    if "planted/average_precision" in metrics:
        rows.append(
            ("against planted attacks", f"average precision {metrics['planted/average_precision']:.3f}, "
             f"{metrics['planted/detected']:.0%} of the instances with an alert")
        )  # fmt: skip
    if (repeats := result.repeats) is not None:
        said = "the same model" if repeats.same_model else "ANOTHER model: libraries or code differ from that run's"
        rows.append((f"repeats {repeats.run_id}", f"{said}, digest {result.model_digest[:16]}..."))
    rows += [("be careful", text) for text in result.cautions.values()]
    show_table(None, ["", "found"], rows)
    out.print(f"look at it: {ui_command(settings.registry)}", highlight=False, soft_wrap=True)
    out.print("promote it: oddlog promote", highlight=False)
