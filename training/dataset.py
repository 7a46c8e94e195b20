"""The events that a model is made from: pulled from the store, kept as Parquet, split by time. Nothing is fitted."""

from __future__ import annotations

import datetime as dt
import hashlib
import os
import uuid
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
from pyarrow import parquet

from oddlog.connectors.store import EventQuery, Store
from oddlog.errors import UsageError
from oddlog.events.schema import EVENT_SCHEMA, POSITION_ORDER
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

DIGEST_ROWS = 50_000  # rows hashed at a time; the digest does not depend on it


@dataclass(frozen=True, slots=True)
class Dataset:
    """Events of a period in record order (COLUMNS), as they lie in the snapshot."""

    events: pl.DataFrame
    snapshot: Path
    digest: str
    """First 32 hexadecimal digits of the SHA-256 over the rows: equal events give an equal digest."""
    source: str
    """The store and the period, in words; no secrets."""
    since: dt.datetime
    until: dt.datetime
    """First and last event's time."""


@dataclass(frozen=True, slots=True)
class Split:
    """Where a data set is divided. Rows keep their order; equal times are on one side."""

    boundary: dt.datetime
    """Events before it are fitted on; those from it on calibrate and evaluate."""
    fitted: npt.NDArray[np.bool_]
    """Bool [n]: which rows are fitted on."""


def pull(
    store: Store,
    *,
    url: str,
    folder: Path,
    since: dt.datetime | None = None,
    until: dt.datetime | None = None,
    min_events: int = 1,
) -> Dataset:
    """Read the events of a period (half-open) and snapshot them below `folder` as `<digest>.parquet`.

    `url` is the store's, for the record. The snapshot is streamed to a file beside its place, then renamed.
    Raises UsageError where the period holds fewer than `min_events`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    beside = folder / f".{uuid.uuid4().hex}.parquet"
    try:
        rows = _stream(store, EventQuery(since=since, until=until), beside)
        if rows == 0 or rows < min_events:
            raise _too_few(store, rows, min_events, since, until)
        events = pl.read_parquet(beside, memory_map=False)
        digest = digest_of(events)
        snapshot = folder / f"{digest}.parquet"
        os.replace(beside, snapshot)
    finally:
        beside.unlink(missing_ok=True)
    first, last = _ends(events)
    return Dataset(
        events=events,
        snapshot=snapshot,
        digest=digest,
        source=f"{without_credentials(url)}, {_period(since, until)}",
        since=first,
        until=last,
    )


def split_by_time(events: pl.DataFrame, share: float) -> Split:
    """The time before which `share` of the events lie. Raises UsageError where one side would be empty."""
    times = events["@timestamp"].sort()
    boundary = times[min(int(len(times) * share), len(times) - 1)]
    fitted = (events["@timestamp"] < boundary).to_numpy()
    if not fitted.any():
        raise UsageError(
            f"{events.height} events, too many of them at the same moment ({boundary:%Y-%m-%d %H:%M:%S})",
            expected="events spread over time, so that a later part can judge what an earlier one taught",
            mend="train on a longer period: --since, --until",
        )
    return Split(boundary=boundary, fitted=fitted)


def digest_of(events: pl.DataFrame) -> str:
    """Digest of a frame's rows, whatever batches they were read in: SHA-256 over them as CSV, 32 digits.

    >>> frame = pl.DataFrame({"a": ["x", None, ""], "b": [1, 2, 3]})
    >>> digest_of(frame) == digest_of(pl.concat([frame[:1], frame[1:]], rechunk=False))
    True
    >>> digest_of(frame) == digest_of(frame.with_columns(a=pl.Series(["x", "", None])))
    False
    """
    whole = hashlib.sha256(",".join(events.columns).encode())
    for frame in events.iter_slices(DIGEST_ROWS):
        whole.update(frame.write_csv(include_header=False, quote_style="non_numeric").encode())
    return whole.hexdigest()[:32]


def _stream(store: Store, query: EventQuery, path: Path) -> int:
    """Write the events that fit as Parquet, one batch in memory at a time; how many there were."""
    schema = pl.DataFrame(schema={name: EVENT_SCHEMA[name] for name in COLUMNS}).to_arrow().schema
    rows = 0
    with parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        for frame in store.read_events(query, columns=COLUMNS, order="position"):
            rows += frame.height
            if frame.height:
                writer.write_table(frame.select(COLUMNS).to_arrow().cast(schema))
    return rows


def _too_few(store: Store, rows: int, needed: int, since: dt.datetime | None, until: dt.datetime | None) -> UsageError:
    held = store.count_events(EventQuery())
    if held == 0:
        return UsageError(
            "the store holds no events",
            expected=f"at least {needed:,} (setting train.min_events)",
            mend="oddlog enrich --until-idle 2, or oddlog demo",
        )
    found = f"{rows:,} {_period(since, until) if since or until else 'events'} to train on"
    if since or until:
        found += f"; the store holds {held:,}"
        if (ends := store.time_range(EventQuery())) is not None:
            found += f", from {ends[0]:%Y-%m-%d %H:%M:%S} to {ends[1]:%Y-%m-%d %H:%M:%S} UTC"
    return UsageError(
        found,
        expected=f"at least {needed:,} (setting train.min_events)",
        mend="a longer period (--since, --until), more events (oddlog enrich), or ODDLOG_TRAIN__MIN_EVENTS",
    )


def _ends(events: pl.DataFrame) -> tuple[dt.datetime, dt.datetime]:
    first, last = events["@timestamp"].min(), events["@timestamp"].max()
    assert isinstance(first, dt.datetime)
    assert isinstance(last, dt.datetime)
    return first, last


def _period(since: dt.datetime | None, until: dt.datetime | None) -> str:
    """A period in words.

    >>> _period(None, None), _period(dt.datetime(2024, 5, 1), None)
    ('all events', 'events since 2024-05-01 00:00:00')
    """
    parts = [f"{word} {time:%Y-%m-%d %H:%M:%S}" for word, time in (("since", since), ("until", until)) if time]
    return "events " + " ".join(parts) if parts else "all events"
