"""The alert thresholds of both channels, from the alerts wanted a day. An alert is a distinct (client, hour).

Where behaviours are known (the set of paths a client asked for in an hour, oddlog/features/fitting.py), alerts of one
day that show the same one count once: a distributed attack, a thousand clients with one request each for one path, is
one thing to look at, and does not spend the budget of everything else.
"""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from oddlog.errors import UsageError
from oddlog.events.schema import TIMESTAMP
from oddlog.scoring.card import NoveltyThreshold, Threshold

MOST_SHARE = 0.1
"""Share of the client-hours that may alert, whatever the budget: on a quiet site a budget is a limit, not a
goal."""

NOVELTY_SHARE = 0.05
"""Share of the budget that the second channel may spend."""

Texts = Sequence[str] | npt.NDArray[Any] | pl.Series
Times = Sequence[dt.datetime] | npt.NDArray[Any] | pl.Series
Behaviours = npt.NDArray[np.int64]


def parse_budget(text: str) -> float:
    """Alerts a day. Raises UsageError.

    >>> parse_budget("20/day")
    20.0
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*/\s*day\s*", text)
    if found is None:
        raise UsageError(f"alert budget {text!r}", expected="<number>/day, as in 20/day", mend="--budget 20/day")
    return float(found[1])


def count_alerts(scores: npt.ArrayLike, clients: Texts, timestamps: Times, value: float) -> int:
    """How many distinct (client, hour of the event's own time, UTC) have an event with score >= value."""
    return int((_alerts(scores, clients, timestamps, None) >= value).sum())


def alerts_per_day(scores: npt.ArrayLike, clients: Texts, timestamps: Times, value: float) -> float:
    """`count_alerts` over the days that the timestamps span (an hour at least)."""
    since, until = span(timestamps)
    return count_alerts(scores, clients, timestamps, value) / days_of(since, until)


def anomalies(
    threshold: Threshold, scores: npt.ArrayLike, novelty: npt.ArrayLike | None = None
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Which events are anomalies [n], by either channel; and those that the second one finds, alone or not.

    `novelty` [n]: None where the model has no second channel.
    """
    first = np.asarray(scores, dtype=np.float64) >= threshold.value
    if novelty is None or threshold.novelty is None:
        return first, np.zeros_like(first)
    second = np.asarray(novelty, dtype=np.float64) >= threshold.novelty.value
    return first | second, second


def flagged_per_day(
    flagged: npt.ArrayLike, clients: Texts, timestamps: Times, behaviours: Behaviours | None = None
) -> float:
    """Alerts a day: distinct (client, hour) with a flagged event [n], over the days that the timestamps span.

    With `behaviours` [n] those of one day that show the same one count once."""
    since, until = span(timestamps)
    groups = _alerts(np.asarray(flagged, dtype=np.float32), clients, timestamps, behaviours)
    return float((groups >= 1.0).sum()) / days_of(since, until)


def span(timestamps: Times) -> tuple[dt.datetime, dt.datetime]:
    """The first and the last time, UTC. Raises UsageError where there is none."""
    times = _times(timestamps)
    if times.len() == 0 or times.null_count() == times.len():
        raise UsageError(
            "no events to learn a threshold from",
            expected="events of a later period",
            mend="train on more events",
        )
    first, last = times.min(), times.max()
    assert isinstance(first, dt.datetime)
    assert isinstance(last, dt.datetime)
    return first, last


def fit_threshold(
    scores: npt.ArrayLike,
    clients: Texts,
    timestamps: Times,
    budget_per_day: float,
    *,
    novelty: npt.ArrayLike | None = None,
    behaviours: Behaviours | None = None,
    version: str = "1",
    since: dt.datetime | None = None,
    until: dt.datetime | None = None,
    share: float = 1.0,
) -> Threshold:
    """The lowest threshold whose alerts on this period stay within the budget.

    `scores` [n], `clients` [n] and `timestamps` [n] are of a period later than the fitted one. `since` and
    `until` are its ends where they are known better than by the first and last event. The budget holds for
    the period pro rata: half a day may spend half of it, rounded down; a period under an hour counts as one.
    `share`: of all clients, where only some were looked at; the budget is taken pro rata of it, too.
    At most a tenth of the client-hours alert, whatever the budget. Every value between two neighbouring
    scores alerts on the same events; the middle is taken, so that the last digits of a score's computation
    decide nothing.

    With `novelty` [n] the second channel has a threshold too: NOVELTY_SHARE of the alerts, rounded down, are its own,
    among the client-hours that do not alert already; the first channel has the rest. So both together keep the budget.
    With `behaviours` [n] like alerts of a day count once, in all of this.

    Raises UsageError where there are no events, or the budget is not positive.

    >>> day = [dt.datetime(2024, 1, 1, hour, tzinfo=dt.UTC) for hour in range(24)] + [
    ...     dt.datetime(2024, 1, 2, 0, tzinfo=dt.UTC)]
    >>> fitted = fit_threshold(range(25), [f"client {i}" for i in range(25)], day, budget_per_day=2)
    >>> fitted.value, fitted.expected_per_day
    (22.5, 2.0)
    """
    check_budget(budget_per_day)
    found = PossibleAlerts(scores, clients, timestamps, novelty=novelty, behaviours=behaviours)
    first, last = span(timestamps)
    since, until = since or first, until or last
    days = days_of(since, until) * share
    return found.cut(found.allowed(budget_per_day * days)).threshold(
        budget_per_day, days=days, version=version, since=since, until=until
    )


@dataclass(frozen=True, slots=True)
class Cut:
    """Where both channels are cut, for some number of alerts over a period."""

    allowed: int
    """By both channels together."""
    value: float
    alerts: int
    """That `value` gives: fewer than its part of the allowed ones where scores tie."""
    novelty: float | None
    """None: there is no second channel."""
    added: int
    """Alerts of the second channel alone."""

    def threshold(
        self, budget_per_day: float, *, days: float, version: str, since: dt.datetime, until: dt.datetime
    ) -> Threshold:
        """The threshold that this makes; `days` of traffic are those that the alerts were counted in."""
        second = None
        if self.novelty is not None:
            second = NoveltyThreshold(
                value=self.novelty,
                budget_per_day=float(budget_per_day) * NOVELTY_SHARE,
                expected_per_day=self.added / days,
            )
        return Threshold(
            value=self.value,
            version=version,
            budget_per_day=float(budget_per_day),
            expected_per_day=(self.alerts + self.added) / days,
            since=since,
            until=until,
            novelty=second,
        )


class PossibleAlerts:
    """Everything of a period that could be one alert, by its highest score in either channel."""

    def __init__(
        self,
        scores: npt.ArrayLike,
        clients: Texts,
        timestamps: Times,
        *,
        novelty: npt.ArrayLike | None = None,
        behaviours: Behaviours | None = None,
    ) -> None:
        """Of n events, as `fit_threshold` takes them. Raises UsageError where there are none."""
        span(timestamps)
        self._first = _alerts(scores, clients, timestamps, behaviours)
        self._scores = _distinct(scores)
        self._second = None if novelty is None else _alerts(novelty, clients, timestamps, behaviours)
        self._novelties = None if novelty is None else _distinct(novelty)

    @property
    def most(self) -> int:
        """So many of them may alert, whatever the budget."""
        return math.floor(self._first.size * MOST_SHARE)

    def allowed(self, budget: float) -> int:
        """How many a budget for the whole period allows."""
        return min(math.floor(budget + 1e-9), self.most)

    def cut(self, allowed: int) -> Cut:
        """The lowest values of both channels that give at most so many alerts together."""
        own = 0 if self._second is None else math.floor(allowed * NOVELTY_SHARE + 1e-9)
        value = _value(self._scores, self._first, allowed - own)
        alerts = self._first >= value
        if self._second is None or self._novelties is None:
            return Cut(allowed, value, int(alerts.sum()), None, 0)
        rest = self._second[~alerts]
        second = _value(self._novelties, rest, own)
        return Cut(allowed, value, int(alerts.sum()), second, int((rest >= second).sum()))


def check_budget(budget_per_day: float) -> None:
    """Raises UsageError for one that is not positive."""
    if not budget_per_day > 0:
        raise UsageError(f"an alert budget of {budget_per_day:g} a day", expected="more than 0", mend="--budget 20/day")


def _value(scores: npt.NDArray[np.float64], highest: npt.NDArray[np.float64], allowed: int) -> float:
    """The lowest value that `allowed` of the client-hours, by their highest scores [m], reach at most; `scores` are all
    that there are, rising."""
    silent = float(np.partition(highest, highest.size - 1 - allowed)[highest.size - 1 - allowed])
    next_higher = int(np.searchsorted(scores, silent, side="right"))
    if next_higher == scores.size:
        return silent + max(abs(silent), 1.0) * 1e-5  # more than a graph and its reference may differ by
    return (silent + float(scores[next_higher])) / 2


def _distinct(scores: npt.ArrayLike) -> npt.NDArray[np.float64]:
    return np.unique(np.asarray(scores, dtype=np.float32)).astype(np.float64)


def days_of(since: dt.datetime, until: dt.datetime) -> float:
    """Length of a period; an hour at least."""
    return max((until - since) / dt.timedelta(days=1), 1 / 24)


def _times(timestamps: Times) -> pl.Series:
    series = timestamps if isinstance(timestamps, pl.Series) else pl.Series(timestamps)
    if isinstance(series.dtype, pl.Datetime) and series.dtype.time_zone is None:
        series = series.dt.replace_time_zone("UTC")
    return series.cast(TIMESTAMP)


def _alerts(
    scores: npt.ArrayLike, clients: Texts, timestamps: Times, behaviours: Behaviours | None
) -> npt.NDArray[np.float64]:
    """The highest score of everything that could be one alert, in a fixed order, through float32 as the models give it:
    of every (client, hour), or (behaviour, day) where these are known."""
    values = np.asarray(scores, dtype=np.float32).ravel()
    names = clients if isinstance(clients, pl.Series) else pl.Series(clients, dtype=pl.String)
    times = _times(timestamps)
    who = names if behaviours is None else pl.Series(behaviours)
    if not values.size == names.len() == times.len() == who.len():
        raise UsageError(
            f"{values.size} scores, {names.len()} clients, {times.len()} timestamps",
            expected="one of each for every event",
        )
    when = times.dt.truncate("1h" if behaviours is None else "1d")
    frame = pl.DataFrame({"score": values.astype(np.float64), "who": who, "when": when})
    highest = frame.group_by("who", "when").agg(pl.col("score").max()).sort("who", "when")["score"]
    found: npt.NDArray[np.float64] = highest.to_numpy()
    return found
