"""A topic of a test's own on a real broker, and what others than its consumer do to it."""

from __future__ import annotations

import uuid

from kafka import KafkaAdminClient, KafkaProducer
from kafka.admin import NewTopic

from oddlog.settings import SourceSettings
from tests.waiting import DEADLINE, until


class Topic:
    """A name that nobody else uses. `make` makes the topic; `close` deletes it."""

    def __init__(self, url: str) -> None:
        self.server = url.removeprefix("kafka://")
        self.name = f"t-{uuid.uuid4().hex[:12]}"
        self.group = f"g-{self.name}"
        self.admin = KafkaAdminClient(bootstrap_servers=self.server)
        self._producer: KafkaProducer | None = None

    def make(self, partitions: int = 1, **configs: str) -> None:
        """Make it, and wait until the broker knows it; `configs` with _ for a dot."""
        settings = {name.replace("_", "."): value for name, value in configs.items()}
        self.admin.create_topics([NewTopic(self.name, partitions, 1, topic_configs=settings)])
        self.admin.wait_for_topics([self.name])

    def write(self, *values: bytes | None, partition: int = 0, key: bytes = b"k", at: int | None = None) -> None:
        """Append records to one partition, and wait until they are kept; `at`: their time in milliseconds."""
        if self._producer is None:
            self._producer = KafkaProducer(bootstrap_servers=self.server, max_request_size=12_000_000)
        for value in values:
            self._producer.send(self.name, value, key=key, partition=partition, timestamp_ms=at)
        self._producer.flush(timeout=DEADLINE)

    def remake(self, partitions: int = 1) -> None:
        """Delete it, and make another of its name."""
        self._forget_producer()
        self.admin.delete_topics([self.name])
        until(lambda: self.name not in self.admin.list_topics(), "the end of the topic")
        self.make(partitions)

    def settings(self, **values: object) -> SourceSettings:
        """How a consumer of the test's group reaches it."""
        given = {"url": f"kafka://{self.server}/{self.name}", "group": self.group, **values}
        return SourceSettings.model_validate(given)

    def close(self) -> None:
        """Delete it."""
        self._forget_producer()
        self.admin.delete_topics([self.name], raise_errors=False)
        self.admin.close()

    def _forget_producer(self) -> None:
        if self._producer is not None:
            self._producer.close()
            self._producer = None
