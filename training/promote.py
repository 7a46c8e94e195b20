"""Who becomes champion: candidates ranked, gates asked, evidence written, aliases moved; and the way back.

What is measured is in `judge.py`, what gates say in `verdicts.py`, how it is told in `promotion_report.py`.
"""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from oddlog.connectors.by_url import open_registry, using_store
from oddlog.connectors.privacy_stamp import stored_stamp
from oddlog.connectors.registry import CHALLENGER, CHAMPION, PREVIOUS, ModelVersion, Registry
from oddlog.connectors.store import Store
from oddlog.errors import CheckFailed, OutsideError, UsageError
from oddlog.scoring.threshold import parse_budget
from oddlog.settings import Settings
from training.approval import APPROVAL_TAG, WAITING, approved_by, not_approved
from training.evidence import Evidence
from training.gates import Gates, load_gates
from training.judge import Bench, collect, load
from training.lock import locked
from training.marks import read_marks
from training.promotion_report import Judged, Promotion, failed_gates, write_report
from training.verdicts import judge

STATUS = "status"
CANDIDATE, REJECTED, OUTRANKED = "candidate", "rejected", "outranked"
RETIRED, ROLLED_BACK = "retired", "rolled_back"

MOST_CANDIDATES = 12
"""Candidates that are judged at once, the newest first; each costs a pass over the judged events. Where approval is
asked for, those that have it come before the others: they would be passed over for trainings of every day."""
TIE = 3  # decimals of average precision: what differs by less is a tie, and the newer version wins

Progress = Callable[[str], None]


class NoCandidate(UsageError):
    """There is nobody to judge."""


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

    With `settings.promote.require_approval` only a version that passed and is approved becomes champion; the best that
    passed and is not becomes challenger and waits. Where nobody was promoted `refusal` is the error that says why.

    `candidate` names the only version to judge, whatever its status. `dry_run` writes the report, takes no lock and
    changes nothing else. Candidates that a gate rejects, and those ranked below the promoted one, are candidates no
    more.

    Raises NoCandidate, UsageError (a wrong gates file), OutsideError (another promotion is at work, or the
    champion or an approval changed meanwhile), RegistryError, StoreError.
    """
    tell = progress or (lambda _: None)
    gates = load_gates(settings.promote.gates)
    registry = registry or open_registry(settings.registry)
    with contextlib.ExitStack() as held:
        opened = held.enter_context(using_store(settings.store, store))
        # What changes nothing holds nobody up, and may be run by who may only read.
        prolong = None if dry_run else held.enter_context(_lock(settings, opened))
        candidates = _candidates(settings, registry, candidate)
        champion = registry.by_alias(CHAMPION)
        judged, period = _judge(settings, opened, registry, gates, candidates, champion, tell)
        winner, waiting = _chosen(settings, judged)
        if prolong is not None:
            prolong()
            _unchanged(registry, champion)
            if winner is not None and settings.promote.require_approval:
                _still_approved(registry, winner.version.version)
        promotion = Promotion(
            judged=judged,
            promoted=winner.version.version if winner else None,
            replaced=champion.version if champion else None,
            dry_run=dry_run,
            at=dt.datetime.now(dt.UTC),
            period=period,
            waiting=waiting.version.version if waiting else None,
        )
        promotion = replace(promotion, report=write_report(settings.promote.reports, promotion))
        if not dry_run:
            tell("writing the evidence")
            _record(settings, registry, promotion, winner, waiting)
            if waiting is not None:
                tell(f"making version {waiting.version.version} challenger")
                registry.set_alias(CHALLENGER, waiting.version.version)
            if winner is not None:
                tell(f"making version {winner.version.version} champion")
                _move(registry, winner.version.version, champion)
    return promotion


def refusal(settings: Settings, promotion: Promotion) -> CheckFailed:
    """The error that says why nobody was promoted: who waits for approval, or every gate that said no."""
    if promotion.waiting is not None:
        return not_approved(settings.registry, promotion.waiting, dry_run=promotion.dry_run)
    return CheckFailed(
        "no candidate passed the gates: " + "; ".join(failed_gates(promotion.judged)),
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
        # What people approved has turned out otherwise: it takes a new word to bring it back.
        withdrawn = {APPROVAL_TAG: ""} if approved_by(champion) else {}
        registry.set_tags(champion.version, {STATUS: ROLLED_BACK, "rolled_back_at": _now(), **withdrawn})
    return Rollback(champion=previous.version, previous=champion.version)


def _candidates(settings: Settings, registry: Registry, named: str | None) -> list[ModelVersion]:
    """The versions to judge, newest first. Raises UsageError where there are none."""
    if named is not None:
        version = registry.version(named)
        if CHAMPION in version.aliases:
            raise UsageError(f"version {named} is champion already", mend="oddlog models lists the others")
        return [version]
    versions = registry.versions()
    found = [v for v in versions if v.tags.get(STATUS) in {CANDIDATE, WAITING} and CHAMPION not in v.aliases]
    if not found:
        held = ", ".join(f"{v.version} ({v.tags.get(STATUS, 'no status')})" for v in versions[:10])
        raise NoCandidate(
            f"{settings.registry.url} holds no candidate" + (f"; it holds {held}" if held else ""),
            expected=f"a version of {settings.registry.model!r} tagged {STATUS}={CANDIDATE}",
            mend="oddlog train" + ("; or oddlog promote --candidate VERSION, for one that was judged" if held else ""),
        )
    if settings.promote.require_approval:
        chosen = {v.version for v in sorted(found, key=lambda v: not approved_by(v))[:MOST_CANDIDATES]}
        return [v for v in found if v.version in chosen]
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
    """Candidates best first, gates asked up to the first that may become champion; and the period judged on."""
    tell(f"loading {len(candidates)} candidate{'s' * (len(candidates) > 1)}" + " and the champion" * bool(champion))
    privacy = stored_stamp(store)
    contenders = [load(registry, version, privacy) for version in candidates]
    rival = None if champion is None else load(registry, champion, privacy)
    tell("reading the events after the fitted ones")
    bench = Bench(
        store,
        [*contenders, *([rival] if rival else [])],
        lead_in=dt.timedelta(days=settings.enrich.lead_in_days),
        seed=settings.train.seed,
        marks=read_marks(store),
        memory_mb=settings.train.memory_mb,
    )
    budget = parse_budget(settings.train.budget)
    measured = []
    for contender in contenders:
        tell(f"judging version {contender.registered.version} on {bench.events.height:,} events")
        measured.append((contender.registered, collect(bench, contender, rival, budget=budget)))
    # sorted() is stable and `measured` newest first: of equals the newest stays ahead.
    measured.sort(key=lambda one: -round(_rank(one[1]), TIE))
    judged: list[Judged] = []
    for rank, (version, evidence) in enumerate(measured, start=1):
        turn = _chosen(settings, judged)[0] is None
        judged.append(Judged(version, evidence, judge(gates, evidence) if turn else [], rank, approved_by(version)))
    period = (bench.since, bench.until) if bench.since and bench.until else None
    return judged, period


def _chosen(settings: Settings, judged: Sequence[Judged]) -> tuple[Judged | None, Judged | None]:
    """Who becomes champion; and who would, with somebody's approval, where that is asked for.

    A version that is approved is not held up by a better one that is not: approvals would run after trainings."""
    passed = [one for one in judged if one.passed]
    if not settings.promote.require_approval:
        return (passed[0] if passed else None), None
    winner = next((one for one in passed if one.approved_by), None)
    return winner, next((one for one in passed if not one.approved_by), None)


def _rank(evidence: Evidence) -> float:
    return -1.0 if evidence.average_precision is None else evidence.average_precision


def _record(
    settings: Settings, registry: Registry, promotion: Promotion, winner: Judged | None, waiting: Judged | None
) -> None:
    """Evidence before deeds: report and verdicts stand before any alias moves."""
    from oddlog.connectors.mlflow_training import attach

    for one in promotion.judged:
        version = one.version
        tags = {f"gate.{verdict.gate}": verdict.text for verdict in one.verdicts}
        if one.verdicts:
            for file in (promotion.report, promotion.evidence):
                attach(settings.registry, version.run_id, file, "promotion")
            tags |= {"judged_at": _now(), "rank": f"{one.rank} of {len(promotion.judged)}"}
        status = WAITING if one is waiting else None if one is winner else _status(one)
        if status is not None:
            tags[STATUS] = status
        registry.set_tags(version.version, tags)


def _status(one: Judged) -> str | None:
    """The status that a judged candidate which nobody chose has from now on; None leaves it."""
    if PREVIOUS in one.version.aliases:
        return None  # judged by name; `rollback` returns to it all the same
    if not one.verdicts:
        return OUTRANKED
    if one.passed:
        return CANDIDATE  # a better one waits for approval
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
    challenger = registry.by_alias(CHALLENGER)
    if challenger is not None and challenger.version == version:
        registry.delete_alias(CHALLENGER)  # there is nothing left to compare it with


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


def _still_approved(registry: Registry, version: str) -> None:
    """Judging takes minutes, in which a person may think again."""
    if not approved_by(registry.version(version)):
        raise OutsideError(
            f"the approval of version {version} was withdrawn while the candidates were judged",
            expected=f"its tag {APPROVAL_TAG} as it was",
            mend="oddlog promote, once more",
        )


def _lock(settings: Settings, store: Store) -> contextlib.AbstractContextManager[Callable[[], None]]:
    """The right to move this model's aliases; gives a function that prolongs it."""
    return locked(store, f"promote-{settings.registry.model}", seconds=settings.promote.lock_seconds, what="promotion")


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
