"""How events lie in a real Elasticsearch: index by day, types by template, what other hands wrote, and that no point
in time stays open."""

from __future__ import annotations

import datetime as dt
from typing import Any

import orjson
import polars as pl
import pytest

from deploy.kibana.saved_objects import saved_objects
from oddlog.connectors import elastic_read
from oddlog.connectors.documents import read_schema
from oddlog.connectors.elastic import ElasticStore
from oddlog.connectors.elastic_columns import have_doc_values
from oddlog.connectors.elastic_connection import ElasticConnection
from oddlog.connectors.elastic_read import PointInTime, stored_features
from oddlog.connectors.elastic_template import templates
from oddlog.connectors.store import EventQuery
from oddlog.errors import StoreUnavailable
from oddlog.events.schema import ANOMALY_SCHEMA, EVENT_SCHEMA, REASON, TIMESTAMP
from oddlog.settings import StoreSettings
from tests.lens_queries import query_of, search_of

ALL = EventQuery()
MIDNIGHT = dt.datetime(2024, 3, 1, tzinfo=dt.UTC)


def events(n: int) -> pl.DataFrame:
    """Events a millisecond apart around midnight UTC, all columns filled."""
    offset = pl.int_range(n, dtype=pl.Int64, eager=True)
    known = {
        "_id": "e1-t-0-" + offset.cast(pl.String),
        "@timestamp": (pl.lit(MIDNIGHT).cast(TIMESTAMP) + pl.duration(milliseconds=offset - n // 2)),
        "source.address": pl.lit("192.0.2.7"),
        "source.ip": pl.lit("192.0.2.7"),
        "oddlog.position.offset": offset,
        "anomaly.status": pl.lit("scored"),
        "anomaly.reasons": pl.lit(
            [{"feature": "tok", "value": 1.0, "typical": 0.5, "share": 1.0, "text": "why"}], dtype=pl.List(REASON)
        ),
    }
    schema = {**EVENT_SCHEMA, **ANOMALY_SCHEMA}
    return pl.select(
        (known[name] if name in known else pl.lit("x" if dtype == pl.String else 1)).cast(dtype).alias(name)
        for name, dtype in pl.Schema(schema).items()
    ).with_columns(pl.lit(0.1, dtype=pl.Float32).alias("features.tok"))


def write(store: ElasticStore, frame: pl.DataFrame) -> None:
    outcome = store.write_events(frame)
    assert not outcome.rejected
    assert not outcome.retry
    store.refresh()


def test_an_event_lies_in_the_index_of_its_own_day(
    store: ElasticStore, place: StoreSettings, connection: ElasticConnection
) -> None:
    write(store, events(10))
    for day, count in (("2024.02.29", 5), ("2024.03.01", 5)):
        assert connection.json("GET", f"/{place.prefix}-events-{day}/_count")["count"] == count


def test_fields_have_the_types_of_ecs(store: ElasticStore, place: StoreSettings, connection: ElasticConnection) -> None:
    write(store, events(2))
    found = connection.json(
        "GET", f"/{place.prefix}-events-*/_field_caps", params={"fields": "*", "filters": "-metadata"}
    )["fields"]
    types = {name: next(iter(kinds)) for name, kinds in found.items()}
    wanted = {
        "@timestamp": "date",
        "source.ip": "ip",
        "source.address": "keyword",
        "url.original": "keyword",
        "http.response.status_code": "long",
        "http.response.body.bytes": "long",
        "anomaly.score": "double",
        "anomaly.is_anomaly": "boolean",
        "anomaly.reasons.feature": "keyword",
        "labels.truth": "keyword",
        "features.tok": "float",
        "oddlog.position.offset": "long",
    }
    assert {name: types[name] for name in wanted} == wanted
    searchable = {name for name, kinds in found.items() if next(iter(kinds.values()))["searchable"]}
    assert "event.original" not in searchable
    assert found["features.tok"]["float"]["aggregatable"]
    assert not found["event.original"]["keyword"]["aggregatable"]
    # Every column of an event has a field, so that nothing is in `_source` alone without being meant to.
    assert {*EVENT_SCHEMA, *ANOMALY_SCHEMA} - {"_id", "anomaly.reasons"} <= types.keys()


def test_analysts_find_events_by_network_and_by_reason(
    store: ElasticStore, place: StoreSettings, connection: ElasticConnection
) -> None:
    write(store, events(4))
    for query in (
        {"term": {"source.ip": "192.0.2.0/24"}},
        {"term": {"anomaly.reasons.feature": "tok"}},
        {"wildcard": {"url.original": "x*"}},
        {"exists": {"field": "features.tok"}},
    ):
        assert connection.json("POST", f"/{place.prefix}-events-*/_count", {"query": query})["count"] == 4


def test_what_no_template_knows_is_kept_but_makes_no_field(
    store: ElasticStore, place: StoreSettings, connection: ElasticConnection
) -> None:
    write(store, events(1))
    index = f"{place.prefix}-events-2024.03.01"
    connection.json(
        "PUT", f"/{index}/_doc/other", {"surprise": {"deep": 1}, "@timestamp": 0}, params={"refresh": "true"}
    )
    mapping = connection.json("GET", f"/{index}/_mapping")[index]["mappings"]["properties"]
    assert "surprise" not in mapping
    assert connection.json("GET", f"/{index}/_doc/other")["_source"]["surprise"] == {"deep": 1}


def test_setting_up_writes_a_template_only_where_it_differs(
    store: ElasticStore, place: StoreSettings, connection: ElasticConnection
) -> None:
    name = f"{place.prefix}-events"
    ours = connection.json("GET", f"/_index_template/{name}")["index_templates"][0]["index_template"]
    assert ours["_meta"]["digest"] == templates(place.prefix)[name]["_meta"]["digest"]
    connection.json(
        "PUT", f"/_index_template/{name}", {**ours, "_meta": {"digest": "of an older oddlog"}, "version": 7}
    )
    store.setup()
    after = connection.json("GET", f"/_index_template/{name}")["index_templates"][0]["index_template"]
    assert after == ours
    connection.json("PUT", f"/_index_template/{name}", {**ours, "version": 8})  # an operator's own touch
    store.setup()
    assert connection.json("GET", f"/_index_template/{name}")["index_templates"][0]["index_template"]["version"] == 8


def test_documents_of_another_hand_are_read_as_far_as_they_fit(
    store: ElasticStore, place: StoreSettings, connection: ElasticConnection
) -> None:
    write(store, events(3))
    strange = {
        "@timestamp": 1_709_251_200_000,  # milliseconds
        "url": {"path": ["/a", "/b"], "original": 7},
        "http": {"response": {"status_code": "404"}},
        "source": None,
        "anomaly": {"score": "0.5", "is_anomaly": "true"},
        "features": {"tok": "0.25"},
        "unknown": {"to": "us"},
    }
    index = f"{place.prefix}-events-2024.03.01"
    connection.json("PUT", f"/{index}/_doc/strange", strange, params={"refresh": "true"})
    found = pl.concat(store.read_events(ALL, columns=[*EVENT_SCHEMA, *ANOMALY_SCHEMA, "features.*"], order="time"))
    assert found.height == 4
    assert found.schema == pl.Schema({**EVENT_SCHEMA, **ANOMALY_SCHEMA, "features.tok": pl.Float32})
    row = found.row(by_predicate=pl.col("_id") == "strange", named=True)
    assert row["@timestamp"] == MIDNIGHT
    assert row["url.original"] == "7"
    assert row["source.address"] is None
    ours = found.filter(pl.col("_id") != "strange").sort("oddlog.position.offset")
    assert ours.select(events(3).columns).equals(events(3))


def of_one_partition(n: int) -> pl.DataFrame:
    """Events of one partition in offset order, with texts that JSON has to escape, and gaps."""
    texts = pl.Series(["/", "", 'say "x"', "a\\b", "\t\u20ac\U0001f600", None, '"matched_queries":['])
    text = texts.gather(pl.int_range(n, eager=True) % len(texts))
    return events(n).with_columns(
        text.alias("url.original"),
        text.reverse().alias("http.request.referrer"),
        (pl.Series(range(n)) % 3 == 0).alias("anomaly.is_anomaly"),
        pl.Series([None if row % 4 == 0 else row / 7 for row in range(n)], dtype=pl.Float32).alias("features.tok"),
        pl.lit(None, dtype=pl.Int64).alias("http.response.body.bytes"),
    )


COLUMNS = [*(name for name in EVENT_SCHEMA if name not in {"_id", "event.original", "source.ip"}),
           "anomaly.is_anomaly", "anomaly.score", "features.tok"]  # fmt: skip


def test_columns_in_record_order_come_without_the_documents(
    store: ElasticStore, place: StoreSettings, connection: ElasticConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = of_one_partition(40)
    write(store, frame)
    schema = read_schema(COLUMNS, [])
    assert have_doc_values(connection, f"{place.prefix}-events-*", schema)
    assert not have_doc_values(connection, f"{place.prefix}-events-*", read_schema(["event.original"], []))

    def never(*_: object, **__: object) -> None:
        raise AssertionError("a document was read")

    with monkeypatch.context() as patched:
        patched.setattr(elastic_read, "read_page", never)
        for rows in (7, 10_000):
            found = pl.concat(store.read_events(ALL, columns=COLUMNS, order="position", batch_rows=rows))
            assert found.equals(frame.select(COLUMNS))
    assert not have_doc_values(connection, f"{place.prefix}-nothing-*", schema)


def test_what_doc_values_lack_is_read_from_its_documents(
    store: ElasticStore, place: StoreSettings, connection: ElasticConnection
) -> None:
    row = pl.col("oddlog.position.offset")
    url = pl.col("url.original")
    long = pl.lit("/" + "a" * 9_000)  # past what is indexed of a keyword
    frame = of_one_partition(40).with_columns(pl.when(row == 31).then(long).otherwise(url).alias("url.original"))
    write(store, frame)
    index = f"{place.prefix}-events-2024.03.01"
    strange = {
        "@timestamp": 1_709_251_200_000,
        "url": {"original": ["/b", "/a"]},
        "http": {"response": {"status_code": 5_000_000_000}},
        "oddlog": {"position": {"epoch": "x", "topic": "x", "partition": 1, "offset": 99}},
    }
    connection.json("PUT", f"/{index}/_doc/strange", strange, params={"refresh": "true"})
    for rows in (10, 10_000):
        found = pl.concat(store.read_events(ALL, columns=COLUMNS, order="position", batch_rows=rows))
        assert found.filter(row != 99).equals(frame.select(COLUMNS))
        # As documents are read, which they are in the order of time.
        other = pl.concat(store.read_events(ALL, columns=COLUMNS, order="time")).filter(row == 99)
        assert other.height == 1
        assert found.filter(row == 99).equals(other)
    # One index that keeps a text otherwise is enough for all to be read from documents.
    text = {"properties": {"url": {"properties": {"original": {"type": "text"}}}}}
    connection.json("PUT", f"/{place.prefix}-events-2024.03.02", {"mappings": text})
    assert not have_doc_values(connection, f"{place.prefix}-events-*", read_schema(COLUMNS, []))
    found = pl.concat(store.read_events(ALL, columns=COLUMNS, order="position"))
    assert found.filter(row != 99).equals(frame.select(COLUMNS))


def test_a_point_in_time_is_closed_however_reading_ends(
    store: ElasticStore, place: StoreSettings, connection: ElasticConnection
) -> None:
    write(store, events(10))

    def contexts() -> int:  # of our own indices, for other tests read at the same time
        stats = connection.json("GET", f"/{place.prefix}-*/_stats/search")
        return int(stats["_all"]["total"]["search"]["open_contexts"])

    reading = store.read_events(ALL, batch_rows=3)
    next(reading)
    assert contexts() == 2  # one a shard
    reading.close()  # type: ignore[attr-defined]  # given up half way
    assert contexts() == 0
    list(store.read_events(ALL, order="position", batch_rows=3))
    store.read_dead()
    store.partitions(ALL)
    assert contexts() == 0
    with pytest.raises(ValueError, match="no column"):
        list(store.read_events(ALL, columns=["nope"]))
    assert contexts() == 0


def test_pages_follow_the_length_of_documents(store: ElasticStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elastic_read, "_FIRST_ROWS", 10)
    monkeypatch.setattr(elastic_read, "_PAGE_BYTES", 100_000)
    offset = pl.col("oddlog.position.offset")
    text = pl.when(offset < 50).then(pl.lit("short")).otherwise(pl.lit("x" * 20_000))
    write(store, events(100).with_columns(text.alias("event.original")))
    found = list(store.read_events(ALL, order="position"))
    sizes = [frame.height for frame in found]
    assert 0 < sizes[0] <= 10  # before anything is known
    assert max(sizes) > 50  # short so far: as many as 100 kB hold
    assert sum(sizes) == 100
    shrunk = [frame.height for frame in store.read_events(EventQuery(from_offset=50), order="position")]
    assert 0 < shrunk[0] <= 10
    assert max(shrunk[1:]) <= 5  # 20 kB each
    assert sum(shrunk) == 50


def test_reading_while_an_index_is_closed_leaves_its_events_out(
    store: ElasticStore, place: StoreSettings, connection: ElasticConnection
) -> None:
    write(store, events(10))
    connection.json("POST", f"/{place.prefix}-events-2024.02.29/_close")
    assert store.count_events(ALL) == 5
    assert sum(frame.height for frame in store.read_events(ALL)) == 5


def test_a_busy_search_is_asked_again(
    connection: ElasticConnection, place: StoreSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0
    real = ElasticConnection.request

    def busy_twice(self: ElasticConnection, method: str, path: str, *args: object, **more: object) -> bytes:
        nonlocal asked
        if path == "/_search":
            asked += 1
            if asked < 3:
                raise StoreUnavailable("es_rejected_execution_exception: queue full")
        return real(self, method, path, *args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(ElasticConnection, "request", busy_twice)
    with PointInTime(connection, f"{place.prefix}-events-*") as moment:
        assert moment.partitions(ALL) == []
    assert asked == 3


def test_features_are_found_over_all_days(
    store: ElasticStore, place: StoreSettings, connection: ElasticConnection
) -> None:
    frame = events(4)
    write(store, frame.head(2).rename({"features.tok": "features.early"}))
    write(store, frame.tail(2).rename({"features.tok": "features.late"}))
    assert stored_features(connection, f"{place.prefix}-events-*") == ["features.early", "features.late"]


def test_every_panel_and_search_of_the_dashboard_is_answered(
    store: ElasticStore, place: StoreSettings, connection: ElasticConnection
) -> None:
    """A real server has the last word on which types can be aggregated, and on what the buckets hold."""
    frame = events(20).with_columns(
        pl.Series("anomaly.is_anomaly", [True, False] * 10),
        pl.Series("anomaly.severity", [n / 4 for n in range(20)]),
        pl.lit(404, dtype=pl.Int32).alias("http.response.status_code"),
    )
    write(store, frame)
    for name in ("dead", "drift", "incidents", "marks"):
        connection.json("PUT", f"/{place.prefix}-{name}")
    found = saved_objects(place.prefix)
    indices = {one["id"]: one["attributes"]["title"] for one in found if one["type"] == "index-pattern"}
    asked: dict[str, Any] = {}
    for one in found:
        if one["type"] == "search":
            source = orjson.loads(one["attributes"]["kibanaSavedObjectMeta"]["searchSourceJSON"])
            ((time, way),) = one["attributes"]["sort"]
            body = {"query": query_of(source["query"]["query"]), "sort": [{time: way}]}
            asked[one["id"]] = connection.json("POST", f"/{indices[one['references'][0]['id']]}/_search", body)
    (dashboard,) = [one for one in found if one["type"] == "dashboard"]
    for panel in orjson.loads(dashboard["attributes"]["panelsJSON"]):
        if panel["type"] == "lens":
            attributes = panel["embeddableConfig"]["attributes"]
            (view,) = attributes["references"]
            body = search_of(attributes)
            asked[panel["title"]] = connection.json("POST", f"/{indices[view['id']]}/_search", body)
    assert all(answer["_shards"]["failed"] == 0 for answer in asked.values())
    assert asked[f"{place.prefix}-odd-events"]["hits"]["total"]["value"] == 10
    assert asked["Odd events"]["hits"]["total"]["value"] == 10
    (over,) = asked["Events by severity"]["aggregations"].values()
    assert {label: bucket["doc_count"] for label, bucket in over["buckets"].items()} == {
        "rarer than 1 in 10,000": 4, "rarer than 1 in 1,000": 4, "rarer than 1 in 100": 4, "rarer than 1 in 10": 4,
        "ordinary": 4, "not scored yet": 0,
    }  # fmt: skip
    (clients,) = asked["Alerts by client"]["aggregations"].values()
    assert [(bucket["key"], bucket["doc_count"]) for bucket in clients["buckets"]] == [("192.0.2.7", 10)]
