"""What the model's own reference says was to be expected of a period: of the same hours of the day, where it can."""

from __future__ import annotations

import datetime as dt
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from monitoring.expected import SKETCH_POINTS, Expected
from monitoring.figures import Figures, share, status_shares
from oddlog.connectors.registry import CHAMPION, ModelVersion, Registry
from oddlog.errors import UsageError
from oddlog.features.baseline import Baseline
from oddlog.scoring.artifact import BASELINE, REFERENCE, frame_from_arrow, read_verified
from oddlog.scoring.card import Card
from oddlog.scoring.distance import weighted_points
from oddlog.scoring.reference import COUNTS, HOUR, SLOT, unseen_from

WHOLE_DAY = dt.timedelta(hours=22)
"""A period shorter than this lacks a part of the day."""
_HOUR = dt.timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Reference:
    """What a model version brings to judge batches by."""

    version: ModelVersion
    card: Card
    frame: pl.DataFrame
    """Quantile points of the whole period: one Float32 column a feature, and `score` and `severity`."""
    hours: dict[int, pl.DataFrame]
    """The same by hour of the day; empty in models that were made before references had hours."""
    slots: pl.DataFrame | None
    """COUNTS (oddlog/scoring/reference.py) of single hours, at `slot`; None likewise."""
    unseen_from: float
    """The `path_rarity` from which on a path is not in the baseline."""


def fetch_reference(registry: Registry, version: str | None = None) -> Reference:
    """The reference of a version (None: the champion), its artifact verified.

    Raises UsageError while there is no champion, RegistryError, ArtifactError."""
    chosen = registry.by_alias(CHAMPION) if version is None else registry.version(version)
    if chosen is None:
        raise UsageError(
            "no model is champion, so that there is no reference to compare with",
            expected="a promoted model",
            mend="oddlog train && oddlog promote",
        )
    # Fetched afresh: a cached folder of that number may stem from another registry, and it is small.
    with tempfile.TemporaryDirectory(prefix="oddlog-reference-") as folder:
        card, contents = read_verified(registry.download(chosen.version, Path(folder)))
    units = Baseline.from_arrow(contents[BASELINE]).units
    return read_reference(chosen, card, frame_from_arrow(contents[REFERENCE]), unseen_from(units))


def read_reference(version: ModelVersion, card: Card, frame: pl.DataFrame, unseen: float) -> Reference:
    """A reference from the frame of `make_reference`, with hours or without."""
    names = [*card.feature_names, "score", "severity"]
    whole, hours, slots = frame, {}, None
    if HOUR in frame.columns:
        hours = {
            int(key[0]): part.select(names)
            for key, part in frame.filter(pl.col(HOUR).is_not_null()).partition_by(HOUR, as_dict=True).items()
        }
        whole = whole.filter(pl.col(HOUR).is_null())
    if SLOT in frame.columns:
        slots = frame.filter(pl.col(SLOT).is_not_null()).select(
            SLOT, *(pl.col(f"{SLOT}.{name}").alias(name) for name in COUNTS)
        )
        whole = whole.filter(pl.col(SLOT).is_null())
    return Reference(version, card, whole.select(names), hours, slots, unseen)


def expected_by_reference(reference: Reference, since: dt.datetime, until: dt.datetime) -> Expected:
    """What the reference says of since <= time < until: its own same hours of the day, each with its usual weight."""
    dataset = reference.card.dataset
    cautions: list[str] = []
    overlap = _overlap(since, until)
    slots = reference.slots
    if slots is None or not reference.hours:
        cautions.append(
            f"version {reference.version.version} was made before references had hours of the day: its whole period "
            "is compared with, and volume, shares and alert rate are not judged; a newly trained model brings them"
        )
        if until - since < WHOLE_DAY:
            length = (until - since) / _HOUR
            cautions.append(f"the batch is only {length:.1f} h long: day and night differ without any drift")
        return Expected(
            "reference", dataset.fit_until, dataset.until, points_of(reference.frame), None, 0.0, 0.0, cautions=cautions
        )
    known = slots.with_columns(pl.col(SLOT).dt.hour().alias("of_day")).filter(pl.col("of_day").is_in(list(overlap)))
    missing = sorted(set(overlap) - set(known["of_day"].to_list()))
    if missing:
        hours = ", ".join(f"{hour:02d}" for hour in missing)
        cautions.append(
            f"the reference has no hour {hours} of the day: it tells of the batch's other hours alone, and how much "
            "was to come is not judged"
        )
    if known.is_empty():
        return Expected(
            "reference", dataset.fit_until, dataset.until, points_of(reference.frame), None, 0.0, 0.0, cautions=cautions
        )
    mean = known.group_by("of_day").agg(pl.col(name).mean() for name in COUNTS).sort("of_day")
    weight = pl.Series([overlap[hour] for hour in mean["of_day"].to_list()])
    sums = {name: float((mean[name].fill_null(0.0) * weight).sum()) for name in COUNTS}
    volume = dict(zip(mean["of_day"].to_list(), (mean["events"] * weight).to_list(), strict=True))
    dated = known.filter(pl.col("new").is_not_null())
    fresh = share(float(dated["new"].sum()), float(dated["events"].sum()))
    figures = Figures(
        events=sums["events"],
        worth=sums["events"] ** 2 / sums["squares"] if sums["squares"] else 0.0,
        alert_rate=share(sums["alerts"], sums["clients"]),
        statuses=status_shares(sums, sums["events"]),
        unseen_paths=share(sums["unseen"], sums["events"]),
        new_clients=fresh,
        busiest=_busiest(known, volume),
    )
    whole, squares = float(known["events"].sum()), float(known["squares"].sum())
    return Expected(
        against="reference",
        since=dataset.fit_until,
        until=dataset.until,
        points=_mixture(reference, volume),
        figures=figures,
        worth=whole**2 / squares if squares else 0.0,
        pace=_pace(known),
        complete=not missing,
        cautions=cautions,
    )


def points_of(frame: pl.DataFrame) -> pl.DataFrame:
    """A frame of quantile points as one of SKETCH_POINTS, Float64; columns without values stay null."""
    return _sketch({name: ([frame[name].drop_nulls().to_numpy().astype(np.float64)], [1.0]) for name in frame.columns})


def _mixture(reference: Reference, volume: dict[int, float]) -> pl.DataFrame:
    """Points of the hours in `volume` together, each with its events as weight."""
    hours = [hour for hour in volume if hour in reference.hours]
    columns = {}
    for name in reference.frame.columns:
        parts = [reference.hours[hour][name].drop_nulls().to_numpy().astype(np.float64) for hour in hours]
        columns[name] = (parts, [volume[hour] for hour in hours])
    return _sketch(columns)


def _sketch(columns: dict[str, tuple[list[npt.NDArray[np.float64]], list[float]]]) -> pl.DataFrame:
    found = {name: weighted_points(parts, weights, SKETCH_POINTS) for name, (parts, weights) in columns.items()}
    return pl.DataFrame(
        {
            name: pl.Series(values if values.size else [None] * SKETCH_POINTS, dtype=pl.Float64)
            for name, values in found.items()
        }
    )


def _busiest(slots: pl.DataFrame, volume: dict[int, float]) -> float | None:
    """The largest share that one client had in an hour of the reference, for each hour of the day by its events."""
    shares = slots.filter(pl.col("events") > 0).with_columns((pl.col("busiest") / pl.col("events")).alias("part"))
    most = shares.group_by("of_day").agg(pl.col("part").max())
    parts = {hour: part for hour, part in most.select("of_day", "part").iter_rows() if volume.get(hour)}
    return share(sum(parts[hour] * volume[hour] for hour in parts), sum(volume[hour] for hour in parts))


def _pace(slots: pl.DataFrame) -> float:
    """How much the same hour differs from day to day: standard deviation of ln(events + 1) within hours of the day."""
    logs = slots.with_columns((pl.col("events") + 1).log().alias("log"))
    spread = logs.group_by("of_day").agg(pl.col("log").var().alias("var"), pl.len().alias("days"))
    several = spread.filter(pl.col("days") > 1)
    if several.is_empty():
        return 0.0
    return float(np.sqrt(np.average(several["var"].to_numpy(), weights=several["days"].to_numpy() - 1)))


def _overlap(since: dt.datetime, until: dt.datetime) -> dict[int, float]:
    """Hours of the day (UTC) that a period has, each with how many hours of it.

    >>> at = dt.datetime(2024, 3, 1, 22, 30, tzinfo=dt.UTC)
    >>> _overlap(at, at + dt.timedelta(hours=2))
    {22: 0.5, 23: 1.0, 0: 0.5}
    """
    found: dict[int, float] = {}
    since, until = since.astimezone(dt.UTC), until.astimezone(dt.UTC)
    days, rest = divmod(until - since, dt.timedelta(days=1))
    at, end = since, since + rest
    while at < end:
        following = min(at.replace(minute=0, second=0, microsecond=0) + _HOUR, end)
        found[at.hour] = found.get(at.hour, 0.0) + (following - at) / _HOUR
        at = following
    if days:
        for hour in range(24):
            found[hour] = found.get(hour, 0.0) + days
    return found
