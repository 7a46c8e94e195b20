"""`oddlog retrain`: a new candidate where something asks for it, judged, and promoted where that is allowed."""

from __future__ import annotations

import datetime as dt
import logging
import re
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from cli.console import Config, Json, RegistryUrl, StoreUrl, emit_json, out, settings_from, verb
from cli.logs import LogJson, log_flags, logs_are_json, start_logging
from cli.stages import stages
from cli.times import duration
from oddlog.errors import CheckFailed, OddlogError, OutsideError, UsageError

if TYPE_CHECKING:
    from oddlog.connectors.registry import ModelVersion
    from oddlog.connectors.store import Store
    from oddlog.settings import Settings
    from training.due import Change, Conditions
    from training.retrain import Retraining

log = logging.getLogger(__name__)

When = Annotated[
    list[str] | None,
    typer.Option(
        "--when",
        help="drifted, 'older-than 7d' or 'marks 20'; may be repeated: one that is met is enough. Without it, now.",
        metavar="CONDITION",
        show_default=False,
    ),
]


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("retrain")(retrain)


@verb
def retrain(
    when: When = None,
    every: Annotated[
        str | None,
        typer.Option(help="Ask again and again, with this pause: 6h.", metavar="TIME", show_default=False),
    ] = None,
    algorithm: Annotated[
        str | None,
        typer.Option(help="iforest, autoencoder or surprise. Beats train.algorithm.", show_default=False),
    ] = None,
    promote: Annotated[
        bool | None,
        typer.Option("--promote/--no-promote", help="Beats retrain.auto_promote.", show_default=False),
    ] = None,
    config: Config = None,
    store: StoreUrl = None,
    registry: RegistryUrl = None,
    log_json: LogJson = False,
    json: Json = False,
) -> None:
    """Train a candidate where a condition asks for it, without those alerted on, and ask the gates.

    Exit 0: done, or nothing to do; 1: gates rejected what was trained.
    """
    conditions = _conditions(when or [])
    pause = None if every is None else duration(every, "--every")
    settings = settings_from(
        config, store=store, registry=registry, log=log_flags(log_json), train={"algorithm": algorithm},
        retrain={"auto_promote": promote},
    )  # fmt: skip
    start_logging(settings)
    if pause is not None and json:
        raise UsageError("--json with --every", expected="one round for one document", mend="--log-json for a loop")
    if pause is not None:
        _loop(settings, conditions, pause)
        return
    with stages(quiet=json) as tell:
        done = _once(settings, conditions, tell)
    if json:
        emit_json(_document(done))
    elif not logs_are_json():
        out.print(f"[bold]{done.outcome}[/]", end=": ", highlight=False)
        out.print(done.why, highlight=False, markup=False, soft_wrap=True)
    else:
        log.info("%s: %s", done.outcome, done.why)
    if done.outcome == "rejected":
        assert done.promotion is not None
        raise CheckFailed(
            "gates rejected what was trained, and the champion stays",
            expected="a candidate that passes every gate",
            mend=f"read {done.promotion.report}",
        )


def _once(settings: Settings, conditions: Conditions, tell: Callable[[str], None] | None = None) -> Retraining:
    from oddlog.connectors.by_url import open_registry, using_store
    from training.retrain import retrain as run

    registry = open_registry(settings.registry)
    with using_store(settings.store) as opened:
        return run(
            settings,
            conditions,
            drift=lambda version, newest: _change(opened, version, newest),
            store=opened,
            registry=registry,
            progress=tell,
        )


def _change(store: Store, version: ModelVersion, newest: dt.datetime) -> Change | None:
    """What monitoring tells of drift, as training is told of it."""
    from monitoring.lately import drifting
    from training.due import Change

    found = drifting(store, version, newest=newest)
    return None if found is None else Change(found.since, found.until, found.verdict)


def _loop(settings: Settings, conditions: Conditions, pause: dt.timedelta) -> None:
    """Ask until a signal comes. What fails is told, and asked again after the pause: the champion stays meanwhile."""
    stopped = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        stopped.set()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    while not stopped.is_set():
        try:
            done = _once(settings, conditions)
            level = logging.WARNING if done.outcome == "rejected" else logging.INFO
            log.log(level, "%s: %s", done.outcome, done.why, extra={"outcome": done.outcome})
        except OddlogError as error:
            kind = logging.WARNING if isinstance(error, OutsideError) else logging.ERROR
            log.log(kind, "nothing came of it: %s", error.found)
        stopped.wait(pause.total_seconds())


def _conditions(texts: list[str]) -> Conditions:
    """Conditions as they are typed. Raises UsageError.

    >>> _conditions(["drifted", "older-than 7d", "marks=20"])
    Conditions(drifted=True, older_than=datetime.timedelta(days=7), marks=20)
    """
    from training.due import Conditions

    drifted, older_than, marks = False, None, None
    for text in texts:
        name, _, value = re.sub(r"[\s=:]+", " ", text.strip()).partition(" ")
        if name == "drifted" and not value:
            drifted = True
        elif name == "older-than" and value:
            older_than = duration(value, "--when older-than")
        elif name == "marks" and value.isdigit() and int(value):
            marks = int(value)
        else:
            raise UsageError(
                f"--when {text!r} is no condition",
                expected="drifted, 'older-than 7d' or 'marks 20'",
                mend="oddlog retrain --when drifted --when 'older-than 7d'",
            )
    return Conditions(drifted, older_than, marks)


def _document(done: Retraining) -> dict[str, object]:
    from dataclasses import asdict

    promotion, trained = done.promotion, done.trained
    verdicts = [verdict for one in promotion.judged for verdict in one.verdicts] if promotion else []
    return {
        "outcome": done.outcome,
        "why": done.why,
        "conditions": [asdict(one) for one in done.looks],
        "since": done.since,
        "version": trained.version if trained else None,
        "run_id": trained.run_id if trained else None,
        "algorithm": trained.algorithm if trained else None,
        "events": trained.events if trained else None,
        "promoted": promotion.promoted if promotion and not promotion.dry_run else None,
        "replaced": promotion.replaced if promotion and done.outcome == "promoted" else None,
        "report": str(promotion.report) if promotion else None,
        "verdicts": [asdict(verdict) for verdict in verdicts],
    }
