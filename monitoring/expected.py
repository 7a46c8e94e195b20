"""What a batch is compared with, wherever it comes from: the model's reference, or an earlier batch."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from typing import Literal

import polars as pl

from monitoring.figures import Figures

Against = Literal["reference", "previous", "same-time-last-week"]
AGAINST: tuple[Against, ...] = ("reference", "previous", "same-time-last-week")

SKETCH_POINTS = 2_000
"""Quantile points that distributions are compared by: a distance of them is off by less than 0.01."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What was to be expected of a batch's period."""

    against: Against
    since: dt.datetime
    until: dt.datetime
    """The period that the expectation is of."""
    points: pl.DataFrame | None
    """SKETCH_POINTS quantiles, Float64: features, `score`, `severity`. None: nothing was scored by the version."""
    figures: Figures | None
    """None where they are not known: then distances and absolute limits alone are judged."""
    worth: float
    """Clients that all events behind the shares are worth."""
    pace: float
    """Standard deviation of ln(events) of the same hours from day to day; 0 where it is not known."""
    complete: bool = True
    """Whether it is of all hours that the batch has: else it does not tell how much was to come."""
    cautions: list[str] = field(default_factory=list)
    """What makes the comparison less than certain, in sentences."""
