"""The consumers: real `oddlog enrich` processes, kept running as a service manager would, and hurt on request."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

RESTART_SECONDS = 1.0
OUTSIDE = 3
"""Exit code of a command that an outside system failed."""
ROOT = Path(__file__).resolve().parents[2]


@dataclass(slots=True)
class Exit:
    """A consumer that ended without having been told to."""

    consumer: str
    code: int
    error: str
    """The line of its log that says why."""
    at_work: bool
    """Whether it had begun to consume: before, it may end when a server is not there."""

    @property
    def refused(self) -> bool:
        """Whether it was told 401: that no retry mends."""
        return self.code == OUTSIDE and "refuses with 401" in self.error

    @property
    def expected(self) -> bool:
        """Whether it was right to end."""
        return self.refused or (self.code == OUTSIDE and not self.at_work and not self.error.startswith("traceback"))


@dataclass(slots=True)
class _Slot:
    name: str
    log: Path
    process: subprocess.Popen[bytes] | None = None
    start_at: float = 0.0
    hurt: bool = False
    wanted: bool = True
    arguments: list[str] = field(default_factory=list)
    began: int = 0
    """Where in the log the running process began."""


class Consumers:
    """Starts what is wanted, and again what ended. Its thread runs from `start` to `stop`."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.exits: list[Exit] = []
        self.started: Counter[str] = Counter()
        self._folder = folder
        self._environment = dict(environment)
        self._slots: dict[str, _Slot] = {}
        self._lock = threading.RLock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="consumers", daemon=True)

    def start(self, *names: str) -> None:
        """Begin with these consumers."""
        for name in names:
            self.add(name)
        self._thread.start()

    def add(self, name: str) -> None:
        """One more consumer."""
        with self._lock:
            self._slots[name] = _Slot(name, self._folder / f"{name}.log")

    def names(self) -> list[str]:
        """Those that are wanted."""
        with self._lock:
            return [slot.name for slot in self._slots.values() if slot.wanted]

    def leave(self, name: str, seconds: float = 60.0) -> int | None:
        """Ask one to end in good order (SIGTERM); its exit code, None when it had to be killed after `seconds`."""
        with self._lock:
            slot = self._slots[name]
            slot.wanted = False
            process = slot.process
        if process is None or process.poll() is not None:
            return 0
        process.send_signal(signal.SIGTERM)
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return None
        if code not in {0, -signal.SIGTERM}:  # the latter: it was only just starting
            with self._lock:
                self.exits.append(self._exit(slot, code))
        return code

    def kill(self, name: str, *, away: float = 0.0) -> None:
        """SIGKILL; it comes back after `away` seconds."""
        with self._lock:
            slot = self._slots[name]
            slot.hurt = True
            slot.start_at = time.monotonic() + away
            if slot.process is not None:
                slot.process.kill()

    def freeze(self, name: str, seconds: float) -> None:
        """SIGSTOP, and SIGCONT after `seconds`."""
        with self._lock:
            process = self._slots[name].process
        if process is None or process.poll() is not None:
            return
        process.send_signal(signal.SIGSTOP)
        try:
            time.sleep(seconds)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)

    def kill_at(self, name: str, point: str, seconds: float = 60.0) -> bool:
        """Kill one at a stated point (`stopped.py`); whether it got there in time. It is killed in any case."""
        marker = self._folder / f"marker-{name}-{time.monotonic_ns()}"
        with self._lock:
            slot = self._slots[name]
            slot.arguments = ["-m", "benchmarks.campaign.stopped", point, str(marker), "enrich"]
            self.kill(name)
        deadline = time.monotonic() + seconds
        while not marker.exists() and time.monotonic() < deadline and not self._ended.is_set():
            time.sleep(0.02)
        with self._lock:
            slot.arguments = []
            self.kill(name)
        return marker.exists()

    def stop(self) -> None:
        """All of them end in good order, or are killed."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(30)
        for name in list(self._slots):
            self.leave(name)

    def kill_all(self) -> None:
        """For a campaign that failed: nothing is left running."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(30)
        for slot in self._slots.values():
            if slot.process is not None and slot.process.poll() is None:
                slot.process.kill()
                slot.process.wait()

    def _keep(self) -> None:
        while not self._ended.wait(0.1):
            with self._lock:
                for slot in self._slots.values():
                    self._look(slot)

    def _look(self, slot: _Slot) -> None:
        process, now = slot.process, time.monotonic()
        if process is not None and process.poll() is not None:
            if slot.hurt:
                slot.hurt = False
            elif slot.wanted:
                self.exits.append(self._exit(slot, process.returncode))
                slot.start_at = now + RESTART_SECONDS
            slot.process = None
        if slot.process is None and slot.wanted and now >= slot.start_at:
            self._begin(slot)

    def at_work(self, name: str) -> bool:
        """Whether one has begun to consume, by what it says."""
        with self._lock:
            return any(" serving." in line for line in self._said(self._slots[name]))

    def _said(self, slot: _Slot) -> list[str]:
        if not slot.log.exists():
            return []
        with slot.log.open("rb") as log:
            log.seek(slot.began)
            return log.read().decode(errors="replace").splitlines()

    def _exit(self, slot: _Slot, code: int) -> Exit:
        lines = self._said(slot)
        said = [line for line in lines if line.startswith("error: ")]
        last = next((line for line in reversed(lines) if line.strip()), "")
        error = said[-1] if said else f"traceback: {last}" if any("Traceback (most" in line for line in lines) else last
        return Exit(slot.name, code, error[:400], any(" serving." in line for line in lines))

    def _begin(self, slot: _Slot) -> None:
        arguments = slot.arguments or ["-c", "from cli.main import main; main()", "enrich"]
        with slot.log.open("ab") as output:
            slot.began = output.tell()
            slot.process = subprocess.Popen(
                [sys.executable, *arguments],
                env=self._environment,
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        self.started[slot.name] += 1


def consumer_environment(variables: Mapping[str, str], folder: Path) -> dict[str, str]:
    """This process's environment with these ODDLOG_ variables and no others, and no settings file."""
    (empty := folder / "no-settings.toml").touch()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ODDLOG_")}
    paths = [str(ROOT), *filter(None, kept.get("PYTHONPATH", "").split(os.pathsep))]
    return kept | {
        "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths)),
        "PYTHONUNBUFFERED": "1",
        "COLUMNS": "400",
        "ODDLOG_CONFIG": str(empty),
        **variables,
    }
