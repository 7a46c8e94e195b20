"""A proxy before Elasticsearch that refuses, cuts, splits and holds requests as it is told. Which fault when:
campaign/ and tests/integration/test_slow_store.py.

Everything it lets through it hands on as it came; what it refuses it answers as Elasticsearch would, with
Elasticsearch's own error types, so that the client under test cannot tell the two apart.
"""

from __future__ import annotations

import http.client
import json
import random
import threading
from collections import Counter
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar, Literal, get_args
from urllib.parse import urlsplit

ProxyFault = Literal[
    "whole_429", "whole_503", "balancer_503", "part_429", "part_503", "too_large_413", "refused_401",
    "cut_before", "cut_after",
]  # fmt: skip
"""`whole_*`: the request is refused. `balancer_503`: as a load balancer without a backend would, in HTML. `part_*`:
some documents of a bulk are. `cut_before`, `cut_after`: the connection ends before or after it was carried out."""

PROXY_FAULTS: tuple[ProxyFault, ...] = get_args(ProxyFault)
TOO_LARGE_BYTES = 8 * 1024
PART = 0.3
"""Share of the documents of a bulk that a `part_*` fault refuses."""

_ERRORS: dict[str, tuple[int, str, str]] = {
    "whole_429": (429, "es_rejected_execution_exception", "rejected execution of coordinating operation"),
    "whole_503": (503, "cluster_block_exception", "blocked by: [SERVICE_UNAVAILABLE/2/no master];"),
    "part_429": (429, "es_rejected_execution_exception", "rejected execution of primary operation"),
    "part_503": (503, "unavailable_shards_exception", "primary shard is not active Timeout: [1m]"),
    "too_large_413": (413, "", ""),
    "refused_401": (401, "security_exception", "unable to authenticate user [campaign]"),
}


class FaultProxy:
    """Listens on a free port of 127.0.0.1 from the start until `close`. `hits` counts what each fault met, and
    under "held" the bulks that were held."""

    def __init__(self, target: str, *, seed: int = 0, port: int = 0) -> None:
        self.hits: Counter[str] = Counter()
        self.target = urlsplit(target)
        self._chance = random.Random(seed)
        self._lock = threading.Lock()
        self._fault: ProxyFault | None = None
        self._open = threading.Event()
        self._open.set()
        handler = type("Handler", (_Handler,), {"proxy": self})
        self._server = _Server(("127.0.0.1", port), handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="fault-proxy", daemon=True
        )
        self._thread.start()

    def inject(self, fault: ProxyFault | None) -> None:
        """From now on, until the next call; None lets everything through."""
        self._fault = fault

    def hold(self) -> None:
        """From now on every bulk waits: not carried out, not answered, its connection open. Until `release`."""
        self._open.clear()

    def release(self) -> None:
        """Carry out what was held, also for a client that has given up meanwhile, and hold nothing more."""
        self._open.set()

    def wait(self) -> None:
        """Where bulks are held, until they are released."""
        if not self._open.is_set():
            self.met("held")
            self._open.wait()

    def meets(self, bulk: bool, size: int) -> ProxyFault | None:
        """The fault that this request meets, if any."""
        fault = self._fault
        if fault is None or (fault.startswith("part_") and not bulk):
            return None
        if fault == "too_large_413" and (not bulk or size < TOO_LARGE_BYTES):
            return None
        return fault

    def met(self, fault: ProxyFault | Literal["held"]) -> None:
        """Note that a request has felt a fault: one that a server which was away felt before does not count."""
        with self._lock:
            self.hits[fault] += 1

    def refused_of(self, documents: int) -> list[int]:
        """Which documents of a bulk a `part_*` fault refuses: one at least."""
        with self._lock:
            chosen = [row for row in range(documents) if self._chance.random() < PART]
            return chosen or [self._chance.randrange(documents)]

    def close(self) -> None:
        """End; connections that are open are dropped."""
        self.release()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Connections that end in the middle are this program's trade."""


class _Handler(BaseHTTPRequestHandler):
    """One client connection, and the one to the target that serves it."""

    proxy: ClassVar[FaultProxy]
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 120

    def setup(self) -> None:
        super().setup()
        target = self.proxy.target
        self._upstream = http.client.HTTPConnection(target.hostname or "", target.port, timeout=120)

    def finish(self) -> None:
        self._upstream.close()
        super().finish()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the consumers' own logs tell."""

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        bulk = urlsplit(self.path).path.endswith("/_bulk")
        if bulk:
            self.proxy.wait()
        fault = self.proxy.meets(bulk, len(body))
        if fault == "cut_before":
            self.proxy.met(fault)
            self.close_connection = True
        elif fault == "balancer_503":
            self.proxy.met(fault)
            self._answer(503, [("content-type", "text/html")], b"<html><body>No server is available</body></html>")
        elif fault is not None and fault.startswith("part_"):
            self._part(fault, body)
        elif fault is not None and fault != "cut_after":
            self.proxy.met(fault)
            self._refuse(fault)
        else:
            answer = self._forward(body)
            if answer is None or fault == "cut_after":
                self.close_connection = True
                if answer is not None:
                    self.proxy.met("cut_after")
            else:
                self._answer(*answer)

    do_POST = do_PUT = do_DELETE = do_HEAD = do_GET

    def _forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes] | None:
        """Status, headers and body of the target's answer; None where it is away."""
        # The length is another one where a part was taken out.
        headers = {n: v for n, v in self.headers.items() if n.lower() not in {"host", "connection", "content-length"}}
        for _ in range(2):  # a kept connection may have been closed by the other side meanwhile
            fresh = self._upstream.sock is None
            try:
                self._upstream.request(self.command, self.path, body=body, headers=headers)
                answer = self._upstream.getresponse()
                kept = [(n, v) for n, v in answer.getheaders() if n.lower() not in {"content-length", "connection"}]
                kept = [(n, v) for n, v in kept if n.lower() != "transfer-encoding"]
                return answer.status, kept, answer.read()
            except (OSError, http.client.HTTPException):
                self._upstream.close()
                if fresh:
                    return None
        return None

    def _answer(self, status: int, headers: Sequence[tuple[str, str]], body: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _refuse(self, fault: str) -> None:
        status, type, reason = _ERRORS[fault]
        error = {"type": type, "reason": reason, "root_cause": [{"type": type, "reason": reason}]}
        body = json.dumps({"error": error, "status": status}).encode() if type else b""
        self._answer(status, [("content-type", "application/json"), ("x-elastic-product", "Elasticsearch")], body)

    def _part(self, fault: ProxyFault, body: bytes) -> None:
        """Carry out a bulk without some of its documents, and answer for those in their places."""
        lines = body.split(b"\n")
        pairs = [lines[i : i + 2] for i in range(0, len(lines) - 1, 2)]  # create and update alike: action, document
        refused = set(self.proxy.refused_of(len(pairs)))
        rest = [pair for row, pair in enumerate(pairs) if row not in refused]
        answered: list[dict[str, Any]] = []
        headers = [("content-type", "application/json"), ("x-elastic-product", "Elasticsearch")]
        if rest:
            answer = self._forward(b"".join(line + b"\n" for pair in rest for line in pair))
            if answer is None:
                self.close_connection = True
                return
            status, headers, text = answer
            if status >= 300:
                self._answer(status, headers, text)
                return
            answered = json.loads(text)["items"]
        self.proxy.met(fault)
        status, type, reason = _ERRORS[fault]
        others = iter(answered)
        items = [
            {next(iter(json.loads(pair[0]))): {"status": status, "error": {"type": type, "reason": reason}}}
            if row in refused
            else next(others)
            for row, pair in enumerate(pairs)
        ]
        self._answer(200, headers, json.dumps({"errors": True, "items": items}).encode())
