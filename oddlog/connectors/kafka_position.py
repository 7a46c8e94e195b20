"""Whether a committed position still fits its topic. Reading and committing are in `kafka.py`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from oddlog.errors import SourceEpochError

if TYPE_CHECKING:
    from kafka import TopicPartition

    from oddlog.connectors.kafka_connection import KafkaAddress


@dataclass(frozen=True, slots=True)
class Stamp:
    """What is committed beside every offset: under which epoch, and in which life of the topic.

    >>> Stamp.read(str(Stamp("e1", "b52c")))
    Stamp(epoch='e1', topic_id='b52c')
    >>> Stamp.read("another tool's note, or nothing") is None
    True
    """

    epoch: str
    topic_id: str

    def __str__(self) -> str:
        return f"oddlog {self.epoch} {self.topic_id}".rstrip()

    @classmethod
    def read(cls, metadata: str | None) -> Stamp | None:
        """The stamp in a commit's metadata; None in a commit that somebody else made."""
        words = (metadata or "").split(" ")
        if words[0] != "oddlog" or len(words) not in {2, 3}:
            return None
        return cls(words[1], words[2] if len(words) == 3 else "")


def resume_point(consumer: Any, tp: TopicPartition, stamp: Stamp, address: KafkaAddress) -> int | None:
    """The group's committed offset of a partition; None without one, or with one of another epoch.

    Raises SourceEpochError when the topic was made anew since, or retention has removed what comes next; and
    errors of kafka-python.
    """
    committed = consumer.committed(tp, metadata=True)
    if committed is None:
        return None
    made = Stamp.read(committed.metadata)
    if made is not None and made.epoch != stamp.epoch:
        return None
    offset = int(committed.offset)
    if made is not None and made.topic_id and stamp.topic_id and made.topic_id != stamp.topic_id:
        raise topic_was_made_anew(address, stamp.epoch, f"offset {offset} was committed in another one")
    first, end = consumer.beginning_offsets([tp])[tp], consumer.end_offsets([tp])[tp]
    if offset > end:
        raise topic_was_made_anew(
            address, stamp.epoch, f"partition {tp.partition} ends at {end}, and {offset} is committed"
        )
    if offset < first:
        raise SourceEpochError(
            f"{first - offset} records of {address.url} are lost: partition {tp.partition} begins at {first}, "
            f"and the group has read up to {offset}; retention has deleted what was between",
            expected="retention longer than the consumer is ever away",
            mend="raise retention.ms of the topic; to go on without them, set source.group to a new name: it "
            "begins at the earliest record, and documents that are there already are not written twice",
        )
    return offset


def topic_was_made_anew(address: KafkaAddress, epoch: str, sign: str) -> SourceEpochError:
    """The error for a topic that was deleted and made again: its offsets would name other records."""
    return SourceEpochError(
        f"topic {address.topic!r} was deleted and made anew ({sign}): its offsets begin again, and would give "
        "new records the ids of old ones",
        expected=f"the topic that was read under source.epoch {epoch!r}",
        mend=f"set source.epoch to a new value, for example ODDLOG_SOURCE__EPOCH={_next_epoch(epoch)}",
    )


def _next_epoch(epoch: str) -> str:
    """Another epoch, for the error's advice.

    >>> _next_epoch("e1"), _next_epoch("prod")
    ('e2', 'prod2')
    """
    name = epoch.rstrip("0123456789")
    number = epoch[len(name) :]
    return f"{name}{int(number or 1) + 1}"
