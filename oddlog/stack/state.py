"""What is remembered of running servers, as `stack.json` in the state folder. Starting them is elsewhere."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from oddlog.errors import OutsideError
from oddlog.stack import process

FILE = "stack.json"


@dataclass(frozen=True, slots=True)
class Server:
    """One server as it was started: its address, its process, and where to read what it says."""

    name: str
    """`kafka` or `elasticsearch`."""
    url: str
    """`kafka://127.0.0.1:9092` (add `/topic`), or `http://127.0.0.1:9200`."""
    port: int
    """Where clients connect."""
    inner_port: int
    """Kafka's controller, Elasticsearch's transport."""
    pid: int
    born: str
    """The process's start time: with the pid it names a process for ever."""
    folder: str
    """Its configuration, data and logs."""
    log: str

    @property
    def running(self) -> bool:
        """Whether its process is there (not whether it answers)."""
        return process.alive(self.pid, self.born)


@dataclass(frozen=True, slots=True)
class StackState:
    """The servers of a state folder; None for one that was not started or has been stopped."""

    kafka: Server | None = None
    elasticsearch: Server | None = None

    @property
    def servers(self) -> tuple[Server, ...]:
        """Those that are there."""
        return tuple(server for server in (self.kafka, self.elasticsearch) if server is not None)

    @property
    def urls(self) -> dict[str, str]:
        """URL by name.

        >>> StackState().urls
        {}
        """
        return {server.name: server.url for server in self.servers}

    @property
    def pids(self) -> dict[str, int]:
        """Process id by name."""
        return {server.name: server.pid for server in self.servers}


def read(folder: Path) -> StackState:
    """What the state folder remembers, running or not. Raises OutsideError where the file is broken."""
    path = folder / FILE
    try:
        document = json.loads(path.read_text())
        return StackState(**{name: Server(**fields) for name, fields in document.items() if fields is not None})
    except FileNotFoundError:
        return StackState()
    except (ValueError, TypeError, AttributeError) as error:
        raise OutsideError(
            f"{path} cannot be read: {error}",
            expected="what `oddlog stack up` wrote",
            mend=f"stop servers that still run from {folder} by hand, then remove the file",
        ) from error


def write(folder: Path, state: StackState) -> None:
    """Remember; beside, then renamed, so that a reader never sees half a file."""
    path = folder / FILE
    beside = path.with_suffix(f".{os.getpid()}.tmp")
    beside.write_text(json.dumps(asdict(state), indent=2) + "\n")
    beside.replace(path)
