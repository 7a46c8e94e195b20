"""The stack on real programs: starts beside what is there, survives a crash, keeps its data, stops whole."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from oddlog import stack
from oddlog.errors import OutsideError
from oddlog.stack import process
from tests.children import QUICK_START

pytestmark = [pytest.mark.kafka, pytest.mark.elasticsearch]


@pytest.fixture
def folder(tmp_path: Path, own_servers: Callable[[Path], AbstractContextManager[Path]]) -> Iterator[Path]:
    with own_servers(tmp_path / "stack") as folder:
        yield folder


def _oddlog(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "cli.main", *arguments], capture_output=True, text=True, check=False)


def test_kafka_starts_beside_another_survives_its_own_crash_and_stops(folder: Path) -> None:
    with socket.socket() as other:
        try:
            other.bind(("127.0.0.1", 9092))
            other.listen()
        except OSError:
            pass  # somebody holds it already: just as good
        up = _oddlog("stack", "up", "--only", "kafka", "--state-dir", str(folder), "--json")
    assert up.returncode == 0, up.stderr
    first = json.loads(up.stdout)["kafka"]
    assert first["url"] != "kafka://127.0.0.1:9092"
    assert stack.status(folder) == {"kafka": "up", "elasticsearch": "down"}

    again = stack.up(folder, elasticsearch=False)
    assert again.pids == {"kafka": first["pid"]}, "a second `up` started a second broker"

    server = again.kafka
    assert server is not None
    os.kill(server.pid, signal.SIGKILL)
    _until_gone(server)
    assert stack.status(folder)["kafka"] == "dead"
    assert _oddlog("stack", "status", "--state-dir", str(folder)).returncode == 1
    cluster = (folder / "kafka" / "data" / "meta.properties").read_text()
    third = stack.up(folder, elasticsearch=False)
    assert third.kafka is not None
    assert third.kafka.url == first["url"], "clients have the old address in their settings"
    assert (folder / "kafka" / "data" / "meta.properties").read_text() == cluster

    down = _oddlog("stack", "down", "--state-dir", str(folder), "--purge")
    assert down.returncode == 0, down.stderr
    assert "kafka" in down.stdout
    assert process.birth(third.kafka.pid) is None
    assert not (folder / "kafka").exists()


def test_elasticsearch_runs_for_root_and_others_keeps_its_data_and_says_why_it_fails(folder: Path) -> None:
    # A setting it does not know ends its start: the error must say so, and leave nothing behind.
    wrong = stack.ElasticsearchOptions(settings={"no.such.setting": True}, java_options=QUICK_START)
    with pytest.raises(OutsideError, match=r"unknown setting \[no\.such\.setting\]") as caught:
        stack.up(folder, kafka=False, elasticsearch_options=wrong)
    assert "oddlog-stack.log" in str(caught.value.mend)
    assert stack.status(folder)["elasticsearch"] == "down"

    state = stack.up(
        folder, kafka=False, elasticsearch_options=stack.ElasticsearchOptions(heap="512m", java_options=QUICK_START)
    )
    server = state.elasticsearch
    assert server is not None
    put = urllib.request.Request(
        f"{server.url}/kept/_doc/1?refresh=true", data=b'{"a": 1}', method="PUT",
        headers={"Content-Type": "application/json"},
    )  # fmt: skip
    assert urllib.request.urlopen(put).status == 201
    stack.down(folder)
    _until_gone(server)
    with socket.socket() as probe, pytest.raises(ConnectionRefusedError):
        probe.connect(("127.0.0.1", server.port))

    state = stack.up(
        folder, kafka=False, elasticsearch_options=stack.ElasticsearchOptions(heap="512m", java_options=QUICK_START)
    )
    assert state.elasticsearch is not None
    with urllib.request.urlopen(f"{state.elasticsearch.url}/kept/_doc/1") as answer:
        assert json.load(answer)["_source"] == {"a": 1}


def _until_gone(server: stack.Server) -> None:
    process.stop(server.pid, server.born)
    assert not server.running
