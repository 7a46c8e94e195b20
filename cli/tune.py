"""`oddlog tune`: a search for detector parameters, then a training with the best. Searching is in `training/`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cli.console import Config, Json, RegistryUrl, StoreUrl, emit_json, out, settings_from, show_table, verb
from cli.logs import LogJson, log_flags, start_logging
from cli.stages import stages
from cli.times import Since, Until, period

if TYPE_CHECKING:
    from oddlog.settings import Settings
    from training.tune import Tuned

TRIALS = 30


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("tune")(tune)


@verb
def tune(
    algorithm: Annotated[
        str | None, typer.Option(help="iforest or autoencoder. Beats train.algorithm.", show_default=False)
    ] = None,
    trials: Annotated[
        int | None, typer.Option(help=f"How many; {TRIALS} unless minutes are given.", min=1, show_default=False)
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(help="How long; the trial under way then is finished.", min=0.01, show_default=False)
    ] = None,
    since: Since = None,
    until: Until = None,
    seed: Annotated[int | None, typer.Option(help="Beats train.seed.", show_default=False)] = None,
    config: Config = None,
    store: StoreUrl = None,
    registry: RegistryUrl = None,
    log_json: LogJson = False,
    json: Json = False,
) -> None:
    """Search for detector parameters on the fitted part, and register a candidate with the best."""
    start, end = period(since, until)
    if trials is None and minutes is None:
        trials = TRIALS
    settings = settings_from(
        config, store=store, registry=registry, log=log_flags(log_json), train={"algorithm": algorithm, "seed": seed}
    )
    start_logging(settings)
    with stages(quiet=json) as tell:
        from training.tune import tune as run

        found = run(settings, trials=trials, minutes=minutes, since=start, until=end, progress=tell)
    if json:
        emit_json(_document(found))
    else:
        _tell(settings, found)


def _document(found: Tuned) -> dict[str, object]:
    return {
        "run_id": found.run_id,
        "version": found.trained.version,
        "algorithm": found.trained.algorithm,
        "parameters": found.best.parameters,
        "trials": [
            {"number": one.number, "parameters": one.parameters, "quality": one.quality} for one in found.trials
        ],
        "basis": found.basis,
        "inner": {"best": found.best.quality, "defaults": found.defaults.quality},
        "later": {"best": found.later_quality, "defaults": found.later_quality_of_defaults},
        "model_digest": found.trained.model_digest,
    }


def _tell(settings: Settings, found: Tuned) -> None:
    from oddlog.connectors.mlflow_connection import ui_command

    trained = found.trained
    out.print(
        f"[bold]version {trained.version}[/] of {settings.registry.model}: {trained.algorithm} with the best of "
        f"{len(found.trials)} trials, a candidate now",
        highlight=False,
    )
    show_table(
        None,
        ["average precision", "the best", "the defaults"],
        [
            (f"where it was searched ({found.basis})", f"{found.best.quality:.4f}", f"{found.defaults.quality:.4f}"),
            ("on the later events", f"{found.later_quality:.4f}", f"{found.later_quality_of_defaults:.4f}"),
        ],
    )
    out.print(f"[train.parameters.{trained.algorithm}]", highlight=False, markup=False)
    for name, value in found.best.parameters.items():
        out.print(f"{name} = {value:g}" if isinstance(value, float) else f"{name} = {value}", highlight=False)
    out.print(f"run {found.run_id}; look at it: {ui_command(settings.registry)}", highlight=False, soft_wrap=True)
