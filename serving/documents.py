"""What enrichment adds to an event before it is stored: features, verdict, or the mark that they are missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl

from oddlog.connectors.marks import Hushes
from oddlog.events.parse import LATEST_MS
from oddlog.events.record import Records, event_id
from oddlog.events.schema import ANOMALY_SCHEMA, BESIDE_SCHEMA, DEAD_SCHEMA, FEATURE_PREFIX
from oddlog.scoring.scorer import Scores

if TYPE_CHECKING:
    from serving.lane import Lane

NO_HUSHES = Hushes([])


def feature_columns(features: npt.NDArray[np.float32], names: Sequence[str]) -> list[pl.Series]:
    """One Float32 column `features.<name>` for each column of a matrix [n, len(names)]."""
    return [
        pl.Series(FEATURE_PREFIX + name, np.ascontiguousarray(features[:, i]), dtype=pl.Float32)
        for i, name in enumerate(names)
    ]


def verdict_columns(scores: Scores, events: pl.DataFrame, hushes: Hushes = NO_HUSHES) -> list[pl.Series]:
    """The ANOMALY_SCHEMA columns of events [n] that were scored; `hushes` makes of anomalies that are expected none.

    Of the events PATTERN_COLUMNS are needed where there are such patterns, else nothing."""
    rows = events.height
    hushed = hushes.ids(events, pl.Series(scores.is_anomaly))

    def column(name: str, values: Any) -> pl.Series:
        return pl.Series(name, values, dtype=ANOMALY_SCHEMA[name])

    def constant(name: str, value: object) -> pl.Series:
        return pl.Series(name, [value], dtype=ANOMALY_SCHEMA[name]).new_from_index(0, rows)

    novelty = scores.novelty
    return [
        constant("anomaly.status", "scored"),
        column("anomaly.score", scores.score.astype(np.float64)),
        column("anomaly.severity", scores.severity),
        column("anomaly.is_anomaly", pl.Series(scores.is_anomaly) & hushed.is_null()),
        hushed,
        _channel(scores),
        constant("anomaly.threshold", scores.threshold),
        constant("anomaly.threshold_version", scores.threshold_version),
        constant("anomaly.model.name", scores.model_name),
        constant("anomaly.model.version", scores.model_version),
        constant("anomaly.baseline", scores.baseline_digest),
        column("anomaly.reasons", [scores.reasons.get(row) for row in range(rows)]),
        *(
            constant(f"anomaly.novelty.{name}", None)
            if novelty is None
            else _where(novelty.is_anomaly, f"anomaly.novelty.{name}", getattr(novelty, name))
            for name in ("score", "severity", "threshold")
        ),
    ]


def _channel(scores: Scores) -> pl.Series:
    """Which channel finds an event odd; null where none does."""
    first = scores.score.astype(np.float64) >= scores.threshold
    second = np.zeros_like(first) if scores.novelty is None else scores.novelty.is_anomaly
    number = pl.Series(np.where(scores.is_anomaly, first + 2 * second, 0), dtype=pl.UInt8)
    names = pl.Series([None, "score", "novelty", "both"], dtype=pl.String)
    return names.gather(number.cast(pl.UInt32)).alias("anomaly.channel")


def _where(chosen: npt.NDArray[np.bool_], name: str, values: Any) -> pl.Series:
    """A float column that holds `values` ([n], or one) in the chosen rows, and nothing in the others."""
    filled = np.broadcast_to(np.asarray(values, dtype=np.float64), chosen.shape)
    frame = pl.DataFrame({"chosen": chosen, name: filled}, schema_overrides={name: ANOMALY_SCHEMA[name]})
    return frame.select(pl.when("chosen").then(name).alias(name)).to_series()


def previous_columns(events: pl.DataFrame) -> list[pl.Series]:
    """The columns `anomaly.previous.*` for a new verdict on events: version and score of the one they have."""
    return [
        events[f"anomaly.{had}"].alias(name).cast(BESIDE_SCHEMA[name])
        for name, had in (("anomaly.previous.version", "model.version"), ("anomaly.previous.score", "score"))
    ]


def scored_events(
    events: pl.DataFrame,
    features: npt.NDArray[np.float32],
    names: Sequence[str],
    scores: Scores,
    hushes: Hushes = NO_HUSHES,
) -> pl.DataFrame:
    """Events with their features and the verdict on them."""
    return events.hstack([*feature_columns(features, names), *verdict_columns(scores, events, hushes)])


def pending_events(events: pl.DataFrame, features: npt.NDArray[np.float32] | None, lane: Lane | None) -> pl.DataFrame:
    """Events without a verdict; with features and the digest of their baseline where there is a lane."""
    known = {"anomaly.status": "pending", "anomaly.baseline": lane.baseline.digest if lane else None}
    verdict = [pl.lit(known.get(name), dtype=dtype).alias(name) for name, dtype in ANOMALY_SCHEMA.items()]
    if features is not None and lane is not None:
        events = events.hstack(feature_columns(features, lane.names))
    return events.with_columns(verdict)


def dead_letters_of_rejected(records: Records, events: pl.DataFrame, rejected: Mapping[int, str]) -> pl.DataFrame:
    """Dead letters (DEAD_SCHEMA) of events that the store refuses for good, with their original bytes."""
    row_of = {
        event_id(records.epoch[i], records.topic[i], records.partition[i], records.offset[i]): i
        for i in range(len(records))
    }
    ids = events["_id"]
    chosen = [(row_of[ids[row]], reason) for row, reason in sorted(rejected.items())]
    rows = [row for row, _ in chosen]
    return pl.DataFrame(
        {
            "_id": [ids[row] for row in sorted(rejected)],
            "@timestamp": [records.timestamp_ms[row] for row in rows],
            "reason": [f"the store refuses the document: {reason}" for _, reason in chosen],
            "kind": ["refused"] * len(rows),
            "original": [records.value[row] for row in rows],
            "oddlog.position.epoch": [records.epoch[row] for row in rows],
            "oddlog.position.topic": [records.topic[row] for row in rows],
            "oddlog.position.partition": [records.partition[row] for row in rows],
            "oddlog.position.offset": [records.offset[row] for row in rows],
        },
        schema_overrides={name: dtype for name, dtype in DEAD_SCHEMA.items() if name != "@timestamp"},
    ).with_columns(  # a broker's time of no calendar would make the letter itself be refused, and lost
        pl.col("@timestamp").clip(0, LATEST_MS).cast(DEAD_SCHEMA["@timestamp"])
    )
