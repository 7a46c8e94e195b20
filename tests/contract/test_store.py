"""What every event store promises, told as properties and tried on SQLite and on a real Elasticsearch.

What only one of them can do wrong is in tests/unit/test_sqlite.py and tests/integration/test_elastic_*.py.
"""

from __future__ import annotations

import datetime as dt
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from oddlog.connectors.by_url import open_store
from oddlog.connectors.store import DeadQuery, EventQuery, Store
from oddlog.events.schema import ANOMALY_SCHEMA, DEAD_SCHEMA, EVENT_SCHEMA, POSITION_ORDER, REASON, TIMESTAMP
from oddlog.settings import StoreSettings
from tests.elastic_place import elastic_place

ALL = EventQuery()
MIDNIGHT = dt.datetime(2024, 3, 1, tzinfo=dt.UTC)
STORED = [*EVENT_SCHEMA, *ANOMALY_SCHEMA]
REASONS = [{"feature": "tok", "value": 4.5, "typical": 0.25, "share": 0.6, "text": "rare “words” in the URL"}]


@pytest.fixture(params=["sqlite", pytest.param("elasticsearch", marks=pytest.mark.elasticsearch)])
def store_settings(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StoreSettings]:
    """A place of its own for every test, gone afterwards."""
    if request.param == "sqlite":
        yield StoreSettings(url=f"sqlite:///{tmp_path / 'deep' / 'er' / 'oddlog.sqlite'}")
        return
    with elastic_place(request.getfixturevalue("elasticsearch_url")) as place:
        yield place


@pytest.fixture
def connect(store_settings: StoreSettings) -> Iterator[Callable[[], Store]]:
    """Opens the test's store once more, as another process would."""
    opened: list[Store] = []

    def another() -> Store:
        opened.append(open_store(store_settings))
        return opened[-1]

    yield another
    for one in opened:
        one.close()


@pytest.fixture
def store(connect: Callable[[], Store]) -> Store:
    """A store that is set up and empty."""
    one = connect()
    one.setup()
    return one


def events(n: int, *, start: int = 0, partition: int = 0, epoch: str = "e1", **columns: Any) -> pl.DataFrame:
    """Events of EVENT_SCHEMA a minute apart, over midnight; `columns` replaces or adds, by name with __ for a dot."""
    offsets = range(start, start + n)
    base: dict[str, Any] = {
        "_id": [f"{epoch}-logs.raw-{partition}-{offset}" for offset in offsets],
        "@timestamp": [MIDNIGHT + dt.timedelta(minutes=offset - 3) for offset in offsets],
        "source.address": [f"192.0.2.{offset % 250}" for offset in offsets],
        "source.ip": [f"192.0.2.{offset % 250}" for offset in offsets],
        "user.name": [None] * n,
        "http.request.method": ["GET"] * n,
        "url.original": [f"/page/{offset}?q=1" for offset in offsets],
        "url.path": [f"/page/{offset}" for offset in offsets],
        "url.query": ["q=1" if offset % 2 else None for offset in offsets],
        "http.version": ["1.1"] * n,
        "http.response.status_code": [200 + offset % 300 for offset in offsets],
        "http.response.body.bytes": [2**40 + offset if offset % 3 else None for offset in offsets],
        "http.request.referrer": [None] * n,
        "user_agent.original": ["Mozilla/5.0"] * n,
        "host.name": ["web1"] * n,
        "log.file.path": ["/var/log/nginx/access.log"] * n,
        "labels.truth": ["benign"] * n,
        "event.original": [f'192.0.2.1 - - "GET /page/{offset}"' for offset in offsets],
        "oddlog.position.epoch": [epoch] * n,
        "oddlog.position.topic": ["logs.raw"] * n,
        "oddlog.position.partition": [partition] * n,
        "oddlog.position.offset": list(offsets),
    }
    frame = pl.DataFrame(base, schema=EVENT_SCHEMA)
    more = {name.replace("__", "."): value for name, value in columns.items()}
    return frame.with_columns(
        pl.Series(name, value, dtype={**EVENT_SCHEMA, **ANOMALY_SCHEMA}.get(name, pl.Float32))
        for name, value in more.items()
    )


def scored(n: int, **columns: Any) -> pl.DataFrame:
    """Events with every column that enrichment adds, and two features."""
    odd = [row % 4 == 3 for row in range(n)]
    return events(
        n,
        **{
            "anomaly__status": ["scored"] * n,
            "anomaly__score": [row / 7 for row in range(n)],
            "anomaly__severity": [row / 3 for row in range(n)],
            "anomaly__is_anomaly": odd,
            "anomaly__threshold": [0.4] * n,
            "anomaly__threshold_version": ["2024-03-01T00:00:00Z"] * n,
            "anomaly__model__name": ["oddlog"] * n,
            "anomaly__model__version": ["3"] * n,
            "anomaly__baseline": ["0f" * 16] * n,
            "anomaly__reasons": [REASONS if one else None for one in odd],
            "features__tok": np.linspace(-1, 1, n, dtype=np.float32),
            "features__client_e_1h": np.linspace(0, 1e-7, n, dtype=np.float32),
            **columns,
        },
    )


def write(store: Store, frame: pl.DataFrame) -> None:
    outcome = store.write_events(frame)
    assert not outcome.rejected
    assert not outcome.retry
    store.refresh()


def read(store: Store, query: EventQuery = ALL, **how: Any) -> pl.DataFrame:
    """Everything that fits, in position order unless told otherwise."""
    frames = list(store.read_events(query, **{"order": "position", **how}))
    return pl.concat(frames) if frames else pl.DataFrame()


def ids(store: Store, query: EventQuery = ALL, **how: Any) -> list[str]:
    found = read(store, query, columns=["_id"], **how)
    return found["_id"].to_list() if found.height else []


class TestWriting:
    def test_what_is_written_comes_back_column_by_column(self, store: Store) -> None:
        frame = scored(9)
        write(store, frame)
        assert read(store, columns=frame.columns).equals(frame)

    def test_setting_up_again_harms_nothing(self, store: Store, connect: Callable[[], Store]) -> None:
        write(store, events(3))
        store.setup()
        connect().setup()
        assert store.count_events(ALL) == 3

    def test_what_is_there_is_never_overwritten(self, store: Store) -> None:
        write(store, scored(4))
        write(store, scored(4, anomaly__score=[99.0] * 4, url__path=["/other"] * 4))
        assert read(store, columns=["url.path"])["url.path"].to_list() == [f"/page/{row}" for row in range(4)]
        assert read(store, columns=["anomaly.score"])["anomaly.score"].max() < 1

    def test_a_redelivery_that_overlaps_adds_only_what_is_new(self, store: Store) -> None:
        write(store, events(6))
        write(store, events(6, start=4))
        assert ids(store) == [f"e1-logs.raw-0-{offset}" for offset in range(10)]

    def test_a_document_twice_in_one_batch_is_one_document(self, store: Store) -> None:
        write(store, pl.concat([events(3), events(3)]))
        assert store.count_events(ALL) == 3

    def test_two_writers_of_the_same_events_make_them_once(self, store: Store, connect: Callable[[], Store]) -> None:
        frame = events(400)
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda one: write(one, frame), [store, connect()]))
        assert store.count_events(ALL) == 400

    def test_another_connection_sees_what_was_written(self, store: Store, connect: Callable[[], Store]) -> None:
        write(store, events(2))
        assert connect().count_events(ALL) == 2

    def test_rows_that_no_store_can_keep_are_rejected_alone(self, store: Store) -> None:
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
    def test_a_date_of_no_calendar_is_rejected_alone(self, store: Store, ms: int) -> None:
        outcome = store.write_events(events(3).with_columns(pl.Series("@timestamp", [0, ms, 1]).cast(TIMESTAMP)))
        store.refresh()
        assert list(outcome.rejected) == [1]
        assert not outcome.retry
        assert store.count_events(ALL) == 2

    def test_a_frame_of_nothing_but_unstorable_rows_writes_nothing(self, store: Store) -> None:
        outcome = store.write_events(events(2).with_columns(pl.lit("").alias("_id")))
        assert sorted(outcome.rejected) == [0, 1]
        assert store.count_events(ALL) == 0

    def test_an_id_of_exactly_512_bytes_is_taken(self, store: Store) -> None:
        long = "i" * 512
        write(store, events(1, _id=[long]))
        assert ids(store) == [long]

    def test_empty_frames_are_harmless(self, store: Store) -> None:
        nothing = store.write_events(scored(0))
        assert not nothing.rejected
        assert not nothing.retry
        assert not store.write_dead(pl.DataFrame(schema=DEAD_SCHEMA)).retry
        assert (
            store.update_events(pl.DataFrame(schema={"_id": pl.String, "@timestamp": TIMESTAMP, "_version": pl.String}))
            == 0
        )
        assert store.count_events(ALL) == 0

    def test_columns_that_no_event_has_are_refused_by_name(self, store: Store) -> None:
        with pytest.raises(ValueError, match=r"brings anomaly\.scroe"):
            store.write_events(events(1).with_columns(pl.lit(1.0).alias("anomaly.scroe")))
        with pytest.raises(ValueError, match=r"lacks url\.path"):
            store.write_events(events(1).drop("url.path"))

    def test_text_comes_back_to_the_last_character(self, store: Store) -> None:
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

    def test_a_client_that_is_no_address_is_kept(self, store: Store) -> None:
        frame = events(2, source__address=["crawl.example.net", "::1"], source__ip=["no address", "::1"])
        write(store, frame)
        assert read(store, columns=frame.columns).equals(frame)

    def test_old_and_far_dates_are_kept(self, store: Store) -> None:
        moments = [-62_135_596_800_000, -1, 253_402_300_799_999]  # the years 1, 1969 and 9999
        frame = events(3).with_columns(pl.Series("@timestamp", moments).cast(TIMESTAMP))
        write(store, frame)
        assert read(store, columns=frame.columns).equals(frame)

    @settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(values=st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=50))
    def test_features_come_back_bit_by_bit(self, store: Store, values: list[float]) -> None:
        epoch = f"h{uuid.uuid4().hex[:8]}"
        write(store, events(len(values), epoch=epoch, features__x=np.array(values, dtype=np.float32)))
        found = read(store, EventQuery(epoch=epoch), columns=["features.x"])["features.x"]
        assert found.dtype == pl.Float32
        assert found.to_numpy().tobytes() == np.array(values, dtype=np.float32).tobytes()

    def test_a_feature_that_is_no_number_comes_back_null(self, store: Store) -> None:
        write(store, events(3, features__x=[1.0, float("nan"), None], features__y=[2.0, 3.0, None]))
        found = read(store, columns=["features.*"])
        assert found.to_dict(as_series=False) == {"features.x": [1.0, None, None], "features.y": [2.0, 3.0, None]}


class TestReading:
    def test_an_empty_store_reads_as_nothing(self, store: Store) -> None:
        for order in ("any", "position", "time"):
            assert list(store.read_events(ALL, order=order)) == []
        assert store.count_events(ALL) == 0
        assert store.count_dead() == 0
        assert store.partitions(ALL) == []
        assert store.read_dead().schema == pl.Schema(DEAD_SCHEMA)

    def test_the_default_is_everything_but_features(self, store: Store) -> None:
        write(store, scored(2))
        assert read(store).schema == pl.Schema({**EVENT_SCHEMA, **ANOMALY_SCHEMA})

    def test_columns_that_no_document_has_are_null_of_their_type(self, store: Store) -> None:
        frame = events(3)
        write(store, frame)
        found = read(store, columns=[*STORED, "features.never"])
        assert found.schema == pl.Schema({**EVENT_SCHEMA, **ANOMALY_SCHEMA, "features.never": pl.Float32})
        assert found.select(*ANOMALY_SCHEMA, "features.never").null_count().row(0) == (3,) * (len(ANOMALY_SCHEMA) + 1)
        assert found.select(frame.columns).equals(frame)

    def test_columns_come_in_the_order_they_were_asked_for(self, store: Store) -> None:
        write(store, scored(2))
        wanted = ["features.tok", "url.path", "_id", "anomaly.model.version", "@timestamp"]
        assert read(store, columns=wanted).columns == wanted
        both = read(store, columns=["_id", "features.*"])
        assert both.columns == ["_id", "features.client_e_1h", "features.tok"]

    def test_every_frame_has_every_feature_whatever_its_rows_have(self, store: Store) -> None:
        write(store, events(3, features__a=[1.0, 2.0, 3.0]))
        write(store, events(3, start=3, features__b=[4.0, 5.0, 6.0]))
        frames = list(store.read_events(ALL, columns=["features.*"], order="position", batch_rows=2))
        assert {tuple(frame.columns) for frame in frames} == {("features.a", "features.b")}
        together = pl.concat(frames)
        assert together["features.a"].to_list() == [1.0, 2.0, 3.0, None, None, None]
        assert together["features.b"].to_list() == [None, None, None, 4.0, 5.0, 6.0]

    def test_a_column_that_events_do_not_have_is_refused_by_name(self, store: Store) -> None:
        with pytest.raises(ValueError, match=r"no column 'url\.pth'"):
            list(store.read_events(ALL, columns=["url.pth"]))

    @pytest.mark.parametrize("order", ["any", "position", "time"])
    @pytest.mark.parametrize("with_version", [False, True])
    def test_pages_join_without_gap_or_double(self, store: Store, order: Any, with_version: bool) -> None:
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

    def test_position_order_is_epoch_then_topic_then_partition_then_offset(self, store: Store) -> None:
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

    def test_time_order_falls_back_to_position(self, store: Store) -> None:
        noon = dt.datetime(2024, 3, 1, 12, tzinfo=dt.UTC)
        same = pl.concat([events(4, partition=3), events(4, partition=1)]).with_columns(
            pl.lit(noon).cast(TIMESTAMP).alias("@timestamp")
        )
        frame = pl.concat([same, events(4, partition=7, start=1), events(2, start=2000)])
        write(store, frame.sample(fraction=1, shuffle=True, seed=2))
        wanted = frame.sort(["@timestamp", *POSITION_ORDER])["_id"].to_list()
        for batch_rows in (1, 3, 100):
            assert ids(store, order="time", batch_rows=batch_rows) == wanted

    def test_a_read_shows_one_point_in_time(self, store: Store, connect: Callable[[], Store]) -> None:
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

    def test_a_read_given_up_half_way_leaves_the_store_usable(self, store: Store) -> None:
        write(store, events(10))
        reading = store.read_events(ALL, batch_rows=2)
        next(reading)
        reading.close()  # type: ignore[attr-defined]  # a generator behind the Iterator
        write(store, events(2, start=10))
        assert store.count_events(ALL) == 12

    def test_a_query_finds_what_fits_and_nothing_else(self, store: Store) -> None:
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
            assert {
                query: set(frame.to_series()) if frame.height else set() for query, frame in found.items()
            } == wanted
        assert {query: store.count_events(query) for query in wanted} == {
            query: len(rows) for query, rows in wanted.items()
        }

    def test_partitions_are_distinct_and_sorted(self, store: Store) -> None:
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


class TestUpdating:
    def versions(self, store: Store, query: EventQuery = ALL) -> pl.DataFrame:
        return read(store, query, columns=["_id", "@timestamp"], with_version=True)

    def test_an_update_sets_its_columns_and_no_other(self, store: Store) -> None:
        before = events(4, anomaly__status=["pending"] * 4, features__tok=[1.0, 2.0, 3.0, 4.0])
        write(store, before)
        changes = self.versions(store).with_columns(
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

    def test_null_clears(self, store: Store) -> None:
        write(store, scored(4))
        changes = self.versions(store).with_columns(
            pl.lit(None, dtype=pl.List(REASON)).alias("anomaly.reasons"),
            pl.Series("anomaly.threshold", [None, 1.0, None, 1.0]),
        )
        assert store.update_events(changes) == 4
        store.refresh()
        after = read(store)
        assert after["anomaly.reasons"].null_count() == 4
        assert after["anomaly.threshold"].to_list() == [None, 1.0, None, 1.0]

    def test_what_changed_since_it_was_read_is_left_alone(self, store: Store, connect: Callable[[], Store]) -> None:
        write(store, scored(4))
        mine = self.versions(store)
        theirs = mine.head(2).with_columns(pl.lit(7.0).alias("anomaly.score"))
        assert connect().update_events(theirs) == 2
        assert store.update_events(mine.with_columns(pl.lit(8.0).alias("anomaly.score"))) == 2
        assert store.update_events(mine.with_columns(pl.lit(9.0).alias("anomaly.score"))) == 0
        store.refresh()
        assert read(store)["anomaly.score"].to_list() == [7.0, 7.0, 8.0, 8.0]

    def test_a_new_look_gives_a_version_that_can_be_updated_again(self, store: Store) -> None:
        write(store, scored(2))
        for value in (5.0, 6.0):
            assert store.update_events(self.versions(store).with_columns(pl.lit(value).alias("anomaly.score"))) == 2
            store.refresh()
        assert read(store)["anomaly.score"].to_list() == [6.0, 6.0]

    def test_what_is_gone_or_was_never_there_is_left_alone(self, store: Store) -> None:
        write(store, scored(2))
        found = self.versions(store)
        changes = found.with_columns(pl.Series("_id", ["never", found["_id"][1]]), pl.lit(5.0).alias("anomaly.score"))
        assert store.update_events(changes) == 1
        store.refresh()
        assert sorted(ids(store)) == found["_id"].to_list()

    def test_a_version_of_no_store_is_left_alone(self, store: Store) -> None:
        write(store, scored(2))
        changes = self.versions(store).with_columns(pl.Series("_version", [None, "x"], dtype=pl.String))
        assert store.update_events(changes.with_columns(pl.lit(5.0).alias("anomaly.score"))) == 0

    def test_features_are_set_beside_those_that_are_there(self, store: Store) -> None:
        write(store, events(2, features__a=[1.0, 2.0], features__b=[3.0, 4.0]))
        write(store, events(1, start=2))
        changes = self.versions(store).with_columns(
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

    def test_the_version_is_text_and_the_event_itself_is_never_updated(self, store: Store) -> None:
        write(store, scored(1))
        found = self.versions(store)
        assert found.schema["_version"] == pl.String
        moved = found.with_columns(pl.col("@timestamp") + dt.timedelta(hours=1), pl.lit(5.0).alias("anomaly.score"))
        assert store.update_events(moved) == 1
        store.refresh()
        assert read(store)["@timestamp"].to_list() == found["@timestamp"].to_list()


class TestDeadLetters:
    def dead(self, n: int, start: int = 0) -> pl.DataFrame:
        offsets = list(range(start, start + n))
        return pl.DataFrame(
            {
                "_id": [f"e1-logs.raw-0-{offset}" for offset in offsets],
                "@timestamp": [MIDNIGHT - dt.timedelta(minutes=offset) for offset in offsets],
                "reason": [f"line {offset} fits no format" for offset in offsets],
                "kind": ["no_format"] * n,
                "original": [bytes(range(256)) + b"%d" % offset if offset % 2 else None for offset in offsets],
                "oddlog.position.epoch": ["e1"] * n,
                "oddlog.position.topic": ["logs.raw"] * n,
                "oddlog.position.partition": [0] * n,
                "oddlog.position.offset": offsets,
            },
            schema=DEAD_SCHEMA,
        )

    def write(self, store: Store, frame: pl.DataFrame) -> None:
        outcome = store.write_dead(frame)
        assert not outcome.rejected
        assert not outcome.retry
        store.refresh()

    def test_dead_letters_come_back_oldest_first_bytes_untouched(self, store: Store) -> None:
        frame = self.dead(7)
        self.write(store, frame)
        assert store.read_dead().equals(frame.reverse())
        assert store.read_dead(limit=2).equals(frame.reverse().head(2))
        assert store.read_dead(limit=0).is_empty()
        assert store.count_dead() == 7
        assert store.count_events(ALL) == 0

    def test_a_dead_letter_is_written_once(self, store: Store) -> None:
        self.write(store, self.dead(3))
        self.write(store, self.dead(5, start=1).with_columns(pl.lit("another reason").alias("reason")))
        assert store.count_dead() == 6
        reasons = store.read_dead().sort("oddlog.position.offset")["reason"].to_list()
        assert [reason == "another reason" for reason in reasons] == [False] * 3 + [True] * 3

    def test_a_dead_letter_too_may_have_no_id_that_fits(self, store: Store) -> None:
        outcome = store.write_dead(self.dead(2).with_columns(pl.Series("_id", ["x" * 600, "fits"])))
        store.refresh()
        assert list(outcome.rejected) == [0]
        assert store.count_dead() == 1

    def test_dead_letters_are_chosen_by_kind_and_id_and_come_in_frames(self, store: Store) -> None:
        frame = self.dead(7).with_columns(pl.Series("kind", ["empty", "no_format"] * 3 + ["empty"]))
        self.write(store, frame)
        whole = pl.concat(store.iterate_dead(DeadQuery(), batch_rows=3))
        assert whole.equals(frame.reverse())
        assert [one.height for one in store.iterate_dead(DeadQuery(), batch_rows=3)] == [3, 3, 1]
        assert pl.concat(store.iterate_dead(DeadQuery(), newest_first=True)).equals(frame)
        empty = pl.concat(store.iterate_dead(DeadQuery(kind="empty"), columns=["_id", "kind"]))
        assert empty.to_dict(as_series=False) == {
            "_id": [f"e1-logs.raw-0-{offset}" for offset in (6, 4, 2, 0)],
            "kind": ["empty"] * 4,
        }
        some = DeadQuery(kind="no_format", ids=("e1-logs.raw-0-1", "e1-logs.raw-0-2", "never"))
        assert pl.concat(store.iterate_dead(some, columns=["_id"]))["_id"].to_list() == ["e1-logs.raw-0-1"]
        assert list(store.iterate_dead(DeadQuery(ids=()))) == []
        assert list(store.iterate_dead(DeadQuery(kind="never"))) == []
        with pytest.raises(ValueError, match=r"no column 'url\.path'"):
            list(store.iterate_dead(DeadQuery(), columns=["url.path"]))

    def test_dead_letters_are_removed_by_id_and_nothing_else_is(self, store: Store) -> None:
        assert store.delete_dead(["never"]) == 0
        self.write(store, self.dead(5))
        write(store, events(5))
        assert store.delete_dead([]) == 0
        assert store.delete_dead(["e1-logs.raw-0-1", "e1-logs.raw-0-3", "never"]) == 2
        store.refresh()
        assert store.read_dead()["oddlog.position.offset"].to_list() == [4, 2, 0]
        assert store.count_events(ALL) == 5
        assert store.delete_dead(["e1-logs.raw-0-1"]) == 0

    def test_dead_letters_can_be_removed_while_they_are_read(self, store: Store) -> None:
        self.write(store, self.dead(5))
        seen = 0
        for frame in store.iterate_dead(DeadQuery(), batch_rows=2):
            seen += frame.height
            assert store.delete_dead(frame["_id"].to_list()) == frame.height
        store.refresh()
        assert seen == 5
        assert store.count_dead() == 0


class TestUpkeep:
    def test_the_range_of_times_is_that_of_the_events_that_fit(self, store: Store) -> None:
        assert store.time_range(ALL) is None
        frame = events(10)
        write(store, frame)
        assert store.time_range(ALL) == (frame["@timestamp"][0], frame["@timestamp"][9])
        assert store.time_range(EventQuery(from_offset=4)) == (frame["@timestamp"][4], frame["@timestamp"][9])
        assert store.time_range(EventQuery(status="pending")) is None

    def test_days_before_a_day_go_and_nothing_else_does(self, store: Store) -> None:
        days = [
            dt.datetime(1969, 12, 31, 23, tzinfo=dt.UTC),
            MIDNIGHT - dt.timedelta(days=2),
            MIDNIGHT - dt.timedelta(milliseconds=1),
            MIDNIGHT,
            MIDNIGHT + dt.timedelta(days=1),
        ]
        write(store, events(5).with_columns(pl.Series("@timestamp", days, dtype=TIMESTAMP)))
        store.write_dead(TestDeadLetters().dead(3))
        store.put_document("marks", "one", {"note": "stays"})
        store.refresh()
        expected = {day.date(): 1 for day in days[:3]}
        today = MIDNIGHT.date()
        assert store.delete_before(dt.date(1969, 12, 31)) == {}
        assert store.delete_before(today, dry_run=True) == expected
        assert store.count_events(ALL) == 5
        assert list(store.delete_before(today)) == sorted(expected)
        store.refresh()
        assert read(store)["@timestamp"].to_list() == days[3:]
        assert store.count_dead() == 3
        assert store.get_document("marks", "one") == {"note": "stays"}
        assert store.delete_before(today) == {}

    def test_a_late_event_of_a_deleted_day_is_kept_until_the_next_deletion(self, store: Store) -> None:
        write(store, events(1))  # of the day before
        store.delete_before(MIDNIGHT.date())
        write(store, scored(1))
        assert read(store, columns=scored(1).columns).equals(scored(1))
        assert store.setup_problems() == []
        assert store.delete_before(MIDNIGHT.date()) == {MIDNIGHT.date() - dt.timedelta(days=1): 1}

    def test_what_is_set_up_has_no_problems(self, connect: Callable[[], Store]) -> None:
        one = connect()
        assert one.setup_problems()
        assert one.setup_problems()  # and asking has made nothing
        one.setup()
        assert one.setup_problems() == []
        write(one, scored(3))
        assert connect().setup_problems() == []


class TestCollections:
    def test_a_document_comes_back_and_is_replaced(self, store: Store) -> None:
        document: Mapping[str, Any] = {
            "text": "é “",
            "n": 3,
            "x": 0.1,
            "yes": True,
            "none": None,
            "deep": {"a": [1, {"b": []}]},
        }
        store.put_document("runs", "one/two three", document)
        assert store.get_document("runs", "one/two three") == document
        store.put_document("runs", "one/two three", {"n": 4})
        assert store.get_document("runs", "one/two three") == {"n": 4}

    def test_collections_and_ids_are_apart(self, store: Store) -> None:
        store.put_document("marks", "a", {"n": 1})
        store.put_document("state", "a", {"n": 2})
        assert store.get_document("marks", "a") == {"n": 1}
        assert store.get_document("runs", "a") is None
        assert store.get_document("marks", "b") is None

    def test_a_list_has_every_document_with_its_id_sorted_at_once(self, store: Store) -> None:
        assert store.list_documents("drift") == []
        for id in ("b", "é", "a", "B"):
            store.put_document("drift", id, {"_id": "not this", "share": 0.5})
        assert store.list_documents("drift") == [{"_id": id, "share": 0.5} for id in ("B", "a", "b", "é")]

    def test_a_list_may_be_long(self, store: Store) -> None:
        for n in range(30):
            store.put_document("state", f"{n:04}", {"chunk": "x" * 100, "n": n})
        assert [document["n"] for document in store.list_documents("state")] == list(range(30))

    def test_documents_of_one_collection_may_differ_in_shape(self, store: Store) -> None:
        for collection in ("runs", "marks", "state", "drift"):
            store.put_document(collection, "1", {"value": 1, "share": 0})
            store.put_document(collection, "2", {"value": 2.5, "share": 0.25})
            assert [document["value"] for document in store.list_documents(collection)] == [1, 2.5]

    def test_deleting_twice_is_harmless(self, store: Store) -> None:
        store.delete_document("marks", "a")
        store.put_document("marks", "a", {"n": 1})
        store.delete_document("marks", "a")
        store.delete_document("marks", "a")
        assert store.get_document("marks", "a") is None
        assert store.list_documents("marks") == []


class TestLocks:
    def test_a_lock_excludes_others_until_it_is_given_back(self, store: Store, connect: Callable[[], Store]) -> None:
        other = connect()
        assert store.acquire_lock("promotion", "me", 60) is None
        assert other.acquire_lock("promotion", "you", 60) == "me"
        assert other.acquire_lock("another", "you", 60) is None
        store.release_lock("promotion", "me")
        assert other.acquire_lock("promotion", "you", 60) is None
        assert store.acquire_lock("promotion", "me", 60) == "you"

    def test_its_holder_may_prolong_it_and_no_one_else_give_it_back(self, store: Store) -> None:
        assert store.acquire_lock("promotion", "me", 60) is None
        assert store.acquire_lock("promotion", "me", 60) is None
        store.release_lock("promotion", "you")
        store.release_lock("never taken", "you")
        assert store.acquire_lock("promotion", "you", 60) == "me"

    def test_a_lock_expires(self, store: Store) -> None:
        assert store.acquire_lock("promotion", "me", 0.05) is None
        deadline = time.monotonic() + 20
        while store.acquire_lock("promotion", "you", 60) is not None:
            assert time.monotonic() < deadline, "the lock never expired"
        assert store.acquire_lock("promotion", "me", 60) == "you"
        store.release_lock("promotion", "me")  # it is no longer ours
        assert store.acquire_lock("promotion", "me", 60) == "you"

    @pytest.mark.parametrize("expired", [False, True])
    def test_of_many_that_come_at_once_one_gets_it(
        self, store: Store, connect: Callable[[], Store], expired: bool
    ) -> None:
        if expired:
            assert store.acquire_lock("promotion", "before", -1) is None
        contenders = [connect() for _ in range(6)]
        with ThreadPoolExecutor(len(contenders)) as pool:
            answers = list(
                pool.map(lambda n: contenders[n].acquire_lock("promotion", f"c{n}", 60), range(len(contenders)))
            )
        winners = [f"c{n}" for n, answer in enumerate(answers) if answer is None]
        assert len(winners) == 1
        assert {answer for answer in answers if answer is not None} == set(winners)


def test_a_store_that_can_be_used_answers_a_ping(store: Store) -> None:
    store.ping()


def test_closing_twice_is_harmless(store: Store) -> None:
    store.close()
    store.close()
