"""The threshold of a registered version: shown, and changed without a training. Services follow it as they follow an
alias, and documents name its version.

Another budget is read off the alert curve that was learnt with the threshold in force; learning a new curve from newer
events is `recalibrate.py`'s.
"""

from __future__ import annotations

import datetime as dt
import math
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from oddlog.connectors.by_url import open_registry, using_store
from oddlog.connectors.models import find_version
from oddlog.connectors.registry import CHAMPION, ModelVersion, Registry
from oddlog.connectors.store import Store
from oddlog.errors import OutsideError, UsageError
from oddlog.scoring.alert_curve import AlertCurve
from oddlog.scoring.artifact import read_card
from oddlog.scoring.calibration import severity
from oddlog.scoring.card import Card, Threshold
from oddlog.scoring.threshold import check_budget
from oddlog.settings import Settings
from training.lock import locked
from training.threshold_tags import Change, Way, changes_of, check_words, curve_of, tags_of


@dataclass(frozen=True, slots=True)
class Expected:
    """Alerts a day by the first channel, of a severity or above."""

    severity: float
    score: float
    alerts_per_day: float


@dataclass(frozen=True, slots=True)
class ThresholdView:
    """A threshold in force, and what is known of it."""

    registered: ModelVersion
    threshold: Threshold
    change: Change | None
    """None: it is the one that the version was trained with, or nobody left a note."""
    severity: float
    """Of a score that just reaches it."""
    expected: list[Expected]
    """By severity, rising, first the threshold's own; empty where nothing was kept to tell it from."""
    earlier: list[tuple[Threshold, Change | None]]
    """Latest first."""


@dataclass(frozen=True, slots=True)
class Learnt:
    """The events that a threshold was learnt from."""

    events: int
    clients: int
    """Of those events."""
    features: Literal["stored", "computed"]
    """As serving stored them under the version's baseline, or computed anew under it."""
    share: float
    """Of all clients, by hash."""
    marked_clients: int
    """Left out: somebody marked an event of theirs as true anomaly."""
    marked_events: int
    """Theirs."""
    alerted_clients: int
    """Left out, with train.exclude_alerted: they were alerted on before the period."""
    alerted_events: int
    """Theirs, of the period."""
    hushed_events: int
    """Left out: they are expected, and raise no alert."""
    alerts_per_day_before: float
    """Of the rest, at the threshold before."""


@dataclass(frozen=True, slots=True)
class ThresholdChange:
    """What became of a wish for another threshold."""

    registered: ModelVersion
    before: Threshold
    threshold: Threshold
    change: Change | None
    """None: nothing was written."""
    dry_run: bool
    learnt: Learnt | None
    """None: it was read off the curve that is there."""
    cautions: tuple[str, ...]


def chosen_version(registry: Registry, version: str | None) -> ModelVersion:
    """The version of a number or alias; None: the champion. Raises UsageError, RegistryError."""
    if version is not None:
        return find_version(registry, version)
    if (champion := registry.by_alias(CHAMPION)) is not None:
        return champion
    held = ", ".join(one.version for one in registry.versions())
    raise UsageError(
        "there is no champion" + (f"; registered: {held}" if held else ", and no version is registered"),
        expected="a promoted version, or --version VERSION",
        mend="oddlog promote, or oddlog threshold show --version " + held.split(",")[0] if held else "oddlog train",
    )


def show_threshold(
    settings: Settings, *, version: str | None = None, registry: Registry | None = None
) -> ThresholdView:  # fmt: skip
    """The threshold in force for a version (default: the champion). Raises UsageError, ArtifactError, RegistryError."""
    registry = registry or open_registry(settings.registry)
    registered = chosen_version(registry, version)
    card = card_of(registry, registered)
    threshold = registered.threshold or card.threshold
    changes = {change.version: change for change in changes_of(registered)}
    earlier = [one for one in registry.thresholds(registered.version) if one.version != threshold.version]
    least = float(severity(card.calibration, [threshold.value])[0])
    curve = curve_of(registered)
    return ThresholdView(
        registered=registered,
        threshold=threshold,
        change=changes.get(threshold.version),
        severity=least,
        expected=[] if curve is None else _by_severity(card, curve, threshold.value, least),
        earlier=[(one, changes.get(one.version)) for one in reversed(earlier)],
    )


def set_budget(
    settings: Settings,
    budget: float,
    *,
    by: str,
    note: str = "",
    version: str | None = None,
    novelty: bool | None = None,
    dry_run: bool = False,
    store: Store | None = None,
    registry: Registry | None = None,
) -> ThresholdChange:
    """Give a version (default: the champion) the threshold for another budget, from the curve that is kept with it.

    `novelty`: whether the second channel has a threshold; default: as before. `store` holds the lock. Raises UsageError
    where no curve is kept, OutsideError where the threshold changed meanwhile, RegistryError, StoreError.
    """
    check_budget(budget)
    check_words(by, note)
    registry = registry or open_registry(settings.registry)
    registered = chosen_version(registry, version)
    before = registered.threshold or card_of(registry, registered).threshold
    curve = curve_of(registered)
    if curve is None:
        raise UsageError(
            f"nothing tells what other budgets would give: version {registered.version} was trained before it was kept",
            expected="a version that was trained or recalibrated since",
            mend=f"oddlog threshold recalibrate --since 7d --budget {budget:g}/day --version {registered.version}",
        )
    new = threshold_for(curve, budget, before, novelty)
    wish = ThresholdChange(registered, before, new, None, dry_run, None, cautions_of(curve, new))
    return put_in_force(settings, wish, curve, way="set", by=by, note=note, store=store, registry=registry)


def threshold_for(curve: AlertCurve, budget: float, before: Threshold, novelty: bool | None) -> Threshold:
    """The threshold of a curve for a budget, with the version of the one before; the second channel silent where it is
    to be (`novelty`), or was. Raises UsageError where it is to alert, and there is none."""
    found = curve.threshold(budget, version=before.version)
    if novelty and found.novelty is None:
        raise UsageError(
            "the version has no second channel that could alert",
            expected="--novelty for a version that was trained with one",
            mend="leave --novelty away, or oddlog train",
        )
    if found.novelty is None or (before.novelty is not None if novelty is None else novelty):
        return found
    alone = found.expected_per_day - found.novelty.expected_per_day
    return found.model_copy(update={"novelty": None, "expected_per_day": alone})


def cautions_of(curve: AlertCurve, threshold: Threshold) -> tuple[str, ...]:
    """What to know of a threshold that a curve gave, in sentences."""
    found = []
    allowed = math.floor(threshold.budget_per_day * curve.days + 1e-9)
    if allowed == 0:
        found.append(
            f"{threshold.budget_per_day:g} alerts a day are none in the {_length(curve.days)} that it is learnt from: "
            "it lies above everything seen there"
        )
    if allowed > curve.allowed[-1]:
        found.append(
            "the budget is not spent: at most a tenth of the client-hours may alert, which is "
            f"{curve.allowed[-1] / curve.days:.1f} a day"
        )
    if (length := (curve.until - curve.since) / dt.timedelta(days=1)) < 1:
        found.append(f"it is learnt from {_length(length)}: what comes at other hours or on other days is not in it")
    return tuple(found)


def put_in_force(
    settings: Settings,
    wish: ThresholdChange,
    curve: AlertCurve,
    *,
    way: Way,
    by: str,
    note: str,
    store: Store | None,
    registry: Registry,
) -> ThresholdChange:
    """Write a threshold that was worked out, with a version of its own, unless it is the one in force, or is not to be
    written. Raises OutsideError where that changed meanwhile, RegistryError, StoreError."""
    if _same(wish.threshold, wish.before):
        return replace(wish, threshold=wish.before)
    if wish.dry_run:
        return replace(wish, threshold=_numbered(registry, wish))
    version = wish.registered.version
    lock, seconds = f"threshold-{settings.registry.model}", settings.promote.lock_seconds
    with (
        using_store(settings.store, store) as opened,
        locked(opened, lock, seconds=seconds, what="change of a threshold"),
    ):
        fresh = registry.version(version)
        if fresh.threshold != wish.registered.threshold:
            raise OutsideError(
                f"the threshold of version {version} changed meanwhile, from {wish.before.version} to "
                f"{fresh.threshold.version if fresh.threshold else 'none'}",
                expected="the one that was looked at",
                mend="oddlog threshold show; then once more, if it is still wanted",
            )
        threshold = _numbered(registry, wish)
        change = Change(version=threshold.version, way=way, by=by, at=dt.datetime.now(dt.UTC), note=note)
        others = [one for one in changes_of(fresh) if one.version != threshold.version]
        # The note first: a crash in between leaves one too many, never a threshold that nobody answers for.
        registry.set_tags(version, tags_of(curve, [*others, change]))
        registry.set_threshold(version, threshold)
    return replace(wish, threshold=threshold, change=change)


def card_of(registry: Registry, registered: ModelVersion) -> Card:
    """The card of a version. Raises ArtifactError, RegistryError."""
    with tempfile.TemporaryDirectory(prefix="oddlog-threshold-") as folder:
        return read_card(registry.download(registered.version, Path(folder)))


def view_document(view: ThresholdView) -> dict[str, Any]:
    """For programs."""
    return {
        "model": view.registered.name,
        "version": view.registered.version,
        "aliases": list(view.registered.aliases),
        "threshold": view.threshold.model_dump(mode="json"),
        "change": view.change.model_dump(mode="json") if view.change else None,
        "severity": view.severity,
        "expected": [asdict(one) for one in view.expected],
        "earlier": [
            {"threshold": one.model_dump(mode="json"), "change": change.model_dump(mode="json") if change else None}
            for one, change in view.earlier
        ],
    }


def change_document(done: ThresholdChange) -> dict[str, Any]:
    """For programs."""
    return {
        "model": done.registered.name,
        "version": done.registered.version,
        "before": done.before.model_dump(mode="json"),
        "threshold": done.threshold.model_dump(mode="json"),
        "changed": done.threshold != done.before,
        "written": done.change is not None,
        "dry_run": done.dry_run,
        "change": done.change.model_dump(mode="json") if done.change else None,
        "learnt": asdict(done.learnt) if done.learnt else None,
        "cautions": list(done.cautions),
    }


def _same(one: Threshold, other: Threshold) -> bool:
    return one.model_copy(update={"version": other.version}) == other


def _numbered(registry: Registry, wish: ThresholdChange) -> Threshold:
    """The wished one under the next number that no threshold of the version had: documents name it."""
    had = [one.version for one in (wish.before, *registry.thresholds(wish.registered.version))]
    had += [change.version for change in changes_of(registry.version(wish.registered.version))]  # of deleted ones, too
    number = max((int(version) for version in had if version.isdigit()), default=len(had))
    return wish.threshold.model_copy(update={"version": str(number + 1)})


def _by_severity(card: Card, curve: AlertCurve, value: float, least: float) -> list[Expected]:
    """At the threshold itself, then at every half step of severity up to where nothing alerts."""
    curved = card.calibration
    found = []
    first = math.floor(2 * least + 1.2)  # a step that is nearly the threshold's own says the same again
    levels = [least, *np.arange(first, 2 * curved.severities[-1]) / 2]
    for level in levels:
        score = value if level == least else float(np.interp(level, curved.severities, curved.scores))
        alerts = curve.alerts_per_day(score)
        if alerts is None:
            continue
        found.append(Expected(severity=float(level), score=score, alerts_per_day=alerts))
        if alerts == 0:
            break
    return found


def _length(days: float) -> str:
    return f"{days:.1f} days" if days >= 1 else f"{24 * days:.1f} hours"
