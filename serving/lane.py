"""A lane: one model version, its baseline, and the client state under that baseline, restored by replay.

State cannot be carried from one baseline to another (its sums contain values of the baseline), so a promotion
means a new lane, warmed aside and switched to between two batches.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import numpy.typing as npt
import polars as pl

from oddlog.connectors.source import Source
from oddlog.connectors.store import Store
from oddlog.events.parse import parse
from oddlog.events.record import Partition
from oddlog.features.baseline import Baseline
from oddlog.features.compute import FeatureComputer
from oddlog.features.declaration import FEATURE_NAMES
from serving.snapshots import Snapshot, read_snapshot


class Lane:
    """Features under one model version's baseline, in (partition, offset) order."""

    names: ClassVar[list[str]] = list(FEATURE_NAMES)

    def __init__(self, version: str, baseline: Baseline) -> None:
        self.version = version
        self.baseline = baseline
        self._computer = FeatureComputer(baseline)

    def compute(self, events: pl.DataFrame) -> npt.NDArray[np.float32]:
        """Features float32 [n, d] of events in record order; the clients' state moves on by them."""
        return self._computer.compute(events)

    def drop(self, partition: Partition) -> None:
        """Forget the clients of a partition that is not ours any more, or is to be restored."""
        self._computer.drop(partition)

    def snapshot(self, partition: Partition, offset: int) -> Snapshot:
        """The client state of a partition now, that is after every record before `offset`."""
        return Snapshot(partition, offset, self.baseline.digest, self._computer.client_table(partition))

    def restore(self, source: Source, store: Store, partition: Partition, until_offset: int) -> int:
        """Bring the client state to what an unbroken run has before `until_offset`.

        The latest snapshot at or before it, then the records from there; without one, everything the source
        still keeps. Returns how many events were replayed. Raises SourceError, StoreError."""
        self.drop(partition)
        start = 0
        if until_offset > 0:
            snapshot = read_snapshot(store, partition, self.baseline.digest, until=until_offset)
            if snapshot is not None:
                self._computer.take_client_table(partition, snapshot.clients)
                start = snapshot.offset
        replayed = 0
        for records in source.replay(partition, until_offset, from_offset=start):
            events = parse(records).events
            self._computer.compute(events)
            replayed += events.height
        return replayed
