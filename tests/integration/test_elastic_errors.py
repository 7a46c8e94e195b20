"""What Elasticsearch refuses, provoked on a real one: every row is acknowledged, rejected or to be sent again, and
the reason is told by Elasticsearch's error type, not by its status."""

from __future__ import annotations

import http.server
import socket
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from oddlog.connectors.elastic import ElasticStore
from oddlog.connectors.elastic_bulk import create_lines, send
from oddlog.connectors.elastic_connection import ElasticConnection, ElasticError, error_of
from oddlog.connectors.store import EventQuery
from oddlog.errors import StoreError, StoreRefused, StoreUnavailable, UsageError
from oddlog.events.schema import DEAD_SCHEMA, EVENT_SCHEMA
from oddlog.settings import StoreSettings

ALL = EventQuery()
DAY = datetime(2024, 3, 1, 12, tzinfo=UTC)


def events(n: int, *, start: int = 0, day: datetime = DAY, original: str = "line") -> pl.DataFrame:
    offsets = list(range(start, start + n))
    return pl.DataFrame(
        {
            "_id": [f"e1-t-0-{offset}" for offset in offsets],
            "@timestamp": [day + timedelta(seconds=offset) for offset in offsets],
            "source.address": ["192.0.2.1"] * n,
            "url.path": ["/"] * n,
            "event.original": [original] * n,
            "oddlog.position.epoch": ["e1"] * n,
            "oddlog.position.topic": ["t"] * n,
            "oddlog.position.partition": [0] * n,
            "oddlog.position.offset": offsets,
            "http.response.status_code": [200] * n,
        },
        schema_overrides=EVENT_SCHEMA,
    ).select(
        pl.col(name) if name in _MADE else pl.lit(None, dtype=dtype).alias(name) for name, dtype in EVENT_SCHEMA.items()
    )


_MADE = {
    "_id", "@timestamp", "source.address", "url.path", "event.original", "http.response.status_code",
    "oddlog.position.epoch", "oddlog.position.topic", "oddlog.position.partition", "oddlog.position.offset",
}  # fmt: skip


def index_of(place: StoreSettings, day: datetime = DAY) -> str:
    return f"{place.prefix}-events-{day:%Y.%m.%d}"


class TestForNow:
    @pytest.mark.parametrize("block", ["write", "read_only", "read_only_allow_delete"])
    def test_a_blocked_index_keeps_only_its_own_rows_waiting(
        self, store: ElasticStore, place: StoreSettings, connection: ElasticConnection, block: str
    ) -> None:
        tomorrow = DAY + timedelta(days=1)
        assert not store.write_events(events(1)).retry
        setting = f"index.blocks.{block}"  # read_only_allow_delete is what a flooded disk sets; status 429 or 403
        connection.json("PUT", f"/{index_of(place)}/_settings", {setting: True})
        mixed = pl.concat([events(2, start=1), events(2, start=3, day=tomorrow)])
        outcome = store.write_events(mixed)
        assert sorted(outcome.retry) == [0, 1]
        assert all("cluster_block_exception" in reason for reason in outcome.retry.values())
        assert not outcome.rejected
        connection.json("PUT", f"/{index_of(place)}/_settings", {setting: None})
        again = store.write_events(mixed[sorted(outcome.retry)])
        assert not again.retry
        store.refresh()
        assert store.count_events(ALL) == 5

    def test_a_closed_index_keeps_its_rows_waiting_until_it_is_opened(
        self, store: ElasticStore, place: StoreSettings, connection: ElasticConnection
    ) -> None:
        store.write_events(events(2))
        connection.json("POST", f"/{index_of(place)}/_close")
        outcome = store.write_events(events(3))
        assert sorted(outcome.retry) == [0, 1, 2]
        assert "index_closed_exception" in outcome.retry[0]
        assert not outcome.rejected
        connection.json("POST", f"/{index_of(place)}/_open", params={"wait_for_active_shards": "1"})
        assert not store.write_events(events(3)).retry
        store.refresh()
        assert store.count_events(ALL) == 3

    def test_a_reader_whose_index_is_closed_meanwhile_is_told_that_it_passes(
        self, store: ElasticStore, place: StoreSettings, connection: ElasticConnection
    ) -> None:
        """Elasticsearch answers 404 and names the reason for each shard alone."""
        store.write_events(events(3))
        store.refresh()
        reader = store.read_events(ALL, columns=["_id"], order="time", batch_rows=1)
        assert next(reader).height == 1
        connection.json("POST", f"/{index_of(place)}/_close")
        with pytest.raises(StoreUnavailable, match=r"search_context_missing_exception|index_closed_exception"):
            next(reader)
        connection.json("POST", f"/{index_of(place)}/_open", params={"wait_for_active_shards": "1"})
        assert sum(frame.height for frame in store.read_events(ALL, columns=["_id"])) == 3

    def test_updates_under_a_write_block_are_unavailable_not_lost(
        self, store: ElasticStore, place: StoreSettings, connection: ElasticConnection
    ) -> None:
        store.write_events(events(3))
        store.refresh()
        (found,) = store.read_events(ALL, columns=["_id", "@timestamp"], with_version=True)
        changes = found.with_columns(pl.lit("pending").alias("anomaly.status"))
        connection.json("PUT", f"/{index_of(place)}/_settings", {"index.blocks.write": True})
        with pytest.raises(StoreUnavailable, match="3 of 3 updates cannot be made now"):
            store.update_events(changes)
        with pytest.raises(StoreUnavailable, match="cluster_block_exception"):
            ElasticConnection(place).json("PUT", f"/{index_of(place)}/_doc/1", {})
        connection.json("PUT", f"/{index_of(place)}/_settings", {"index.blocks.write": None})
        assert store.update_events(changes) == 3

    def test_a_server_that_is_away_makes_every_row_wait(self, place: StoreSettings) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            nobody = place.model_copy(update={"url": f"http://127.0.0.1:{free.getsockname()[1]}"})
        away = ElasticStore(nobody)
        outcome = away.write_events(events(5).with_columns(_id=pl.Series(["x" * 600, "a", "b", "c", "d"])))
        assert sorted(outcome.retry) == [1, 2, 3, 4]
        assert sorted(outcome.rejected) == [0]
        for ask in (
            away.setup,
            away.ping,
            away.refresh,
            lambda: away.count_events(ALL),
            lambda: list(away.read_events(ALL)),
        ):
            with pytest.raises(StoreUnavailable, match="does not answer"):
                ask()

    def test_a_server_that_hangs_makes_every_row_wait(self, place: StoreSettings) -> None:
        with socket.socket() as silent:  # takes connections, answers nothing
            silent.bind(("127.0.0.1", 0))
            silent.listen()
            hanging = place.model_copy(update={"url": f"http://127.0.0.1:{silent.getsockname()[1]}", "timeout": 0.2})
            assert sorted(ElasticStore(hanging).write_events(events(2)).retry) == [0, 1]

    def test_documents_that_an_index_has_no_room_for_yet_wait(
        self, store: ElasticStore, place: StoreSettings, connection: ElasticConnection
    ) -> None:
        connection.json(
            "PUT", "/_cluster/settings", {"persistent": {"action.auto_create_index": f"-{place.prefix}-*,+*"}}
        )
        try:
            outcome = store.write_events(events(2))
        finally:
            connection.json("PUT", "/_cluster/settings", {"persistent": {"action.auto_create_index": None}})
        assert sorted(outcome.retry) == [0, 1]
        assert "index_not_found_exception" in outcome.retry[0]
        assert not store.write_events(events(2)).retry


class TestForGood:
    def test_a_document_that_does_not_fit_the_mapping_is_rejected_alone(
        self, store: ElasticStore, place: StoreSettings, connection: ElasticConnection
    ) -> None:
        mapping = {"mappings": {"properties": {"url": {"properties": {"path": {"type": "integer"}}}}}}
        connection.json("PUT", f"/{index_of(place)}", mapping)
        frame = events(3).with_columns(pl.Series("url.path", ["1", "/not/a/number", "3"]))
        outcome = store.write_events(frame)
        assert list(outcome.rejected) == [1]
        assert outcome.rejected[1].startswith("document_parsing_exception: ")
        assert "url.path" in outcome.rejected[1]
        assert not outcome.retry
        store.refresh()
        assert store.count_events(ALL) == 2

    def test_an_update_that_does_not_fit_is_an_error_that_names_the_document(
        self, store: ElasticStore, place: StoreSettings, connection: ElasticConnection
    ) -> None:
        mapping = {"mappings": {"properties": {"anomaly": {"properties": {"baseline": {"type": "integer"}}}}}}
        connection.json("PUT", f"/{index_of(place)}", mapping)
        store.write_events(events(1))
        store.refresh()
        (found,) = store.read_events(ALL, columns=["_id", "@timestamp"], with_version=True)
        with pytest.raises(StoreError, match=r"e1-t-0-0: document_parsing_exception"):
            store.update_events(found.with_columns(pl.lit("text").alias("anomaly.baseline")))

    def test_a_bulk_refused_as_a_whole_is_halved_until_the_guilty_row_stands_alone(
        self, store: ElasticStore, connection: ElasticConnection, place: StoreSettings
    ) -> None:
        frame = events(9).with_columns(_id=pl.Series([f"a{n}" if n != 6 else "x" * 513 for n in range(9)]))
        lines = create_lines(frame, pl.lit(index_of(place)))  # below the store's own check of ids
        outcome = send(connection, lines, "create", 1_000_000)
        assert list(outcome.rejected) == [6]
        assert "is too long, must be no longer than 512 bytes" in outcome.rejected[6]
        store.refresh()
        assert store.count_events(ALL) == 8


class TestSize:
    def test_a_small_limit_splits_the_bulk_and_loses_nothing(self, place: StoreSettings) -> None:
        small = ElasticStore(place.model_copy(update={"bulk_bytes": 10_000}))
        small.setup()
        assert not small.write_events(events(300, original="x" * 500)).retry
        small.refresh()
        assert small.count_events(ALL) == 300

    def test_a_line_of_ten_megabytes_is_an_event_and_a_dead_letter(self, store: ElasticStore) -> None:
        line = '"é' * 3_500_000
        frame = events(3).with_columns(
            pl.Series("event.original", ["a", line, "b"]), pl.Series("url.path", ["/", line, "/"])
        )
        outcome = store.write_events(frame)
        assert not outcome.rejected
        assert not outcome.retry
        dead = pl.DataFrame(
            {
                "_id": ["d"],
                "@timestamp": [DAY],
                "reason": ["r" * 100_000],
                "kind": ["no_format"],
                "original": [line.encode()],
                "oddlog.position.epoch": ["e1"],
                "oddlog.position.topic": ["t"],
                "oddlog.position.partition": [0],
                "oddlog.position.offset": [0],
            },
            schema=DEAD_SCHEMA,
        )
        assert not store.write_dead(dead).rejected
        store.refresh()
        found = pl.concat(store.read_events(ALL, order="position"))
        assert found["event.original"].to_list() == ["a", line, "b"]
        assert store.read_dead()["original"].to_list() == [line.encode()]

    def test_what_is_larger_than_the_server_takes_is_halved_and_at_last_rejected_alone(
        self, place: StoreSettings
    ) -> None:
        store = ElasticStore(place.model_copy(update={"bulk_bytes": 400_000_000}))
        store.setup()
        mixed = events(3).with_columns(pl.Series("event.original", ["small", "y" * 105_000_000, "small"]))
        outcome = store.write_events(mixed)  # http.max_content_length is 100 MiB
        assert list(outcome.rejected) == [1]
        assert "more than Elasticsearch takes" in outcome.rejected[1]
        assert not outcome.retry
        store.refresh()
        assert store.count_events(ALL) == 2


class TestRefused:
    @pytest.fixture
    def answering(self, place: StoreSettings) -> Iterator[Callable[..., StoreSettings]]:
        """A server that gives one answer to everything: what proxies and a secured Elasticsearch say."""
        servers: list[http.server.ThreadingHTTPServer] = []

        def start(status: int, body: bytes, *, product: bool = True) -> StoreSettings:
            class Handler(http.server.BaseHTTPRequestHandler):
                def do_POST(self) -> None:
                    self.rfile.read(int(self.headers.get("content-length") or 0))
                    self.send_response(status)
                    self.send_header("content-type", "application/json")
                    if product:
                        self.send_header("x-elastic-product", "Elasticsearch")
                    self.send_header("content-length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)

                do_GET = do_PUT = do_DELETE = do_POST

                def log_message(self, format: str, *args: object) -> None:
                    pass

            servers.append(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler))
            threading.Thread(target=servers[-1].serve_forever, args=(0.05,), daemon=True).start()
            return place.model_copy(update={"url": f"http://127.0.0.1:{servers[-1].server_port}"})

        yield start
        for server in servers:
            server.shutdown()
            server.server_close()

    @pytest.mark.parametrize("status", [401, 403])
    def test_security_stops_the_writer_with_the_way_to_mend_it(
        self, answering: Callable[..., StoreSettings], status: int
    ) -> None:
        body = b'{"error":{"type":"security_exception","reason":"action [indices:data/write/bulk] is unauthorized"}}'
        refused = ElasticStore(answering(status, body))
        with pytest.raises(StoreRefused, match="is unauthorized") as caught:
            refused.write_events(events(1))
        assert "ODDLOG_STORE__PASSWORD" in str(caught.value)
        with pytest.raises(StoreRefused):
            refused.ping()

    def test_security_in_an_item_stops_the_writer(self, answering: Callable[..., StoreSettings]) -> None:
        body = (
            b'{"errors":true,"items":[{"create":{"status":201}},{"create":{"status":403,"error":'
            b'{"type":"security_exception","reason":"action [indices:admin/auto_create] is unauthorized"}}}]}'
        )
        with pytest.raises(StoreRefused, match="auto_create"):
            ElasticStore(answering(200, body)).write_events(events(2))

    @pytest.mark.parametrize("status", [200, 404, 405])
    def test_what_is_no_elasticsearch_takes_no_event_and_condemns_none(
        self, answering: Callable[..., StoreSettings], status: int
    ) -> None:
        other = ElasticStore(answering(status, b'{"hello":"world"}', product=False))
        with pytest.raises(StoreError):
            other.write_events(events(4))

    @pytest.mark.parametrize(
        ("status", "body"),
        [
            (429, b'{"error":{"type":"es_rejected_execution_exception","reason":"queue full"}}'),
            (429, b'{"error":{"type":"circuit_breaking_exception","reason":"too large"}}'),
            (503, b'{"error":{"type":"master_not_discovered_exception"}}'),
            (502, b"<html>bad gateway</html>"),
            (504, b""),
        ],
    )
    def test_what_passes_makes_every_row_wait(
        self, answering: Callable[..., StoreSettings], status: int, body: bytes
    ) -> None:
        outcome = ElasticStore(answering(status, body)).write_events(events(3))
        assert sorted(outcome.retry) == [0, 1, 2]
        assert not outcome.rejected

    def test_a_reader_that_comes_before_its_shard_is_told_that_it_passes(
        self, answering: Callable[..., StoreSettings]
    ) -> None:
        """A 404 of Elasticsearch that tells nothing of the index, only that it was made a moment ago."""
        body = (
            b'{"error":{"type":"illegal_index_shard_state_exception","reason":"CurrentState[RECOVERING] operations'
            b' only allowed when shard state is one of [POST_RECOVERY, STARTED]"},"status":404}'
        )
        store = ElasticStore(answering(404, body))
        with pytest.raises(StoreUnavailable, match="RECOVERING"):
            next(store.read_events(ALL, columns=["_id"]))

    @pytest.mark.parametrize(
        "url", ["http://127.0.0.1", "http://", "http://elastic:secret@127.0.0.1:9200", "https://:9200"]
    )
    def test_a_url_of_no_elasticsearch_is_refused_without_showing_a_password(self, url: str) -> None:
        with pytest.raises(UsageError) as caught:
            ElasticStore(StoreSettings(url=url))
        assert "secret" not in str(caught.value)


def test_an_unknown_error_keeps_elasticsearchs_own_words(connection: ElasticConnection) -> None:
    with pytest.raises(ElasticError, match="400 parsing_exception: unknown query") as caught:
        connection.json("POST", "/_search", {"query": {"nope": {}}})
    assert caught.value.type == "parsing_exception"
    assert error_of(b"") == ("", "")
    assert error_of({"not": "bytes"})[0] == ""
