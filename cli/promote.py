"""`oddlog promote` and `oddlog rollback`: the champion, by gates or back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.console import Config, Json, RegistryUrl, StoreUrl, emit_json, err, out, settings_from, show_table, verb
from cli.logs import LogJson, log_flags, start_logging
from cli.stages import stages
from oddlog.events.printable import printable

if TYPE_CHECKING:
    from training.promotion_report import Promotion


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
    require_approval: Annotated[
        bool | None,
        typer.Option("--require-approval/--no-require-approval", show_default=False,
                     help="Promote only what the tag approved_by in MLflow approves. Beats promote.require_approval."),
    ] = None,
    if_any: Annotated[
        bool, typer.Option("--if-any", help="Done, exit 0, where there is no candidate: for runs by the clock.")
    ] = False,
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
    chosen = {"gates": gates, "require_approval": require_approval}
    settings = settings_from(config, store=store, registry=registry, log=log_flags(log_json), promote=chosen)
    start_logging(settings)
    with stages(quiet=json) as tell:
        from training.promote import NoCandidate, refusal
        from training.promote import promote as run

        try:
            promotion = run(settings, candidate=candidate, dry_run=dry_run, progress=tell)
        except NoCandidate as none:
            if not if_any:
                raise
            if json:
                emit_json({"outcome": none.found, "promoted": None, "judged": []})
            else:
                out.print(none.found, highlight=False, soft_wrap=True)
            return
    if json:
        _emit(promotion)
    else:
        _tell(promotion)
    if promotion.promoted is None:
        raise refusal(settings, promotion)


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


def _emit(promotion: Promotion) -> None:
    from training.promotion_report import as_document

    emit_json({**as_document(promotion), "report": str(promotion.report), "evidence": str(promotion.evidence)})


def _tell(promotion: Promotion) -> None:
    from training.promotion_report import headline

    for one in promotion.judged:
        name = f"version {one.version.version}, {one.version.algorithm}"
        if one.verdicts:
            failed = any(verdict.outcome == "fail" for verdict in one.verdicts)
            show_table(
                f"{one.rank}. {name}" + (f", approved by {printable(one.approved_by)}" if one.approved_by else ""),
                ["gate", "verdict", "found", "asked for", *(["why it is asked"] if failed else [])],
                [
                    (v.gate, v.outcome, v.figure, v.limit, *([v.why if v.outcome == "fail" else ""] if failed else []))
                    for v in one.verdicts
                ],
            )
        else:
            quality = one.evidence.average_precision
            figure = "" if quality is None else f" (average precision {quality:.3f})"
            out.print(f"{one.rank}. {name}: not asked, a better one passed{figure}", highlight=False)
    out.print(headline(promotion), style="bold", highlight=False)
    err.print(f"report: {promotion.report}", highlight=False, soft_wrap=True)
