"""A `bentoml serve` of this project as a child process: for the demo and for tests. What it serves is service.py."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx
from pydantic import SecretStr

from oddlog.errors import ScorerUnavailable
from oddlog.settings import Settings

SERVICE = "serving.service:OddlogScorer"
STOP_SECONDS = 15.0


class ServiceChild:
    """A running service. `stop` ends the whole process group: BentoML's arbiter and its workers."""

    def __init__(self, process: subprocess.Popen[bytes], url: str, log_file: Path) -> None:
        self.url = url
        self.log_file = log_file
        self.pid = process.pid
        self._process = process

    def get(self, path: str, timeout: float = 5.0) -> httpx.Response:
        """A GET of it; raises httpx.TransportError while nothing listens."""
        return httpx.get(self.url + path, timeout=timeout)

    def wait_until_live(self, seconds: float = 90.0) -> None:
        """Return once it answers, model or none. Raises ScorerUnavailable."""
        self._wait("/livez", seconds)

    def wait_until_ready(self, seconds: float = 90.0) -> None:
        """Return once a model is warm. Raises ScorerUnavailable, with the end of its log."""
        self._wait("/readyz", seconds)

    def stop(self) -> None:
        """End it: asked first, killed when that does not help. Harmless when it has ended."""
        if self._process.poll() is None:
            self._signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_SECONDS)
        self._signal(signal.SIGKILL)  # a worker that outlived its arbiter, too
        self._process.wait(STOP_SECONDS)

    def __enter__(self) -> ServiceChild:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _signal(self, number: int) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    def _wait(self, path: str, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        last = "nothing listens"
        while time.monotonic() < deadline:
            if (code := self._process.poll()) is not None:
                raise self._failed(f"bentoml serve ended with exit code {code}")
            try:
                answer = self.get(path)
            except httpx.TransportError as error:
                last = type(error).__name__
            else:
                if answer.is_success:
                    return
                last = answer.text.strip()
            time.sleep(0.1)
        raise self._failed(f"{self.url}{path} was not ready in {seconds:g} s: {last}")

    def _failed(self, found: str) -> ScorerUnavailable:
        lines = self.log_file.read_text(errors="replace").splitlines()[-15:] if self.log_file.exists() else []
        return ScorerUnavailable(
            "\n".join([found, *lines]), expected="200 from it", mend=f"see its log: {self.log_file}"
        )


@contextmanager
def start_service(
    settings: Settings,
    port: int,
    *,
    folder: Path,
    ready: bool = True,
    access_log: bool = False,
    service: str = SERVICE,
) -> Iterator[ServiceChild]:
    """`bentoml serve` on 127.0.0.1:`port` with these settings, until the block is left.

    `folder` takes its log (`serve.log`) and everything that BentoML writes, so that a home which is empty or
    read-only does; `ready`: wait for a warm model, else only until it answers; `service`: where it is declared.
    Raises ScorerUnavailable.
    """
    folder.mkdir(parents=True, exist_ok=True)
    log_file = folder / "serve.log"
    with open(log_file, "ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "bentoml", "serve", service, "--host", "127.0.0.1", "--port", str(port)],
            env=service_environment(settings, folder, access_log=access_log),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    with ServiceChild(process, f"http://127.0.0.1:{port}", log_file) as child:
        if ready:
            child.wait_until_ready()
        else:
            child.wait_until_live()
        yield child


def service_environment(settings: Settings, folder: Path, *, access_log: bool = False) -> dict[str, str]:
    """This process's environment, with `settings` as ODDLOG_* variables and BentoML's home in `folder`."""
    home = (folder / "bentoml").absolute()
    # Metrics of several processes meet in a folder below the home: a service that shared it would wipe another's.
    home.mkdir(parents=True, exist_ok=True)
    # What is in force is in the variables; a file in the working folder must not come on top.
    (empty := (folder / "no-settings.toml").absolute()).touch()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ODDLOG_")}
    environment.pop("PROMETHEUS_MULTIPROC_DIR", None)
    environment |= {
        "BENTOML_HOME": str(home),
        "BENTOML_DO_NOT_TRACK": "True",
        "BENTOML_CONFIG_OPTIONS": f"services.oddlog.logging.access.enabled={str(access_log).lower()}",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PYTHONUNBUFFERED": "1",
        "ODDLOG_CONFIG": str(empty),
    }
    root = str(Path(__file__).resolve().parent.parent)
    paths = [root, *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
    environment["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))
    for group_name in ("registry", "serve", "privacy"):
        for field, value in getattr(settings, group_name):
            if value is not None:
                environment[f"ODDLOG_{group_name.upper()}__{field.upper()}"] = _text(value)
    return environment


def _text(value: Any) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)
