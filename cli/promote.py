"""`oddlog promote` and `oddlog rollback`: the champion, by gates or back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.console import Config, Json, RegistryUrl, StoreUrl, emit_json, err, out, settings_from, show_table, verb
from cli.logs import LogJson, log_flags, start_logging
from cli.stages import stages

if TYPE_CHECKING:
    from training.promote import Promotion


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.command("promote")(promote)
    app.command("rollback")(rollback)


@verb
def promote(
    candidate: Annotated[
        str | None,
        typer.Option(help="Judge this version alone, whatever its status; default: all candidates, the best first.",
                     metavar="VERSION", show_default=False),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Judge and report; change nothing.")] = False,
    gates: Annotated[
        Path | None, typer.Option(help="TOML file with the gates. Beats promote.gates.", show_default=False)
    ] = None,
    config: Config = None,
    store: StoreUrl = None,
    registry: RegistryUrl = None,
    log_json: LogJson = False,
    json: Json = False,
) -> None:  # fmt: skip
    """Judge the candidates; the best that passes every gate becomes champion. Exit 1 where none does."""
    settings = settings_from(config, store=store, registry=registry, log=log_flags(log_json), promote={"gates": gates})
    start_logging(settings)
    with stages(quiet=json) as tell:
        from training.promote import no_candidate_passed
        from training.promote import promote as run

        promotion = run(settings, candidate=candidate, dry_run=dry_run, progress=tell)
    if json:
        emit_json(_document(promotion))
    else:
        _tell(promotion)
    if promotion.promoted is None:
        raise no_candidate_passed(promotion)


@verb
def rollback(config: Config = None, store: StoreUrl = None, registry: RegistryUrl = None, json: Json = False) -> None:
    """Make the previous champion champion again. Services follow within seconds."""
    settings = settings_from(config, store=store, registry=registry)
    with stages(quiet=json) as tell:
        from training.promote import rollback as run

        tell("moving the aliases back")
        done = run(settings)
    if json:
        emit_json({"champion": done.champion, "previous": done.previous})
    else:
        out.print(f"version {done.champion} is champion again; version {done.previous} is `previous`", highlight=False)


def _document(promotion: Promotion) -> dict[str, object]:
    from dataclasses import asdict

    return {
        "promoted": promotion.promoted,
        "replaced": promotion.replaced,
        "dry_run": promotion.dry_run,
        "report": str(promotion.report),
        "judged": [
            {
                "version": one.version.version,
                "algorithm": one.version.algorithm,
                "passed": one.passed,
                "evidence": asdict(one.evidence),
                "verdicts": [asdict(verdict) for verdict in one.verdicts],
            }
            for one in promotion.judged
        ],
    }


def _tell(promotion: Promotion) -> None:
    from training.verdicts import headline

    for one in promotion.judged:
        name = f"version {one.version.version}, {one.version.algorithm}"
        if one.verdicts:
            show_table(
                name,
                ["gate", "verdict", "found", "asked for"],
                [(v.gate, v.outcome, v.figure, v.limit) for v in one.verdicts],
            )
        else:
            quality = one.evidence.average_precision
            figure = "" if quality is None else f" (average precision {quality:.3f})"
            out.print(f"{name}: not asked, a better one passed{figure}", highlight=False)
    out.print(
        headline(promotion.promoted, promotion.replaced, dry_run=promotion.dry_run), style="bold", highlight=False
    )
    err.print(f"report: {promotion.report}", highlight=False, soft_wrap=True)
