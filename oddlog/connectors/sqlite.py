"""The embedded event store: one SQLite file, several processes at once. Beside it: `sqlite_connection.py`
(opening, errors), `sqlite_tables.py`, `sqlite_query.py` (EventQuery to SQL), `sqlite_rows.py` (conversion),
`sqlite_summary.py` (counts).

Delivery: a write is synced to disk when it returns (WAL, synchronous=FULL): the caller may commit its source.
Writes begin with BEGIN IMMEDIATE: a read turned into a write after another process's commit fails at once in
WAL mode, whatever the timeout. A read holds one transaction, so one point in time, until its iterator ends.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import orjson
import polars as pl

from oddlog.connectors import sqlite_rows, sqlite_summary, sqlite_tables, sqlite_upkeep
from oddlog.connectors.documents import (
    STORED_SCHEMA,
    VERSION,
    check_columns,
    dead_schema,
    features_of,
    is_since,
    read_schema,
    time_of,
    unstorable,
    without,
)
from oddlog.connectors.sqlite_connection import connect, translated
from oddlog.connectors.sqlite_query import NEWEST_FIRST, ORDER_BY, where, where_dead
from oddlog.connectors.sqlite_tables import FEATURE_COLUMNS, quoted
from oddlog.connectors.store import Collection, DeadQuery, EventQuery, EventSummary, WriteOutcome
from oddlog.errors import StoreUnavailable, UsageError
from oddlog.events.schema import DEAD_SCHEMA, EVENT_SCHEMA, POSITION_ORDER
from oddlog.settings import StoreSettings

_ToRows = Callable[[sqlite3.Connection, pl.DataFrame], list[tuple[Any, ...]]]


class SqliteStore:
    """The store at `sqlite:///relative/path` or `sqlite:////absolute/path`; file and folders are made.

    Safe for several threads (they take turns) and several processes (they wait up to `settings.timeout`).
    Raises UsageError for a URL that names no file, StoreError for a file that is no store of this version."""

    def __init__(self, settings: StoreSettings) -> None:
        path = settings.url.removeprefix("sqlite:///")
        if path == settings.url or not path or path.startswith(":memory:"):
            raise UsageError(
                f"store URL {settings.url!r} names no file",
                expected="sqlite:///relative/path or sqlite:////absolute/path",
                mend="set ODDLOG_STORE__URL, or [store] url in oddlog.toml",
            )
        self._path = Path(path)
        self._timeout = settings.timeout
        self._turn = threading.RLock()
        self._connection: sqlite3.Connection | None = None

    def setup(self) -> None:
        """Create file and tables; harmless when they are there. Other methods do so too."""
        with self._transaction():
            pass

    def setup_problems(self) -> list[str]:
        """That there is no file yet; a file of another version raises StoreError."""
        if not self._path.exists():
            return [f"there is no file {self._path}"]
        self._query("SELECT 1")
        return []

    def write_events(self, events: pl.DataFrame) -> WriteOutcome:
        """Create one row a row, never overwriting; see the port."""
        check_columns(events, EVENT_SCHEMA, STORED_SCHEMA)
        features = features_of(events.columns)
        plain = [name for name in STORED_SCHEMA if name in events.columns]
        plain = [name for name in plain if events[name].null_count() < events.height]  # the rest is null by itself
        columns = [*plain, *(FEATURE_COLUMNS if features else [])]

        def rows(connection: sqlite3.Connection, frame: pl.DataFrame) -> list[tuple[Any, ...]]:
            values = frame.select(plain)
            if features:
                values = _with_blobs(connection, values, frame.select(features))
            return sqlite_rows.to_rows(values)

        return self._create("events", columns, events, rows)

    def write_dead(self, dead: pl.DataFrame) -> WriteOutcome:
        """Create one dead letter a row, never overwriting; see the port."""
        check_columns(dead, DEAD_SCHEMA, DEAD_SCHEMA)
        columns = list(DEAD_SCHEMA)
        return self._create("dead", columns, dead, lambda _, frame: sqlite_rows.to_rows(frame.select(columns)))

    def current_versions(self, events: pl.DataFrame) -> pl.DataFrame:
        """Of `events` those that are stored, with `_version`; see the port."""
        keys = events.select("_id", "@timestamp")
        rows = self._query(
            "SELECT _id, version FROM events WHERE _id IN (SELECT value FROM json_each(?))",
            (orjson.dumps(keys["_id"].to_list()),),
        )
        known = pl.DataFrame(rows, schema={"_id": pl.String, VERSION: pl.String}, orient="row", strict=False)
        return keys.join(known, on="_id", how="inner", maintain_order="left")

    def update_events(self, updates: pl.DataFrame) -> int:
        """Partial updates guarded by `_version`; a null clears its field. See the port."""
        check_columns(updates, ["_id", VERSION], [*STORED_SCHEMA, VERSION])
        features = features_of(updates.columns)
        plain = [name for name in STORED_SCHEMA if name in updates.columns and name not in EVENT_SCHEMA]
        if not updates.height or not (plain or features):
            return 0
        setting = [*plain, *(FEATURE_COLUMNS if features else [])]
        assignments = ", ".join(f'"{name}" = ?' for name in setting)
        statement = f"UPDATE events SET {assignments}, version = version + 1 WHERE _id = ? AND version = ?"
        with self._transaction() as connection:
            values = updates.select(plain)
            if features:
                values = _with_blobs(connection, values, _merged_features(connection, updates, features))
            keys = updates.select("_id", pl.col(VERSION).cast(pl.Int64, strict=False))
            return connection.executemany(
                statement, sqlite_rows.to_rows(pl.concat([values, keys], how="horizontal"))
            ).rowcount

    def read_events(
        self,
        query: EventQuery,
        *,
        columns: Sequence[str] | None = None,
        order: Literal["any", "position", "time"] = "any",
        batch_rows: int = 10_000,
        with_version: bool = False,
    ) -> Iterator[pl.DataFrame]:
        """Events in frames of at most `batch_rows`; see the port. The iterator holds one read transaction."""
        clause, parameters = where(query)
        with contextlib.closing(self._open()) as connection, translated(self._path):
            connection.execute("BEGIN")
            sets = sqlite_rows.feature_sets(connection)
            stored = sorted({name for names in sets.values() for name in names})
            schema = read_schema(columns, stored)
            features = features_of(schema)
            plain = [name for name in schema if name in STORED_SCHEMA]
            selected = [
                *plain,
                *(FEATURE_COLUMNS if features else []),
                *(["version"] if with_version else []),
            ] or ["_id"]
            cursor = connection.execute(f"SELECT {quoted(selected)} FROM events{clause}{ORDER_BY[order]}", parameters)
            while rows := cursor.fetchmany(batch_rows):
                series = sqlite_rows.from_rows(rows, selected, schema)
                if features:
                    at = selected.index(FEATURE_COLUMNS[0])
                    frame = sqlite_rows.features_frame([r[at] for r in rows], [r[at + 1] for r in rows], sets, features)
                    series |= {name: frame[name] for name in features}
                ordered = [series[name] for name in schema]
                if with_version:
                    ordered.append(pl.Series(VERSION, [str(row[-1]) for row in rows], dtype=pl.String))
                yield pl.DataFrame(ordered)

    def read_dead(self, *, limit: int | None = None) -> pl.DataFrame:
        """Dead letters, oldest first."""
        statement = f"SELECT {quoted(DEAD_SCHEMA)} FROM dead{ORDER_BY['time']} LIMIT ?"
        rows = self._query(statement, (-1 if limit is None else limit,))
        return pl.DataFrame(list(sqlite_rows.from_rows(rows, list(DEAD_SCHEMA), pl.Schema(DEAD_SCHEMA)).values()))

    def iterate_dead(
        self,
        query: DeadQuery,
        *,
        columns: Sequence[str] | None = None,
        newest_first: bool = False,
        batch_rows: int = 100,
    ) -> Iterator[pl.DataFrame]:
        """Dead letters that fit, by time; the iterator holds one read transaction."""
        schema = dead_schema(columns)
        clause, parameters = where_dead(query)
        order = NEWEST_FIRST if newest_first else ORDER_BY["time"]
        with contextlib.closing(self._open()) as connection, translated(self._path):
            connection.execute("BEGIN")
            cursor = connection.execute(f"SELECT {quoted(schema)} FROM dead{clause}{order}", parameters)
            while rows := cursor.fetchmany(batch_rows):
                yield pl.DataFrame(list(sqlite_rows.from_rows(rows, list(schema), schema).values()))

    def delete_dead(self, ids: Sequence[str]) -> int:
        """Remove dead letters; those that are not there are passed over."""
        clause, parameters = where_dead(DeadQuery(ids=tuple(ids)))
        with self._transaction() as connection:
            return connection.execute(f"DELETE FROM dead{clause}", parameters).rowcount

    def count_events(self, query: EventQuery) -> int:
        """How many events fit."""
        clause, parameters = where(query)
        return int(self._query(f"SELECT count(*) FROM events{clause}", parameters)[0][0])

    def count_dead(self) -> int:
        """How many dead letters there are."""
        return int(self._query("SELECT count(*) FROM dead")[0][0])

    def summarise_events(self, query: EventQuery) -> EventSummary:
        """Counts over the events that fit; see the port."""
        return sqlite_summary.summarise(self._query, query)

    def client_hours(self, query: EventQuery) -> pl.DataFrame:
        """The distinct (client, hour) of events that fit; see the port."""
        return sqlite_summary.client_hours(self._query, query)

    def dead_kinds(self, query: DeadQuery) -> dict[str, int]:
        """How many dead letters that fit there are of each kind."""
        clause, parameters = where_dead(query)
        return dict(self._query(f"SELECT kind, count(*) FROM dead{clause} GROUP BY kind", parameters))

    def partitions(self, query: EventQuery) -> list[tuple[str, str, int]]:
        """The distinct (epoch, topic, partition) of events that fit, sorted."""
        clause, parameters = where(query)
        names = quoted(POSITION_ORDER[:3])
        return [
            (epoch, topic, partition)
            for epoch, topic, partition in self._query(
                f"SELECT DISTINCT {names} FROM events{clause} ORDER BY {names}", parameters
            )
        ]

    def time_range(self, query: EventQuery) -> tuple[dt.datetime, dt.datetime] | None:
        """First and last `@timestamp` of events that fit; None where none does."""
        clause, parameters = where(query)
        # Two questions, not one: SQLite answers a lone min or max from the end of the index.
        ends = [
            self._query(f'SELECT {end}("@timestamp") FROM events{clause}', parameters)[0][0] for end in ("min", "max")
        ]
        if None in ends:
            return None
        first, last = (time_of(end) for end in ends)
        return first, last

    def delete_before(self, day: dt.date, *, dry_run: bool = False) -> dict[dt.date, int | None]:
        """Remove the events of days before `day`, a day a transaction, so that writers wait for one at most."""
        with self._transaction() as connection:
            found = sqlite_upkeep.days_before(connection, day)
        for one in () if dry_run else found:
            with self._transaction() as connection:
                sqlite_upkeep.delete_day(connection, one)
        return found

    def delete_client(self, client: str) -> int:
        """Remove every event of a client."""
        with self._transaction() as connection:
            return connection.execute('DELETE FROM events WHERE "source.address" = ?', (client,)).rowcount

    def expunge(self) -> None:
        """Write the file anew: needs as much room once more, and nobody else writes meanwhile."""
        with self._turn:
            with self._transaction() as connection:
                pass
            with translated(self._path):
                sqlite_upkeep.rewrite(connection)

    def put_document(self, collection: Collection, id: str, document: Mapping[str, Any]) -> None:
        """Write a small document, replacing one of the same id."""
        body = orjson.dumps({key: value for key, value in document.items() if key != "_id"})
        with self._transaction() as connection:
            connection.execute("INSERT OR REPLACE INTO documents VALUES (?, ?, ?)", (collection, id, body))

    def get_document(self, collection: Collection, id: str) -> dict[str, Any] | None:
        """A small document, or None."""
        rows = self._query("SELECT document FROM documents WHERE collection = ? AND id = ?", (collection, id))
        return dict(orjson.loads(rows[0][0])) if rows else None

    def list_documents(self, collection: Collection, *, since: dt.datetime | None = None) -> list[dict[str, Any]]:
        """Every document of a collection, each with its `_id`, sorted by it; see the port."""
        rows = self._query("SELECT id, document FROM documents WHERE collection = ? ORDER BY id", (collection,))
        found = [{**orjson.loads(document), "_id": id} for id, document in rows]
        return found if since is None else [document for document in found if is_since(document, since)]

    def delete_document(self, collection: Collection, id: str) -> None:
        """Remove a document; harmless when it is not there."""
        with self._transaction() as connection:
            connection.execute("DELETE FROM documents WHERE collection = ? AND id = ?", (collection, id))

    def acquire_lock(self, name: str, holder: str, ttl_seconds: float) -> str | None:
        """Take a lock, or prolong one's own; None when taken, else the name of who holds it."""
        with self._transaction() as connection:
            held = self._lock(connection, name)
            now = time.time()
            if held and held["holder"] != holder and held["expires_ms"] > now * 1000:
                return str(held["holder"])
            body = orjson.dumps({"holder": holder, "expires_ms": int((now + ttl_seconds) * 1000)})
            connection.execute("INSERT OR REPLACE INTO documents VALUES ('locks', ?, ?)", (name, body))
        return None

    def release_lock(self, name: str, holder: str) -> None:
        """Give a lock back; harmless when it is no longer ours."""
        with self._transaction() as connection:
            held = self._lock(connection, name)
            if held and held["holder"] == holder:
                connection.execute("DELETE FROM documents WHERE collection = 'locks' AND id = ?", (name,))

    def refresh(self) -> None:
        """Nothing to do: what is committed is visible."""

    def ping(self) -> None:
        """Raises StoreUnavailable or StoreRefused when the file cannot be written now."""
        with self._transaction():
            pass

    def close(self) -> None:
        """Close the connection; open iterators keep their own."""
        with self._turn:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _create(self, table: str, columns: Sequence[str], frame: pl.DataFrame, rows: _ToRows) -> WriteOutcome:
        outcome = WriteOutcome(rejected=unstorable(frame))
        if not frame.height:
            return outcome
        frame, numbers = without(frame, outcome.rejected)
        places = ", ".join("?" * len(columns))
        statement = f"INSERT OR IGNORE INTO {table} ({quoted(columns)}) VALUES ({places})"
        try:
            with self._transaction() as connection:
                connection.executemany(statement, rows(connection, frame))
        except StoreUnavailable as error:
            outcome.retry = dict.fromkeys(numbers, error.found)
        return outcome

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._turn, translated(self._path):
            if self._connection is None:
                self._connection = self._open()
            connection = self._connection
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def _query(self, statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self._turn, translated(self._path):
            if self._connection is None:
                self._connection = self._open()
            return self._connection.execute(statement, parameters).fetchall()

    def _open(self) -> sqlite3.Connection:
        connection = connect(self._path, self._timeout)
        try:
            with translated(self._path):
                sqlite_tables.create_tables(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    @staticmethod
    def _lock(connection: sqlite3.Connection, name: str) -> dict[str, Any] | None:
        found = connection.execute(
            "SELECT document FROM documents WHERE collection = 'locks' AND id = ?", (name,)
        ).fetchone()
        return dict(orjson.loads(found[0])) if found else None


def _with_blobs(connection: sqlite3.Connection, plain: pl.DataFrame, features: pl.DataFrame) -> pl.DataFrame:
    """`plain` with the two columns that hold the features; both null where a row has none."""
    blobs = pl.Series(FEATURE_COLUMNS[1], sqlite_rows.feature_blobs(features), dtype=pl.Binary)
    number = sqlite_rows.feature_set_number(connection, features.columns)
    sets = pl.select(pl.when(blobs.is_not_null()).then(pl.lit(number, dtype=pl.Int64)).alias(FEATURE_COLUMNS[0]))
    return pl.concat([plain, pl.DataFrame([sets.to_series(), blobs])], how="horizontal")


def _merged_features(connection: sqlite3.Connection, updates: pl.DataFrame, features: list[str]) -> pl.DataFrame:
    """The features of an update beside those that the rows hold already under other names, in row order."""
    sets = sqlite_rows.feature_sets(connection)
    kept = sorted({name for names in sets.values() for name in names} - set(features))
    if not kept:
        return updates.select(features)
    ids = updates["_id"].to_list()
    found = {
        id: (number, blob)
        for id, number, blob in connection.execute(
            f"SELECT _id, {quoted(FEATURE_COLUMNS)} FROM events WHERE _id IN (SELECT value FROM json_each(?))",
            (orjson.dumps(ids),),
        )
    }
    rows = [found.get(id, (None, None)) for id in ids]
    before = sqlite_rows.features_frame([row[0] for row in rows], [row[1] for row in rows], sets, kept)
    before = before.select(series for series in before if series.null_count() < before.height)
    return pl.concat([updates.select(features), before], how="horizontal")
