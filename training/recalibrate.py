"""A threshold learnt anew from a later period of the store, without a training. Writing it is `threshold.py`'s.

What the version says of events is asked of itself, not of the documents: these hold the novelty of anomalies alone. The
features are those that serving stored, where it served the version's baseline over the period.
"""

from __future__ import annotations

import datetime as dt
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from oddlog.connectors.by_url import open_registry, using_store
from oddlog.connectors.marks import COLUMNS as MARK_COLUMNS
from oddlog.connectors.marks import Hushes
from oddlog.connectors.registry import Registry
from oddlog.connectors.store import EventQuery, Store
from oddlog.errors import UsageError
from oddlog.features.fitting import units_of
from oddlog.scoring.alert_curve import AlertCurve, fit_alert_curve
from oddlog.scoring.card import Threshold
from oddlog.scoring.model import Model
from oddlog.scoring.threshold import anomalies, check_budget, flagged_per_day
from oddlog.settings import Settings, TrainSettings
from training.dataset import ALERTED, COLUMNS, FEATURE_COLUMNS, SEVERITIES, STORED_FEATURES, Selection
from training.fit import Matrix, features_since, stored_features
from training.held import missing
from training.leave_out import DAY, LeftOut, whom_to_leave_out
from training.leave_out import cautions as leave_out_cautions
from training.limits import within_memory
from training.marks import LABELS, Marks, read_marks
from training.pull import pull
from training.sample import in_sample
from training.served import version_model
from training.threshold import (
    Learnt,
    ThresholdChange,
    cautions_of,
    chosen_version,
    put_in_force,
    threshold_for,
)
from training.threshold_tags import check_words

COVERED = 0.99
"""From this share of the period's events on, those with features under the version's baseline stand for all."""

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class _Period:
    since: dt.datetime
    until: dt.datetime | None
    cautions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Events:
    """A period's events (training/dataset.py COLUMNS) and their features, row by row."""

    events: pl.DataFrame
    features: Matrix
    stored: bool
    share: float


def recalibrate(
    settings: Settings,
    *,
    by: str,
    note: str = "",
    since: dt.datetime | dt.timedelta,
    until: dt.datetime | None = None,
    budget: float | None = None,
    version: str | None = None,
    novelty: bool | None = None,
    dry_run: bool = False,
    store: Store | None = None,
    registry: Registry | None = None,
    progress: Progress | None = None,
) -> ThresholdChange:
    """Learn the threshold of a version (default: the champion) from a half-open period after the one it was fitted on.

    `since`: a time, or the length of time up to `until`, else up to the last event. `budget`: alerts a day; default:
    that of the threshold in force. `novelty`: as `set_budget` takes it. Clients with a true anomaly by a mark are left
    out, and events that a mark hushes: neither tells how many alerts to expect. With train.exclude_alerted those are,
    too, whom a training would leave out for what came before the period: alerts of the period itself must not choose,
    or every new threshold would lie below the last one.

    Raises UsageError where the period has fewer than train.min_events events, OutsideError where the threshold changed
    meanwhile, ArtifactError, RegistryError, StoreError.
    """
    tell = progress or (lambda _: None)
    if budget is not None:
        check_budget(budget)
    check_words(by, note)
    registry = registry or open_registry(settings.registry)
    registered = chosen_version(registry, version)
    tell(f"loading version {registered.version}, {registered.algorithm}")
    model = version_model(registry, registered.version)
    before = registered.threshold or model.card.threshold
    budget = before.budget_per_day if budget is None else budget
    with using_store(settings.store, store) as opened:
        period = _period(settings, opened, model, since, until)
        tell("reading events from the store")
        found = _read(settings, opened, model, period, progress)
        tell(f"scoring {found.events.height:,} events")
        marks, options = read_marks(opened), settings.train.model_copy(update={"sample": found.share})
        lead_in = dt.timedelta(days=settings.enrich.lead_in_days)
        known, spared = _alerted_before(opened, period.since, lead_in, marks, options)
        curve, learnt = _learn(model, before, found, marks, known, budget)
        new = threshold_for(curve, budget, before, novelty)
        left_out = LeftOut(len(known), learnt.alerted_events, spared)
        told = (caution.text for caution in leave_out_cautions(left_out, options))
        cautions = (*period.cautions, *told, *cautions_of(curve, new))
        wish = ThresholdChange(registered, before, new, None, dry_run, learnt, cautions)
        return put_in_force(
            settings, wish, curve, way="recalibrate", by=by, note=note, store=opened, registry=registry
        )  # fmt: skip


def _period(
    settings: Settings, store: Store, model: Model, since: dt.datetime | dt.timedelta, until: dt.datetime | None
) -> _Period:
    """The period that was asked for, without what the version was fitted on. Raises UsageError on too few events."""
    fit_until, cautions = model.card.dataset.fit_until, []
    if isinstance(since, dt.timedelta):
        ends = store.time_range(EventQuery(until=until))
        since = (until or (ends[1] if ends else fit_until)) - since
    if since < fit_until:
        cautions.append(
            f"events before {fit_until:%Y-%m-%d %H:%M:%S} UTC are left out: the version was fitted on them, and they "
            "are the less odd for it"
        )
        since = fit_until
    events = store.count_events(EventQuery(since=since, until=until)) if until is None or since < until else 0
    if events < settings.train.min_events:
        raise UsageError(
            f"{events:,} events to learn a threshold from {missing(store, since, until)}",
            expected=f"at least {settings.train.min_events:,} (setting train.min_events), after those that the version "
            "was fitted on",
            mend="a longer period (--since, --until), more events (oddlog enrich), or ODDLOG_TRAIN__MIN_EVENTS",
        )
    return _Period(since, until, tuple(cautions))


def _read(
    settings: Settings, store: Store, model: Model, period: _Period, progress: Progress | None
) -> _Events:  # fmt: skip
    """The period's events with features: as they were stored, else computed after a lead-in that is not kept."""
    baseline = model.baseline.digest
    whole = EventQuery(since=period.since, until=period.until)
    stored = store.count_events(replace(whole, baseline=baseline)) >= COVERED * store.count_events(whole)
    if stored:
        selection = Selection(since=period.since, until=period.until, baseline=baseline)
    else:
        lead_in = dt.timedelta(days=settings.enrich.lead_in_days)
        selection = Selection(since=period.since - lead_in, until=period.until)
    selection, _ = within_memory(store, selection, settings.train.memory_mb)
    with tempfile.TemporaryDirectory(prefix="oddlog-recalibrate-") as folder:
        dataset = pull(
            store, selection, url=settings.store.url, folder=Path(folder), pulls=settings.train.pulls, progress=progress
        )
        features = (
            stored_features(dataset.events(STORED_FEATURES))
            if stored
            else features_since(model.baseline, dataset.batches(FEATURE_COLUMNS), period.since)
        )
        return _Events(dataset.events(COLUMNS, since=period.since), features, stored, selection.sample)


def _alerted_before(
    store: Store, since: dt.datetime, lead_in: dt.timedelta, marks: Marks, options: TrainSettings
) -> tuple[pl.Series, int]:
    """The clients that train.exclude_alerted leaves out for what was before `since`, and how many it spares."""
    query = EventQuery(since=since - lead_in, until=since)
    if not options.exclude_alerted or (ends := store.time_range(query)) is None:
        return pl.Series(dtype=pl.String), 0
    # Where nobody marked an attack the alerts tell all, and are few.
    alerts_alone = not any(mark.verdict == "true-anomaly" for mark in marks.marks)
    columns = [*dict.fromkeys([*MARK_COLUMNS, "labels.truth", ALERTED, *SEVERITIES])]
    telling = pl.col(ALERTED) | (pl.col("labels.truth") == LABELS["true-anomaly"])
    found = [
        marks.over(frame.filter(in_sample(frame["source.address"], options.sample))).filter(telling)
        for frame in store.read_events(replace(query, only_anomalies=alerts_alone), columns=columns)
    ]
    if not found:
        return pl.Series(dtype=pl.String), 0
    return whom_to_leave_out(pl.concat(found), (ends[1] - ends[0]) / DAY, options)


def _learn(
    model: Model, before: Threshold, found: _Events, marks: Marks, known: pl.Series, budget: float
) -> tuple[AlertCurve, Learnt]:
    """`known`: clients (String) that were alerted on before the period."""
    events = found.events
    scores, novelty, behaviours = model.score(found.features), model.novelty(found.features), units_of(events)[0]
    attackers = events.filter(pl.Series(marks.true_anomalies(events)))["source.address"].unique()
    marked = events["source.address"].is_in(attackers.implode()).to_numpy()
    alerted = events["source.address"].is_in(known.implode()).to_numpy() & ~marked
    everything = pl.repeat(value=True, n=events.height, dtype=pl.Boolean, eager=True)
    hushed = Hushes(marks.marks).ids(events, everything).is_not_null().to_numpy() & ~(marked | alerted)
    kept = ~(marked | alerted | hushed)
    if not kept.any():
        raise UsageError(
            f"all {events.height:,} events of the period are hushed, or of clients that are left out: marked as "
            "anomalies, or alerted on before",
            expected="events that tell how many alerts to expect",
            mend="a longer period: --since",
        )
    left = events.filter(pl.Series(kept))
    clients, times = left["source.address"], left["@timestamp"]
    own = None if novelty is None else novelty[kept]
    curve = fit_alert_curve(
        scores[kept],
        clients,
        times,
        novelty=own,
        behaviours=behaviours[kept],
        share=found.share,
        budget_per_day=budget,
    )
    flagged: npt.NDArray[np.bool_] = anomalies(before, scores[kept], own)[0]
    return curve, Learnt(
        events=left.height,
        clients=clients.n_unique(),
        features="stored" if found.stored else "computed",
        share=found.share,
        marked_clients=len(attackers),
        marked_events=int(marked.sum()),
        alerted_clients=events["source.address"].filter(pl.Series(alerted)).n_unique(),
        alerted_events=int(alerted.sum()),
        hushed_events=int(hushed.sum()),
        alerts_per_day_before=flagged_per_day(flagged, clients, times, behaviours[kept]) / found.share,
    )
