"""Raw records in columns, and the position that identifies each for ever. Parsing is in `parse.py`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple


class Partition(NamedTuple):
    """One ordered sequence of records.

    Kafka: (epoch setting, topic, partition). File: (generation of the file, file name, 0).
    Generations are zero-padded numbers first, so that text order is the order in which they were written.
    """

    epoch: str
    topic: str
    number: int


def event_id(epoch: str, topic: str, partition: int, offset: int) -> str:
    """The `_id` of the document of a record: the same record always gives the same document.

    >>> event_id("e1", "logs.raw", 3, 1024)
    'e1-logs.raw-3-1024'
    """
    return f"{epoch}-{topic}-{partition}-{offset}"


@dataclass(slots=True)
class Records:
    """A batch of raw records, one list a column, all of one length; per partition in offset order.

    `value` is None for a tombstone. `timestamp_ms` is the broker's (files: the file's modification time),
    UTC milliseconds since 1970. `next_offset` tells, for every partition in the batch, the offset to commit
    once all of it is stored (Kafka: last + 1; file: the byte after the last line's end).
    """

    value: list[bytes | None] = field(default_factory=list)
    epoch: list[str] = field(default_factory=list)
    topic: list[str] = field(default_factory=list)
    partition: list[int] = field(default_factory=list)
    offset: list[int] = field(default_factory=list)
    timestamp_ms: list[int] = field(default_factory=list)
    next_offset: dict[Partition, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.value)
