"""What every event store promises of writing events: each once, whole, and none for another's fault."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from oddlog.connectors.store import EventQuery, Store
from oddlog.events.schema import DEAD_SCHEMA, TIMESTAMP
from tests.store_frames import ALL, events, ids, read, scored, write


def test_what_is_written_comes_back_column_by_column(store: Store) -> None:
    frame = scored(9)
    write(store, frame)
    assert read(store, columns=frame.columns).equals(frame)


def test_setting_up_again_harms_nothing(store: Store, connect: Callable[[], Store]) -> None:
    write(store, events(3))
    store.setup()
    connect().setup()
    assert store.count_events(ALL) == 3


def test_what_is_there_is_never_overwritten(store: Store) -> None:
    write(store, scored(4))
    write(store, scored(4, anomaly__score=[99.0] * 4, url__path=["/other"] * 4))
    assert read(store, columns=["url.path"])["url.path"].to_list() == [f"/page/{row}" for row in range(4)]
    assert read(store, columns=["anomaly.score"])["anomaly.score"].max() < 1


def test_a_redelivery_that_overlaps_adds_only_what_is_new(store: Store) -> None:
    write(store, events(6))
    write(store, events(6, start=4))
    assert ids(store) == [f"e1-logs.raw-0-{offset}" for offset in range(10)]


def test_a_document_twice_in_one_batch_is_one_document(store: Store) -> None:
    write(store, pl.concat([events(3), events(3)]))
    assert store.count_events(ALL) == 3


def test_two_writers_of_the_same_events_make_them_once(store: Store, connect: Callable[[], Store]) -> None:
    frame = events(400)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda one: write(one, frame), [store, connect()]))
    assert store.count_events(ALL) == 400


def test_another_connection_sees_what_was_written(store: Store, connect: Callable[[], Store]) -> None:
    write(store, events(2))
    assert connect().count_events(ALL) == 2


def test_rows_that_no_store_can_keep_are_rejected_alone(store: Store) -> None:
    frame = events(6).with_columns(
        pl.when(pl.col("oddlog.position.offset") == 1).then(pl.lit("é" * 257)).otherwise("_id").alias("_id"),
        pl.when(pl.col("oddlog.position.offset") != 4).then("@timestamp").alias("@timestamp"),
    )
    outcome = store.write_events(frame)
    store.refresh()
    assert sorted(outcome.rejected) == [1, 4]
    assert "514 bytes" in outcome.rejected[1]
    assert "no @timestamp" in outcome.rejected[4]
    assert not outcome.retry
    assert store.count_events(ALL) == 4


@pytest.mark.parametrize("ms", [-(10**17), -62_135_596_800_001, 253_402_300_800_000, 10**18])
def test_a_date_of_no_calendar_is_rejected_alone(store: Store, ms: int) -> None:
    outcome = store.write_events(events(3).with_columns(pl.Series("@timestamp", [0, ms, 1]).cast(TIMESTAMP)))
    store.refresh()
    assert list(outcome.rejected) == [1]
    assert not outcome.retry
    assert store.count_events(ALL) == 2


def test_a_frame_of_nothing_but_unstorable_rows_writes_nothing(store: Store) -> None:
    outcome = store.write_events(events(2).with_columns(pl.lit("").alias("_id")))
    assert sorted(outcome.rejected) == [0, 1]
    assert store.count_events(ALL) == 0


def test_an_id_of_exactly_512_bytes_is_taken(store: Store) -> None:
    long = "i" * 512
    write(store, events(1, _id=[long]))
    assert ids(store) == [long]


def test_empty_frames_are_harmless(store: Store) -> None:
    nothing = store.write_events(scored(0))
    assert not nothing.rejected
    assert not nothing.retry
    assert not store.write_dead(pl.DataFrame(schema=DEAD_SCHEMA)).retry
    assert (
        store.update_events(pl.DataFrame(schema={"_id": pl.String, "@timestamp": TIMESTAMP, "_version": pl.String}))
        == 0
    )
    assert store.count_events(ALL) == 0


def test_columns_that_no_event_has_are_refused_by_name(store: Store) -> None:
    with pytest.raises(ValueError, match=r"brings anomaly\.scroe"):
        store.write_events(events(1).with_columns(pl.lit(1.0).alias("anomaly.scroe")))
    with pytest.raises(ValueError, match=r"lacks url\.path"):
        store.write_events(events(1).drop("url.path"))


def test_text_comes_back_to_the_last_character(store: Store) -> None:
    strange = [
        'a "quote" and a back\\slash',
        "tab\t newline\n return\r bell\x07 nul\x00 end",
        "é 漢字 😀 \u2028 \ufeff \ud7ff",
        "{}[]:,",
        "",
        "/" + "long/" * 20_000,  # past Lucene's limit of 32,766 bytes for one keyword
    ]
    n = len(strange)
    frame = events(n, url__original=strange, url__path=strange, event__original=strange, user__name=strange)
    write(store, frame)
    assert read(store, columns=frame.columns).equals(frame)


def test_a_client_that_is_no_address_is_kept(store: Store) -> None:
    frame = events(2, source__address=["crawl.example.net", "::1"], source__ip=["no address", "::1"])
    write(store, frame)
    assert read(store, columns=frame.columns).equals(frame)


def test_old_and_far_dates_are_kept(store: Store) -> None:
    moments = [-62_135_596_800_000, -1, 253_402_300_799_999]  # the years 1, 1969 and 9999
    frame = events(3).with_columns(pl.Series("@timestamp", moments).cast(TIMESTAMP))
    write(store, frame)
    assert read(store, columns=frame.columns).equals(frame)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=50))
def test_features_come_back_bit_by_bit(store: Store, values: list[float]) -> None:
    epoch = f"h{uuid.uuid4().hex[:8]}"
    write(store, events(len(values), epoch=epoch, features__x=np.array(values, dtype=np.float32)))
    found = read(store, EventQuery(epoch=epoch), columns=["features.x"])["features.x"]
    assert found.dtype == pl.Float32
    assert found.to_numpy().tobytes() == np.array(values, dtype=np.float32).tobytes()


def test_a_feature_that_is_no_number_comes_back_null(store: Store) -> None:
    write(store, events(3, features__x=[1.0, float("nan"), None], features__y=[2.0, 3.0, None]))
    found = read(store, columns=["features.*"])
    assert found.to_dict(as_series=False) == {"features.x": [1.0, None, None], "features.y": [2.0, 3.0, None]}
