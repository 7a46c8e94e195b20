"""Writing records to a Kafka topic, and making the topic. Consuming is in `kafka.py`."""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any

from kafka import KafkaAdminClient, KafkaProducer, errors
from kafka.admin import NewTopic

from oddlog.connectors.kafka_connection import (
    LARGEST_RECORD,
    KafkaAddress,
    connecting,
    connection,
    failing,
    kafka_address,
)
from oddlog.errors import SourceError, UsageError

if TYPE_CHECKING:
    from oddlog.settings import SourceSettings

DEFAULT_PARTITIONS = 4
OUTSTANDING_BYTES = 32 * 1024 * 1024
"""How much may be unacknowledged: the client library itself would buffer without bound."""
ACKNOWLEDGE_SECONDS = 120.0


class KafkaWriter:
    """Records into one topic: idempotent, acknowledged by all replicas, in order within a partition.

    Records of one key go to one partition (murmur2, as every Kafka client hashes). A context manager: leaving it
    without an error flushes.
    """

    def __init__(self, settings: SourceSettings, url: str, *, partitions: int | None = None) -> None:
        """Connect; a topic that is not there is made with `partitions` (default 4).

        Raises UsageError for a wrong URL, or where the topic has another number of partitions; SourceError.
        """
        self.address = kafka_address(url)
        self.acknowledged = 0
        _require_topic(settings, self.address, partitions)
        with connecting(settings, self.address):
            self._producer = KafkaProducer(
                acks="all",
                enable_idempotence=True,
                compression_type="lz4",
                linger_ms=20,
                batch_size=256 * 1024,
                max_request_size=LARGEST_RECORD,
                allow_auto_create_topics=False,
                delivery_timeout_ms=int(ACKNOWLEDGE_SECONDS * 1000),
                **connection(settings, self.address),
            )
        self._waiting: deque[tuple[Any, int]] = deque()
        self._waiting_bytes = 0

    def send(self, key: bytes | None, value: bytes) -> None:
        """Hand over one record; waits while too much is unacknowledged. Raises SourceError."""
        with failing(self.address, "writing to"):
            try:
                future = self._producer.send(self.address.topic, value=value, key=key)
            except errors.MessageSizeTooLargeError as error:
                raise SourceError(
                    f"a record of {len(value)} bytes does not go into {self.address.url}",
                    expected=f"at most {LARGEST_RECORD} bytes",
                    mend="leave the line out",
                ) from error
        size = len(value) + len(key or b"")
        self._waiting.append((future, size))
        self._waiting_bytes += size
        while self._waiting and (self._waiting_bytes > OUTSTANDING_BYTES or self._waiting[0][0].is_done):
            self._acknowledge()

    def flush(self) -> int:
        """Wait until all that was sent is acknowledged; how many records were, since the start. Raises SourceError."""
        with failing(self.address, "writing to"):
            self._producer.flush(timeout=ACKNOWLEDGE_SECONDS)
        while self._waiting:
            self._acknowledge()
        return self.acknowledged

    def close(self) -> None:
        """Leave, without waiting for what is not acknowledged."""
        self._producer.close(timeout=1)

    def _acknowledge(self) -> None:
        future, size = self._waiting.popleft()
        self._waiting_bytes -= size
        with failing(self.address, f"after {self.acknowledged} acknowledged records, writing to"):
            future.get(timeout=ACKNOWLEDGE_SECONDS)
        self.acknowledged += 1

    def __enter__(self) -> KafkaWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.flush()
        finally:
            self.close()


def ensure_topic(settings: SourceSettings, *, partitions: int | None = None) -> bool:
    """Make the topic of `settings.url` with `partitions` (default 4) where it is missing; whether it was made.

    Raises UsageError for a wrong URL, or where the topic has another number of partitions; SourceError."""
    address = kafka_address(settings.url)
    return _require_topic(settings, address, partitions)


def _require_topic(settings: SourceSettings, address: KafkaAddress, partitions: int | None) -> bool:
    """Make the topic where it is missing; hold it to the wished partitions where it is there."""
    made = False
    with connecting(settings, address, "making"):
        admin = KafkaAdminClient(**connection(settings, address))
        try:
            (found,) = admin.describe_topics([address.topic])
            if not found["partitions"]:
                topic = NewTopic(
                    address.topic,
                    num_partitions=partitions or DEFAULT_PARTITIONS,
                    topic_configs={"max.message.bytes": str(LARGEST_RECORD)},
                )
                # Somebody may be quicker; their number of partitions is checked like any other's.
                with suppress(errors.TopicAlreadyExistsError):
                    admin.create_topics([topic])
                    made = True
                admin.wait_for_topics([address.topic])
                (found,) = admin.describe_topics([address.topic])
            there = len(found["partitions"])
        finally:
            admin.close()
    if partitions is not None and there != partitions:
        raise UsageError(
            f"topic {address.topic!r} has {there} partitions",
            expected=f"the {partitions} of --partitions",
            mend="leave --partitions away, or ship to a new topic",
        )
    return made
