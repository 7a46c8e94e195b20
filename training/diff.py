"""What two registered versions decide differently over one period of the store, by the thresholds in force for them.

It compares and judges nothing: what each is worth is measured in `period.py`, who is promoted decided by gates.
"""

from __future__ import annotations

import datetime as dt
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from oddlog.connectors.by_url import open_registry, using_store
from oddlog.connectors.models import find_version
from oddlog.connectors.registry import ModelVersion, Registry
from oddlog.connectors.store import Store
from oddlog.errors import UsageError
from oddlog.features.fitting import units_of
from oddlog.features.keys import template_of
from oddlog.scoring.model import Model
from oddlog.scoring.threshold import anomalies, flagged_per_day
from oddlog.settings import Settings
from training.dataset import COLUMNS, FEATURE_COLUMNS, Selection
from training.diff_examples import Bools, Contender, Example, examples_of
from training.fit import Matrix, features_since
from training.held import check_held
from training.limits import within_memory
from training.pull import pull
from training.ranks import rank_correlation
from training.served import version_model

MOST_TEMPLATES = 50
TOP = 0.01
"""Share of the client-hours that are compared as the oddest ones; TOP_LEAST at least."""
TOP_LEAST = 20

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two versions, over the period."""

    version: str
    algorithm: str
    threshold: float
    threshold_version: str
    anomalies: int
    """Events, by either channel."""
    client_hours: int
    """With an anomaly."""
    alerts_per_day: float
    """Like ones of a day counted once."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Of events, or client-hours, how many are odd to whom."""

    both: int
    only_a: int
    only_b: int
    neither: int

    @classmethod
    def of(cls, a: Bools, b: Bools) -> Counts:
        """By what each says, [n] each."""
        return cls(int((a & b).sum()), int((a & ~b).sum()), int((~a & b).sum()), int((~a & ~b).sum()))


@dataclass(frozen=True, slots=True)
class Ranks:
    """How alike the scores of the first channels order the same things; None where one side's are all equal."""

    events: float | None
    """Spearman's correlation over events."""
    client_hours: float | None
    """Over client-hours, by the highest score of each."""
    top: int
    """How many of the oddest client-hours are compared."""
    top_in_common: float
    """Share of A's that are among B's."""


@dataclass(frozen=True, slots=True)
class Kind:
    """Events of one status, or one path template."""

    name: str
    events: int
    a: int
    """Anomalies to A."""
    b: int


@dataclass(frozen=True, slots=True)
class Difference:
    """Two versions over one period."""

    model: str
    a: Side
    b: Side
    since: dt.datetime
    until: dt.datetime
    """First and last event's time."""
    events: int
    clients: int
    share: float
    """Of all clients, by hash; counts are of these."""
    by_event: Counts
    by_client_hour: Counts
    ranks: Ranks
    statuses: list[Kind]
    """By code, rising; those that nobody finds odd are left out."""
    templates: list[Kind]
    """Those where most is decided differently first; where nothing is, they are left out."""
    only_a: list[Example]
    only_b: list[Example]
    cautions: tuple[str, ...]


def compare(
    settings: Settings,
    a: str,
    b: str,
    *,
    since: dt.datetime | None = None,
    until: dt.datetime | None = None,
    store: Store | None = None,
    registry: Registry | None = None,
    progress: Progress | None = None,
) -> Difference:
    """Two versions, by number or alias, over a half-open period; by default after all that either was fitted on.

    Each is given features under its own baseline, computed from the store's events, with client state from those
    before, as far back as enrich.lead_in_days tells. Where the events do not fit into train.memory_mb a sample of the
    clients is compared. Raises UsageError where the two are one, or there are no events, ArtifactError, RegistryError,
    StoreError.
    """
    tell = progress or (lambda _: None)
    registry = registry or open_registry(settings.registry)
    versions = [find_version(registry, wanted) for wanted in (a, b)]
    if versions[0].version == versions[1].version:
        raise UsageError(
            f"{a} and {b} are the same version, {versions[0].version}",
            expected="two versions or aliases",
            mend="oddlog models lists them",
        )
    tell(f"loading versions {versions[0].version} and {versions[1].version}")
    models = [version_model(registry, one.version) for one in versions]
    fit_until = max(model.card.dataset.fit_until for model in models)
    since = since or fit_until
    with tempfile.TemporaryDirectory(prefix="oddlog-diff-") as folder, using_store(settings.store, store) as opened:
        check_held(
            opened, since, until,
            expected="events to compare on, by default those after what both versions were fitted on",
            mend="oddlog models diff A B --since TIME --until TIME, or oddlog enrich",
        )  # fmt: skip
        tell("reading events from the store")
        selection = Selection(since=since - dt.timedelta(days=settings.enrich.lead_in_days), until=until)
        selection, _ = within_memory(opened, selection, settings.train.memory_mb)
        dataset = pull(
            opened,
            selection,
            url=settings.store.url,
            folder=Path(folder),
            pulls=settings.train.pulls,
            progress=progress,
        )
        events = dataset.events(COLUMNS, since=since)
        features: dict[str, Matrix] = {}
        contenders = []
        for registered, model in zip(versions, models, strict=True):
            tell(f"scoring {events.height:,} events by version {registered.version}")
            digest = model.baseline.digest
            if digest not in features:
                features[digest] = features_since(model.baseline, dataset.batches(FEATURE_COLUMNS), since)
            contenders.append(_contender(registered, model, features[digest]))
    cautions = _cautions(since, fit_until, contenders)
    return _difference(events, contenders[0], contenders[1], selection.sample, cautions)


def as_document(found: Difference) -> dict[str, Any]:
    """For programs."""
    document = asdict(found)
    document["since"], document["until"] = found.since.isoformat(), found.until.isoformat()
    for name in ("only_a", "only_b"):
        for example in document[name]:
            example["hour"], example["time"] = example["hour"].isoformat(), example["time"].isoformat()
    return {**document, "cautions": list(found.cautions)}


def _contender(registered: ModelVersion, model: Model, features: Matrix) -> Contender:
    threshold, score = registered.threshold or model.card.threshold, model.score(features)
    flagged = anomalies(threshold, score, model.novelty(features))[0]
    return Contender(registered, model, threshold, features, score, flagged)


def _difference(
    events: pl.DataFrame, a: Contender, b: Contender, share: float, cautions: tuple[str, ...]
) -> Difference:  # fmt: skip
    behaviours, numbers = units_of(events)
    hours = int(numbers.max()) + 1
    by_hour = [np.bincount(numbers, weights=one.flagged, minlength=hours) > 0 for one in (a, b)]
    first, last = events["@timestamp"].min(), events["@timestamp"].max()
    assert isinstance(first, dt.datetime)
    assert isinstance(last, dt.datetime)
    kinds = events.select(
        pl.col("http.response.status_code").cast(pl.String).fill_null("none").alias("status"),
        template_of(pl.col("url.path").fill_null("")).alias("template"),
    ).with_columns(a=pl.Series(a.flagged), b=pl.Series(b.flagged))
    differs = (pl.col("a") - pl.col("b")).abs()
    return Difference(
        model=a.registered.name,
        a=_side(events, a, by_hour[0], behaviours, share),
        b=_side(events, b, by_hour[1], behaviours, share),
        since=first,
        until=last,
        events=events.height,
        clients=events["source.address"].n_unique(),
        share=share,
        by_event=Counts.of(a.flagged, b.flagged),
        by_client_hour=Counts.of(by_hour[0], by_hour[1]),
        ranks=_ranks(a.score, b.score, numbers, hours),
        statuses=_kinds(_counted(kinds, "status").filter(pl.col("a") + pl.col("b") > 0).sort("name")),
        templates=_kinds(
            _counted(kinds.with_columns(differ=pl.col("a") != pl.col("b")), "template")
            .filter(pl.col("differ") > 0)
            .sort(["differ", differs, "name"], descending=[True, True, False])
            .head(MOST_TEMPLATES)
        ),
        only_a=examples_of(events, a, b, a.flagged & ~by_hour[1][numbers], first_is_a=True),
        only_b=examples_of(events, b, a, b.flagged & ~by_hour[0][numbers], first_is_a=False),
        cautions=cautions,
    )


def _side(
    events: pl.DataFrame, one: Contender, by_hour: Bools, behaviours: npt.NDArray[np.int64], share: float
) -> Side:  # fmt: skip
    a_day = flagged_per_day(one.flagged, events["source.address"], events["@timestamp"], behaviours)
    return Side(
        version=one.registered.version,
        algorithm=one.registered.algorithm,
        threshold=one.threshold.value,
        threshold_version=one.threshold.version,
        anomalies=int(one.flagged.sum()),
        client_hours=int(by_hour.sum()),
        alerts_per_day=a_day / share,
    )


def _ranks(
    a: npt.NDArray[np.float32], b: npt.NDArray[np.float32], numbers: npt.NDArray[np.int64], hours: int
) -> Ranks:  # fmt: skip
    highest = []
    for scores in (a, b):
        best = np.full(hours, -np.inf)
        np.maximum.at(best, numbers, scores.astype(np.float64))
        highest.append(best)
    top = min(hours, max(TOP_LEAST, round(TOP * hours)))
    oddest = [set(np.argsort(-best, kind="stable")[:top].tolist()) for best in highest]
    return Ranks(
        events=rank_correlation(pl.Series(a), pl.Series(b)),
        client_hours=rank_correlation(pl.Series(highest[0]), pl.Series(highest[1])),
        top=top,
        top_in_common=len(oddest[0] & oddest[1]) / top,
    )


def _counted(kinds: pl.DataFrame, by: str) -> pl.DataFrame:
    """Events and anomalies of every value of a column, as `name`."""
    sums = [pl.col(name).cast(pl.Int64).sum() for name in ("a", "b", "differ") if name in kinds.columns]
    return kinds.group_by(pl.col(by).alias("name")).agg(pl.len().alias("events"), *sums)


def _kinds(counted: pl.DataFrame) -> list[Kind]:
    return [Kind(**one) for one in counted.select("name", "events", "a", "b").iter_rows(named=True)]


def _cautions(since: dt.datetime, fit_until: dt.datetime, contenders: Sequence[Contender]) -> tuple[str, ...]:
    found = []
    if since < fit_until:
        found.append(
            f"the period begins before {fit_until:%Y-%m-%d %H:%M:%S} UTC, until when one of them was fitted: what it "
            "has counted itself is the less odd to it"
        )
    budgets = [one.threshold.budget_per_day for one in contenders]
    if budgets[0] != budgets[1]:
        found.append(
            f"their thresholds are for different budgets, {budgets[0]:g} and {budgets[1]:g} alerts a day: one finds "
            "more odd for that alone"
        )
    return tuple(found)
