"""The verbs that operators use, as people run them: the consumer's port and logs, dead letters, retention, doctor."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

ODDLOG = [str(Path(sys.executable).parent / "oddlog")]
LINE = '192.0.2.{n} - - [17/May/2015:10:05:{n:02d} +0000] "GET /page HTTP/1.1" 200 12 "-" "curl/8"\n'

pytestmark = pytest.mark.e2e


def environment(folder: Path) -> dict[str, str]:
    """Everything embedded, below a folder of the test; a scorer that is not there."""
    return os.environ | {
        "ODDLOG_SOURCE__URL": f"file://{folder / 'access.log'}",
        "ODDLOG_SCORER__URL": "http://127.0.0.1:9",
        "ODDLOG_SCORER__ATTEMPTS": "1",
    }


def run(*arguments: str, cwd: Path, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*ODDLOG, *arguments], capture_output=True, text=True, cwd=cwd, env=environment(cwd) | more, timeout=120,
        check=False,
    )  # fmt: skip


def until(condition: Callable[[], bool], what: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"{what} did not happen in {seconds:g} s")
        time.sleep(0.05)


def test_the_consumer_tells_what_it_does_and_logs_json(tmp_path: Path) -> None:
    log, errors = tmp_path / "access.log", tmp_path / "stderr"
    log.write_text("".join(LINE.format(n=n) for n in range(20)) + "no log line\n")
    with errors.open("w") as written:
        consumer = subprocess.Popen(
            [*ODDLOG, "enrich", "--metrics-port", "0", "--log-json"], cwd=tmp_path, env=environment(tmp_path),
            stderr=written, stdout=written,
        )  # fmt: skip
    try:
        port: list[str] = []

        def announced() -> bool:
            port[:] = re.findall(r"metrics at (http://127\.0\.0\.1:\d+)/", errors.read_text())
            return bool(port) or consumer.poll() is not None

        until(announced, "the announcement of the port")
        assert port, errors.read_text()
        assert httpx.get(f"{port[0]}/livez").status_code == 200
        wanted = ("oddlog_consumer_records_total 21.0", 'oddlog_consumer_events_total{status="pending"} 20.0',
                  'oddlog_consumer_dead_letters_total{kind="no_format"} 1.0', "oddlog_consumer_ready 1.0",
                  'stage="commit"', "oddlog_consumer_lag{")  # fmt: skip
        until(lambda: all(one in httpx.get(f"{port[0]}/metrics").text for one in wanted), "the batch in the metrics")
        assert httpx.get(f"{port[0]}/readyz").status_code == 200
    finally:
        consumer.send_signal(signal.SIGTERM)
        consumer.wait(30)
    assert consumer.returncode == 0
    lines = [json.loads(line) for line in errors.read_text().splitlines()]
    assert {"time", "level", "logger", "message"} <= set(lines[0])
    assert (lines[-1]["records"], lines[-1]["pending"], lines[-1]["dead_letters"]) == (21, 20, 1)
    assert len(lines) < 20  # no line for an event


def test_errors_and_stages_are_json_lines_too(tmp_path: Path) -> None:
    done = run("train", "--log-json", cwd=tmp_path)
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert done.returncode == lines[-1]["exit_code"] == 2
    assert lines[-1]["level"] == "ERROR"
    assert lines[-1]["mend"]


def test_a_taken_port_is_said(tmp_path: Path) -> None:
    import socket

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        one.listen()
        done = run("enrich", "--metrics-port", str(one.getsockname()[1]), cwd=tmp_path)
    assert done.returncode == 2
    assert "--metrics-port" in done.stderr
