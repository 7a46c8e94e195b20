"""A store that is slow costs no membership: two consumers of one group, one of which waits for a bulk for longer than
its session and its poll interval last.

Real Kafka, real Elasticsearch behind a proxy that holds bulks (benchmarks/fault_proxy.py). Properties, stated first:

1. no rebalance happens: the group's generation stays, and no partition is given or taken;
2. the other consumer goes on, and the one that waits goes on where it stood: nothing is restored or read again;
3. committed offsets are at no moment ahead of documents;
4. in the end every record is exactly one document.

`pytest tests/integration/test_slow_store.py`; with `-m minute` also a bulk that is answered late, and a whole minute
under intervals as they are in operation.
"""

from __future__ import annotations

import datetime as dt
import threading
import time
import uuid
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import polars as pl
import pytest
from kafka import KafkaAdminClient

from benchmarks.fault_proxy import FaultProxy
from oddlog.connectors.elastic import ElasticStore
from oddlog.connectors.elastic_connection import ElasticConnection
from oddlog.connectors.kafka import KafkaSource
from oddlog.connectors.kafka_producer import ensure_topic
from oddlog.connectors.kafka_state import topic_state
from oddlog.connectors.shipping import ship
from oddlog.connectors.store import EventQuery
from oddlog.events.record import Partition
from oddlog.events.schema import POSITION_ORDER
from oddlog.scoring.local import LocalScorer
from oddlog.scoring.shelf import ModelShelf
from oddlog.settings import EnrichSettings, SourceSettings, StoreSettings
from oddlog.simulation.traffic import simulate
from serving.consumer_metrics import ConsumerObserver
from serving.enrich import Enricher
from tests.elastic_place import elastic_place
from tests.small_model import small_model
from tests.waiting import until

pytestmark = [pytest.mark.kafka, pytest.mark.elasticsearch, pytest.mark.timeout(300)]

PARTITIONS = 4
LINES = [line.encode() for line in simulate(seed=31, start=dt.datetime(2024, 3, 4, tzinfo=dt.UTC), lines=6_000).lines]
BEFORE = 2_000
"""Lines that are consumed before the store turns slow."""


@dataclass(frozen=True)
class Pace:
    """How long what lasts, in seconds."""

    session: float
    poll_interval: float
    held: float
    """How long bulks are held at least."""
    request: float
    """How long the store's client waits for an answer before it sends the bulk again."""


class Noted(ConsumerObserver):
    """What the group did to a consumer."""

    def __init__(self) -> None:
        self.held: set[Partition] = set()
        """Partitions that flow: given, and their clients restored."""
        self.changes = 0

    def assigned(self, partitions: Iterable[Partition]) -> None:
        self.changes += len(list(partitions))

    def restored(self, partition: Partition) -> None:
        self.held.add(partition)

    def revoked(self, partitions: Iterable[Partition]) -> None:
        for partition in partitions:
            self.held.discard(partition)
            self.changes += 1


class Consumer:
    """An enricher in a thread of its own, behind a proxy of its own."""

    def __init__(self, source: SourceSettings, place: StoreSettings, shelf: ModelShelf, pace: Pace) -> None:
        self.proxy = FaultProxy(place.url)
        self.noted = Noted()
        self.source = KafkaSource(source)
        self._store = ElasticStore(place.model_copy(update={"url": self.proxy.url, "timeout": pace.request}))
        settings = EnrichSettings(batch_rows=500, batch_seconds=0.1, retry_seconds=1.0)
        self.enricher = Enricher(settings, self.source, self._store, LocalScorer(shelf), observe=self.noted)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.enricher.run()
        except BaseException as error:
            self._error = error

    @property
    def generation(self) -> tuple[int, str]:
        """Of the group as this member knows it, and the member's own id: a new join changes either."""
        told = self.source._consumer.group_metadata()
        return told.generation_id, told.member_id

    def close(self) -> None:
        """End; raises what the consumer ended with."""
        self.proxy.release()
        self.enricher.stop()
        self._thread.join()
        self.source.close()
        self._store.close()
        self.proxy.close()
        if self._error is not None:
            raise self._error


class Ahead:
    """Looks, all the time, whether a committed offset has a document missing before it."""

    def __init__(self, admin: KafkaAdminClient, group: str, place: StoreSettings) -> None:
        self.found: list[str] = []
        self.looks = 0
        self.committed: dict[int, int] = {}
        """The group's offsets by partition, as last seen."""
        self._admin, self._group = admin, group
        self._place, self._connection = place, ElasticConnection(place)  # past the proxies
        self._error: BaseException | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            while not self._stop.wait(0.3):
                self._look()
        except BaseException as error:
            self._error = error

    def _look(self) -> None:
        offsets = self._admin.list_group_offsets({self._group: None})[self._group]
        self.committed = {tp.partition: found.offset for tp, found in offsets.items()}
        # Documents are counted afterwards: they only become more.
        indices = f"/{self._place.prefix}-events-*"
        self._connection.json("POST", f"{indices}/_refresh")
        for number, offset in self.committed.items():
            position = "oddlog.position."
            before = [{"term": {f"{position}partition": number}}, {"range": {f"{position}offset": {"lt": offset}}}]
            found = self._connection.json("POST", f"{indices}/_count", {"query": {"bool": {"filter": before}}})
            if found["count"] < offset:
                self.found.append(f"partition {number}: {offset} committed, {found['count']} documents before it")
        self.looks += 1

    def close(self) -> None:
        """End; raises what looking failed with."""
        self._stop.set()
        self._thread.join()
        self._connection.close()
        if self._error is not None:
            raise self._error


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> ModelShelf:
    """A champion."""
    held = ModelShelf("oddlog")
    held.hold("1", small_model(tmp_path_factory.mktemp("model"), LINES[:BEFORE]))
    held.set_champion("1")
    return held


@pytest.fixture
def place(elasticsearch_url: str) -> Iterator[StoreSettings]:
    with elastic_place(elasticsearch_url) as own:
        store = ElasticStore(own)
        store.setup()
        store.close()
        yield own


@pytest.fixture
def admin(kafka_url: str, topic: str) -> Iterator[KafkaAdminClient]:
    """For the group's offsets; the test's topic goes with it."""
    one = KafkaAdminClient(bootstrap_servers=kafka_url.removeprefix("kafka://"))
    yield one
    one.delete_topics([topic])
    one.close()


@contextmanager
def held(proxy: FaultProxy) -> Iterator[None]:
    """Bulks wait while the block lasts."""
    proxy.hold()
    try:
        yield
    finally:
        proxy.release()


def part(offsets: dict[int, int], partitions: Collection[int]) -> dict[int, int]:
    return {number: offset for number, offset in offsets.items() if number in partitions}


def each_line_once(place: StoreSettings) -> None:
    """In the end every record is exactly one scored document."""
    store = ElasticStore(place)
    store.refresh()
    found = pl.concat(store.read_events(EventQuery(), columns=[*POSITION_ORDER, "event.original", "anomaly.status"]))
    assert store.count_dead() == 0
    store.close()
    assert found.height == found.select(POSITION_ORDER).n_unique() == len(LINES)
    assert sorted(found["event.original"]) == sorted(line.decode() for line in LINES)
    assert set(found["anomaly.status"]) == {"scored"}


def check(
    kafka_url: str, topic: str, admin: KafkaAdminClient, place: StoreSettings, shelf: ModelShelf, pace: Pace
) -> None:
    """The whole of it at one pace."""
    source = SourceSettings.model_validate(
        {
            "url": f"{kafka_url}/{topic}",
            "group": f"g-{uuid.uuid4().hex[:12]}",
            "session_timeout_ms": int(pace.session * 1000),
            "max_poll_interval_ms": int(pace.poll_interval * 1000),
        }
    )
    ensure_topic(source, partitions=PARTITIONS)

    def send(lines: list[bytes]) -> None:
        ship(lines, source.url, labels=None, path="access.log")

    send(LINES[:BEFORE])
    consumers: list[Consumer] = []
    ahead = Ahead(admin, source.group, place)
    try:
        consumers += [Consumer(source, place, shelf, pace) for _ in range(2)]
        slow, other = consumers
        until(lambda: len(slow.noted.held) == len(other.noted.held) == PARTITIONS // 2, "an even share of partitions")
        until(lambda: sum(ahead.committed.values()) == BEFORE, "the first part")
        generations = [one.generation for one in consumers]
        assert generations[0][0] == generations[1][0] > 0
        changes = [one.noted.changes for one in consumers]
        replayed = [one.enricher.counts.replayed for one in consumers]
        read = sum(one.enricher.counts.records for one in consumers)
        waiting = {partition.number for partition in slow.noted.held}
        stood = part(ahead.committed, waiting)

        with held(slow.proxy):
            send(LINES[BEFORE:])
            ends = {state.partition.number: state.end for state in topic_state(source)}
            until(lambda: slow.proxy.hits["held"] > 0, "a bulk that is held")
            begun = time.monotonic()
            until(lambda: part(ahead.committed, ends.keys() - waiting) == part(ends, ends.keys() - waiting), "the rest")
            until(lambda: time.monotonic() - begun > pace.held, "the wait", seconds=pace.held + 10)
            assert part(ahead.committed, waiting) == stood
            assert [one.generation for one in consumers] == generations, "the group was rebalanced"
        until(lambda: ahead.committed == ends, "the end")
        assert [one.generation for one in consumers] == generations, "the group was rebalanced"
        assert [one.noted.changes for one in consumers] == changes, "partitions were given or taken"
        assert [one.enricher.counts.replayed for one in consumers] == replayed, "state was thrown away and restored"
        until(lambda: sum(one.enricher.counts.records for one in consumers) - read >= len(LINES) - BEFORE, "the count")
        assert sum(one.enricher.counts.records for one in consumers) - read == len(LINES) - BEFORE, "read again"
        # That the store was slow at all: the client gave up, and sent again, where it waits for less than the hold.
        assert (slow.enricher.counts.retries > 0) == (pace.request < pace.held)
        seen = ahead.looks
        until(lambda: ahead.looks > seen + 1, "another look")
    finally:
        for consumer in consumers:
            consumer.close()
        ahead.close()
    assert ahead.found == []

    each_line_once(place)


@pytest.mark.parametrize(
    "request_seconds",
    [pytest.param(60.0, id="answered-late", marks=pytest.mark.minute), pytest.param(3.0, id="sent-again")],
)
def test_a_held_bulk_costs_neither_membership_nor_records(
    kafka_url: str, topic: str, admin: KafkaAdminClient, place: StoreSettings, shelf: ModelShelf, request_seconds: float
) -> None:
    check(kafka_url, topic, admin, place, shelf, Pace(6.0, 5.0, held=13.0, request=request_seconds))


@pytest.mark.minute
def test_a_minute_costs_neither_membership_nor_records(
    kafka_url: str, topic: str, admin: KafkaAdminClient, place: StoreSettings, shelf: ModelShelf
) -> None:
    request = StoreSettings().timeout  # as in operation: the client gives up twice
    check(kafka_url, topic, admin, place, shelf, Pace(10.0, 25.0, held=65.0, request=request))
