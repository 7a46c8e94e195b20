"""Whether a retraining is due, and on which period: conditions held against champion, events and marks. No training."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from oddlog.connectors.marks import Mark
from oddlog.connectors.registry import ModelVersion
from oddlog.scoring.card import DatasetInfo
from oddlog.settings import RetrainSettings

HOUR, DAY = dt.timedelta(hours=1), dt.timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Conditions:
    """What a retraining is to be done for; none of them: for the asking."""

    drifted: bool = False
    older_than: dt.timedelta | None = None
    """How far events may be ahead of the last one that the champion was made from."""
    marks: int | None = None
    """How many marks since the champion was trained ask for another one."""

    def __bool__(self) -> bool:
        return self.drifted or self.older_than is not None or self.marks is not None


@dataclass(frozen=True, slots=True)
class Change:
    """Logs that have changed: since when, until when it was looked at, and what was found, in words."""

    since: dt.datetime
    until: dt.datetime
    text: str

    @property
    def hours(self) -> float:
        """How long it has lasted."""
        return (self.until - self.since) / HOUR


@dataclass(frozen=True, slots=True)
class Look:
    """One condition, whether it is met, and what was found."""

    condition: str
    met: bool
    text: str


@dataclass(frozen=True, slots=True)
class Champion:
    """The version in place, and the events that it was made from."""

    version: ModelVersion
    dataset: DatasetInfo


def look(
    conditions: Conditions,
    options: RetrainSettings,
    champion: Champion,
    *,
    newest: dt.datetime,
    change: Change | None,
    marks: list[Mark],
) -> list[Look]:
    """What each condition finds. `newest`: the newest event's time; `change`: what drift checks tell."""
    found = []
    if conditions.drifted:
        text, met = "its last batch has not drifted, or none was checked (oddlog monitor)", False
        if change is not None:
            met = change.hours >= options.drifted_hours
            text = (
                f"batches have drifted for {change.hours:.3g} h without a break, since "
                f"{change.since:%Y-%m-%d %H:%M} UTC (asked for: {options.drifted_hours:g} h): {change.text}"
            )
        found.append(Look("drifted", met, text))
    if conditions.older_than is not None:
        age = newest - champion.dataset.until
        text = (
            f"the newest event is {age / DAY:.1f} days after the last one that version {champion.version.version} was "
            f"made from (asked for: {conditions.older_than / DAY:g})"
        )
        found.append(Look("older-than", age >= conditions.older_than, text))
    if conditions.marks is not None:
        trained = dt.datetime.fromtimestamp(champion.version.created_ms / 1000, dt.UTC)
        count = sum(mark.at > trained for mark in marks)
        text = f"{count} marks since version {champion.version.version} was trained (asked for: {conditions.marks})"
        found.append(Look("marks", count >= conditions.marks, text))
    return found


def period_of(
    options: RetrainSettings,
    champion: Champion | None,
    *,
    oldest: dt.datetime,
    newest: dt.datetime,
    change: Change | None,
) -> tuple[dt.datetime, str]:
    """Where the period begins that is trained on, and why there; it ends with the newest event.

    After a change it is the change; else the last `days`, but not before the events of the champion begin, for what it
    left out was left out for a reason. `oldest`: the oldest event's time."""
    begin, why = newest - options.days * DAY, f"the last {options.days:g} days"
    if champion is not None and champion.dataset.since > begin:
        begin, why = champion.dataset.since, f"since the first event that version {champion.version.version} learnt of"
    if change is not None and change.since > begin:
        begin, why = change.since, "since the logs changed"
    return (begin, why) if begin > oldest else (oldest, "all events")
