"""The consumer's port: /metrics for Prometheus, /livez and /readyz for whoever restarts it. What they say is
decided in `consumer_metrics.py`.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from oddlog.errors import UsageError
from serving.consumer_metrics import ConsumerMetrics

PATHS = ("/metrics", "/livez", "/readyz")

POLL_SECONDS = 0.05
"""How long the end of a consumer waits for the port's thread, at most."""


@contextlib.contextmanager
def consumer_port(metrics: ConsumerMetrics, host: str, port: int) -> Iterator[int]:
    """Answers on `host`:`port` (0: any free one) from a thread of its own; gives the port.

    Raises UsageError where it cannot be bound."""

    class Handler(_Handler):
        told = metrics

    try:
        server = _Server((host, port), Handler)
    except OSError as error:
        raise UsageError(
            f"the consumer's metrics cannot be served at {host}:{port}: {error.strerror or error}",
            expected="an address of this machine, and a port that nobody listens on",
            mend="oddlog enrich --metrics-port with another port, or set ODDLOG_ENRICH__METRICS_PORT",
        ) from None
    thread = threading.Thread(target=server.serve_forever, args=(POLL_SECONDS,), name="consumer-port", daemon=True)
    thread.start()
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True


class _Handler(BaseHTTPRequestHandler):
    told: ConsumerMetrics
    server_version, sys_version = "oddlog", ""
    timeout = 10  # seconds: who connects and says nothing holds no thread for ever

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/metrics":
            from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

            self._send(HTTPStatus.OK, generate_latest(self.told.registry), CONTENT_TYPE_LATEST)
        elif path in PATHS:
            reason = self.told.not_live() if path == "/livez" else self.told.not_ready()
            status = HTTPStatus.SERVICE_UNAVAILABLE if reason else HTTPStatus.OK
            self._send(status, f"{reason or 'yes'}\n".encode())
        else:
            self._send(HTTPStatus.NOT_FOUND, f"there are {', '.join(PATHS)}\n".encode())

    def _send(self, status: HTTPStatus, body: bytes, media: str = "text/plain; charset=utf-8") -> None:
        self.send_response(status)
        self.send_header("content-type", media)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: a probe every few seconds is no news."""
