"""`oddlog enrich` that starts while Elasticsearch is away: it waits, says so once, and goes on when it is there."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from benchmarks.fault_proxy import FaultProxy
from oddlog.connectors.elastic import ElasticStore
from oddlog.connectors.store import EventQuery
from oddlog.settings import StoreSettings
from oddlog.stack.process import free_port
from tests.children import ODDLOG, running
from tests.elastic_place import elastic_place
from tests.waiting import until

pytestmark = pytest.mark.elasticsearch

LINE = '192.0.2.{n} - - [17/May/2015:10:05:{n:02d} +0000] "GET /page HTTP/1.1" 200 12 "-" "curl/8"\n'


@pytest.fixture
def place(elasticsearch_url: str) -> Iterator[StoreSettings]:
    with elastic_place(elasticsearch_url) as one:
        yield one


def test_a_store_that_is_away_at_the_start_is_waited_for(place: StoreSettings, tmp_path: Path) -> None:
    (tmp_path / "access.log").write_text("".join(LINE.format(n=n) for n in range(20)))
    port, errors = free_port(), tmp_path / "stderr"
    environment = os.environ | {
        "ODDLOG_SOURCE__URL": f"file://{tmp_path / 'access.log'}",
        "ODDLOG_STORE__URL": f"http://127.0.0.1:{port}",
        "ODDLOG_STORE__PREFIX": place.prefix,
        "ODDLOG_SCORER__URL": "http://127.0.0.1:9",
        "ODDLOG_SCORER__ATTEMPTS": "1",
    }
    command = [ODDLOG, "enrich", "--metrics-port", "0", "--until-idle", "1"]
    with running(command, errors, cwd=tmp_path, env=environment) as consumer:

        def announced() -> re.Match[str] | None:
            assert consumer.poll() is None, errors.read_text()
            return re.search(r"metrics at (http://127\.0\.0\.1:\d+)/", errors.read_text())

        metrics = until(announced, "the announcement of the port")[1]
        asked = 0

        def waits() -> bool:
            nonlocal asked
            assert consumer.poll() is None, errors.read_text()
            answer = httpx.get(f"{metrics}/readyz")
            assert answer.status_code == 503
            asked += answer.text.startswith("waiting: ") and f"127.0.0.1:{port}" in answer.text
            return asked >= 30  # a second and a half of it: several questions to the store

        until(waits, "a reason for not being ready")
        assert httpx.get(f"{metrics}/livez").status_code == 200
        proxy = FaultProxy(place.url, port=port)
        try:
            assert consumer.wait(60) == 0, errors.read_text()
        finally:
            proxy.close()
    said = errors.read_text()
    assert said.count("waiting: ") == 1
    assert said.count("node_pool") <= 2  # that the node failed, and that it is tried all the same
    store = ElasticStore(place)
    store.refresh()
    assert store.count_events(EventQuery(status="pending")) == 20
    assert store.setup_problems() == []
    store.close()
