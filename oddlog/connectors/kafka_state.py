"""Where a topic and its group stand, asked without joining the group. Consuming is in `kafka.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kafka import KafkaConsumer, TopicPartition

from oddlog.connectors.kafka_connection import connecting, connection, failing, kafka_address
from oddlog.connectors.kafka_position import Stamp, resume_point
from oddlog.connectors.kafka_topic import partitions_of, topic_id
from oddlog.connectors.source import PartitionState
from oddlog.errors import SourceEpochError
from oddlog.events.record import Partition

if TYPE_CHECKING:
    from oddlog.settings import SourceSettings

TOPIC_SECONDS = 2.0
"""How long a topic may be unknown to the broker before it counts as missing."""


def topic_state(settings: SourceSettings) -> list[PartitionState]:
    """Every partition of the topic, in order; none where the topic is missing.

    Raises UsageError for a wrong URL, SourceError where the brokers cannot be asked."""
    address = kafka_address(settings.url)
    client = connection(settings, address) | {
        "enable_auto_commit": False,
        "auto_offset_reset": "none",
        "allow_auto_create_topics": False,
    }
    with connecting(settings, address):
        consumer = KafkaConsumer(group_id=settings.group, **client)
    try:
        with failing(address, "looking at"):
            numbers = partitions_of(consumer, address.topic, within=TOPIC_SECONDS)
            if not numbers:
                return []
            parts = [TopicPartition(address.topic, number) for number in sorted(numbers)]
            begins, ends = consumer.beginning_offsets(parts), consumer.end_offsets(parts)
            stamp = Stamp(settings.epoch, topic_id(consumer, address.topic))
            found = []
            for tp in parts:
                committed, problem = None, None
                try:
                    committed = resume_point(consumer, tp, stamp, address)
                except SourceEpochError as error:
                    problem = error
                partition = Partition(settings.epoch, tp.topic, tp.partition)
                found.append(PartitionState(partition, begins[tp], ends[tp], committed, problem))
            return found
    finally:
        consumer.close(autocommit=False)
