"""A retraining from asking to promotion: due or not, the period, a candidate, the gates. One at a time for a model.

Whether it is due is `due.py`'s; who tells of drift is handed in, for monitoring is another room.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from oddlog.connectors.marks import list_marks
from oddlog.connectors.registry import CHAMPION, ModelVersion, Registry
from oddlog.connectors.store import EventQuery, Store
from oddlog.scoring.artifact import read_card
from oddlog.settings import Settings
from training.due import DAY, HOUR, Champion, Change, Conditions, Look, look, period_of
from training.lock import Taken, locked
from training.promote import promote, refusal
from training.promotion_report import Promotion
from training.train import TrainResult, train

Progress = Callable[[str], None]
DriftOf = Callable[[ModelVersion, dt.datetime], Change | None]
"""What drift checks tell of a version; the time is the newest event's."""

Outcome = Literal["not-due", "busy", "cooling-down", "waiting", "rejected", "ready", "promoted"]


@dataclass(frozen=True, slots=True)
class Retraining:
    """What came of it."""

    outcome: Outcome
    """`rejected`, `ready` and `promoted`: a candidate was trained; `ready`: it passed, and waits for a person."""
    why: str
    looks: list[Look] = field(default_factory=list)
    since: dt.datetime | None = None
    """Of the events that it was trained on, or would be."""
    trained: TrainResult | None = None
    promotion: Promotion | None = None


def retrain(
    settings: Settings,
    conditions: Conditions,
    *,
    drift: DriftOf,
    store: Store,
    registry: Registry,
    now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
    progress: Progress | None = None,
) -> Retraining:
    """Train a candidate where a condition is met (or none is named), and have it judged.

    It becomes champion where it passes every gate and retrain.auto_promote says so. Raises UsageError where the events
    can teach nothing or the gates file is wrong, OutsideError (a promotion is at work, or the lock was lost meanwhile),
    StoreError, RegistryError."""
    options, tell = settings.retrain, progress or (lambda _: None)
    with contextlib.ExitStack() as held:
        try:
            lock = locked(store, _key(settings), seconds=options.lock_seconds, what="retraining")
            prolong = held.enter_context(lock)
        except Taken as taken:
            return Retraining("busy", taken.found)
        span = store.time_range(EventQuery())
        if span is None:
            return Retraining("waiting", "the store holds no events")
        champion = _champion(registry)
        change = None if champion is None else drift(champion.version, span[1])
        looks: list[Look] = []
        if champion is not None and conditions:
            looks = look(conditions, options, champion, newest=span[1], change=change, marks=list_marks(store))
            if not any(one.met for one in looks):
                return Retraining("not-due", "; ".join(one.text for one in looks), looks)
        because = _met(looks) or ("there is no champion yet" if champion is None else "it was asked for")
        # Also without a champion: a candidate that waits for a person would get a sibling at every call.
        if conditions and (left := _cooldown(settings, store, now())) > dt.timedelta():
            return Retraining("cooling-down", f"{because}; the last one was trained less than "
                              f"{options.cooldown_hours:g} h ago: {left / HOUR:.1f} h left", looks)  # fmt: skip
        lasting = change if change is not None and change.hours >= options.drifted_hours else None
        since, begins = period_of(options, champion, oldest=span[0], newest=span[1], change=lasting)
        if wanting := _wanting(settings, store, since, span[1]):
            return Retraining("waiting", f"{because}; {begins} there are {wanting}", looks, since)
        tell(f"training on the events from {since:%Y-%m-%d %H:%M} UTC on: {begins}")
        trained = train(_training(settings), since=since, store=store, registry=registry, progress=progress)
        registry.set_tags(trained.version, {"retrained_because": because[:5_000], "retrained_on": begins})
        store.put_document("runs", _key(settings), {"at": now().isoformat(), "version": trained.version})
        prolong()
        promotion = promote(
            settings, candidate=trained.version, dry_run=not options.auto_promote, store=store, registry=registry,
            progress=progress,
        )  # fmt: skip
        return _told(settings, because, begins, looks, since, trained, promotion)


def _told(
    settings: Settings,
    because: str,
    begins: str,
    looks: list[Look],
    since: dt.datetime,
    trained: TrainResult,
    promotion: Promotion,
) -> Retraining:
    why = f"{because}; version {trained.version} was trained on {trained.events:,} events, {begins}"
    outcome: Outcome = "rejected"
    if promotion.promoted is None:
        outcome = outcome if promotion.waiting is None else "ready"
        why += f"; {refusal(settings, promotion).found}"
    elif promotion.dry_run:
        outcome, why = "ready", f"{why}; it passed every gate, and retrain.auto_promote is off"
    else:
        outcome, why = "promoted", f"{why}; it passed every gate and is champion"
    return Retraining(outcome, why, looks, since, trained, promotion)


def _met(looks: list[Look]) -> str:
    return "; ".join(one.text for one in looks if one.met)


def _training(settings: Settings) -> Settings:
    """Those of the training: refit, for a stored baseline cannot learn, and without those that were alerted on."""
    options = settings.retrain
    chosen = {"features": "refit", "exclude_alerted": options.exclude_alerted, "exclude_up_to": options.exclude_up_to}
    return settings.model_copy(update={"train": settings.train.model_copy(update=chosen)})


def _champion(registry: Registry) -> Champion | None:
    version = registry.by_alias(CHAMPION)
    if version is None:
        return None
    with tempfile.TemporaryDirectory(prefix="oddlog-retrain-") as folder:
        return Champion(version, read_card(registry.download(version.version, Path(folder))).dataset)


def _wanting(settings: Settings, store: Store, since: dt.datetime, newest: dt.datetime) -> str:
    """What is too little to train on, in words; "" where it is enough."""
    days, needed = (newest - since) / DAY, settings.retrain.min_days
    if days < needed:
        return f"{days:.2f} days of events, and {needed:g} are waited for (retrain.min_days)"
    events = store.count_events(EventQuery(since=since))
    if events < settings.train.min_events:
        return f"{events:,} events, and {settings.train.min_events:,} are waited for (train.min_events)"
    return ""


def _cooldown(settings: Settings, store: Store, now: dt.datetime) -> dt.timedelta:
    """How long it still has to be waited."""
    last = store.get_document("runs", _key(settings))
    if last is None:
        return dt.timedelta()
    return dt.datetime.fromisoformat(str(last["at"])) + settings.retrain.cooldown_hours * HOUR - now


def _key(settings: Settings) -> str:
    return f"retrain-{settings.registry.model}"
