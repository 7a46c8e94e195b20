"""What people said of events, laid over events as labels: for evaluation, for gates, and for what a training learns.

The marks themselves, and which events each is about, are oddlog/connectors/marks.py's.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from oddlog.connectors.marks import FALSE_ALARMS, Mark, list_marks, verdicts
from oddlog.connectors.store import Store
from training.dataset import ALERTED

LABELS = {"true-anomaly": "attack:marked", "false-alarm": "benign", "expected": "benign"}
"""The label that a verdict stands for (`labels.truth`)."""


@dataclass(frozen=True, slots=True)
class Marks:
    """Every mark of a store, as it was at one moment.

    >>> import datetime as dt
    >>> noon = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
    >>> marks = Marks.of([Mark("m1", "false-alarm", "ada", noon, event="a")])
    >>> events = pl.DataFrame({"_id": ["a", "b"], "@timestamp": [noon, noon], "source.address": ["192.0.2.7"] * 2,
    ...                        "url.path": ["/", "/"], "labels.truth": [None, "attack:scan"]})
    >>> marks.labels(events).to_list()
    ['benign', 'attack:scan']
    >>> marks.false_alarms(events).tolist()
    [True, False]
    """

    marks: tuple[Mark, ...] = ()

    @classmethod
    def of(cls, marks: Iterable[Mark]) -> Marks:
        """These marks."""
        return cls(tuple(marks))

    def __len__(self) -> int:
        return len(self.marks)

    def verdicts(self, events: pl.DataFrame) -> pl.Series:
        """What was said of each event [n] (oddlog/connectors/marks.py COLUMNS): a verdict, null where nothing was."""
        if not self.marks:
            return pl.Series("verdict", [None], dtype=pl.String).new_from_index(0, events.height)
        return verdicts(self.marks, events)

    def labels(self, events: pl.DataFrame) -> pl.Series:
        """`labels.truth` of events [n], a mark beating what was known before."""
        known = events["labels.truth"].cast(pl.String)
        if not self.marks:
            return known
        said = self.verdicts(events).replace_strict(LABELS, default=None, return_dtype=pl.String)
        return pl.select(pl.coalesce(said, known).alias("labels.truth")).to_series()

    def false_alarms(self, events: pl.DataFrame) -> npt.NDArray[np.bool_]:
        """Which events [n] should raise no alert: marked as false alarm, or expected."""
        return self.verdicts(events).is_in(FALSE_ALARMS).fill_null(value=False).to_numpy()

    def true_anomalies(self, events: pl.DataFrame) -> npt.NDArray[np.bool_]:
        """Which events [n] should raise an alert: marked as true anomaly."""
        return (self.verdicts(events) == "true-anomaly").fill_null(value=False).to_numpy()

    def over(self, events: pl.DataFrame) -> pl.DataFrame:
        """Events as a training is to see them: `labels.truth` told by marks, and where `anomaly.is_anomaly` is there,
        false alarms no anomalies and true ones anomalies, whatever a model said."""
        if not self.marks or not events.height:
            return events
        told = events.with_columns(self.labels(events).alias("labels.truth"))
        if ALERTED not in events.columns:
            return told
        said = self.verdicts(events)
        return told.with_columns(
            pl.when(said.is_in(FALSE_ALARMS))
            .then(pl.lit(value=False))
            .when(said == "true-anomaly")
            .then(pl.lit(value=True))
            .otherwise(pl.col(ALERTED))
            .alias(ALERTED)
        )


NO_MARKS = Marks()


def read_marks(store: Store) -> Marks:
    """The marks of a store. Raises StoreError."""
    return Marks.of(list_marks(store))
