"""Deletion by Elasticsearch's lifecycle: asked for only where the server has one.

The distribution that tests run has none, which is one half; the other is tried on a server that keeps what it is sent
and answers as one with lifecycles does.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import pytest

from oddlog.connectors.elastic import ElasticStore
from oddlog.connectors.elastic_connection import ElasticConnection
from oddlog.settings import StoreSettings
from tests.elastic_place import elastic_place


class _WithLifecycle(BaseHTTPRequestHandler):
    """What setup asks of an Elasticsearch, and nothing else."""

    protocol_version = "HTTP/1.1"
    kept: ClassVar[dict[str, Any]]
    puts: ClassVar[list[str]]

    def do_PUT(self) -> None:
        self.puts.append(self.path)
        self.kept[self.path] = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self._answer(200, {"acknowledged": True})

    def do_GET(self) -> None:
        if self.path == "/_ilm/status":
            self._answer(200, {"operation_mode": "RUNNING"})
        elif (template := self.kept.get(self.path)) is not None:
            name = self.path.rpartition("/")[2]
            self._answer(200, {"index_templates": [{"name": name, "index_template": template}]})
        elif self.path.startswith("/_index_template/"):
            self._answer(404, {"error": {"type": "resource_not_found_exception", "reason": "no such template"}})
        else:
            self._answer(200, {})  # mappings: there are no indices

    def _answer(self, status: int, document: dict[str, Any]) -> None:
        body = json.dumps(document).encode()
        self.send_response_only(status)
        self.send_header("x-elastic-product", "Elasticsearch")
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


@pytest.fixture
def with_lifecycle() -> Iterator[tuple[StoreSettings, dict[str, Any], list[str]]]:
    """A store there, what it keeps by path, and the paths of all writes in their order."""
    kept: dict[str, Any] = {}
    puts: list[str] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_WithLifecycle,), {"kept": kept, "puts": puts}))
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield StoreSettings(url=f"http://127.0.0.1:{server.server_address[1]}", keep_days=30), kept, puts
    server.shutdown()
    server.server_close()
    thread.join()


def test_the_policy_is_there_before_the_template_that_names_it(
    with_lifecycle: tuple[StoreSettings, dict[str, Any], list[str]],
) -> None:
    settings, kept, puts = with_lifecycle
    store = ElasticStore(settings)
    store.setup()
    policy, template = "/_ilm/policy/oddlog-events-keep-30-days", "/_index_template/oddlog-events"
    assert puts.index(policy) < puts.index(template)
    phases = kept[policy]["policy"]["phases"]
    assert phases == {"hot": {"actions": {}}, "delete": {"min_age": "31d", "actions": {"delete": {}}}}
    # The age of a day's index is that of its day, whenever it was made; no index is rolled over.
    lifecycle = kept[template]["template"]["settings"]["index"]["lifecycle"]
    assert lifecycle == {"name": "oddlog-events-keep-30-days", "parse_origination_date": True}
    assert "rollover" not in json.dumps(kept)
    assert all("lifecycle" not in json.dumps(kept[path]) for path in puts if path not in {policy, template})
    assert store.setup_problems() == []

    puts.clear()
    store.setup()
    assert puts == []
    ElasticStore(settings.model_copy(update={"keep_days": 7})).setup()
    assert puts == ["/_ilm/policy/oddlog-events-keep-7-days", template]
    puts.clear()
    ElasticStore(settings.model_copy(update={"keep_days": None})).setup()
    assert puts == [template]
    assert "lifecycle" not in kept[template]["template"]["settings"]["index"]
    assert "oddlog-events is of another" in store.setup_problems()[0]


@pytest.mark.elasticsearch
def test_a_server_without_lifecycle_is_set_up_without(elasticsearch_url: str) -> None:
    with elastic_place(elasticsearch_url) as place:
        store = ElasticStore(place.model_copy(update={"keep_days": 30}))
        store.setup()
        assert store.setup_problems() == []
        name = f"{place.prefix}-events"
        found = ElasticConnection(place).json("GET", f"/_index_template/{name}")["index_templates"][0]
        assert "lifecycle" not in found["index_template"]["template"]["settings"]["index"]
        store.close()
