"""Where speed is measured: a real Kafka, a real Elasticsearch, a `bentoml serve` with promoted models, processes.

Servers that TEST_KAFKA_URL and TEST_ELASTICSEARCH_URL name are used where both are set; else `oddlog stack` runs
them in a folder that is removed in the end.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from benchmarks.machine import cpu_seconds
from oddlog import stack
from oddlog.connectors.by_url import open_registry, open_store
from oddlog.connectors.registry import CHAMPION
from oddlog.events.logfile import records_from_lines
from oddlog.events.parse import parse
from oddlog.settings import Settings, load
from oddlog.stack.process import free_port
from serving.child import ServiceChild, start_service
from serving.documents import pending_events
from training.train import train

ROOT = Path(__file__).resolve().parent.parent

Say = Callable[[str], None]


@dataclass
class Place:
    """Everything that runs, and its addresses."""

    folder: Path
    name: str
    """Part of every topic, group and index of this run."""
    kafka: str
    """`kafka://host:port`."""
    elastic: str
    settings: Settings
    """Registry and scorer; source and store are each side's own."""
    versions: dict[str, str]
    """Model version by algorithm."""
    service: ServiceChild
    pids: dict[str, int] = field(default_factory=dict)
    """Server processes by name, as far as they are known."""

    def promote(self, algorithm: str) -> None:
        """Make a model champion, and return when the service serves it."""
        version = self.versions[algorithm]
        open_registry(self.settings.registry).set_alias(CHAMPION, version)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            champion = self.service.get("/v1/models").json()["champion"]
            if champion is not None and champion["version"] == version:
                return
            time.sleep(0.2)
        raise SystemExit(f"the service does not serve version {version} ({algorithm}): {self.service.log_file}")

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """A request straight to Elasticsearch, past our own client."""
        with httpx.Client(trust_env=False, timeout=60) as client:
            answer = client.request(method, self.elastic + path, json=body)
            answer.raise_for_status()
            return answer.json()

    def make_indices(self, prefix: str) -> None:
        """The index templates of a side, so that all sides write into the same mapping."""
        store = open_store(load({"store": {"url": self.elastic, "prefix": prefix}}).store)
        store.setup()
        store.close()

    def remove_indices(self, prefix: str) -> None:
        """The indices of a side and their templates."""
        names = sorted(self.ask("GET", f"/{prefix}-*/_settings?flat_settings&expand_wildcards=all"))
        for name in names:
            self.ask("DELETE", f"/{name}")
        for name in sorted(self.ask("GET", "/_index_template")["index_templates"], key=lambda found: found["name"]):
            if name["name"].startswith(f"{prefix}-"):
                self.ask("DELETE", f"/_index_template/{name['name']}")

    def indexed(self, prefix: str, kind: str = "events") -> int:
        """How many documents Elasticsearch has indexed for a side until now, searchable yet or not."""
        found = self.ask("GET", f"/{prefix}-{kind}*/_stats/indexing?filter_path=_all.primaries.indexing.index_total")
        return int(found.get("_all", {}).get("primaries", {}).get("indexing", {}).get("index_total", 0))

    def count(self, prefix: str) -> int:
        """How many documents there are, searched for."""
        self.ask("POST", f"/{prefix}-*/_refresh")
        return int(self.ask("GET", f"/{prefix}-events-*/_count")["count"])

    def cpu(self) -> dict[str, float]:
        """Processor seconds until now of every server that is known."""
        return {name: cpu_seconds(pid) for name, pid in self.pids.items()}

    def consumer_variables(self, topic: str, prefix: str) -> dict[str, str]:
        """Settings of an `oddlog enrich` that begins with a topic: a group of its own, indices of its own."""
        return {
            "ODDLOG_SOURCE__URL": f"{self.kafka}/{topic}",
            "ODDLOG_SOURCE__GROUP": prefix,
            "ODDLOG_STORE__URL": self.elastic,
            "ODDLOG_STORE__PREFIX": prefix,
            "ODDLOG_SCORER__URL": self.service.url,
        }


@contextmanager
def place(fitted: Sequence[str], algorithms: Sequence[str], say: Say, *, workers: int = 1) -> Iterator[Place]:
    """Start what is missing, train and register a model of each algorithm, serve the first; end all of it."""
    folder = Path(tempfile.mkdtemp(prefix="oddlog-benchmark-"))
    folder.chmod(0o755)  # Elasticsearch may run as another user
    with ExitStack() as ending:
        ending.callback(shutil.rmtree, folder, ignore_errors=True)
        registry = {
            "url": f"sqlite:///{folder / 'mlflow.db'}",
            "artifacts": str(folder / "artifacts"),
            "cache_dir": str(folder / "cache"),
        }
        say(f"starting the servers; training {' and '.join(algorithms)} on {len(fitted):,} lines meanwhile")
        with ThreadPoolExecutor(1) as aside:
            servers = aside.submit(_servers, folder, ending)
            versions = _trained(folder, registry, fitted, algorithms)
            kafka, elastic, pids = servers.result()
        port = free_port(*range(29_100, 29_200))
        settings = load(
            {
                "registry": registry,
                "serve": {"workers": workers},
                "scorer": {"url": f"http://127.0.0.1:{port}"},
            }
        )
        open_registry(settings.registry).set_alias(CHAMPION, versions[algorithms[0]])
        say("starting the scorer")
        service = ending.enter_context(start_service(settings, port, folder=folder / "service"))
        pids["scorer"] = service.pid
        name = f"b{uuid.uuid4().hex[:8]}"
        yield Place(folder, name, kafka, elastic, settings, versions, service, pids)


def _servers(folder: Path, ending: ExitStack) -> tuple[str, str, dict[str, int]]:
    given = os.environ.get("TEST_KAFKA_URL"), os.environ.get("TEST_ELASTICSEARCH_URL")
    if given[0] and given[1]:
        return given[0].rstrip("/"), given[1].rstrip("/"), {}
    if lacking := stack.missing_tools():
        raise SystemExit(f"real servers need {' and '.join(lacking)}")
    ending.callback(stack.down, folder / "stack", purge=True)
    state = stack.up(folder / "stack")
    return state.urls["kafka"], state.urls["elasticsearch"], dict(state.pids)


def _trained(
    folder: Path, registry: Mapping[str, str], fitted: Sequence[str], algorithms: Sequence[str]
) -> dict[str, str]:
    settings = load({"store": {"url": f"sqlite:///{folder / 'training.sqlite'}"}, "registry": dict(registry)})
    store = open_store(settings.store)
    store.setup()
    events = parse(records_from_lines([line.encode() for line in fitted])).events
    store.write_events(pending_events(events, None, None))
    store.close()
    return {algorithm: train(settings, algorithm=algorithm).version for algorithm in algorithms}


def environment(folder: Path, variables: Mapping[str, str]) -> dict[str, str]:
    """This process's environment with these ODDLOG_ variables and no others, and no settings file."""
    (empty := folder / "no-settings.toml").touch()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ODDLOG_")}
    paths = [str(ROOT), *filter(None, kept.get("PYTHONPATH", "").split(os.pathsep))]
    return kept | {
        "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths)),
        "PYTHONUNBUFFERED": "1",
        "ODDLOG_CONFIG": str(empty),
        **variables,
    }


ENRICH = [sys.executable, "-c", "from cli.main import main; main()", "enrich"]
"""`oddlog enrich`, whatever the PATH is."""


@contextmanager
def running(place: Place, command: Sequence[str], variables: Mapping[str, str], log: Path) -> Iterator[Any]:
    """A program as a child, asked to end (SIGTERM) when the block is left, and killed when that does not help."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            list(command),
            env=environment(place.folder, variables),
            cwd=place.folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def still_running(process: Any, log: Path) -> None:
    """Raises SystemExit with the end of its log where a child has ended before it should."""
    if process.poll() is not None:
        end = "\n".join(log.read_text(errors="replace").splitlines()[-25:])
        raise SystemExit(f"{' '.join(process.args[:4])} ... ended with exit code {process.returncode}\n{end}")
