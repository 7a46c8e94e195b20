"""How many alerts a day other thresholds would give: learnt with a threshold, so that another budget needs no event.

Choosing one threshold from events is `threshold.py`'s. How odd a score is, whatever the alerts, is calibration.py's.
"""

from __future__ import annotations

import math
from typing import Self

import numpy as np
import numpy.typing as npt
from pydantic import AwareDatetime, BaseModel, ConfigDict, model_validator

from oddlog.scoring.card import Threshold
from oddlog.scoring.threshold import Behaviours, Cut, PossibleAlerts, Texts, Times, check_budget, days_of, span

BUDGETS = (0.5, 1, 2, 3, 5, 10, 15, 20, 25, 30, 40, 50, 75, 100, 150, 200, 300, 500, 1_000)
"""Alerts a day that are on every curve, exactly."""
FEW = 20
"""Up to so many alerts over the period, each number is on the curve; from there on steps of STEP."""
STEP = 1.1


class AlertCurve(BaseModel):
    """Thresholds of both channels by the alerts that they allow over one period; row by row, rising in `allowed`.

    A number of alerts between two rows takes the lower row: the budget is kept, and at most a tenth of it is not spent.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    since: AwareDatetime
    until: AwareDatetime
    """First and last event of the period."""
    days: float
    """Its length, at least an hour; where a share of the clients was looked at, that share of it."""
    allowed: list[int]
    values: list[float]
    alerts: list[int]
    """That the value of the row gives."""
    novelties: list[float] | None
    """None: there is no second channel."""
    added: list[int]
    """Alerts of the second channel alone."""

    @model_validator(mode="after")
    def _rows(self) -> Self:
        columns = (self.values, self.alerts, self.added, self.values if self.novelties is None else self.novelties)
        if self.allowed[:1] != [0] or any(len(column) != len(self.allowed) for column in columns):
            raise ValueError("columns of unequal length, or no row for 0 alerts")
        if sorted(set(self.allowed)) != self.allowed or not self.days > 0:
            raise ValueError("rows that do not rise, or no length of time")
        return self

    def threshold(self, budget_per_day: float, *, version: str) -> Threshold:
        """The lowest threshold that keeps a budget. Raises UsageError for one that is not positive.

        >>> import datetime as dt
        >>> times = [dt.datetime(2024, 1, 1, hour, tzinfo=dt.UTC) for hour in range(24)]
        >>> times.append(dt.datetime(2024, 1, 2, tzinfo=dt.UTC))
        >>> curve = fit_alert_curve(range(25), [f"client {i}" for i in range(25)], times)
        >>> [curve.threshold(budget, version="1").value for budget in (1, 2)]
        [23.5, 22.5]
        """
        check_budget(budget_per_day)
        allowed = math.floor(budget_per_day * self.days + 1e-9)
        row = int(np.searchsorted(self.allowed, allowed, side="right")) - 1
        cut = Cut(
            self.allowed[row],
            self.values[row],
            self.alerts[row],
            None if self.novelties is None else self.novelties[row],
            self.added[row],
        )
        return cut.threshold(budget_per_day, days=self.days, version=version, since=self.since, until=self.until)

    def alerts_per_day(self, value: float) -> float | None:
        """Alerts a day of the first channel alone, were its threshold `value`, to about a tenth.

        None for a value so low that more would alert than any budget allows: the curve does not go there.
        """
        if value < self.values[-1]:
            return None
        row = next(row for row, at in enumerate(self.values) if at <= value)
        return self.alerts[row] / self.days


def fit_alert_curve(
    scores: npt.ArrayLike,
    clients: Texts,
    timestamps: Times,
    *,
    novelty: npt.ArrayLike | None = None,
    behaviours: Behaviours | None = None,
    share: float = 1.0,
    budget_per_day: float | None = None,
) -> AlertCurve:
    """The curve of a period, of n events as `fit_threshold` takes them.

    `share`: of all clients, where only some were looked at; budgets are then taken pro rata. `budget_per_day` is on the
    curve exactly, beside BUDGETS. Raises UsageError where there are no events.
    """
    since, until = span(timestamps)
    days = days_of(since, until) * share
    possible = PossibleAlerts(scores, clients, timestamps, novelty=novelty, behaviours=behaviours)
    budgets = [*BUDGETS, *([] if budget_per_day is None else [budget_per_day])]
    chosen = {min(number, possible.most) for number in range(FEW + 1)}
    chosen |= {possible.allowed(budget * days) for budget in budgets} | {possible.most}
    number = FEW
    while (number := math.ceil(number * STEP)) < possible.most:
        chosen.add(number)
    cuts = [possible.cut(number) for number in sorted(chosen)]
    return AlertCurve(
        since=since,
        until=until,
        days=days,
        allowed=[cut.allowed for cut in cuts],
        values=[cut.value for cut in cuts],
        alerts=[cut.alerts for cut in cuts],
        novelties=None if novelty is None else [cut.novelty for cut in cuts if cut.novelty is not None],
        added=[cut.added for cut in cuts],
    )
