"""The tables of the SQLite store: columns, indexes, version. Reading and writing their rows is `sqlite.py`'s.

One real column for every column of an event; the features of a row are one blob of float32, whose names stand
in `feature_sets` (a deployment has a handful of those); reasons are JSON.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

import polars as pl

from oddlog.connectors.documents import STORED_SCHEMA, DTypes
from oddlog.errors import StoreError
from oddlog.events.schema import DEAD_SCHEMA

TABLES_VERSION = 1
"""Raised when a table changes its meaning; a new column of an event is added without that."""

FEATURE_COLUMNS = ("feature_set", "features")
"""Number of the list of names, and the values under them; both null where a row has no features."""

_SQL_TYPES: dict[pl.DataType, str] = {
    pl.String(): "TEXT",
    pl.Binary(): "BLOB",
    pl.Boolean(): "INTEGER",
    pl.Int32(): "INTEGER",
    pl.Int64(): "INTEGER",
    pl.Float64(): "REAL",
    pl.Datetime("ms", "UTC"): "INTEGER",  # milliseconds since 1970
}

_POSITION = '"oddlog.position.epoch", "oddlog.position.topic", "oddlog.position.partition", "oddlog.position.offset"'

_INDEXES = (
    'CREATE INDEX IF NOT EXISTS events_by_time ON events ("@timestamp")',
    f"CREATE INDEX IF NOT EXISTS events_by_position ON events ({_POSITION})",
    # Partial, so that the many events that are neither pending nor odd cost nothing here.
    f"CREATE INDEX IF NOT EXISTS events_pending ON events ({_POSITION})"
    """ WHERE "anomaly.status" = 'pending'""",
    'CREATE INDEX IF NOT EXISTS events_anomalous ON events ("@timestamp") WHERE "anomaly.is_anomaly" = 1',
    'CREATE INDEX IF NOT EXISTS dead_by_time ON dead ("@timestamp")',
)


def quoted(names: Iterable[str]) -> str:
    """Column names for SQL, comma separated.

    >>> quoted(["_id", "url.path"])
    '"_id", "url.path"'
    """
    return ", ".join(f'"{name}"' for name in names)


def create_tables(connection: sqlite3.Connection) -> None:
    """Create what is missing, in its own transaction. Raises StoreError for tables of another version."""
    if _complete(connection):  # asked without the write lock, so that readers wait for no one
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        (found,) = connection.execute("PRAGMA user_version").fetchone()
        if found not in (0, TABLES_VERSION):
            raise StoreError(
                f"the SQLite store has tables of version {found}",
                expected=f"version {TABLES_VERSION}, which this oddlog reads and writes",
                mend="use the oddlog that wrote it, or point ODDLOG_STORE__URL at a new file",
            )
        if found == 0 and (strange := _tables(connection)):
            raise StoreError(
                f"the SQLite file belongs to something else: it has the tables {', '.join(sorted(strange))}",
                expected="an empty file, or one that oddlog made",
                mend="point ODDLOG_STORE__URL at another file",
            )
        event_columns = _columns(STORED_SCHEMA)
        connection.execute(
            f"CREATE TABLE IF NOT EXISTS events ({', '.join(event_columns.values())},"
            " feature_set INTEGER REFERENCES feature_sets, features BLOB,"
            " version INTEGER NOT NULL DEFAULT 1)"
        )
        present = _event_columns(connection)
        for name, declaration in event_columns.items():
            if name not in present:
                connection.execute(f"ALTER TABLE events ADD COLUMN {declaration}")
        connection.execute(f"CREATE TABLE IF NOT EXISTS dead ({', '.join(_columns(DEAD_SCHEMA).values())})")
        connection.execute(
            "CREATE TABLE IF NOT EXISTS feature_sets (id INTEGER PRIMARY KEY, names TEXT NOT NULL UNIQUE)"
        )
        connection.execute(
            "CREATE TABLE IF NOT EXISTS documents (collection TEXT NOT NULL, id TEXT NOT NULL,"
            " document BLOB NOT NULL, PRIMARY KEY (collection, id)) WITHOUT ROWID"
        )
        for statement in _INDEXES:
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {TABLES_VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def _complete(connection: sqlite3.Connection) -> bool:
    (found,) = connection.execute("PRAGMA user_version").fetchone()
    return found == TABLES_VERSION and _event_columns(connection).issuperset(STORED_SCHEMA)


def _event_columns(connection: sqlite3.Connection) -> set[str]:
    return {row[1] for row in connection.execute("PRAGMA table_info(events)")}


def _columns(schema: DTypes) -> dict[str, str]:
    declarations = {}
    for name, dtype in schema.items():
        sql = _SQL_TYPES.get(dtype() if isinstance(dtype, type) else dtype, "TEXT")  # lists of structs: JSON
        declarations[name] = f'"{name}" {sql}' + (" PRIMARY KEY NOT NULL" if name == "_id" else "")
    return declarations


def _tables(connection: sqlite3.Connection) -> set[str]:
    return {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
