"""What is left of a `bentoml serve` whose first process was killed by -9: nothing that holds its port."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from oddlog.settings import RegistrySettings, Settings
from oddlog.stack.process import free_port
from serving.child import start_service
from tests.waiting import until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the parent's death is a signal on Linux alone")


def workers(arbiter: int) -> list[int]:
    """The processes that an arbiter has started to score."""
    try:
        children = Path(f"/proc/{arbiter}/task/{arbiter}/children").read_text().split()
    except FileNotFoundError:
        return []
    return [int(pid) for pid in children if b"--worker-id" in command(int(pid))]


def command(pid: int) -> bytes:
    """What a process runs; empty once it has ended, reaped or not."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def test_a_worker_ends_with_an_arbiter_that_is_killed(tmp_path: Path) -> None:
    settings = Settings(
        registry=RegistrySettings(
            url=f"sqlite:///{tmp_path}/mlflow.db", artifacts=f"{tmp_path}/artifacts", cache_dir=tmp_path / "cache"
        ),
    )
    port = free_port()
    with start_service(settings, port, folder=tmp_path / "one", ready=False) as child:
        (worker,) = workers(child.pid)
        os.kill(child.pid, signal.SIGKILL)
        until(lambda: not command(worker), "no worker")
    # Nobody holds the port: the next one answers there.
    with start_service(settings, port, folder=tmp_path / "two", ready=False) as child:
        assert child.get("/livez").status_code == 200
