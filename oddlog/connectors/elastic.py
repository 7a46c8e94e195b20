"""The event store on Elasticsearch 8 and 9. Beside it: `elastic_connection.py` (requests, errors),
`elastic_template.py` (mappings), `elastic_bulk.py` (writing), `elastic_query.py` and `elastic_read.py` (reading),
`elastic_summary.py` (counts), `elastic_documents.py` (collections, locks), `elastic_upkeep.py` (retention, whether all
is as `setup` makes it), `elastic_lifecycle.py` (deletion by the server itself).

Delivery: an event is one document, created once: its `_id` is its position and its index the day of its own
`@timestamp`, so a redelivery meets the same document, is answered 409, and counts as acknowledged.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import polars as pl

from oddlog.connectors import elastic_bulk, elastic_documents, elastic_lifecycle, elastic_summary, elastic_upkeep
from oddlog.connectors.documents import (
    STORED_SCHEMA,
    VERSION,
    check_columns,
    dead_schema,
    read_schema,
    unstorable,
    without,
)
from oddlog.connectors.elastic_columns import have_doc_values
from oddlog.connectors.elastic_connection import ElasticConnection
from oddlog.connectors.elastic_query import dead_dsl, query_dsl
from oddlog.connectors.elastic_read import BY_TIME, NEWEST_FIRST, PointInTime, events_in_order, stored_features
from oddlog.connectors.elastic_template import DEAD, EVENTS
from oddlog.connectors.store import Collection, DeadQuery, EventQuery, EventSummary, WriteOutcome
from oddlog.errors import StoreError, StoreUnavailable
from oddlog.events.schema import DEAD_SCHEMA, EVENT_SCHEMA
from oddlog.settings import StoreSettings

_MERGE_SECONDS = 6 * 3_600.0
"""Rewriting large indices takes hours, and no other request does."""


class ElasticStore:
    """The store at `http(s)://host:9200`, in the indices `<prefix>-*`; safe for several threads.

    Raises UsageError for a URL that is none of an Elasticsearch. The first request is made by the first call."""

    def __init__(self, settings: StoreSettings) -> None:
        self._connection = ElasticConnection(settings)
        self._prefix = settings.prefix
        self._keep_days = settings.keep_days
        self._bulk_bytes = settings.bulk_bytes
        self._events = f"{settings.prefix}-{EVENTS}-*"
        self._dead = f"{settings.prefix}-{DEAD}"

    def setup(self) -> None:
        """Put the index templates where they are missing or of another oddlog; indices that exist stay."""
        elastic_lifecycle.put_templates(self._connection, self._prefix, self._keep_days)

    def setup_problems(self) -> list[str]:
        """Templates that are missing or of another oddlog, and indices whose fields have other types."""
        wanted = elastic_lifecycle.wanted_templates(self._connection, self._prefix, self._keep_days)
        return elastic_upkeep.setup_problems(self._connection, self._prefix, wanted)

    def write_events(self, events: pl.DataFrame) -> WriteOutcome:
        """Create one document a row, never overwriting; see the port. Raises StoreRefused on 401 and 403."""
        check_columns(events, EVENT_SCHEMA, STORED_SCHEMA)
        return self._create(events, self._index_of_day())

    def write_dead(self, dead: pl.DataFrame) -> WriteOutcome:
        """Create one dead letter a row, never overwriting; see the port. Raises StoreRefused on 401 and 403."""
        check_columns(dead, DEAD_SCHEMA, DEAD_SCHEMA)
        return self._create(dead, pl.lit(self._dead))

    def current_versions(self, events: pl.DataFrame) -> pl.DataFrame:
        """Of `events` those that are stored, with `_version`, asked by id and not by search; see the port."""
        keys = events.select("_id", "@timestamp", self._index_of_day().alias("_index"))
        return elastic_documents.with_versions(self._connection, keys)

    def update_events(self, updates: pl.DataFrame) -> int:
        """Partial updates guarded by `_version`; a null clears its field. See the port."""
        check_columns(updates, ["_id", VERSION], [*STORED_SCHEMA, VERSION])
        columns = [name for name in updates.columns if name not in EVENT_SCHEMA and name != VERSION]
        readable = updates.filter(pl.col(VERSION).str.contains(r"^\d+:\d+:."))
        if not readable.height or not columns:
            return 0
        lines = elastic_bulk.update_lines(readable, VERSION, columns)
        outcome = elastic_bulk.send(self._connection, lines, "update", self._bulk_bytes)
        if outcome.rejected:
            row, reason = next(iter(outcome.rejected.items()))
            raise StoreError(f"Elasticsearch refuses the update of {readable['_id'][row]}: {reason}")
        if outcome.retry:
            reason = next(iter(outcome.retry.values()))
            raise StoreUnavailable(f"{len(outcome.retry)} of {readable.height} updates cannot be made now: {reason}")
        return readable.height - len(outcome.conflicts)

    def read_events(
        self,
        query: EventQuery,
        *,
        columns: Sequence[str] | None = None,
        order: Literal["any", "position", "time"] = "any",
        batch_rows: int = 10_000,
        with_version: bool = False,
    ) -> Iterator[pl.DataFrame]:
        """Events in frames of at most `batch_rows`; see the port. The iterator holds one point in time."""
        with PointInTime(self._connection, self._events) as moment:
            schema = read_schema(columns, stored_features(self._connection, self._events))
            by_column = order == "position" and not with_version
            by_column = by_column and have_doc_values(self._connection, self._events, schema)
            for search, sort, known in events_in_order(moment, query, order):
                yield from moment.pages(
                    search, sort, schema, batch_rows, with_version=with_version, known=known if by_column else None
                )

    def read_dead(self, *, limit: int | None = None) -> pl.DataFrame:
        """Dead letters, oldest first."""
        schema = pl.Schema(DEAD_SCHEMA)
        with PointInTime(self._connection, self._dead) as moment:
            pages = moment.pages({"match_all": {}}, BY_TIME, schema, 1_000, limit=limit)
            return pl.concat([schema.to_frame(), *pages])

    def iterate_dead(
        self,
        query: DeadQuery,
        *,
        columns: Sequence[str] | None = None,
        newest_first: bool = False,
        batch_rows: int = 100,
    ) -> Iterator[pl.DataFrame]:
        """Dead letters that fit, by time, in frames of at most `batch_rows`; see the port."""
        schema = dead_schema(columns)
        sort = NEWEST_FIRST if newest_first else BY_TIME
        with PointInTime(self._connection, self._dead) as moment:
            yield from moment.pages(dead_dsl(query), sort, schema, batch_rows, first_rows=20)

    def delete_dead(self, ids: Sequence[str]) -> int:
        """Remove dead letters; those that are not there are passed over."""
        if not ids:
            return 0
        lines = elastic_bulk.delete_lines(ids, self._dead)
        outcome = elastic_bulk.send(self._connection, lines, "delete", self._bulk_bytes)
        if left := {**outcome.rejected, **outcome.retry}:
            raise StoreUnavailable(f"{len(left)} of {len(ids)} dead letters are left: {next(iter(left.values()))}")
        return len(ids) - len(outcome.conflicts)

    def count_events(self, query: EventQuery) -> int:
        """How many events fit."""
        return self._count(self._events, query_dsl(query))

    def count_dead(self) -> int:
        """How many dead letters there are."""
        return self._count(self._dead, {"match_all": {}})

    def summarise_events(self, query: EventQuery) -> EventSummary:
        """Counts over the events that fit, by aggregations; see the port."""
        return elastic_summary.summarise(self._connection, self._events, query)

    def client_hours(self, query: EventQuery) -> pl.DataFrame:
        """The distinct (client, hour) of events that fit; see the port."""
        return elastic_summary.client_hours(self._connection, self._events, query)

    def dead_kinds(self, query: DeadQuery) -> dict[str, int]:
        """How many dead letters that fit there are of each kind."""
        return elastic_summary.dead_kinds(self._connection, self._dead, query)

    def partitions(self, query: EventQuery) -> list[tuple[str, str, int]]:
        """The distinct (epoch, topic, partition) of events that fit, sorted."""
        with PointInTime(self._connection, self._events) as moment:
            return moment.partitions(query)

    def time_range(self, query: EventQuery) -> tuple[dt.datetime, dt.datetime] | None:
        """First and last `@timestamp` of events that fit; None where none does."""
        with PointInTime(self._connection, self._events) as moment:
            return moment.time_range(query)

    def delete_before(self, day: dt.date, *, dry_run: bool = False) -> dict[dt.date, int | None]:
        """Delete the indices of days before `day`; see the port. Needs the privilege `delete_index`."""
        return elastic_upkeep.delete_before(self._connection, self._prefix, day, dry_run=dry_run)

    def delete_client(self, client: str) -> int:
        """Remove every event of a client, by bulk requests. Needs the privilege `delete`."""
        self.refresh()
        removed = 0
        events = self.read_events(EventQuery(clients=(client,)), columns=["_id"], with_version=True)
        for frame in events:
            lines = elastic_bulk.delete_lines(frame["_id"].to_list(), elastic_bulk.indices_of(frame[VERSION]))
            outcome = elastic_bulk.send(self._connection, lines, "delete", self._bulk_bytes)
            removed += frame.height - len(outcome.conflicts) - len(outcome.rejected) - len(outcome.retry)
            if left := {**outcome.rejected, **outcome.retry}:
                raise StoreUnavailable(
                    f"{len(left)} events of the client are left, {removed} are removed: {next(iter(left.values()))}"
                )
        self.refresh()
        return removed

    def expunge(self) -> None:
        """Merge segments in which more than a tenth is deleted; the others go when they are merged by themselves. Needs
        the privilege `maintenance`."""
        params = {"only_expunge_deletes": "true", "ignore_unavailable": "true"}
        self._connection.json("POST", f"/{self._prefix}-*/_forcemerge", params=params, seconds=_MERGE_SECONDS)

    def put_document(self, collection: Collection, id: str, document: Mapping[str, Any]) -> None:
        """Write a small document, replacing one of the same id."""
        elastic_documents.put(self._connection, self._index(collection), id, document)

    def get_document(self, collection: Collection, id: str) -> dict[str, Any] | None:
        """A small document, or None."""
        return elastic_documents.get(self._connection, self._index(collection), id)

    def list_documents(self, collection: Collection, *, since: dt.datetime | None = None) -> list[dict[str, Any]]:
        """Every document of a collection, each with its `_id`, sorted by it; see the port."""
        return elastic_documents.every(self._connection, self._index(collection), since)

    def delete_document(self, collection: Collection, id: str) -> None:
        """Remove a document; harmless when it is not there."""
        elastic_documents.delete(self._connection, self._index(collection), id)

    def acquire_lock(self, name: str, holder: str, ttl_seconds: float) -> str | None:
        """Take a lock, or prolong one's own; None when taken, else the name of who holds it."""
        return elastic_documents.acquire(self._connection, self._index("locks"), name, holder, ttl_seconds)

    def release_lock(self, name: str, holder: str) -> None:
        """Give a lock back; harmless when it is no longer ours."""
        elastic_documents.release(self._connection, self._index("locks"), name, holder)

    def refresh(self) -> None:
        """Make everything acknowledged visible to reads."""
        self._connection.json("POST", f"/{self._prefix}-*/_refresh", params={"ignore_unavailable": "true"})

    def ping(self) -> None:
        """Raises StoreUnavailable or StoreRefused when Elasticsearch cannot be used now."""
        self._connection.json("GET", "/_cluster/health", params={"filter_path": "status"})

    def close(self) -> None:
        """Close the connections."""
        self._connection.close()

    def _create(self, frame: pl.DataFrame, index: pl.Expr) -> WriteOutcome:
        outcome = WriteOutcome(rejected=unstorable(frame))
        frame, numbers = without(frame, outcome.rejected)
        if not frame.height:
            return outcome
        lines = elastic_bulk.create_lines(frame, index)
        sent = elastic_bulk.send(self._connection, lines, "create", self._bulk_bytes)
        outcome.rejected.update((numbers[row], reason) for row, reason in sent.rejected.items())
        outcome.retry.update((numbers[row], reason) for row, reason in sent.retry.items())
        return outcome

    def _count(self, index: str, query: Mapping[str, Any]) -> int:
        params = {"ignore_unavailable": "true", "allow_partial_search_results": "false"}
        body = {"size": 0, "query": query, "track_total_hits": True}
        return int(self._connection.json("POST", f"/{index}/_search", body, params=params)["hits"]["total"]["value"])

    def _index_of_day(self) -> pl.Expr:
        return pl.concat_str(pl.lit(f"{self._prefix}-{EVENTS}-"), pl.col("@timestamp").dt.strftime("%Y.%m.%d"))

    def _index(self, collection: Collection) -> str:
        return f"{self._prefix}-{collection}"
