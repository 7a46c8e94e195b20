"""The port every source of records keeps: Kafka (`kafka.py`) and files (`files.py`). `by_url.py` picks.

Delivery: at least once. A position is committed only by `commit`, never by reading; what was read and not
committed is read again after a restart. Every implementation passes tests/contract/test_source.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from oddlog.errors import SourceEpochError
from oddlog.events.record import Partition, Records


@dataclass(slots=True)
class Poll:
    """What one `poll` brought.

    `assigned` partitions are paused until `start` is called for them, so that their client state can be
    restored first; `revoked` ones are gone already, and what was read from them must not be committed.
    """

    records: Records = field(default_factory=Records)
    assigned: list[Partition] = field(default_factory=list)
    revoked: list[Partition] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class PartitionState:
    """Where one partition stands, asked from outside: without joining the group or taking its place."""

    partition: Partition
    begin: int
    """The first offset that is kept."""
    end: int
    """The offset after the last record."""
    committed: int | None
    problem: SourceEpochError | None = None
    """Why a consumer would stop here: the committed position does not fit."""


class Source(Protocol):
    """An ordered, partitioned, replayable sequence of records with a committed position."""

    def poll(self, max_records: int, timeout: float) -> Poll:
        """Up to `max_records` records; waits at most `timeout` seconds for the first of them."""

    def start(self, partition: Partition) -> None:
        """Let a newly assigned partition flow, from its committed position."""

    def commit(self, next_offsets: Mapping[Partition, int]) -> None:
        """Remember that everything before these offsets is stored. Raises SourceError."""

    def committed(self, partition: Partition) -> int | None:
        """The committed offset, or None before the first commit.

        Raises SourceEpochError where it does not fit what the source holds now."""

    def replay(
        self, partition: Partition, until_offset: int, since_ms: int | None = None, *, from_offset: int = 0
    ) -> Iterator[Records]:
        """Records before `until_offset` in order, from the earliest kept at or after `from_offset` (and, by the
        broker's timestamp, `since_ms`); touches neither position nor assignment. Keeps membership meanwhile."""

    def keep_alive(self) -> None:
        """Keep membership while the caller is busy with something slow; fetches nothing."""

    def rewind(self) -> None:
        """Throw away what was read and not committed: the next poll starts at the committed positions."""

    def lag(self) -> dict[Partition, int]:
        """Records (files: bytes) not yet read, by assigned partition."""

    def close(self) -> None:
        """Leave; commits nothing."""
