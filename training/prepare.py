"""What trainings share: the events pulled and split by time, the baseline, the planted attacks. No detector here."""

from __future__ import annotations

import contextlib
import datetime as dt
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from oddlog.connectors.by_url import open_registry, using_store
from oddlog.connectors.privacy_stamp import stored_stamp
from oddlog.connectors.registry import Registry
from oddlog.connectors.store import Store
from oddlog.features.baseline import Baseline
from oddlog.settings import Settings, TrainSettings
from training.checks import Caution, check_fitted, check_period, check_tables
from training.dataset import (
    ALERTED,
    COLUMNS,
    FEATURE_COLUMNS,
    SEVERITIES,
    STORED_FEATURES,
    Dataset,
    Selection,
    Split,
    split_by_time,
)
from training.fit import Fitted, fit_baseline, fit_stored
from training.leave_out import LeftOut, leave_out
from training.leave_out import cautions as leave_out_cautions
from training.limits import within_memory
from training.marks import read_marks
from training.planting import PlantedEvents, plant_among
from training.progress import Progress, counting
from training.pull import pull
from training.sample import effect
from training.served import served_baseline


@dataclass(frozen=True, slots=True)
class Prepared:
    """What every algorithm shares: the events, their split, baseline and features, and the planted attacks."""

    dataset: Dataset
    options: TrainSettings
    """As they were taken; `sample` is the share in force."""
    split: Split
    fitted: Fitted
    fitted_events: int
    left_out: LeftOut
    later: pl.DataFrame
    """Events from the boundary on (training/dataset.py COLUMNS), row by row with `fitted.later`."""
    calibrating: npt.NDArray[np.bool_]
    """Row by row with `later`: whether it makes threshold and calibration. Those of who is left out do not."""
    planted: PlantedEvents
    planted_features: npt.NDArray[np.float32]
    """Float32, row by row with `planted.events`."""
    cautions: tuple[Caution, ...]
    seconds: dict[str, float]
    """By step."""

    @property
    def sampling(self) -> str | None:
        """What a sample does to the counts, in a sentence; None where all clients are there."""
        if self.options.sample >= 1:
            return None
        return effect(
            self.options.sample,
            events=self.dataset.rows,
            clients=self.dataset.clients,
            behaviours=int(self.fitted.baseline.units[0]),
        )


@contextlib.contextmanager
def prepare(
    settings: Settings,
    *,
    since: dt.datetime | None = None,
    until: dt.datetime | None = None,
    store: Store | None = None,
    registry: Registry | None = None,
    progress: Progress | None = None,
) -> Iterator[Prepared]:
    """Pull a period of events (half-open; default: all), split it, fit the baseline, plant the scenarios.

    Marks of the store tell labels, and whom train.exclude_alerted leaves out: no client whose alerts were false, and
    those whose requests were marked as true anomalies.

    With train.features `stored`, baseline and features are the champion's (`registry`), of events after those that
    its baseline was fitted on. The snapshot lies in a temporary folder until the end of the `with`; trainings log it.
    Raises UsageError where the events can teach nothing, StoreError, RegistryError.
    """
    tell = progress or (lambda _: None)
    options = settings.train
    seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="oddlog-train-") as folder:
        with timed(seconds, "pull"), using_store(settings.store, store) as opened:
            baseline: Baseline | None = None
            if options.features == "stored":
                served = served_baseline(registry or open_registry(settings.registry))
                baseline = served.baseline
                since = served.fit_until if since is None else max(since, served.fit_until)
            selection = Selection(
                since=since,
                until=until,
                sample=options.sample,
                alerted=options.exclude_alerted,
                severities=options.exclude_alerted and options.exclude_up_to is not None,
                baseline=None if baseline is None else baseline.digest,
            )
            selection, limited = within_memory(opened, selection, options.memory_mb)
            tell("reading events from the store")
            dataset = pull(
                opened,
                selection,
                url=settings.store.url,
                folder=Path(folder),
                pulls=options.pulls,
                min_events=options.min_events,
                marks=read_marks(opened),
                progress=progress,
            )
            dataset = replace(dataset, privacy=stored_stamp(opened))
        options = options.model_copy(update={"sample": selection.sample})
        yield work_on(dataset, options, baseline=baseline, cautions=limited, seconds=seconds, progress=progress)


def work_on(
    dataset: Dataset,
    options: TrainSettings,
    *,
    baseline: Baseline | None = None,
    cautions: Sequence[Caution] = (),
    seconds: dict[str, float] | None = None,
    progress: Progress | None = None,
) -> Prepared:
    """Everything after the pull. `baseline`: the one that the data set's features were stored under. Raises UsageError.

    Of the snapshot only what a step needs is in memory.
    """
    tell = progress or (lambda _: None)
    seconds = {} if seconds is None else seconds
    split = split_by_time(dataset.events(["@timestamp"])["@timestamp"], options.fit_share)
    with timed(seconds, "check"):
        tell(f"checking the period of {dataset.rows:,} events")
        watched = ["@timestamp", "source.address", *FEATURE_COLUMNS[-4:]]
        found = [*cautions, *check_period(counting(dataset.batches(watched), tell, dataset.rows))]
    stored = () if baseline is None else STORED_FEATURES
    early = dataset.events([*FEATURE_COLUMNS, *_verdicts(options), *stored], until=split.boundary)
    chosen, left_out, out = leave_out(early, options)
    found += leave_out_cautions(left_out, options)
    found += check_fitted(chosen, least_clients=options.min_clients, excluded=left_out.clients)
    with timed(seconds, "baseline"):
        tell(f"fitting the baseline on {chosen.height:,} of {dataset.rows:,} events")
        if baseline is None:
            fitted = fit_baseline(chosen, _told(dataset, tell), split.boundary)
        else:
            fitted = fit_stored(baseline, chosen, dataset.events(STORED_FEATURES, since=split.boundary))
    found += check_tables(fitted.keys_left_out)
    del early
    later = dataset.events(COLUMNS, since=split.boundary)
    with timed(seconds, "plant"):
        tell("planting attack scenarios into the later events")
        planted = plant_among(
            later,
            lead_in=lambda: (
                batch.filter(pl.col("@timestamp") < split.boundary)
                for batch in counting(dataset.batches(FEATURE_COLUMNS), tell, dataset.rows)
            ),
            seed=options.seed,
            privacy=dataset.privacy,
        )
        features = planted.features(fitted.baseline)
    return Prepared(
        dataset=dataset,
        options=options,
        split=split,
        fitted=fitted,
        fitted_events=chosen.height,
        left_out=left_out,
        later=later,
        calibrating=_calibrating(later, out),
        planted=planted,
        planted_features=features,
        cautions=tuple(found),
        seconds=seconds,
    )


def _told(dataset: Dataset, tell: Progress) -> Iterator[pl.DataFrame]:
    """All events, for features: the stage begins with the first one."""
    tell(f"computing features of {dataset.rows:,} events")
    yield from counting(dataset.batches(FEATURE_COLUMNS), tell, dataset.rows)


def _calibrating(later: pl.DataFrame, out: pl.Series) -> npt.NDArray[np.bool_]:
    """All later events but those of some clients; all, where nobody else is there."""
    others = ~later["source.address"].is_in(out.implode()).to_numpy()
    return others if others.any() else ~others


def _verdicts(options: TrainSettings) -> tuple[str, ...]:
    """What has to be known of events to tell whom to leave out."""
    if not options.exclude_alerted:
        return ()
    return ("labels.truth", ALERTED, *(() if options.exclude_up_to is None else SEVERITIES))


@contextlib.contextmanager
def timed(seconds: dict[str, float], step: str) -> Iterator[None]:
    """Note how long the `with` took, as the seconds of a step."""
    started = time.monotonic()
    yield
    seconds[step] = round(time.monotonic() - started, 3)
