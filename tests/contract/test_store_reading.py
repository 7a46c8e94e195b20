"""What every event store promises of reading events: what fits, in order, of one moment."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

import polars as pl
import pytest

from oddlog.connectors.store import EventQuery, Store
from oddlog.events.schema import ANOMALY_SCHEMA, DEAD_SCHEMA, EVENT_SCHEMA, POSITION_ORDER, TIMESTAMP
from tests.store_frames import ALL, MIDNIGHT, STORED, events, ids, read, scored, write


def test_an_empty_store_reads_as_nothing(store: Store) -> None:
    for order in ("any", "position", "time"):
        assert list(store.read_events(ALL, order=order)) == []
    assert store.count_events(ALL) == 0
    assert store.count_dead() == 0
    assert store.partitions(ALL) == []
    assert store.read_dead().schema == pl.Schema(DEAD_SCHEMA)


def test_the_default_is_everything_but_features(store: Store) -> None:
    write(store, scored(2))
    assert read(store).schema == pl.Schema({**EVENT_SCHEMA, **ANOMALY_SCHEMA})


def test_columns_that_no_document_has_are_null_of_their_type(store: Store) -> None:
    frame = events(3)
    write(store, frame)
    found = read(store, columns=[*STORED, "features.never"])
    assert found.schema == pl.Schema({**EVENT_SCHEMA, **ANOMALY_SCHEMA, "features.never": pl.Float32})
    assert found.select(*ANOMALY_SCHEMA, "features.never").null_count().row(0) == (3,) * (len(ANOMALY_SCHEMA) + 1)
    assert found.select(frame.columns).equals(frame)


def test_columns_come_in_the_order_they_were_asked_for(store: Store) -> None:
    write(store, scored(2))
    wanted = ["features.tok", "url.path", "_id", "anomaly.model.version", "@timestamp"]
    assert read(store, columns=wanted).columns == wanted
    both = read(store, columns=["_id", "features.*"])
    assert both.columns == ["_id", "features.client_e_1h", "features.tok"]


def test_every_frame_has_every_feature_whatever_its_rows_have(store: Store) -> None:
    write(store, events(3, features__a=[1.0, 2.0, 3.0]))
    write(store, events(3, start=3, features__b=[4.0, 5.0, 6.0]))
    frames = list(store.read_events(ALL, columns=["features.*"], order="position", batch_rows=2))
    assert {tuple(frame.columns) for frame in frames} == {("features.a", "features.b")}
    together = pl.concat(frames)
    assert together["features.a"].to_list() == [1.0, 2.0, 3.0, None, None, None]
    assert together["features.b"].to_list() == [None, None, None, 4.0, 5.0, 6.0]


def test_a_column_that_events_do_not_have_is_refused_by_name(store: Store) -> None:
    with pytest.raises(ValueError, match=r"no column 'url\.pth'"):
        list(store.read_events(ALL, columns=["url.pth"]))


@pytest.mark.parametrize("order", ["any", "position", "time"])
@pytest.mark.parametrize("with_version", [False, True])
def test_pages_join_without_gap_or_double(store: Store, order: Any, with_version: bool) -> None:
    write(store, pl.concat([events(5), events(3, partition=1)]))
    for batch_rows in (1, 2, 3, 4, 7, 8, 9, 10_000, 50_000):
        frames = list(
            store.read_events(ALL, columns=["_id"], order=order, batch_rows=batch_rows, with_version=with_version)
        )
        assert max(frame.height for frame in frames) <= batch_rows
        assert all(frame.height for frame in frames)
        found = pl.concat(frames)
        assert found["_id"].n_unique() == found.height == 8
        assert ("_version" in found.columns) == with_version


def test_position_order_is_epoch_then_topic_then_partition_then_offset(store: Store) -> None:
    frame = pl.concat(
        [
            events(12, partition=10),
            events(12, partition=2, start=95),
            events(3, epoch="e0").with_columns(pl.lit("Z").alias("oddlog.position.topic")),
            events(2, epoch="e0", start=7).with_columns(pl.lit("a").alias("oddlog.position.topic")),
        ]
    ).unique("_id")
    write(store, frame.sample(fraction=1, shuffle=True, seed=1))
    wanted = frame.sort(POSITION_ORDER)["_id"].to_list()
    for batch_rows in (1, 5, 100):
        assert ids(store, batch_rows=batch_rows) == wanted


def test_time_order_falls_back_to_position(store: Store) -> None:
    noon = dt.datetime(2024, 3, 1, 12, tzinfo=dt.UTC)
    same = pl.concat([events(4, partition=3), events(4, partition=1)]).with_columns(
        pl.lit(noon).cast(TIMESTAMP).alias("@timestamp")
    )
    frame = pl.concat([same, events(4, partition=7, start=1), events(2, start=2000)])
    write(store, frame.sample(fraction=1, shuffle=True, seed=2))
    wanted = frame.sort(["@timestamp", *POSITION_ORDER])["_id"].to_list()
    for batch_rows in (1, 3, 100):
        assert ids(store, order="time", batch_rows=batch_rows) == wanted


def test_a_read_shows_one_point_in_time(store: Store, connect: Callable[[], Store]) -> None:
    write(store, scored(10))
    reading = store.read_events(ALL, columns=["_id", "anomaly.score"], order="position", batch_rows=3)
    first = next(reading)
    other = connect()
    write(other, events(5, start=10))
    versions = read(other, columns=["_id", "@timestamp"], with_version=True)
    assert other.update_events(versions.with_columns(pl.lit(1e6).alias("anomaly.score"))) == 15
    other.refresh()
    seen = pl.concat([first, *reading])
    assert seen["_id"].to_list() == [f"e1-logs.raw-0-{offset}" for offset in range(10)]
    assert seen["anomaly.score"].max() < 1e6
    assert store.count_events(ALL) == 15


def test_a_read_given_up_half_way_leaves_the_store_usable(store: Store) -> None:
    write(store, events(10))
    reading = store.read_events(ALL, batch_rows=2)
    next(reading)
    reading.close()  # type: ignore[attr-defined]  # a generator behind the Iterator
    write(store, events(2, start=10))
    assert store.count_events(ALL) == 12


def test_a_query_finds_what_fits_and_nothing_else(store: Store) -> None:
    write(store, scored(6))
    write(store, events(2, start=6, anomaly__status=["pending"] * 2))
    write(store, events(2, start=100, epoch="e2", partition=9))  # as the parser leaves them
    wanted = {
        EventQuery(): {0, 1, 2, 3, 4, 5, 6, 7, 100, 101},
        EventQuery(since=MIDNIGHT): {3, 4, 5, 6, 7, 100, 101},
        EventQuery(until=MIDNIGHT): {0, 1, 2},
        EventQuery(since=MIDNIGHT, until=MIDNIGHT + dt.timedelta(minutes=2)): {3, 4},
        EventQuery(since=MIDNIGHT + dt.timedelta(microseconds=1)): {4, 5, 6, 7, 100, 101},
        EventQuery(until=MIDNIGHT + dt.timedelta(microseconds=1)): {0, 1, 2, 3},
        EventQuery(until=MIDNIGHT.astimezone(dt.timezone(dt.timedelta(hours=5)))): {0, 1, 2},
        EventQuery(status="scored"): {0, 1, 2, 3, 4, 5},
        EventQuery(status="pending"): {6, 7},
        EventQuery(epoch="e2"): {100, 101},
        EventQuery(epoch="e1", topic="logs.raw", partition=0, from_offset=6): {6, 7},
        EventQuery(topic="elsewhere"): set(),
        EventQuery(partition=9): {100, 101},
        EventQuery(min_severity=1.0): {3, 4, 5},
        EventQuery(only_anomalies=True): {3},
        EventQuery(model_version="3"): {0, 1, 2, 3, 4, 5},
        EventQuery(model_version="4"): set(),
        EventQuery(ids=("e1-logs.raw-0-2", "e2-logs.raw-9-101", "never")): {2, 101},
        EventQuery(ids=()): set(),
    }
    for order in ("any", "position", "time"):
        found = {query: read(store, query, columns=["oddlog.position.offset"], order=order) for query in wanted}
        assert {query: set(frame.to_series()) if frame.height else set() for query, frame in found.items()} == wanted
    assert {query: store.count_events(query) for query in wanted} == {
        query: len(rows) for query, rows in wanted.items()
    }


def test_partitions_are_distinct_and_sorted(store: Store) -> None:
    for partition in (11, 2, 0):
        write(store, events(3, partition=partition))
    write(store, events(1, epoch="e0", partition=5))
    assert store.partitions(ALL) == [
        ("e0", "logs.raw", 5),
        ("e1", "logs.raw", 0),
        ("e1", "logs.raw", 2),
        ("e1", "logs.raw", 11),
    ]
    assert store.partitions(EventQuery(epoch="e0")) == [("e0", "logs.raw", 5)]
