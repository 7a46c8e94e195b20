"""What the group gives a consumer and takes from it, kept until the caller is told. Consuming is in `kafka.py`."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any

from kafka import AsyncConsumerRebalanceListener, TopicPartition


class AssignmentChanges:
    """What the group has changed since the caller was last told. Written by the client's IO thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._told: set[TopicPartition] = set()
        self._gone: set[TopicPartition] = set()

    def gone(self, partitions: Iterable[TopicPartition]) -> None:
        """Revoked or lost."""
        with self._lock:
            self._gone.update(partitions)

    def holds(self, tp: TopicPartition) -> bool:
        """Whether the caller was told of it, and it has not gone since (even if it came back)."""
        with self._lock:
            return tp in self._told and tp not in self._gone

    def take(self, assignment: Iterable[TopicPartition]) -> tuple[set[TopicPartition], set[TopicPartition]]:
        """(gone, new) since the last call; one that went and came back is in both."""
        with self._lock:
            gone = self._gone & self._told
            self._gone.clear()
            self._told -= gone
            new = set(assignment) - self._told
            self._told |= new
            return gone, new


class RebalanceListener(AsyncConsumerRebalanceListener):  # type: ignore[misc]
    """Runs on the client's IO thread: records and pauses, and never waits, commits or raises."""

    def __init__(self, consumer: Any, changes: AssignmentChanges) -> None:
        self._consumer = consumer
        self._changes = changes

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Nothing flows until the caller has restored what belongs to the partition."""
        self._consumer.pause(*assigned)

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Taken away in good order; the caller commits batch by batch, so nothing is owed here."""
        self._changes.gone(revoked)

    async def on_partitions_lost(self, lost: Iterable[TopicPartition]) -> None:
        """Taken away after our membership ended: somebody else may be reading them already."""
        self._changes.gone(lost)
