"""The parts of the serving benchmarks that can be wrong without a service: who is at fault, and what counts as when."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from benchmarks.forest import table as forest_table
from benchmarks.http_load import Connection, Load, load_for, post, succeeded
from benchmarks.serving import LARGE, misses
from benchmarks.swap import Judge, figures


class Echo(BaseHTTPRequestHandler):
    """Answers what it is sent; 500 to the word `bad`."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.send_response(500 if body == b"bad" else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing."""


@pytest.fixture
def echo() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Echo) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/path"
        server.shutdown()


def test_answers_are_read_whole_and_failures_are_kept(echo: str) -> None:
    connection = Connection(echo)
    for body in (b"one", b"", b"x" * 300_000):
        assert connection.ask(post(echo, body, "text/plain")) == (200, body)
    connection.close()
    answers: list[bytes] = []

    def check(status: int, body: bytes) -> str | None:
        answers.append(body)
        return succeeded(status, body)

    found = load_for(echo, [post(echo, body, "text/plain") for body in (b"good", b"bad")], 3, 0.2, check)
    assert set(answers) == {b"good", b"bad"}
    assert len(found.seconds) + len(found.failed) == len(answers)
    assert len(found.failed) == answers.count(b"bad")
    assert "status 500" in found.failed[0]
    assert found.rate > 0
    assert found.milliseconds(50) <= found.milliseconds(99)


def test_a_service_that_is_away_is_a_failure() -> None:
    found = load_for("http://127.0.0.1:9", [post("http://127.0.0.1:9/x", b"", "text/plain")], 1, 0.05)
    assert not found.seconds
    assert "Error" in found.failed[0]


def test_answers_belong_to_a_swap_where_they_overlap_it() -> None:
    judge = object.__new__(Judge)
    judge.wrong, judge.by_version = ["one"], {"1": 2}
    whole = Load(begun=[0.0, 0.9, 1.5, 2.1, 3.0], seconds=[0.5, 0.2, 0.1, 0.1, 2.0], failed=["x"], lasted=5.0)
    found = figures(whole, judge, [(1.0, 2.0), (4.0, 4.5)])
    # Over before it; begun before and answered in it; in it; after it; overlapping the second.
    assert (found["rest"]["requests"], found["during"]["requests"]) == (2, 3)
    assert (found["failed"], found["wrong"], found["requests"], found["rate"]) == (1, 1, 5, 1.0)


def one(server: str, p50: float, rate: float) -> dict[str, Any]:
    return {"server": server, "rows": 1, "clients": 8, "p50": p50, "p99": 2 * p50, "rate": rate, "requests": 9}


def test_targets_that_are_missed_are_named() -> None:
    def http(arrow: float, large: float) -> dict[str, Any]:
        of = lambda ms: {"p50": ms, "p99": ms}  # noqa: E731
        return {
            "1": {"arrow": of(arrow), "empty": of(1.0), "scoring": of(0.1)},
            str(LARGE): {"arrow": of(large), "empty": of(1.0), "scoring": of(10.0)},
        }

    own, peer = one("oddlog, Arrow", 1.0, 900.0), one("MLServer", 5.0, 200.0)
    assert misses({"http": http(1.2, 14.0), "peers": [own, peer]}) == []
    missed = misses({"http": http(1.4, 16.0), "peers": [own, one("MLServer", 0.5, 200.0)]})
    assert len(missed) == 4
    assert "MLServer has the better p50: 1 rows, 8 clients" in missed


def test_a_ratio_is_held_against_its_target() -> None:
    rows = {
        size: {"us": dict.fromkeys(("scikit-learn", "compiled", "contributions"), 9.0), "ratio": ratio,
               "largest_difference": 1e-7}
        for size, ratio in (("1", 400.0), ("4096", 1.2))
    }  # fmt: skip
    text = forest_table({"trees": 200, "features": 16, "rows": rows})
    assert "300 (met)" in text
    assert "1.5 (not met)" in text
