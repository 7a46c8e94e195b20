"""The events that a model is made from, as they lie in a snapshot: which columns, their digest, their split by time.

Reading them from the store is in `pull.py`; nothing is fitted here.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import polars as pl
from pyarrow import parquet

from oddlog.connectors.store import EventQuery
from oddlog.errors import UsageError
from oddlog.events.privacy import PrivacyStamp
from oddlog.events.schema import FEATURE_PREFIX, POSITION_ORDER
from oddlog.features.declaration import FEATURE_NAMES
from oddlog.settings import without_credentials

COLUMNS: tuple[str, ...] = (
    "_id",
    "@timestamp",
    "source.address",
    "http.request.method",
    "url.original",
    "url.path",
    "http.response.status_code",
    "http.response.body.bytes",
    "http.request.referrer",
    "user_agent.original",
    "labels.truth",
    *POSITION_ORDER,
)
"""What features, thresholds and evaluation need, and no more: the snapshot is kept."""

FEATURE_COLUMNS: tuple[str, ...] = (
    "@timestamp",
    "source.address",
    "http.request.method",
    "url.original",
    "url.path",
    "http.response.status_code",
    "user_agent.original",
    *POSITION_ORDER,
)
"""What features alone are computed from."""

ALERTED = "anomaly.is_anomaly"
"""Beside COLUMNS where clients that were alerted on are left out."""

SEVERITIES = ("anomaly.severity", "anomaly.novelty.severity")
"""Beside ALERTED where only the oddest of these clients are."""

STORED_FEATURES: tuple[str, ...] = tuple(FEATURE_PREFIX + name for name in FEATURE_NAMES)
"""Beside COLUMNS where features are taken as serving stored them."""

BATCH_ROWS = 50_000
"""Rows of a snapshot read, hashed and given to features at a time; no digest and no feature depends on it."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which events a training asks for."""

    since: dt.datetime | None = None
    until: dt.datetime | None = None
    """Half-open: since <= @timestamp < until."""
    sample: float = 1.0
    """Share of the clients, chosen by hash (sample.py)."""
    alerted: bool = False
    """Whether it is read which events were anomalies when they were scored."""
    severities: bool = False
    """Whether it is read how odd they were, too."""
    baseline: str | None = None
    """Only events whose features were computed under the baseline with this digest, and these features too."""

    @property
    def columns(self) -> tuple[str, ...]:
        """What is read of an event."""
        features = () if self.baseline is None else STORED_FEATURES
        verdict = (*((ALERTED,) if self.alerted else ()), *(SEVERITIES if self.severities else ()))
        return (*COLUMNS, *verdict, *features)

    @property
    def query(self) -> EventQuery:
        """As the store is asked."""
        return EventQuery(since=self.since, until=self.until, baseline=self.baseline)

    def describe(self, url: str) -> str:
        """Store and selection in words, without secrets.

        >>> Selection(since=dt.datetime(2024, 5, 1), sample=0.25).describe("https://u:p@es:9200")
        'https://es:9200, events since 2024-05-01 00:00:00, 25 % of the clients by hash'
        """
        parts = [without_credentials(url), period_in_words(self.since, self.until)]
        if self.baseline is not None:
            parts.append(f"with features stored under the baseline {self.baseline[:12]}")
        if self.sample < 1:
            parts.append(f"{100 * self.sample:.3g} % of the clients by hash")
        return ", ".join(parts)


@dataclass(frozen=True, slots=True)
class Dataset:
    """Events of a selection in record order, as they lie in the snapshot; read from there a part at a time."""

    snapshot: Path
    digest: str
    """First 32 hexadecimal digits of the SHA-256 over the rows: equal events give an equal digest."""
    source: str
    """The store and the selection, in words; no secrets."""
    columns: tuple[str, ...]
    rows: int
    clients: int
    since: dt.datetime
    until: dt.datetime
    """First and last event's time."""
    privacy: PrivacyStamp | None = None
    """Under which the events were made; None: as they came."""

    @classmethod
    def of(cls, snapshot: Path, *, digest: str, source: str, privacy: PrivacyStamp | None = None) -> Self:
        """What lies in `snapshot`, one event at least, whose digest is known."""
        time, client = pl.col("@timestamp"), pl.col("source.address")
        lazy = pl.scan_parquet(snapshot)
        ends = lazy.select(time.min().alias("first"), time.max().alias("last"), client.n_unique(), pl.len()).collect()
        first, last, clients, rows = ends.row(0)
        columns = tuple(lazy.collect_schema().names())
        return cls(snapshot, digest, source, columns, rows, clients, first, last, privacy)

    def batches(self, columns: Sequence[str] | None = None, *, rows: int = BATCH_ROWS) -> Iterator[pl.DataFrame]:
        """Frames of at most `rows` events, in record order; one of them in memory at a time."""
        return batches_of(self.snapshot, columns, rows=rows)

    def before(self, moment: dt.datetime, folder: Path) -> Dataset:
        """The events before a moment, a data set of their own below `folder`. Raises UsageError on none."""
        beside, whole, rows = folder / f".{uuid.uuid4().hex}.parquet", RowDigest(self.columns), 0
        schema = parquet.read_schema(self.snapshot)
        with parquet.ParquetWriter(beside, schema, compression="zstd") as writer:
            for batch in self.batches():
                early = batch.filter(pl.col("@timestamp") < moment)
                whole.add(early)
                rows += early.height
                writer.write_table(early.to_arrow().cast(schema))
        if not rows:
            beside.unlink()
            raise UsageError(f"no event before {moment:%Y-%m-%d %H:%M:%S} UTC", expected="at least one")
        snapshot = beside.rename(folder / f"{whole.hex()}.parquet")
        return Dataset.of(
            snapshot,
            digest=whole.hex(),
            source=f"{self.source}, those before {moment:%Y-%m-%d %H:%M:%S}",
            privacy=self.privacy,
        )

    def events(
        self,
        columns: Sequence[str] | None = None,
        *,
        since: dt.datetime | None = None,
        until: dt.datetime | None = None,
    ) -> pl.DataFrame:
        """The events of a half-open period (default: all) in record order, only these columns."""
        lazy = pl.scan_parquet(self.snapshot)
        if since is not None:
            lazy = lazy.filter(pl.col("@timestamp") >= since)
        if until is not None:
            lazy = lazy.filter(pl.col("@timestamp") < until)
        return lazy.select(columns or self.columns).collect()


@dataclass(frozen=True, slots=True)
class Split:
    """Where a data set is divided. Rows keep their order; equal times are on one side."""

    boundary: dt.datetime
    """Events before it are fitted on; those from it on calibrate and evaluate."""
    fitted: npt.NDArray[np.bool_]
    """Bool [n]: which rows are fitted on."""


def split_by_time(times: pl.Series, share: float) -> Split:
    """The time before which `share` of the events lie. Raises UsageError where one side would be empty."""
    ordered = times.sort()
    boundary = ordered[min(int(len(ordered) * share), len(ordered) - 1)]
    fitted = (times < boundary).to_numpy()
    if not fitted.any():
        raise UsageError(
            f"{len(times)} events, too many of them at the same moment ({boundary:%Y-%m-%d %H:%M:%S})",
            expected="events spread over time, so that a later part can judge what an earlier one taught",
            mend="train on a longer period: --since, --until",
        )
    return Split(boundary=boundary, fitted=fitted)


def batches_of(
    snapshot: Path, columns: Sequence[str] | None = None, *, rows: int = BATCH_ROWS
) -> Iterator[pl.DataFrame]:
    """Frames of at most `rows` rows of a Parquet file, in its order."""
    with parquet.ParquetFile(snapshot) as file:
        for batch in file.iter_batches(batch_size=rows, columns=None if columns is None else list(columns)):
            frame = pl.from_arrow(batch)
            assert isinstance(frame, pl.DataFrame)
            yield frame


class RowDigest:
    """Digest of rows, whatever frames they come in: SHA-256 over them as CSV, 32 digits.

    >>> frame = pl.DataFrame({"a": ["x", None, ""], "b": [1, 2, 3]})
    >>> def digest(*frames):
    ...     whole = RowDigest(["a", "b"])
    ...     for one in frames:
    ...         whole.add(one)
    ...     return whole.hex()
    >>> digest(frame) == digest(frame[:1], frame[1:])
    True
    >>> digest(frame) == digest(frame.with_columns(a=pl.Series(["x", "", None])))
    False
    """

    def __init__(self, columns: Sequence[str]) -> None:
        self._whole = hashlib.sha256(",".join(columns).encode())

    def add(self, frame: pl.DataFrame) -> None:
        """Take the next rows in."""
        for part in frame.iter_slices(BATCH_ROWS):
            self._whole.update(part.write_csv(include_header=False, quote_style="non_numeric").encode())

    def hex(self) -> str:
        """Of everything that was added."""
        return self._whole.hexdigest()[:32]


def digest_of(events: pl.DataFrame) -> str:
    """RowDigest of one frame."""
    whole = RowDigest(events.columns)
    whole.add(events)
    return whole.hex()


def period_in_words(since: dt.datetime | None, until: dt.datetime | None) -> str:
    """A period in words.

    >>> period_in_words(None, None), period_in_words(dt.datetime(2024, 5, 1), None)
    ('all events', 'events since 2024-05-01 00:00:00')
    """
    parts = [f"{word} {time:%Y-%m-%d %H:%M:%S}" for word, time in (("since", since), ("until", until)) if time]
    return "events " + " ".join(parts) if parts else "all events"
