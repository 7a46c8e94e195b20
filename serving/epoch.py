"""Whether records are those that the store's documents were made of: asked where nothing is committed.

A topic that is deleted takes its committed offsets along: made anew, it would start at the same positions, and every
event of it would pass as written already.
"""

from __future__ import annotations

from functools import partial

import polars as pl

from oddlog.connectors.store import EventQuery, Store
from oddlog.errors import SourceEpochError
from oddlog.events.record import Partition
from oddlog.events.schema import POSITION_ORDER
from serving.patience import Patience


def prove_epoch(events: pl.DataFrame, unproved: set[Partition], store: Store, patiently: Patience) -> None:
    """Hold the first of the `events` of every unproved partition against the store's document of the same position;
    `unproved` loses those that were looked at. Raises SourceEpochError."""
    columns = POSITION_ORDER[:3]
    for row in events.unique(columns, keep="first", maintain_order=True).iter_rows(named=True):
        partition = Partition(*(row[column] for column in columns))
        if partition not in unproved:
            continue
        unproved.discard(partition)
        for stored in patiently(partial(_originals, store, row["_id"])):
            if stored.height and stored["event.original"].item(0) != row["event.original"]:
                raise SourceEpochError(
                    f"position {row['_id']} holds another record than the store's document of that position: "
                    f"{partition.topic} was deleted and made anew",
                    expected=f"a topic whose records are those of epoch {partition.epoch!r}",
                    mend="choose a new epoch: ODDLOG_SOURCE__EPOCH=e2, or [source] epoch in oddlog.toml",
                )


def _originals(store: Store, id: str) -> list[pl.DataFrame]:
    return list(store.read_events(EventQuery(ids=(id,)), columns=["_id", "event.original"]))
