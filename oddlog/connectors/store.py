"""The port every event store keeps: Elasticsearch (`elastic.py`) and SQLite (`sqlite.py`). `by_url.py` picks.

Frames carry flat, dotted column names (oddlog/events/schema.py). Every implementation passes
tests/contract/test_store.py.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import polars as pl

Collection = Literal["drift", "incidents", "marks", "state", "locks", "runs"]
"""Small documents beside the events: index `oddlog-<name>`, or a table."""


@dataclass(slots=True)
class WriteOutcome:
    """What became of a batch, by row number of the frame that was written.

    A row in neither mapping is acknowledged (written now, or there before: create-only, 409 is success).
    """

    rejected: dict[int, str] = field(default_factory=dict)
    """For good, with the store's reason: to be written as a dead letter."""
    retry: dict[int, str] = field(default_factory=dict)
    """For now (429, 503, write block, closed index, connection lost): to be sent again, alone, after a pause."""


@dataclass(frozen=True, slots=True)
class EventQuery:
    """Which events to read. Times are half-open: since <= @timestamp < until."""

    since: dt.datetime | None = None
    until: dt.datetime | None = None
    status: Literal["scored", "pending"] | None = None
    epoch: str | None = None
    topic: str | None = None
    partition: int | None = None
    from_offset: int | None = None
    min_severity: float | None = None
    only_anomalies: bool = False
    hushed_by: str | None = None
    """Only those that the mark of this id keeps from being alerts."""
    model_version: str | None = None
    baseline: str | None = None
    ids: tuple[str, ...] | None = None
    clients: tuple[str, ...] | None = None
    """Only these; some thousands at most."""
    share: float | None = None
    """Only about this share, chosen by position whatever the content: every client keeps its part. The same events
    are chosen each time."""


@dataclass(frozen=True, slots=True)
class DeadQuery:
    """Which dead letters to read: all, those of a kind, those of some ids, those that the broker got in a period."""

    kind: str | None = None
    ids: tuple[str, ...] | None = None
    since: dt.datetime | None = None
    until: dt.datetime | None = None


@dataclass(frozen=True, slots=True)
class EventSummary:
    """Counts over the events that fit a query; of clients to within a hundredth where there are many thousands."""

    events: int
    pending: int
    statuses: dict[str, int]
    """Events by class of their HTTP status, "1xx" to "5xx"; those with none, or with another one, are in no class."""
    clients: int
    busiest: int
    """Events of the client that has most."""
    client_hours: int
    """Distinct (client, UTC hour) with a scored event."""
    alerts: int
    """Those of them with an anomaly."""


STATUS_CLASSES = ("1xx", "2xx", "3xx", "4xx", "5xx")


class Store(Protocol):
    """Events and dead letters by id, written once; small documents in collections; locks with an expiry."""

    def setup(self) -> None:
        """Create tables, or index templates; harmless when they are there."""

    def setup_problems(self) -> list[str]:
        """What is not as `setup` would make it, a sentence each; empty where all is right. Makes nothing.

        Raises StoreError, StoreUnavailable, StoreRefused."""

    def write_events(self, events: pl.DataFrame) -> WriteOutcome:
        """Create one document a row (EVENT_SCHEMA, ANOMALY_SCHEMA, `features.*`), never overwriting.

        One attempt; the caller retries `retry` rows. Raises StoreRefused on 401 and 403."""

    def write_dead(self, dead: pl.DataFrame) -> WriteOutcome:
        """Create one dead letter a row (DEAD_SCHEMA), never overwriting."""

    def current_versions(self, events: pl.DataFrame) -> pl.DataFrame:
        """Of `events` (`_id`, `@timestamp`) those that are stored, in their order, with `_version` as it is now:
        of what was acknowledged a moment ago, too, which no reader sees yet. Raises StoreUnavailable."""

    def update_events(self, updates: pl.DataFrame) -> int:
        """Partial updates: `_id`, `@timestamp`, `_version` (opaque, from `read_events`) and the columns to set.

        A row whose document changed since it was read, or is gone, is left alone.
        Returns how many were updated. Raises StoreUnavailable."""

    def read_events(
        self,
        query: EventQuery,
        *,
        columns: Sequence[str] | None = None,
        order: Literal["any", "position", "time"] = "any",
        batch_rows: int = 10_000,
        with_version: bool = False,
    ) -> Iterator[pl.DataFrame]:
        """Events in frames of at most `batch_rows`, each of the same columns, null where the document has none.

        `columns` names what to read (`features.*` allowed as an entry for all features); default: EVENT_SCHEMA
        and ANOMALY_SCHEMA. `order="position"` sorts by POSITION_ORDER, `"time"` by `@timestamp`, then position.
        Reads one consistent point in time. `with_version` adds the opaque column `_version`."""

    def read_dead(self, *, limit: int | None = None) -> pl.DataFrame:
        """Dead letters, oldest first (DEAD_SCHEMA)."""

    def iterate_dead(
        self,
        query: DeadQuery,
        *,
        columns: Sequence[str] | None = None,
        newest_first: bool = False,
        batch_rows: int = 100,
    ) -> Iterator[pl.DataFrame]:
        """Dead letters that fit, by time, in frames of at most `batch_rows`, from one consistent point in time.

        `columns` names some of DEAD_SCHEMA; default: all. An original may have megabytes: hence the small frames."""

    def delete_dead(self, ids: Sequence[str]) -> int:
        """Remove dead letters; those that are not there are passed over. Returns how many were removed.

        Raises StoreUnavailable; what was removed until then stays removed."""

    def count_events(self, query: EventQuery) -> int:
        """How many events fit."""

    def count_dead(self) -> int:
        """How many dead letters there are."""

    def summarise_events(self, query: EventQuery) -> EventSummary:
        """Counts over the events that fit, made by the store: no event is read."""

    def client_hours(self, query: EventQuery) -> pl.DataFrame:
        """The distinct (`client` String, `hour` Datetime ms UTC) of events that fit, in any order; for few clients."""

    def dead_kinds(self, query: DeadQuery) -> dict[str, int]:
        """How many dead letters that fit there are of each kind."""

    def partitions(self, query: EventQuery) -> list[tuple[str, str, int]]:
        """The distinct (epoch, topic, partition) of events that fit, sorted."""

    def time_range(self, query: EventQuery) -> tuple[dt.datetime, dt.datetime] | None:
        """First and last `@timestamp` of events that fit; None where none does."""

    def delete_before(self, day: dt.date, *, dry_run: bool = False) -> dict[dt.date, int | None]:
        """Remove the events of every UTC day before `day`; with `dry_run` only tell which.

        Returns how many events each of those days had, oldest first; None where it cannot be known (a closed
        index). Nothing else is touched: no dead letter, no small document. Raises StoreUnavailable, StoreRefused."""

    def delete_client(self, client: str) -> int:
        """Remove every event whose `source.address` is `client`, whatever its day; how many were removed.

        What comes in meanwhile may stay. A closed index is not looked at. Raises StoreUnavailable, StoreRefused; what
        was removed until then stays removed."""

    def expunge(self) -> None:
        """Have the bytes of what was deleted or replaced leave the disk, as far as the store can be asked to.

        Takes as long as rewriting it; writers may be told to wait. Raises StoreUnavailable, StoreRefused."""

    def put_document(self, collection: Collection, id: str, document: Mapping[str, Any]) -> None:
        """Write a small document, replacing one of the same id."""

    def get_document(self, collection: Collection, id: str) -> dict[str, Any] | None:
        """A small document, or None."""

    def list_documents(self, collection: Collection, *, since: dt.datetime | None = None) -> list[dict[str, Any]]:
        """Every document of a collection, each with its `_id`, sorted by it.

        `since`: only those whose `@timestamp`, ISO-8601 text, is that time or later; one without it is none of them."""

    def delete_document(self, collection: Collection, id: str) -> None:
        """Remove a document; harmless when it is not there."""

    def acquire_lock(self, name: str, holder: str, ttl_seconds: float) -> str | None:
        """Take a lock that expires. None when taken; else the name of who holds it."""

    def release_lock(self, name: str, holder: str) -> None:
        """Give a lock back; harmless when it is no longer ours."""

    def refresh(self) -> None:
        """Make everything acknowledged visible to reads."""

    def ping(self) -> None:
        """Raises StoreUnavailable or StoreRefused when the store cannot be used now."""

    def close(self) -> None:
        """Close connections."""
