"""A lane: one model version, its baseline, and the client state under that baseline, restored by replay.

State cannot be carried from one baseline to another (its sums contain values of the baseline), so a promotion
means a new lane, warmed aside and switched to between two batches.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import polars as pl

from oddlog.connectors.source import Source
from oddlog.connectors.store import Store
from oddlog.events.parse import parse
from oddlog.events.privacy import Parser
from oddlog.events.record import Partition
from oddlog.features.baseline import Baseline
from oddlog.features.clients import MAX_CLIENTS
from oddlog.features.compute import FeatureComputer
from oddlog.features.declaration import FEATURE_NAMES
from serving.snapshots import Snapshot, read_snapshot


class Lane:
    """Features under one model version's baseline, in (partition, offset) order.

    With a `share` below 1 it knows a sample of the clients alone, and `sampled` tells their events. A client's
    state depends on its own events, so a sampled client has the features that it has in a whole lane; but for one
    detail: a client is forgotten by the clock of its partition, which is the sample's here, so that one who
    comes back days behind the newest event may be remembered with a weight below 1e-4. `max_clients` are kept of a
    partition, which a sample reaches later than a whole lane.
    """

    names: ClassVar[list[str]] = list(FEATURE_NAMES)

    def __init__(
        self,
        version: str,
        baseline: Baseline,
        *,
        share: float = 1.0,
        max_clients: int = MAX_CLIENTS,
        parser: Parser = parse,
    ) -> None:
        self.version = version
        self.baseline = baseline
        self.share = share
        self._parse = parser
        self._computer = FeatureComputer(baseline, max_clients=max_clients)

    def sampled(self, events: pl.DataFrame) -> pl.DataFrame:
        """The events of the clients that this lane knows."""
        if self.share >= 1.0:
            return events
        return events.filter([in_sample(client, self.share) for client in events["source.address"].to_list()])

    def compute(self, events: pl.DataFrame) -> npt.NDArray[np.float32]:
        """Features float32 [n, d] of (sampled) events in record order; the clients' state moves on by them."""
        return self._computer.compute(events)

    def drop(self, partition: Partition) -> None:
        """Forget the clients of a partition that is not ours any more, or is to be restored."""
        self._computer.drop(partition)

    def snapshot(self, partition: Partition, offset: int) -> Snapshot:
        """The client state of a partition now, that is after every record before `offset`."""
        clients = self._computer.client_table(partition)
        return Snapshot(partition, offset, self.baseline.digest, clients, self.share)

    def restore(self, source: Source, store: Store, partition: Partition, until_offset: int) -> int:
        """Bring the client state to what an unbroken run has before `until_offset`.

        The latest snapshot at or before it, then the records from there; without one, everything the source
        still keeps. Membership is kept meanwhile. Returns how many events were replayed.

        Raises SourceError, StoreError."""
        return sum(self.restoring(source, store, partition, until_offset))

    def restoring(self, source: Source, store: Store, partition: Partition, until_offset: int) -> Iterator[int]:
        """`restore` in parts: how many events each replayed. Until it is exhausted the state is of no use."""
        self.drop(partition)
        start = 0
        if until_offset > 0:
            snapshot = read_snapshot(
                store, partition, self.baseline.digest, until=until_offset, share=self.share, alive=source.keep_alive
            )
            if snapshot is not None:
                self._computer.take_client_table(partition, snapshot.clients)
                start = snapshot.offset
        yield from self.replaying(source, partition, start, until_offset)

    def replaying(self, source: Source, partition: Partition, start: int, until_offset: int) -> Iterator[int]:
        """Move the client state on, in parts, by the records from `start` to `until_offset`. Raises SourceError."""
        if start >= until_offset:
            return
        for records in source.replay(partition, until_offset, from_offset=start):
            events = self._parse(records).events
            self._computer.compute(self.sampled(events))
            yield events.height


def in_sample(client: str, share: float) -> bool:
    """Whether a client belongs to the sample: the same one in every process, and within every larger sample.

    >>> [in_sample("192.0.2.7", share) for share in (0.0, 0.1, 0.2, 1.0)]
    [False, False, True, True]
    """
    return zlib.crc32(client.encode("utf-8", "surrogatepass")) < share * 2**32
