"""Up, down and status of the whole stack. What each server needs is in the file of its name."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from oddlog.errors import OutsideError
from oddlog.stack import artifacts, elasticsearch_server, kafka_server, process, state
from oddlog.stack.elasticsearch_server import ElasticsearchOptions
from oddlog.stack.kafka_server import KafkaOptions
from oddlog.stack.state import Server, StackState

DEFAULT_STATE_DIR = Path("mlruns/stack")
START_SECONDS = 180.0

Progress = Callable[[str], None]
"""Is called with a line of text at each step."""


def up(
    state_dir: Path = DEFAULT_STATE_DIR,
    *,
    kafka: bool = True,
    elasticsearch: bool = True,
    kafka_options: KafkaOptions | None = None,
    elasticsearch_options: ElasticsearchOptions | None = None,
    cache_dir: Path | None = None,
    deadline: float = START_SECONDS,
    progress: Progress = lambda _: None,
) -> StackState:
    """Start what is wished and not running yet, and return when all of it answers.

    Servers are left running when this process ends; their data stays in the state folder from start to start.
    `deadline` is in seconds, for the start (not the download). `progress` is called with a line of text at
    each step. A failure, or Ctrl-C, stops what this call has started. Raises OutsideError with the last lines
    of the log of what failed.
    """
    cache = cache_dir if cache_dir is not None else artifacts.default_cache()
    folder = _made(state_dir)
    with artifacts.exclusively(folder / ".lock"):
        known = state.read(folder)
        started: list[Server] = []
        wished = [name for name, wanted in (("kafka", kafka), ("elasticsearch", elasticsearch)) if wanted]
        credentials = elasticsearch_options.credentials if elasticsearch_options else None
        try:
            with _taking_turns(cache, starts=[name for name in wished if not _runs(known, name)]):
                if kafka and not _runs(known, "kafka"):
                    known = _start_kafka(folder, known, kafka_options or KafkaOptions(), cache, progress)
                    started += [known.kafka] if known.kafka else []
                if elasticsearch and not _runs(known, "elasticsearch"):
                    options = elasticsearch_options or ElasticsearchOptions()
                    known = _start_elasticsearch(folder, known, options, cache, progress)
                    started += [known.elasticsearch] if known.elasticsearch else []
                until = time.monotonic() + deadline
                for server in [server for server in known.servers if server.name in wished]:
                    progress(f"waiting for {server.name} at {server.url}")
                    _wait(server, until, deadline, credentials)
        except BaseException:
            for server in started:
                process.stop(server.pid, server.born)
                known = replace(known, **{server.name: None})
            state.write(folder, known)
            raise
    return known


def down(state_dir: Path = DEFAULT_STATE_DIR, *, only: str | None = None, purge: bool = False) -> StackState:
    """Stop what runs (`only` one of them by name) and return what was stopped; nothing running is no error.

    `purge` deletes the stopped servers' data, configuration and logs too. Raises OutsideError.
    """
    folder = state_dir.absolute()
    if not folder.is_dir():
        return StackState()
    with artifacts.exclusively(folder / ".lock"):
        known = state.read(folder)
        stopped: dict[str, Any] = {}
        left: dict[str, Any] = {}
        for server in known.servers:
            if only is not None and server.name != only:
                left[server.name] = server
                continue
            if server.running:
                process.stop(server.pid, server.born)
                stopped[server.name] = server
        state.write(folder, StackState(**left))
        for name in ("kafka", "elasticsearch"):
            if purge and name not in left and only in {None, name}:
                _remove(folder / name)
    return StackState(**stopped)


def status(state_dir: Path = DEFAULT_STATE_DIR) -> dict[str, str]:
    """By server: `up` (answers), `unhealthy` (a process that does not answer), `dead` (was started and is
    gone without `down`), or `down`. Raises OutsideError.

    >>> status(Path("no/such/folder"))
    {'kafka': 'down', 'elasticsearch': 'down'}
    """
    known = state.read(state_dir.absolute())
    answers = {}
    for name in ("kafka", "elasticsearch"):
        server: Server | None = getattr(known, name)
        if server is None:
            answers[name] = "down"
        elif not server.running:
            answers[name] = "dead"
        else:
            answers[name] = "up" if _healthy(server, None) else "unhealthy"
    return answers


def read_state(state_dir: Path = DEFAULT_STATE_DIR) -> StackState:
    """The servers that a state folder remembers, with URLs, pids and logs. Raises OutsideError."""
    return state.read(state_dir.absolute())


@contextlib.contextmanager
def _taking_turns(cache: Path, *, starts: Sequence[str]) -> Iterator[None]:
    """Let one stack of this machine start at a time: a chosen port is taken only when its server listens, and of
    two that chose the same one, the loser would pass for healthy by what the winner answers."""
    if not starts:
        yield
        return
    cache.mkdir(parents=True, exist_ok=True)
    with artifacts.exclusively(cache / ".starting"):
        yield


def _runs(known: StackState, name: str) -> bool:
    return any(server.name == name and server.running for server in known.servers)


def _made(state_dir: Path) -> Path:
    folder = state_dir.absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutsideError(
            f"the state folder {folder} cannot be made: {error}",
            expected="a folder this user can write to",
            mend="oddlog stack up --state-dir FOLDER",
        ) from error
    return folder


def _ports(known: StackState, last: Server | None, port: int, inner: int) -> tuple[int, int]:
    """The ports of the last start first: clients may have them in their settings."""
    taken = [p for s in known.servers if s.running for p in (s.port, s.inner_port)]
    chosen = process.free_port(*([last.port] if last else []), port, taken=taken)
    wished = [last.inner_port] if last else []
    return chosen, process.free_port(*wished, inner, taken=[*taken, chosen])


def _start_kafka(folder: Path, known: StackState, options: KafkaOptions, cache: Path, progress: Progress) -> StackState:
    progress("bringing Kafka from Maven Central, unless the cache has it")
    artifacts.program("kafka", cache)
    port, inner = _ports(known, known.kafka, options.port, 9093)
    progress("starting Kafka")
    home = folder / "kafka"
    pid, log = kafka_server.launch(home, options, cache, port, inner)
    url = f"kafka://{process.HOST}:{port}"
    known = replace(known, kafka=_server("kafka", url, (port, inner), pid, (home, log)))
    state.write(folder, known)
    return known


def _start_elasticsearch(
    folder: Path,
    known: StackState,
    options: ElasticsearchOptions,
    cache: Path,
    progress: Callable[[str], None],
) -> StackState:
    progress("bringing Elasticsearch from Maven Central, unless the cache has it")
    artifacts.program("elasticsearch", cache)
    port, inner = _ports(known, known.elasticsearch, options.port, 9300)
    progress("starting Elasticsearch")
    home = elasticsearch_server.prepare(folder / "elasticsearch", options)
    pid, log = elasticsearch_server.launch(home, options, cache, port, inner)
    url = f"{options.scheme}://{process.HOST}:{port}"
    known = replace(known, elasticsearch=_server("elasticsearch", url, (port, inner), pid, (home, log)))
    state.write(folder, known)
    return known


def _server(name: str, url: str, ports: tuple[int, int], pid: int, paths: tuple[Path, Path]) -> Server:
    born = process.birth(pid)
    # One that has ended already gets an impossible start time: it is then found dead, with its log to read.
    return Server(name, url, *ports, pid, born or "never", str(paths[0]), str(paths[1]))


def _healthy(server: Server, credentials: tuple[str, str] | None) -> bool:
    if server.name == "kafka":
        return kafka_server.healthy(server.port)
    return elasticsearch_server.healthy(server.url, credentials)


def _wait(server: Server, until: float, deadline: float, credentials: tuple[str, str] | None) -> None:
    while True:
        running = server.running
        if running and _healthy(server, credentials):
            return
        if not running or time.monotonic() > until:
            break
        time.sleep(0.2)
    what = f"does not answer after {deadline:.0f} s" if running else "ended while starting"
    logs = (Path(server.log).with_name("console.log"), Path(server.log))
    texts = [f"  {path}:\n{artifacts.last_lines(path)}" for path in logs if path.exists()]
    raise OutsideError(
        "\n".join([f"{server.name} {what}", *texts]),
        expected=f"{server.name} at {server.url}",
        mend=f"read {server.log}",
    )


def _remove(path: Path) -> None:
    """A server's folder, and, where it is a link, what it points to."""
    if path.is_symlink():
        shutil.rmtree(path.resolve(), ignore_errors=True)
        path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)
