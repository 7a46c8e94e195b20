"""A topic as a consumer finds it: whether it is there, and whether it is the same one still. Reading it is in
`kafka.py`, whether a committed position fits it in `kafka_position.py`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from oddlog.connectors.kafka_connection import KafkaAddress, failing
from oddlog.connectors.kafka_position import Stamp, topic_was_made_anew
from oddlog.errors import SourceError

FRESH_SECONDS = 0.25
"""How long an answer about the topic's id holds for the records that are fetched: it costs a request."""
ASK_MS = 5_000
TOPIC_SECONDS = 5.0
"""How long a topic may be unknown to the broker before it counts as missing: a new one is for a moment."""


class ConsumedTopic:
    """The topic that a consumer was opened for."""

    def __init__(self, consumer: Any, address: KafkaAddress, epoch: str) -> None:
        """Raises SourceError where it is not there."""
        self._consumer = consumer
        self._address = address
        self._looked_at = self._asked_at = time.monotonic()
        self._require()
        self.stamp = Stamp(epoch, topic_id(consumer, address.topic))
        """What is committed beside every offset."""

    def check(self) -> None:
        """Raises SourceEpochError where the topic was made anew, as far as the client knows by now."""
        now = topic_id(self._consumer, self._address.topic)
        if now and self.stamp.topic_id and now != self.stamp.topic_id:
            raise topic_was_made_anew(self._address, self.stamp.epoch, "its id has changed")

    def check_fetched(self) -> None:
        """Raises as `check`, by what the brokers say after the fetch: that names the topic and not its id, so that it
        may have brought another topic's records. Raises KafkaError, retriable, where no broker says anything."""
        now = time.monotonic()
        if now - self._asked_at > FRESH_SECONDS:
            update = self._consumer._cluster.request_update()
            self._consumer._net.run(self._consumer._manager.wait_for, update, ASK_MS)
            self._asked_at = now
        self.check()

    def watch(self) -> None:
        """Notice, while nothing comes, that the topic itself has gone. Raises as `check`, and SourceError."""
        if time.monotonic() - self._looked_at < TOPIC_SECONDS:
            return
        self._looked_at = time.monotonic()
        self.check()
        if not self._consumer._cluster.partitions_for_topic(self._address.topic):
            self._require()

    def _require(self) -> None:
        with failing(self._address, "looking for"):
            if not partitions_of(self._consumer, self._address.topic, within=TOPIC_SECONDS):
                raise _no_topic(self._address, self._consumer.topics())


def topic_id(consumer: Any, topic: str) -> str:
    """The broker's own id of a topic, "" where it is too old to have one: a topic made anew has another."""
    return str(consumer._cluster.topic_id(topic) or "")


def partitions_of(consumer: Any, topic: str, *, within: float) -> set[int]:
    """The numbers of a topic's partitions, asked for `within` so many seconds; none where it is missing."""
    deadline = time.monotonic() + within
    while not (numbers := consumer.partitions_for_topic(topic)):
        if time.monotonic() > deadline:
            return set()
        time.sleep(0.1)
    return set(numbers)


def _no_topic(address: KafkaAddress, others: Iterable[str]) -> SourceError:
    names = sorted(others)
    there = f"; there are: {', '.join(names[:10])}{', ...' if len(names) > 10 else ''}" if names else ""
    return SourceError(
        f"there is no topic {address.topic!r} at {', '.join(address.servers)}{there}",
        expected="the topic that source.url names",
        mend=f"oddlog ship FILE --to {address.url} --partitions 4",
    )
