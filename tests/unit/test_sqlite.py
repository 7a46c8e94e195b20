"""What only the SQLite store can do wrong: its file, other processes, damage, locks of the database itself."""

from __future__ import annotations

import multiprocessing
import sqlite3
from pathlib import Path

import polars as pl
import pytest

from oddlog.connectors import sqlite_tables
from oddlog.connectors.by_url import open_store
from oddlog.connectors.documents import STORED_SCHEMA, read_schema
from oddlog.connectors.sqlite import SqliteStore
from oddlog.connectors.store import EventQuery
from oddlog.errors import StoreError, StoreRefused, StoreUnavailable, UsageError
from oddlog.events.schema import EVENT_SCHEMA
from oddlog.settings import StoreSettings
from tests.waiting import until

ALL = EventQuery()


def store_at(path: Path, timeout: float = 30.0) -> SqliteStore:
    return SqliteStore(StoreSettings(url=f"sqlite:///{path}", timeout=timeout))


def events(n: int, start: int = 0) -> pl.DataFrame:
    offsets = pl.Series("oddlog.position.offset", range(start, start + n), dtype=pl.Int64)
    return pl.select(
        (pl.lit("e1-t-0-") + offsets.cast(pl.String)).alias(name)
        if name == "_id"
        else offsets
        if name == offsets.name
        else pl.lit(0 if dtype.is_temporal() or dtype.is_integer() else "x").cast(dtype).alias(name)
        for name, dtype in pl.Schema(EVENT_SCHEMA).items()
    ).with_columns(pl.lit(1.5, dtype=pl.Float32).alias("features.a"))


def _write_many(
    path: str, start: int, ready: multiprocessing.synchronize.Barrier, wrote: multiprocessing.Queue[int]
) -> None:
    ready.wait(60)
    own = store_at(Path(path))
    retried = 0
    for batch in range(10):
        retried += len(own.write_events(events(100, start + batch * 50)).retry)  # half of it was there before
        list(own.read_events(ALL, columns=["_id"]))
    own.close()
    wrote.put(retried)


def test_processes_that_start_at_once_write_side_by_side_and_lose_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    path = tmp_path / "one.sqlite"
    ready, wrote = context.Barrier(4), context.Queue()
    processes = [
        context.Process(target=_write_many, args=(str(path), start, ready, wrote), daemon=True)
        for start in (0, 0, 300, 5_000)
    ]
    for process in processes:
        process.start()
    assert [wrote.get(timeout=120) for _ in processes] == [0, 0, 0, 0]
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    one = store_at(path)
    found = pl.concat(one.read_events(ALL, columns=["oddlog.position.offset"], order="position")).to_series()
    assert found.to_list() == [*range(850), *range(5_000, 5_550)]


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///", "sqlite:relative.sqlite", "sqlite:///:memory:"])
def test_a_url_that_names_no_file_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="names no file"):
        open_store(StoreSettings(url=url))


def test_three_slashes_are_relative_and_four_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    SqliteStore(StoreSettings(url="sqlite:///a/b.sqlite")).setup()
    SqliteStore(StoreSettings(url=f"sqlite:///{tmp_path}/c/d.sqlite")).setup()
    assert (tmp_path / "a" / "b.sqlite").is_file()
    assert (tmp_path / "c" / "d.sqlite").is_file()


def test_tables_of_another_version_are_refused_with_the_version(tmp_path: Path) -> None:
    store_at(tmp_path / "one.sqlite").setup()
    with sqlite3.connect(tmp_path / "one.sqlite") as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(StoreError, match="tables of version 99"):
        store_at(tmp_path / "one.sqlite").count_events(ALL)


def test_a_file_of_something_else_is_left_as_it_is(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "mlflow.db") as connection:
        connection.execute("CREATE TABLE experiments (id INTEGER)")
    with pytest.raises(StoreError, match="it has the tables experiments"):
        store_at(tmp_path / "mlflow.db").setup()
    (tmp_path / "notes.txt").write_text("these are notes, and by no means a database\n" * 100)
    with pytest.raises(StoreError, match="file is not a database"):
        store_at(tmp_path / "notes.txt").setup()
    assert (tmp_path / "notes.txt").read_text().startswith("these are notes")


def test_columns_that_came_later_are_added(tmp_path: Path) -> None:
    path = tmp_path / "one.sqlite"
    store_at(path).write_events(events(2))
    with sqlite3.connect(path) as connection:
        connection.execute('ALTER TABLE events DROP COLUMN "anomaly.baseline"')
    later = store_at(path)
    found = pl.concat(later.read_events(ALL))
    assert found.columns == list(read_schema(None, []))
    assert found["anomaly.baseline"].null_count() == 2


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreRefused, match="cannot be made"):
        store_at(tmp_path / "file" / "below" / "one.sqlite").setup()


def test_a_database_locked_past_the_timeout_makes_every_row_wait(tmp_path: Path) -> None:
    path = tmp_path / "one.sqlite"
    store = store_at(path, timeout=0.05)
    store.setup()
    rows = events(3).with_columns(_id=pl.Series(["a", "x" * 600, "c"]))
    with sqlite3.connect(path, isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        outcome = store.write_events(rows)
        assert sorted(outcome.retry) == [0, 2]
        assert sorted(outcome.rejected) == [1]
        assert "database is locked" in outcome.retry[0]
        with pytest.raises(StoreUnavailable, match="database is locked"):
            store.ping()
        assert store.count_events(ALL) == 0  # readers wait for no writer
        other.execute("ROLLBACK")
    assert not store.write_events(rows.head(1)).retry
    assert store.count_events(ALL) == 1


def test_a_full_disk_makes_every_row_wait_and_leaves_what_was_there(tmp_path: Path) -> None:
    store = store_at(tmp_path / "one.sqlite")
    store.write_events(events(10))
    assert store._connection is not None
    (pages,) = store._connection.execute("PRAGMA page_count").fetchone()
    store._connection.execute(f"PRAGMA max_page_count = {pages + 2}")  # what SQLite says when the disk is full
    outcome = store.write_events(events(5_000, start=10))
    assert len(outcome.retry) == 5_000
    assert "full" in outcome.retry[0]
    assert store.count_events(ALL) == 10
    store._connection.execute("PRAGMA max_page_count = 1000000")
    assert not store.write_events(events(5_000, start=10)).retry
    assert store.count_events(ALL) == 5_010


def test_a_write_is_synced_and_does_not_wait_for_a_reader(tmp_path: Path) -> None:
    store = store_at(tmp_path / "one.sqlite", timeout=0.05)
    store.write_events(events(10))
    reading = store.read_events(ALL, batch_rows=2)
    next(reading)
    assert not store.write_events(events(10, start=10)).retry
    assert store._connection is not None
    assert store._connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert store._connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
    assert sum(frame.height for frame in reading) == 8


@pytest.mark.parametrize(
    ("query", "index"),
    [
        (EventQuery(status="pending", epoch="e1", topic="t", partition=0), "events_pending"),
        (EventQuery(epoch="e1", topic="t", partition=0, from_offset=5), "events_by_position"),
        (EventQuery(only_anomalies=True), "events_anomalous"),
    ],
)
def test_what_is_asked_often_is_answered_by_an_index(tmp_path: Path, query: EventQuery, index: str) -> None:
    from oddlog.connectors.sqlite_query import where

    store = store_at(tmp_path / "one.sqlite")
    store.write_events(events(10))
    clause, parameters = where(query)
    plan = store._query(f"EXPLAIN QUERY PLAN SELECT _id FROM events{clause}", parameters)
    assert index in plan[0][3]


def test_setting_up_needs_no_write_lock_once_the_tables_are_there(tmp_path: Path) -> None:
    path = tmp_path / "one.sqlite"
    store_at(path).setup()
    with sqlite3.connect(path, isolation_level=None) as writer:
        writer.execute("BEGIN IMMEDIATE")
        started = store_at(path, timeout=0.05)
        assert started.count_events(ALL) == 0
        assert list(started.read_events(ALL)) == []
        writer.execute("ROLLBACK")


def test_every_type_of_the_schema_has_a_column_type() -> None:
    texts = [name for name, declared in sqlite_tables._columns(STORED_SCHEMA).items() if " TEXT" in declared]
    others = [name for name, dtype in pl.Schema(STORED_SCHEMA).items() if dtype not in (pl.String(),) and name in texts]
    assert others == ["anomaly.reasons"]  # JSON


def test_a_lock_of_a_dead_process_gives_way(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    path = tmp_path / "one.sqlite"
    process = context.Process(target=_take_and_die, args=(str(path),), daemon=True)
    process.start()
    process.join(60)
    assert process.exitcode == 0
    store = store_at(path)
    assert store.acquire_lock("long", "me", 60) == "dead", "a lock outlives its process until it expires"
    until(lambda: store.acquire_lock("short", "me", 60) is None, "the end of a dead process's lock")


def _take_and_die(path: str) -> None:
    store = store_at(Path(path))
    assert store.acquire_lock("long", "dead", 3_600) is None
    assert store.acquire_lock("short", "dead", 0.1) is None
