"""The verdict on a batch: everything measured of it against what was expected, each with its limit. Words: `words.py`.

A limit is a size of effect. It is widened by `chance.errors` standard errors, as many as the clients alone explain: the
events of a client are alike, so that n events of few clients say as little as those few would.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from monitoring.batch import Batch
from monitoring.expected import Expected
from monitoring.figures import Figures
from monitoring.limits import EffectLimit, Limits, MostShare
from oddlog.connectors.store import STATUS_CLASSES
from oddlog.scoring.distance import standard_error

Group = Literal["feature", "score", "share", "flow"]
Unit = Literal["sd", "h", "factor", "share", "seconds"]

SCORE_NAMES = ("score", "severity")
PARSE_KINDS = frozenset({"empty", "bad_json", "no_format", "bad_date"})
"""Kinds of dead letters that the parser makes (oddlog/events/parse.py)."""

UPWARDS = frozenset({"unseen_paths", "dominance"})
"""Shares of which only more is drift."""


@dataclass(frozen=True, slots=True)
class Measure:
    """One thing about the batch."""

    name: str
    group: Group
    unit: Unit
    """Of effect and limit: standard deviations, Cohen's h, a factor, or the value itself."""
    value: float | None
    """In the batch: median of a feature, score or severity, a share, events, seconds."""
    expected: float | None
    effect: float | None
    """How far apart; None where there was nothing to measure: `note` says why."""
    limit: float
    """In force for this batch."""
    drifted: bool
    note: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """All measures, farthest past its limit first."""

    measures: list[Measure]
    share: float
    """Share of the judged features past their limit."""
    drifted: bool
    by: list[str]
    """What the batch has drifted by: "features", and names of single measures."""


def cohens_h(share: float, expected: float) -> float:
    """Cohen's h of two shares: the difference of their arcsine transforms, whose variance is 1 / n whatever the share.

    >>> round(cohens_h(0.09, 0.02), 3)
    0.326
    """
    return 2 * math.asin(math.sqrt(min(1.0, share))) - 2 * math.asin(math.sqrt(min(1.0, expected)))


def judge(limits: Limits, batch: Batch, expected: Expected, distances: Mapping[str, float]) -> Verdict:
    """The verdict; `distances` are the normed Wasserstein ones of the columns that could be measured."""
    small = _too_small(limits, batch)
    chance = limits.chance.errors * standard_error(batch.figures.worth, expected.worth)
    columns = _columns(limits, batch, expected, distances, chance, small)
    measures = [*columns, *_shares(limits, batch.figures, expected, chance, small), *_flow(limits, batch, expected)]
    features = [m for m in columns if m.group == "feature" and (m.effect is not None or m.drifted)]
    share = sum(m.drifted for m in features) / max(1, len(features))
    by = [measure.name for measure in measures if measure.drifted and measure.group != "feature"]
    if limits.features is not None and features and share >= limits.features.share:
        by.insert(0, "features")
    measures.sort(key=lambda m: (-_past(m), m.name))
    return Verdict(measures, share, bool(by), by)


def limit_of(limits: Limits, name: str) -> float | None:
    """The distance at which a feature, `score` or `severity` has drifted, not widened; None: it is not judged."""
    if name in SCORE_NAMES:
        table = limits.score if name == "score" else limits.severity
        return None if table is None else table.limit
    return None if limits.features is None else limits.features.of(name)


def _too_small(limits: Limits, batch: Batch) -> str:
    if batch.scored < limits.batch.min_events:
        return f"only {batch.scored:,} scored events, fewer than {limits.batch.min_events:,}"
    if batch.figures.worth < limits.batch.min_clients:
        return f"its events are worth only {batch.figures.worth:.1f} clients, fewer than {limits.batch.min_clients:g}"
    return ""


def _columns(
    limits: Limits, batch: Batch, expected: Expected, distances: Mapping[str, float], chance: float, small: str
) -> list[Measure]:
    found = []
    names = expected.points.columns if expected.points is not None else []
    for name in names:
        limit = limit_of(limits, name)
        if limit is None:
            continue
        group: Group = "score" if name in SCORE_NAMES else "feature"
        assert expected.points is not None
        usual = expected.points[name].median()
        value = None if batch.points is None else batch.points[name].median()
        distance, note, gone = distances.get(name), small, False
        if not small and distance is None:
            gone = usual is not None
            note = "the batch has no values" if gone else "not judged: there are no values to compare with"
        found.append(
            Measure(
                name=name,
                group=group,
                unit="sd",
                value=_number(value),
                expected=_number(usual),
                effect=None if small else distance,
                limit=limit + chance,
                drifted=gone or (not small and distance is not None and distance >= limit + chance),
                note=note,
            )
        )
    return found


def _shares(limits: Limits, batch: Figures, expected: Expected, chance: float, small: str) -> list[Measure]:
    usual = expected.figures
    if usual is None:
        return []
    found = []
    # A client that dominates makes the batch worth a few clients, by which it would excuse itself: so what such a batch
    # is usually worth. Half of it, for what is expected is the most that one client had, and not what one has.
    usual_chance = limits.chance.errors / 2 * standard_error(usual.worth, expected.worth)

    def add(name: str, table: EffectLimit | None, value: float | None, other: float | None) -> None:
        if table is None:
            return
        wide = usual_chance if name == "dominance" else chance
        note, effect = "", None
        if value is None or other is None:
            note = "not judged: not known of the batch" if value is None else "not judged: not known of what is usual"
        elif small and name != "dominance":
            note = small
        else:
            effect = cohens_h(value, other)
        size = 0.0 if effect is None else effect if name in UPWARDS else abs(effect)
        past = effect is not None and size >= table.limit + wide
        found.append(Measure(name, "share", "h", value, other, effect, table.limit + wide, past, note))

    add("alert_rate", limits.alert_rate, batch.alert_rate, usual.alert_rate)
    for name in STATUS_CLASSES:
        if (batch.statuses.get(name) or 0) + (usual.statuses.get(name) or 0) > 0:
            add(f"status_{name}", limits.status, batch.statuses.get(name), usual.statuses.get(name))
    add("unseen_paths", limits.unseen_paths, batch.unseen_paths, usual.unseen_paths)
    add("new_clients", limits.new_clients, batch.new_clients, usual.new_clients)
    few = batch.events < limits.batch.min_events
    add("dominance", limits.dominance, None if few else batch.busiest, usual.busiest)
    return found


def _flow(limits: Limits, batch: Batch, expected: Expected) -> list[Measure]:
    found = []
    usual = expected.figures
    if limits.volume is not None and usual is not None:
        # One event more on both sides: nothing where little was expected says little.
        effect = (batch.figures.events + 1) / (usual.events + 1)
        error = math.hypot(standard_error(usual.worth, expected.worth), expected.pace)
        limit = limits.volume.factor * math.exp(limits.chance.errors * error)
        past = expected.complete and max(effect, 1 / effect) >= limit
        note = "" if expected.complete else "not judged: some of the batch's hours are not in what is usual"
        size = effect if expected.complete else None
        found.append(Measure("volume", "flow", "factor", batch.figures.events, usual.events, size, limit, past, note))
    failed = sum(count for kind, count in batch.dead.items() if kind in PARSE_KINDS)
    dead = sum(batch.dead.values()) - failed
    records = batch.figures.events + failed + dead

    def most(name: str, table: MostShare | None, part: float, whole: float) -> None:
        if table is None:
            return
        if not whole:
            found.append(Measure(name, "flow", "share", None, None, None, table.max_share, False, "nothing came"))
            return
        share = part / whole
        limit = table.max_share + limits.chance.errors * math.sqrt(table.max_share / whole)
        found.append(Measure(name, "flow", "share", share, None, share, limit, share >= limit))

    most("parse_failures", limits.parse_failures, failed, records)
    most("dead_letters", limits.dead_letters, dead, records)
    most("pending", limits.pending, (batch.pending or 0.0) * batch.figures.events, batch.figures.events)
    if limits.lateness is not None:
        late, limit = batch.lateness, limits.lateness.seconds
        note = "" if late is not None else "no scored event"
        found.append(Measure("lateness", "flow", "seconds", late, None, late, limit, (late or 0.0) >= limit, note))
    return found


def _past(measure: Measure) -> float:
    """How far past its limit, in limits; for sorting."""
    if measure.effect is None:
        return math.inf if measure.drifted else -1.0
    effect = max(0.0, measure.effect) if measure.name in UPWARDS else abs(measure.effect)
    if measure.unit == "factor":
        return abs(math.log(effect)) / math.log(measure.limit)
    return effect / measure.limit


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None
