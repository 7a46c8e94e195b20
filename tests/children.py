"""Programs that run beside a test, ended with it whatever it did. Servers of the whole session are in conftest.py."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx

from oddlog.stack.process import free_port
from tests.waiting import until

ODDLOG = str(Path(sys.executable).with_name("oddlog"))
"""The command line of the environment that the tests run in."""

STOP_SECONDS = 30.0

QUICK_START = ("-XX:TieredStopAtLevel=1",)
"""For servers in Java: it compiles once, and quickly. Those of the tests live for minutes."""


@contextmanager
def running(
    command: Sequence[str | Path], log: Path, *, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A program in a session of its own; what it says is added to `log`.

    When the block is left, it and its children are asked to end, and killed where that does not help.
    """
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, env=env, cwd=cwd, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    try:
        yield process
    finally:
        end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a program that leads a session, and whatever it started there."""
    if process.poll() is None:
        _signal(process, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
    _signal(process, signal.SIGKILL)  # a child that outlived it, too
    process.wait(STOP_SECONDS)


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def answers(url: str) -> bool:
    """Whether there is a server that answers 2xx."""
    try:
        return httpx.get(url, timeout=5.0).is_success
    except httpx.TransportError:
        return False


@contextmanager
def serving(
    command: Sequence[str | Path],
    log: Path,
    url: str,
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    seconds: float = 180.0,
) -> Iterator[subprocess.Popen[bytes]]:
    """A `running` program that has answered at `url`."""
    with running(command, log, env=env, cwd=cwd) as process:

        def up() -> bool:
            assert process.poll() is None, log.read_text()[-3_000:]
            return answers(url)

        until(up, f"an answer from {url}", seconds=seconds, told=lambda: log.read_text()[-3_000:])
        yield process


@contextmanager
def mlflow_server(database: str, log: Path, *, port: int | None = None, artifacts: Path | None = None) -> Iterator[str]:
    """The URL of a real `mlflow server` over a database; `artifacts`: where it keeps them, when it hands them out."""
    port = free_port() if port is None else port
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)),
        *("--backend-store-uri", database, "--workers", "1"),
        *(() if artifacts is None else ("--artifacts-destination", str(artifacts))),
    ]
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    url = f"http://127.0.0.1:{port}"
    with serving(command, log, f"{url}/health", env=environment):
        yield url
