"""Looks, all the time, whether committed offsets ran ahead of documents, and how long nothing moved."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from kafka import KafkaConsumer, TopicPartition, errors

from benchmarks.campaign.world import PARTITIONS, World
from oddlog.connectors.kafka_connection import kafka_address

EVERY_SECONDS = 1.0


@dataclass(slots=True)
class Watched:
    """What was seen."""

    checks: int = 0
    ahead: list[str] = field(default_factory=list)
    """Property 2 broken: a committed offset before which a document was missing."""
    longest_gap: float = 0.0
    """Seconds in which no commit moved although there was something to consume."""
    longest_gap_during: list[str] = field(default_factory=list)
    """The faults under way in that time."""


class Watch:
    """A thread of its own, from `start` to `stop`."""

    def __init__(self, world: World, going_on: Any) -> None:
        """`going_on()`: the faults under way, as text."""
        self.seen = Watched()
        self.committed: dict[int, int] = {}
        self.ends: dict[int, int] = {}
        self.failed: BaseException | None = None
        self._world = world
        self._going_on = going_on
        self._address = kafka_address(world.settings.source.url)
        self._partitions = [TopicPartition(self._address.topic, number) for number in range(PARTITIONS)]
        self._client: Any = None
        self._moved_at = time.monotonic()
        self._meanwhile: list[str] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._stop.set()
        self._thread.join(60)
        self._drop_client()

    @property
    def consumed(self) -> int:
        """Records before the committed offsets, over all partitions."""
        return sum(self.committed.values())

    @property
    def caught_up(self) -> bool:
        """Whether the last look found nothing left to consume."""
        return bool(self.ends) and all(self.committed.get(number, 0) >= end for number, end in self.ends.items())

    def _run(self) -> None:
        try:
            while not self._stop.wait(EVERY_SECONDS):
                disturbed = self._world.disturbed
                if self._ask_kafka():
                    self._note_progress()
                    self.check(disturbed)
        except BaseException as error:
            self.failed = error

    def _ask_kafka(self) -> bool:
        before = self.consumed
        try:
            if self._client is None:
                self._client = KafkaConsumer(
                    bootstrap_servers=list(self._address.servers),
                    group_id=self._world.settings.source.group,
                    enable_auto_commit=False,
                    request_timeout_ms=5_000,
                    bootstrap_timeout_ms=5_000,
                )
            committed = {tp.partition: self._client.committed(tp, timeout_ms=5_000) or 0 for tp in self._partitions}
            ends = {tp.partition: end for tp, end in self._client.end_offsets(self._partitions).items()}
        except (errors.KafkaError, OSError, AssertionError):
            self._drop_client()
            return False
        backwards = {number for number, offset in committed.items() if offset < self.committed.get(number, 0)}
        if backwards:
            self.seen.ahead.append(f"committed offsets went back: {self.committed} to {committed}")
        self.committed, self.ends = committed, ends
        if self.consumed != before:
            self._moved_at, self._meanwhile = time.monotonic(), []
        return True

    def _note_progress(self) -> None:
        if self.caught_up:
            self._moved_at, self._meanwhile = time.monotonic(), []
            return
        self._meanwhile += [name for name in self._going_on() if name not in self._meanwhile]
        gap = time.monotonic() - self._moved_at
        if gap > self.seen.longest_gap:
            self.seen.longest_gap, self.seen.longest_gap_during = gap, list(self._meanwhile)

    def check(self, disturbed: int) -> None:
        """Count the documents before the committed offsets; `disturbed`: the world's count when those were read."""
        if disturbed % 2:
            return  # an index is closed: its documents are there and cannot be seen
        prefix = self._world.settings.store.prefix
        filters = {
            str(number): {
                "bool": {
                    "filter": [
                        {"term": {"oddlog.position.partition": number}},
                        {"range": {"oddlog.position.offset": {"lt": offset}}},
                    ]
                }
            }
            for number, offset in self.committed.items()
        }
        target = f"/{prefix}-events-*,{prefix}-dead"
        body = {"size": 0, "aggs": {"by": {"filters": {"filters": filters}}}}
        params = "ignore_unavailable=true&allow_partial_search_results=false"
        try:
            if self._world.elastic("GET", "/_cluster/health")["status"] == "red":
                return
            refreshed = self._world.elastic("POST", f"{target}/_refresh?ignore_unavailable=true")
            found = self._world.elastic("POST", f"{target}/_search?{params}", body)
        except OSError:
            return  # Elasticsearch is away: looked at again when it is back
        if self._world.disturbed != disturbed or refreshed["_shards"]["failed"] or found["_shards"]["failed"]:
            return
        self.seen.checks += 1
        for name, bucket in found["aggregations"]["by"]["buckets"].items():
            expected, there = self.committed[int(name)], bucket["doc_count"]
            if there < expected:
                self.seen.ahead.append(f"partition {name}: {expected} committed, {there} documents before it")

    def _drop_client(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            with suppress(Exception):
                client.close(autocommit=False, timeout_ms=1_000)
