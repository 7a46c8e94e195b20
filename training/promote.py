"""Who becomes champion: candidates ranked, gates asked, evidence written, aliases moved; and the way back.

What is measured is in `judge.py`, what gates say in `gates.py`, how it is told in `verdicts.py`.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import socket
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from oddlog.connectors.by_url import open_registry, using_store
from oddlog.connectors.registry import CHAMPION, PREVIOUS, ModelVersion, Registry
from oddlog.connectors.store import Store
from oddlog.errors import CheckFailed, OutsideError, UsageError
from oddlog.scoring.threshold import parse_budget
from oddlog.settings import Settings
from training.gates import Evidence, Gates, judge, load_gates
from training.judge import Bench, collect, load
from training.verdicts import Judged, write_report

STATUS = "status"
CANDIDATE, REJECTED, OUTRANKED = "candidate", "rejected", "outranked"
RETIRED, ROLLED_BACK = "retired", "rolled_back"

MOST_CANDIDATES = 12
"""Candidates that are judged at once, the newest first; each costs a pass over the judged events."""
TIE = 3  # decimals of average precision: what differs by less is a tie, and the newer version wins

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Promotion:
    """What came of a promotion."""

    judged: list[Judged]
    """Best first."""
    promoted: str | None
    """The version that passed: champion now, or would be without `dry_run`. None where no candidate passed."""
    replaced: str | None
    """The champion before."""
    report: Path
    dry_run: bool


@dataclass(frozen=True, slots=True)
class Rollback:
    """The aliases after a rollback."""

    champion: str
    previous: str


def promote(
    settings: Settings,
    *,
    candidate: str | None = None,
    dry_run: bool = False,
    store: Store | None = None,
    registry: Registry | None = None,
    progress: Progress | None = None,
) -> Promotion:
    """Judge candidates, best first, until one passes every gate; make that one champion.

    Where none passes, `promoted` is None: `no_candidate_passed` is the error that says so.

    `candidate` names the only version to judge, whatever its status. `dry_run` writes the report and changes
    nothing else. Candidates that a gate rejects, and those ranked below the promoted one, are candidates no more.

    Raises UsageError (no candidate; a wrong gates file), OutsideError (another promotion is at work, or the
    champion changed meanwhile), RegistryError, StoreError.
    """
    tell = progress or (lambda _: None)
    gates = load_gates(settings.promote.gates)
    registry = registry or open_registry(settings.registry)
    with using_store(settings.store, store) as opened, _lock(settings, opened) as prolong:
        candidates = _candidates(settings, registry, candidate)
        champion = registry.by_alias(CHAMPION)
        judged, period = _judge(settings, opened, registry, gates, candidates, champion, tell)
        winner = next((one for one in judged if one.passed), None)
        replaced = champion.version if champion else None
        if not dry_run:
            prolong()
            _unchanged(registry, champion)
        report = write_report(
            settings.promote.reports,
            judged=judged,
            promoted=winner.version.version if winner else None,
            replaced=replaced,
            period=period,
            dry_run=dry_run,
        )
        if not dry_run:
            tell("writing the evidence")
            _record(settings, registry, judged, winner, report)
            if winner is not None:
                tell(f"making version {winner.version.version} champion")
                _move(registry, winner.version.version, champion)
    return Promotion(
        judged=judged,
        promoted=winner.version.version if winner else None,
        replaced=replaced,
        report=report,
        dry_run=dry_run,
    )


def no_candidate_passed(promotion: Promotion) -> CheckFailed:
    """The error that says so, with every gate that said no."""
    said = [
        f"version {one.version.version}: {verdict.gate} ({verdict.figure}; {verdict.limit})"
        for one in promotion.judged
        for verdict in one.verdicts
        if verdict.outcome == "fail"
    ]
    return CheckFailed(
        "no candidate passed the gates: " + "; ".join(said),
        expected="a candidate that passes every gate",
        mend=f"read {promotion.report}; then oddlog train on other events, or see gates.toml",
    )


def rollback(settings: Settings, *, store: Store | None = None, registry: Registry | None = None) -> Rollback:
    """Make the previous champion champion again, and the present one previous. No gate is asked.

    Raises UsageError where there is no previous one, OutsideError while a promotion is at work."""
    registry = registry or open_registry(settings.registry)
    with using_store(settings.store, store) as opened, _lock(settings, opened):
        champion, previous = registry.by_alias(CHAMPION), registry.by_alias(PREVIOUS)
        if champion is None or previous is None or champion.version == previous.version:
            found = f"the champion is version {champion.version}" if champion else "there is no champion"
            raise UsageError(
                f"{found}, and no other version is `{PREVIOUS}`",
                expected="a champion that replaced another",
                mend="oddlog promote --candidate VERSION (oddlog models lists them)",
            )
        # The champion first: whoever follows the alias gets away from a bad one at once.
        registry.set_alias(CHAMPION, previous.version)
        registry.set_alias(PREVIOUS, champion.version)
        registry.set_tags(previous.version, {STATUS: CHAMPION})
        registry.set_tags(champion.version, {STATUS: ROLLED_BACK, "rolled_back_at": _now()})
    return Rollback(champion=previous.version, previous=champion.version)


def _candidates(settings: Settings, registry: Registry, named: str | None) -> list[ModelVersion]:
    """The versions to judge, newest first. Raises UsageError where there are none."""
    if named is not None:
        version = registry.version(named)
        if CHAMPION in version.aliases:
            raise UsageError(f"version {named} is champion already", mend="oddlog models lists the others")
        return [version]
    versions = registry.versions()
    found = [v for v in versions if v.tags.get(STATUS) == CANDIDATE and CHAMPION not in v.aliases]
    if not found:
        held = ", ".join(f"{v.version} ({v.tags.get(STATUS, 'no status')})" for v in versions[:10])
        raise UsageError(
            f"{settings.registry.url} holds no candidate" + (f"; it holds {held}" if held else ""),
            expected=f"a version of {settings.registry.model!r} tagged {STATUS}={CANDIDATE}",
            mend="oddlog train" + ("; or oddlog promote --candidate VERSION, for one that was judged" if held else ""),
        )
    return found[:MOST_CANDIDATES]


def _judge(
    settings: Settings,
    store: Store,
    registry: Registry,
    gates: Gates,
    candidates: Sequence[ModelVersion],
    champion: ModelVersion | None,
    tell: Progress,
) -> tuple[list[Judged], tuple[dt.datetime, dt.datetime] | None]:
    """Candidates best first, gates asked up to the first that passes; and the period they were judged on."""
    tell(f"loading {len(candidates)} candidate{'s' * (len(candidates) > 1)}" + " and the champion" * bool(champion))
    contenders = [load(registry, version) for version in candidates]
    rival = None if champion is None else load(registry, champion)
    tell("reading the events after the fitted ones")
    bench = Bench(
        store,
        [*contenders, *([rival] if rival else [])],
        lead_in=dt.timedelta(days=settings.enrich.lead_in_days),
        seed=settings.train.seed,
    )
    budget = parse_budget(settings.train.budget)
    measured = []
    for contender in contenders:
        tell(f"judging version {contender.registered.version} on {bench.events.height:,} events")
        measured.append((contender.registered, collect(bench, contender, rival, budget=budget)))
    # sorted() is stable and `measured` newest first: of equals the newest stays ahead.
    measured.sort(key=lambda one: -round(_rank(one[1]), TIE))
    judged: list[Judged] = []
    for version, evidence in measured:
        turn = not any(one.passed for one in judged)
        judged.append(Judged(version, evidence, judge(gates, evidence) if turn else []))
    period = (bench.since, bench.until) if bench.since and bench.until else None
    return judged, period


def _rank(evidence: Evidence) -> float:
    return -1.0 if evidence.average_precision is None else evidence.average_precision


def _record(
    settings: Settings, registry: Registry, judged: Sequence[Judged], winner: Judged | None, report: Path
) -> None:
    """Evidence before deeds: report and verdicts stand before any alias moves."""
    from oddlog.connectors.mlflow_training import attach

    for one in judged:
        version = one.version
        if one.verdicts:
            attach(settings.registry, version.run_id, report, "promotion")
        tags = {f"gate.{verdict.gate}": verdict.text for verdict in one.verdicts}
        if one.verdicts:
            tags["judged_at"] = _now()
        if (status := _status(one, winner)) is not None:
            tags[STATUS] = status
        registry.set_tags(version.version, tags)


def _status(one: Judged, winner: Judged | None) -> str | None:
    """The status that a judged candidate has from now on; None leaves it. The winner's follows its alias."""
    if one is winner:
        return None
    if not one.verdicts:
        return OUTRANKED
    if PREVIOUS in one.version.aliases:
        return None  # judged by name; `rollback` returns to it all the same
    if any(verdict.gate == "data" and verdict.outcome == "fail" for verdict in one.verdicts):
        return None  # judged too early, which is no fault of its own
    return REJECTED


def _move(registry: Registry, version: str, champion: ModelVersion | None) -> None:
    """`previous`, then `champion`: whenever this stops, the champion is a version that passed."""
    if champion is not None:
        before = registry.by_alias(PREVIOUS)
        registry.set_alias(PREVIOUS, champion.version)
        if before is not None and before.version not in {champion.version, version}:
            registry.set_tags(before.version, {STATUS: RETIRED})
    registry.set_alias(CHAMPION, version)
    registry.set_tags(version, {STATUS: CHAMPION, "promoted_at": _now()})
    if champion is not None:
        registry.set_tags(champion.version, {STATUS: PREVIOUS})


def _unchanged(registry: Registry, champion: ModelVersion | None) -> None:
    """MLflow has no compare-and-set on aliases: look once more, before a report says who is champion."""
    now = registry.by_alias(CHAMPION)
    if (now and now.version) != (champion and champion.version):
        raise OutsideError(
            f"the champion changed from {champion.version if champion else 'none'} to "
            f"{now.version if now else 'none'} while the candidates were judged",
            expected="the champion that they were compared with",
            mend="oddlog promote, once more",
        )


@contextlib.contextmanager
def _lock(settings: Settings, store: Store) -> Iterator[Callable[[], None]]:
    """The right to move this model's aliases; gives a function that prolongs it, or raises where it was lost."""
    name = f"promote-{settings.registry.model}"
    holder = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"

    def take() -> None:
        other = store.acquire_lock(name, holder, settings.promote.lock_seconds)
        if other is not None:
            raise OutsideError(
                f"another promotion is at work: {other} holds the lock {name!r}",
                expected="one promotion at a time",
                mend=f"wait for it; one that died gives way after {settings.promote.lock_seconds:g} s",
            )

    take()
    try:
        yield take
    finally:
        store.release_lock(name, holder)


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
