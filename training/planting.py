"""Attack scenarios among events that nobody labelled, so that every model can be judged, and the same way.

The scenarios themselves are in oddlog/simulation; the figures over them in `evaluate.py`.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from oddlog.events.privacy import PrivacyStamp, without_queries
from oddlog.events.schema import EVENT_SCHEMA
from oddlog.features.baseline import Baseline
from oddlog.features.compute import FeatureComputer
from oddlog.simulation import plant, planted_of
from training.dataset import BATCH_ROWS

MOST_INSTANCES = 3
ROWS_PER_INSTANCE = 20_000
"""One instance of each scenario for so many events: attacks are rare, and stay so."""


@dataclass(frozen=True, slots=True)
class PlantedEvents:
    """A period's events with attacks among them."""

    lead_in: Callable[[], Iterable[pl.DataFrame]]
    """What came before, in record order, a batch at a time: it brings the clients' state."""
    events: pl.DataFrame
    """The period's events and the planted ones, by time."""
    scenario: pl.Series
    """String [n]: which scenario an event was planted for; null for the period's own."""
    instance: pl.Series
    """Int32 [n]: which instance of it."""

    def features(self, baseline: Baseline) -> npt.NDArray[np.float32]:
        """Float32 [n, d] of `events` under a baseline."""
        computer = FeatureComputer(baseline)
        for batch in self.lead_in():
            computer.compute(batch)
        return computer.compute(self.events)


def plant_scenarios(
    events: pl.DataFrame, *, since: dt.datetime, seed: int, privacy: PrivacyStamp | None = None
) -> PlantedEvents:  # fmt: skip
    """Plant every scenario among the events from `since` on; the earlier ones are their lead-in.

    `events` are in record order and have the columns of training/dataset.py. The same events, moment and seed give
    the same attacks; `privacy`: under which the events were made. Raises UsageError where no event is left.
    """
    early = events["@timestamp"] < since
    lead_in = events.filter(early)
    return plant_among(
        events.filter(~early), lead_in=lambda: lead_in.iter_slices(BATCH_ROWS), seed=seed, privacy=privacy
    )


def plant_among(
    own: pl.DataFrame,
    *,
    lead_in: Callable[[], Iterable[pl.DataFrame]],
    seed: int,
    privacy: PrivacyStamp | None = None,
) -> PlantedEvents:  # fmt: skip
    """`plant_scenarios` for events whose lead-in is read again whenever it is needed."""
    missing = [pl.lit(None, dtype=kind).alias(name) for name, kind in EVENT_SCHEMA.items() if name not in own.columns]
    instances = min(MOST_INSTANCES, max(1, own.height // ROWS_PER_INSTANCE))
    planted = plant(own.with_columns(missing).select(list(EVENT_SCHEMA)), seed=seed, instances=instances)
    if privacy is not None and privacy.queries:  # an attack's query would be rare among URLs that have none
        planted = without_queries(planted)
    mixed = pl.concat([own, planted.select(own.columns)]).sort("@timestamp", maintain_order=True)
    marks = planted_of(mixed["_id"])
    return PlantedEvents(lead_in=lead_in, events=mixed, scenario=marks["scenario"], instance=marks["instance"])
