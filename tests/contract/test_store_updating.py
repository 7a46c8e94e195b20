"""What every event store promises of partial updates: guarded by the version that was read."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable

import polars as pl

from oddlog.connectors.store import EventQuery, Store
from oddlog.events.schema import REASON
from tests.store_frames import ALL, REASONS, STORED, events, ids, read, scored, write


def versions(store: Store, query: EventQuery = ALL) -> pl.DataFrame:
    return read(store, query, columns=["_id", "@timestamp"], with_version=True)


def test_an_update_sets_its_columns_and_no_other(store: Store) -> None:
    before = events(4, anomaly__status=["pending"] * 4, features__tok=[1.0, 2.0, 3.0, 4.0])
    write(store, before)
    changes = versions(store).with_columns(
        pl.lit("scored").alias("anomaly.status"),
        pl.lit(0.5).alias("anomaly.score"),
        pl.lit(True).alias("anomaly.is_anomaly"),
        pl.Series("anomaly.reasons", [REASONS, None, REASONS, None], dtype=pl.List(REASON)),
    )
    assert store.update_events(changes) == 4
    store.refresh()
    after = read(store, columns=[*STORED, "features.tok"])
    assert after.select(before.columns).drop("anomaly.status").equals(before.drop("anomaly.status"))
    assert after["anomaly.status"].to_list() == ["scored"] * 4
    assert after["anomaly.score"].to_list() == [0.5] * 4
    assert after["anomaly.reasons"].to_list() == [REASONS, None, REASONS, None]


def test_null_clears(store: Store) -> None:
    write(store, scored(4))
    changes = versions(store).with_columns(
        pl.lit(None, dtype=pl.List(REASON)).alias("anomaly.reasons"),
        pl.Series("anomaly.threshold", [None, 1.0, None, 1.0]),
    )
    assert store.update_events(changes) == 4
    store.refresh()
    after = read(store)
    assert after["anomaly.reasons"].null_count() == 4
    assert after["anomaly.threshold"].to_list() == [None, 1.0, None, 1.0]


def test_what_changed_since_it_was_read_is_left_alone(store: Store, connect: Callable[[], Store]) -> None:
    write(store, scored(4))
    mine = versions(store)
    theirs = mine.head(2).with_columns(pl.lit(7.0).alias("anomaly.score"))
    assert connect().update_events(theirs) == 2
    assert store.update_events(mine.with_columns(pl.lit(8.0).alias("anomaly.score"))) == 2
    assert store.update_events(mine.with_columns(pl.lit(9.0).alias("anomaly.score"))) == 0
    store.refresh()
    assert read(store)["anomaly.score"].to_list() == [7.0, 7.0, 8.0, 8.0]


def test_a_new_look_gives_a_version_that_can_be_updated_again(store: Store) -> None:
    write(store, scored(2))
    for value in (5.0, 6.0):
        assert store.update_events(versions(store).with_columns(pl.lit(value).alias("anomaly.score"))) == 2
        store.refresh()
    assert read(store)["anomaly.score"].to_list() == [6.0, 6.0]


def test_what_is_gone_or_was_never_there_is_left_alone(store: Store) -> None:
    write(store, scored(2))
    found = versions(store)
    changes = found.with_columns(pl.Series("_id", ["never", found["_id"][1]]), pl.lit(5.0).alias("anomaly.score"))
    assert store.update_events(changes) == 1
    store.refresh()
    assert sorted(ids(store)) == found["_id"].to_list()


def test_a_version_of_no_store_is_left_alone(store: Store) -> None:
    write(store, scored(2))
    changes = versions(store).with_columns(pl.Series("_version", [None, "x"], dtype=pl.String))
    assert store.update_events(changes.with_columns(pl.lit(5.0).alias("anomaly.score"))) == 0


def test_features_are_set_beside_those_that_are_there(store: Store) -> None:
    write(store, events(2, features__a=[1.0, 2.0], features__b=[3.0, 4.0]))
    write(store, events(1, start=2))
    changes = versions(store).with_columns(
        pl.Series("features.b", [30.0, None, 50.0], dtype=pl.Float32),
        pl.Series("features.c", [60.0, 70.0, 80.0], dtype=pl.Float32),
    )
    assert store.update_events(changes) == 3
    store.refresh()
    assert read(store, columns=["features.*"]).to_dict(as_series=False) == {
        "features.a": [1.0, 2.0, None],
        "features.b": [30.0, None, 50.0],
        "features.c": [60.0, 70.0, 80.0],
    }


def test_the_version_is_text_and_the_event_itself_is_never_updated(store: Store) -> None:
    write(store, scored(1))
    found = versions(store)
    assert found.schema["_version"] == pl.String
    moved = found.with_columns(pl.col("@timestamp") + dt.timedelta(hours=1), pl.lit(5.0).alias("anomaly.score"))
    assert store.update_events(moved) == 1
    store.refresh()
    assert read(store)["@timestamp"].to_list() == found["@timestamp"].to_list()
