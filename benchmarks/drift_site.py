"""A simulated site for the drift programs: a model fitted on its first week, and what came after, clean or changed.

The model is made as `oddlog train` makes one, but for MLflow. Changes are planted into log events, before features.
"""

from __future__ import annotations

import datetime as dt
import tempfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from monitoring.reference import Reference, read_reference
from oddlog.connectors.by_url import open_store
from oddlog.connectors.registry import ModelVersion
from oddlog.connectors.store import Store
from oddlog.detectors.catalogue import create
from oddlog.events.logfile import records_from_lines
from oddlog.events.parse import parse
from oddlog.events.schema import DEAD_SCHEMA
from oddlog.features.compute import FeatureComputer
from oddlog.features.declaration import FEATURE_NAMES
from oddlog.scoring.artifact import make_golden, write_artifact
from oddlog.scoring.calibration import fit_calibration, severity
from oddlog.scoring.card import DatasetInfo
from oddlog.scoring.local import LocalScorer
from oddlog.scoring.model import Model
from oddlog.scoring.reference import make_reference, unseen_from
from oddlog.scoring.shelf import ModelShelf
from oddlog.scoring.threshold import fit_threshold
from oddlog.settings import Settings, StoreSettings
from oddlog.simulation import simulate
from serving.documents import scored_events
from training.dataset import split_by_time
from training.fit import fit_baseline
from training.hours import later_slots

WEEK = dt.timedelta(days=7)
LEAD_IN = dt.timedelta(days=2)
SCALE_DAYS = 1
"""Days of the large batch."""
NAMES = list(FEATURE_NAMES)
VERSION = "1"


@dataclass(frozen=True, slots=True)
class Site:
    """A site whose first week made a model."""

    seed: int
    lines_per_day: float
    days: float
    begin: dt.datetime
    """The end of the fitted week: what is watched comes after it."""
    end: dt.datetime
    events: pl.DataFrame
    """All of them, clean, in order."""
    reference: Reference
    model: Model


def make_site(seed: int, *, days: float, lines_per_day: float, algorithm: str = "iforest") -> Site:
    """A clean site of `days` days."""
    made = simulate(seed=seed, days=days, lines_per_day=lines_per_day, attacks=())
    events = read(made.lines)
    begin = made.start + WEEK
    week = events.filter(pl.col("@timestamp") < begin)
    boundary = split_by_time(week["@timestamp"], Settings().train.fit_share).boundary
    first, later = (week.filter(side) for side in (pl.col("@timestamp") < boundary, pl.col("@timestamp") >= boundary))
    fitted = fit_baseline(first, week.iter_slices(50_000), boundary)
    detector = create(algorithm).fit(fitted.fit_data, seed=seed)
    scores = detector.score(fitted.later)
    calibration = fit_calibration(scores)
    threshold = fit_threshold(scores, later["source.address"], later["@timestamp"], 20.0)
    reference = make_reference(
        fitted.later, NAMES, scores, severity(calibration, scores), times=later["@timestamp"],
        slots=later_slots(fitted, later, scores >= threshold.value, boundary, [week]),
    )  # fmt: skip
    dataset = DatasetInfo(
        digest=f"seed-{seed}", since=made.start, fit_until=boundary, until=begin, events=week.height,
        clients=week["source.address"].n_unique(), source="simulated",
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        card = write_artifact(
            Path(folder) / "model", detector=detector, baseline=fitted.baseline, typical=fitted.typical,
            calibration=calibration, threshold=threshold, dataset=dataset, reference=reference,
            golden=make_golden(detector, fitted.later, scores), seed=seed, created_at=made.end,
        )  # fmt: skip
        model = Model.load(Path(folder) / "model")
    version = ModelVersion("oddlog", VERSION, run_id="", algorithm=algorithm, created_ms=0, threshold=threshold)
    watched = read_reference(version, card, reference, unseen_from(fitted.baseline.units))
    return Site(seed, lines_per_day, days, begin, made.end, events, watched, model)


def read(lines: list[str]) -> pl.DataFrame:
    """Events of log lines, in order of time."""
    return parse(records_from_lines([line.encode() for line in lines])).events.sort("@timestamp", maintain_order=True)


@dataclass(frozen=True, slots=True)
class Changed:
    """What came to a site instead: events in order, and how many records an hour were no log line."""

    events: pl.DataFrame
    dead: list[dt.datetime]
    """Times of records that fit no format."""


def clean(site: Site, at: dt.datetime) -> Changed:
    """Nothing changes."""
    return Changed(site.events, [])


def release(site: Site, at: dt.datetime) -> Changed:
    """Paths move, as a release of the site's software does."""
    share = (at - site.begin + WEEK) / dt.timedelta(days=site.days)
    made = simulate(seed=site.seed, days=site.days, lines_per_day=site.lines_per_day, attacks=(), release_after=share)
    return Changed(read(made.lines), [])


def bots(site: Site, at: dt.datetime) -> Changed:
    """A wave of bots, each from an address of its own, one request each, as many as a third of the usual traffic."""
    share = (at - site.begin + WEEK) / dt.timedelta(days=site.days)
    made = simulate(
        seed=site.seed, days=site.days, lines_per_day=site.lines_per_day, attacks=("botnet_one_request",),
        attack_share=(1 - share) / (1 - share + 3), attacks_after=share,
    )  # fmt: skip
    return Changed(read(made.lines), [])


def outage(site: Site, at: dt.datetime) -> Changed:
    """The application is away: four of five answers are 503."""
    rng = np.random.default_rng(site.seed)
    hit = pl.Series(rng.random(site.events.height) < 0.8) & (site.events["@timestamp"] >= at)
    status = pl.when(hit).then(503).otherwise(pl.col("http.response.status_code"))
    return Changed(site.events.with_columns(status.cast(pl.Int32).alias("http.response.status_code")), [])


def silence(site: Site, at: dt.datetime) -> Changed:
    """Four of five records do not arrive."""
    rng = np.random.default_rng(site.seed)
    kept = pl.Series(rng.random(site.events.height) < 0.2) | (site.events["@timestamp"] < at)
    return Changed(site.events.filter(kept), [])


def format_change(site: Site, at: dt.datetime) -> Changed:
    """One server of five writes lines that fit no format."""
    clients = site.events["source.address"].hash(seed=site.seed) % 5 == 0
    lost = clients & (site.events["@timestamp"] >= at)
    return Changed(site.events.filter(~lost), site.events.filter(lost)["@timestamp"].to_list())


def dominating(site: Site, at: dt.datetime) -> Changed:
    """One client asks as much as all others together, for pages that others ask for, too."""
    after = site.events.filter(pl.col("@timestamp") >= at)
    asked = after.filter(pl.col("http.response.status_code") == 200)
    picked = asked.sample(after.height, with_replacement=True, seed=site.seed, shuffle=True)
    more = picked.with_columns(
        after["@timestamp"], pl.lit("198.51.100.77").alias("source.address"), pl.lit("198.51.100.77").alias("source.ip")
    )
    return Changed(pl.concat([site.events, more]).sort("@timestamp", maintain_order=True), [])


CHANGES: dict[str, Callable[[Site, dt.datetime], Changed]] = {
    "release": release,
    "bots": bots,
    "outage": outage,
    "silence": silence,
    "format_change": format_change,
    "dominating": dominating,
}


def fill(store: Store, site: Site, changed: Changed, since: dt.datetime, until: dt.datetime) -> int:
    """Score what came from `since` to `until` and write it, with a lead-in before for the clients' state."""
    time = pl.col("@timestamp")
    scored = _scored(site, changed.events.filter(time.is_between(since - LEAD_IN, until, closed="left")))
    _write(store, scored)
    times = [time for time in changed.dead if since <= time < until]
    letters = pl.DataFrame(
        {
            "_id": [f"e1-log-1-{n}" for n in range(len(times))],
            "@timestamp": times,
            "reason": ["fits no format"] * len(times),
            "kind": ["no_format"] * len(times),
            "original": [b""] * len(times),
            "oddlog.position.epoch": ["e1"] * len(times),
            "oddlog.position.topic": ["log"] * len(times),
            "oddlog.position.partition": [1] * len(times),
            "oddlog.position.offset": list(range(len(times))),
        },
        schema=DEAD_SCHEMA,
    )
    store.write_dead(letters)
    store.refresh()
    return scored.height


def grown(store: Store, site: Site, since: dt.datetime, until: dt.datetime, events: int) -> int:
    """Write a batch of about `events` events: the site's own of the period, over and over, by other clients each time.

    Returns how many."""
    one = _scored(site, site.events.filter(pl.col("@timestamp").is_between(since, until, closed="left")))
    for copy in range(-(-events // one.height)):
        other = pl.concat_str(pl.col("source.address"), pl.lit(f".{copy}"))
        _write(store, _placed(one.with_columns(other.alias("source.address")), copy * one.height))
    store.refresh()
    return -(-events // one.height) * one.height


def _scored(site: Site, events: pl.DataFrame) -> pl.DataFrame:
    shelf = ModelShelf("oddlog")
    shelf.hold(VERSION, site.model)
    shelf.set_champion(VERSION)
    scorer = LocalScorer(shelf)
    events = _placed(events, 0)
    features = FeatureComputer(scorer.baseline(VERSION)).compute(events)
    return scored_events(events, features, NAMES, scorer.score(features, NAMES))


def _placed(events: pl.DataFrame, first: int) -> pl.DataFrame:
    """The same events at offsets from `first` on."""
    number = pl.int_range(first, first + events.height, dtype=pl.Int64, eager=True)
    return events.with_columns(
        number.alias("oddlog.position.offset"), ("e1-log-0-" + number.cast(pl.String)).alias("_id")
    )


def _write(store: Store, events: pl.DataFrame) -> None:
    for part in events.iter_slices(20_000):
        outcome = store.write_events(part)
        assert not outcome.rejected
        assert not outcome.retry


def embedded(folder: Path) -> closing[Store]:
    """A new store in a folder."""
    store = open_store(StoreSettings(url=url_of(folder)))
    store.setup()
    return closing(store)


def url_of(folder: Path) -> str:
    """Of the store in a folder."""
    return f"sqlite:///{folder}/events.sqlite"
