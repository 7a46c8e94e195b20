"""The parts of the campaign: servers, scorer, models, proxy, consumers; and how each of them is hurt and healed."""

from __future__ import annotations

import datetime as dt
import json
import os
import random
import shutil
import signal
import tempfile
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from benchmarks.campaign.consumers import Consumers, consumer_environment
from benchmarks.fault_proxy import FaultProxy
from oddlog import stack
from oddlog.connectors.by_url import open_registry, open_store
from oddlog.connectors.kafka_producer import ensure_topic
from oddlog.connectors.registry import CHAMPION, PREVIOUS
from oddlog.events.logfile import records_from_lines
from oddlog.events.parse import parse
from oddlog.scoring.model import Model
from oddlog.settings import Settings, load
from oddlog.simulation.traffic import simulate
from oddlog.stack.process import birth, free_port
from serving.child import ServiceChild, start_service
from serving.documents import pending_events
from training.train import train

START = dt.datetime(2024, 3, 4, tzinfo=dt.UTC)
"""When the simulated traffic begins: long before any broker's clock, so that no event is dated ahead of it."""
PARTITIONS = 4
TRAINING_LINES = 5_000
QUICK_START = ("-XX:TieredStopAtLevel=1",)
"""Java compiles once and quickly: servers are killed and started again all the time."""
START_SECONDS = 600.0
"""A machine may be busy with other things: how long a server takes to start is no property that is judged."""


class World:
    """Everything that runs. Made by `build`, which ends all of it, however the block is left."""

    folder: Path
    settings: Settings
    """Straight to the servers, past the proxy."""
    proxy: FaultProxy
    consumers: Consumers
    versions: tuple[str, str]
    models: dict[str, Model]

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.disturbed = 0
        """Counts up when a fault makes documents unreadable for a while, and when that is over."""
        self._service: ServiceChild | None = None
        self._service_stack = ExitStack()
        self._champion = 0
        self._lock = threading.Lock()

    # Elasticsearch, Kafka

    def up(self, name: str | None = None) -> None:
        """Start the servers, or one of them; on the ports and with the data it had."""
        chance = random.Random(self.folder.name)
        # Below the ports that the system gives out by itself: while a server is away nobody else gets its port.
        kafka_port, elastic_port = (free_port(*chance.sample(range(20_000, 29_000), 20)) for _ in range(2))
        stack.up(
            self.folder / "stack",
            kafka=name in {None, "kafka"},
            elasticsearch=name in {None, "elasticsearch"},
            kafka_options=stack.KafkaOptions(port=kafka_port, java_options=QUICK_START),
            elasticsearch_options=stack.ElasticsearchOptions(port=elastic_port, java_options=QUICK_START),
            deadline=START_SECONDS,
        )

    @contextmanager
    def killed(self, name: str) -> Iterator[None]:
        """SIGKILL to a server and all its processes; started again at the end."""
        self._signal(self._server(name), signal.SIGKILL)
        try:
            yield
        finally:
            self.up(name)

    @contextmanager
    def frozen(self, name: str) -> Iterator[None]:
        """SIGSTOP, and SIGCONT at the end."""
        pid = self._server(name)
        self._signal(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            self._signal(pid, signal.SIGCONT)

    def _server(self, name: str) -> int:
        if name == "scorer":
            assert self._service is not None
            return self._service.pid
        return stack.read_state(self.folder / "stack").pids[name]

    @staticmethod
    def _signal(pid: int, number: int) -> None:
        # Elasticsearch's launcher and BentoML's arbiter each have the process that matters as their child.
        for one in reversed([pid, *descendants(pid)]):
            with suppress(ProcessLookupError):
                os.kill(one, number)

    def elastic(self, method: str, path: str, body: Any = None, *, timeout: float = 20.0) -> dict[str, Any]:
        """A request straight to Elasticsearch, past proxy and connectors: the campaign judges by its own eyes.

        Raises OSError where it does not answer, or refuses."""
        request = urllib.request.Request(
            self.settings.store.url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"content-type": "application/json"},
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=timeout) as answer:
            found: dict[str, Any] = json.load(answer)
            return found

    # indices

    @contextmanager
    def index_fault(self, kind: str) -> Iterator[None]:
        """A block on, or the closing of, the index that is written to now."""
        index = self._until_answered(self._newest_index)
        done, undone = {
            "write block": (("PUT", "/_settings", {"index.blocks.write": True}),
                            ("PUT", "/_settings", {"index.blocks.write": None})),
            "flood stage": (("PUT", "/_settings", {"index.blocks.read_only_allow_delete": True}),
                            ("PUT", "/_settings", {"index.blocks.read_only_allow_delete": None})),
            "closed index": (("POST", "/_close", None), ("POST", "/_open", None)),
        }[kind]  # fmt: skip
        self.disturbed += 1
        try:
            self._until_answered(lambda: self.elastic(done[0], f"/{index}{done[1]}", done[2]))
            yield
        finally:
            self._until_answered(lambda: self.elastic(undone[0], f"/{index}{undone[1]}", undone[2]))
            self.disturbed += 1

    def _newest_index(self) -> str:
        names = sorted(self.elastic("GET", f"/{self.settings.store.prefix}-events-2024*/_settings?flat_settings"))
        if not names:
            raise OSError("there is no index yet")
        return names[-1]

    @staticmethod
    def _until_answered(ask: Callable[[], Any], seconds: float = 120.0) -> Any:
        deadline = time.monotonic() + seconds
        while True:
            try:
                return ask()
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.3)

    # scorer, promotion

    def start_scorer(self) -> None:
        """`bentoml serve`, on the port it had."""
        port = int(self.settings.scorer.url.rpartition(":")[2])
        self._service = self._service_stack.enter_context(
            start_service(self.settings, port, folder=self.folder / "service")
        )

    @contextmanager
    def scorer_killed(self) -> Iterator[None]:
        """SIGKILL to the service and its workers; started again at the end."""
        assert self._service is not None
        self._signal(self._service.pid, signal.SIGKILL)
        self._service_stack.close()
        try:
            yield
        finally:
            self.start_scorer()

    def promote(self) -> None:
        """The other version becomes champion, in the order that `oddlog promote` has: `previous` first."""
        with self._lock:
            registry = open_registry(self.settings.registry)
            registry.set_alias(PREVIOUS, self.versions[self._champion])
            self._champion = 1 - self._champion
            registry.set_alias(CHAMPION, self.versions[self._champion])

    def close(self) -> None:
        """End what this object started."""
        self._service_stack.close()


def descendants(pid: int) -> list[int]:
    """All processes below one, parents before children."""
    found: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            for child in map(int, path.read_text().split()):
                found += [child, *descendants(child)]
    return found


@contextmanager
def build(seed: int, *, keep: bool, say: Callable[[str], None]) -> Iterator[World]:
    """Start everything; end everything."""
    folder = Path(tempfile.mkdtemp(prefix="oddlog-campaign-"))
    folder.chmod(0o755)  # Elasticsearch may run as another user
    world = World(folder)
    with ExitStack() as ending:
        if not keep:
            ending.callback(shutil.rmtree, folder, ignore_errors=True)
        ending.callback(_down, folder / "stack", purge=not keep)
        say("starting Kafka and Elasticsearch, and training two models meanwhile")
        registry = {
            "url": f"sqlite:///{folder / 'mlflow.db'}",
            "artifacts": str(folder / "artifacts"),
            "cache_dir": str(folder / "cache"),
        }
        with ThreadPoolExecutor(1) as aside:
            servers = aside.submit(world.up)
            versions = tuple(_trained(folder, registry, seed, number) for number in range(2))
            servers.result()
        urls = stack.read_state(folder / "stack").urls
        name = uuid.uuid4().hex[:10]
        world.settings = load(
            {
                "source": {"url": f"{urls['kafka']}/{name}", "group": name, "session_timeout_ms": 6_000},
                "store": {"url": urls["elasticsearch"], "prefix": f"c_{name}"},
                "registry": registry,
                "serve": {"poll_seconds": 0.5},
                "scorer": {"url": f"http://127.0.0.1:{free_port(*range(29_100, 29_200))}"},
            }
        )
        assert len(versions) == 2
        world.versions = versions
        world.models = {version: _model(world.settings, version) for version in versions}
        open_registry(world.settings.registry).set_alias(CHAMPION, versions[0])
        ensure_topic(world.settings.source, partitions=PARTITIONS)
        store = open_store(world.settings.store)
        store.setup()
        store.close()
        world.proxy = FaultProxy(world.settings.store.url, seed=seed)
        ending.callback(world.proxy.close)
        say("starting the scorer")
        ending.callback(world.close)
        world.start_scorer()
        (folder / "consumers").mkdir()
        world.consumers = Consumers(folder / "consumers", consumer_environment(_variables(world), folder))
        ending.callback(world.consumers.kill_all)
        yield world


def _variables(world: World) -> dict[str, str]:
    settings = world.settings
    return {
        "ODDLOG_SOURCE__URL": settings.source.url,
        "ODDLOG_SOURCE__GROUP": settings.source.group,
        "ODDLOG_SOURCE__SESSION_TIMEOUT_MS": str(settings.source.session_timeout_ms),
        "ODDLOG_STORE__URL": world.proxy.url,
        "ODDLOG_STORE__PREFIX": settings.store.prefix,
        "ODDLOG_SCORER__URL": settings.scorer.url,
        "ODDLOG_SCORER__TIMEOUT": "3",
        "ODDLOG_ENRICH__BATCH_ROWS": "500",
        "ODDLOG_ENRICH__RETRY_SECONDS": "2",
        "ODDLOG_ENRICH__SETTLE_SECONDS": "3",
        # No consumer lives for long: without snapshots every restore would replay the topic from its beginning.
        "ODDLOG_ENRICH__SNAPSHOT_SECONDS": "5",
    }


def _trained(folder: Path, registry: dict[str, str], seed: int, number: int) -> str:
    """A registered version; another number is another site's traffic, hence another baseline."""
    settings = load({"store": {"url": f"sqlite:///{folder / f'training-{number}.sqlite'}"}, "registry": registry})
    lines = simulate(seed=seed + 1_000 * (number + 1), start=START, lines=TRAINING_LINES, days=2).lines
    store = open_store(settings.store)
    store.setup()
    events = parse(records_from_lines([line.encode() for line in lines])).events
    store.write_events(pending_events(events, None, None))
    store.close()
    return train(settings, algorithm="surprise").version


def _model(settings: Settings, version: str) -> Model:
    with tempfile.TemporaryDirectory() as folder:
        return Model.load(open_registry(settings.registry).download(version, Path(folder)))


def _down(folder: Path, *, purge: bool) -> None:
    for pid in stack.read_state(folder).pids.values():
        if birth(pid) is not None:
            World._signal(pid, signal.SIGCONT)  # a frozen one could not be asked to stop
    stack.down(folder, purge=purge)
