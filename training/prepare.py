"""What trainings share: the events pulled and split by time, the baseline, the planted attacks. No detector here."""

from __future__ import annotations

import contextlib
import datetime as dt
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from oddlog.connectors.by_url import using_store
from oddlog.connectors.store import Store
from oddlog.settings import Settings
from training.dataset import Dataset, Split, pull, split_by_time
from training.fit import Fitted, fit_baseline
from training.planting import PlantedEvents, plant_scenarios

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Prepared:
    """What every algorithm shares: the events, their split, baseline and features, and the planted attacks."""

    dataset: Dataset
    split: Split
    fitted: Fitted
    later: pl.DataFrame
    """Events from the boundary on (training/dataset.py COLUMNS), row by row with `fitted.later`."""
    planted: PlantedEvents
    planted_features: npt.NDArray[np.float32]
    """Float32, row by row with `planted.events`."""
    seconds: dict[str, float]
    """By step."""


@contextlib.contextmanager
def prepare(
    settings: Settings,
    *,
    since: dt.datetime | None = None,
    until: dt.datetime | None = None,
    store: Store | None = None,
    progress: Progress | None = None,
) -> Iterator[Prepared]:
    """Pull a period of events (half-open; default: all), split it, fit the baseline, plant the scenarios.

    The snapshot lies in a temporary folder until the end of the `with`; trainings log it. Raises UsageError where
    there are too few events, StoreError.
    """
    tell = progress or (lambda _: None)
    seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="oddlog-train-") as folder:
        with timed(seconds, "pull"), using_store(settings.store, store) as opened:
            tell("reading events from the store")
            dataset = pull(
                opened,
                url=settings.store.url,
                folder=Path(folder),
                since=since,
                until=until,
                min_events=settings.train.min_events,
            )
        split = split_by_time(dataset.events, settings.train.fit_share)
        with timed(seconds, "baseline"):
            tell(f"fitting the baseline on {int(split.fitted.sum()):,} of {dataset.events.height:,} events")
            fitted = fit_baseline(dataset.events, split.fitted)
        with timed(seconds, "plant"):
            tell("planting attack scenarios into the later events")
            planted = plant_scenarios(dataset.events, since=split.boundary, seed=settings.train.seed)
            features = planted.features(fitted.baseline)
        yield Prepared(
            dataset=dataset,
            split=split,
            fitted=fitted,
            later=dataset.events.filter(pl.Series(~split.fitted)),
            planted=planted,
            planted_features=features,
            seconds=seconds,
        )


@contextlib.contextmanager
def timed(seconds: dict[str, float], step: str) -> Iterator[None]:
    """Note how long the `with` took, as the seconds of a step."""
    started = time.monotonic()
    yield
    seconds[step] = round(time.monotonic() - started, 3)
