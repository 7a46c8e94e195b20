"""ElasticConnection without a server of its own: settings that none could be reached with, and how long it waits."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from oddlog.connectors.elastic import ElasticStore
from oddlog.connectors.elastic_connection import ElasticConnection
from oddlog.errors import StoreUnavailable, UsageError
from oddlog.settings import StoreSettings


def test_an_authority_without_tls_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("of no matter")
    with pytest.raises(UsageError, match="not spoken to by TLS"):
        ElasticConnection(StoreSettings(url="http://127.0.0.1:9200", ca_file=tmp_path / "ca.pem"))


def test_an_authority_that_is_not_there_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no file .*nowhere\.pem"):
        ElasticConnection(StoreSettings(url="https://127.0.0.1:9200", ca_file=tmp_path / "nowhere.pem"))


class _Slow(BaseHTTPRequestHandler):
    """Answers as Elasticsearch does, in half a second."""

    def do_POST(self) -> None:
        threading.Event().wait(0.5)
        self.send_response(200)
        self.send_header("X-Elastic-Product", "Elasticsearch")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


def test_a_store_is_rewritten_for_longer_than_any_other_request_may_take() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Slow) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        store = ElasticStore(StoreSettings(url=f"http://127.0.0.1:{server.server_port}", timeout=0.05))
        with pytest.raises(StoreUnavailable, match="does not answer"):
            store.refresh()
        store.expunge()
        store.close()
        server.shutdown()
