"""Snapshots of client state in the store, so that a restart replays minutes and not days. When is `enrich.py`'s.

A snapshot belongs to a baseline, a feature declaration and a partition, and says before which offset it was taken.
It is written in numbered chunks, its manifest last: a reader sees the one before, or the new one, never half of one.
"""

from __future__ import annotations

import base64
import hashlib
import io
import logging
from dataclasses import dataclass

import polars as pl

from oddlog.connectors.store import Store
from oddlog.events.record import Partition
from oddlog.features.declaration import feature_digest

log = logging.getLogger(__name__)

CHUNK_BYTES = 1_000_000
"""Of one document, before base64."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Client state of a partition under a baseline, after every record before `offset`."""

    partition: Partition
    offset: int
    baseline: str
    clients: pl.DataFrame
    """As FeatureComputer.client_table gives it."""
    share: float = 1.0
    """Of which clients: all, or a sample (serving/lane.py)."""


def write_snapshot(store: Store, snapshot: Snapshot) -> None:
    """Write chunks, then the manifest, then remove the chunks of the snapshot before. Raises StoreError."""
    key = _key(snapshot.partition, snapshot.baseline, snapshot.share)
    before = store.get_document("state", key)
    buffer = io.BytesIO()
    snapshot.clients.write_ipc(buffer, compression="zstd")
    data = buffer.getvalue()
    parts = [data[start : start + CHUNK_BYTES] for start in range(0, len(data), CHUNK_BYTES)]
    for number, part in enumerate(parts):
        store.put_document("state", _chunk(key, snapshot.offset, number), {"data": base64.b64encode(part).decode()})
    store.put_document(
        "state",
        key,
        {
            "offset": snapshot.offset,
            "chunks": len(parts),
            "clients": snapshot.clients.height,
            "digest": hashlib.sha256(data).hexdigest(),
        },
    )
    if before is not None and before["offset"] != snapshot.offset:
        for number in range(int(before["chunks"])):
            store.delete_document("state", _chunk(key, int(before["offset"]), number))


def read_snapshot(
    store: Store, partition: Partition, baseline: str, *, until: int, share: float = 1.0
) -> Snapshot | None:
    """The latest snapshot, if there is one that was taken at or before offset `until` and is whole; else None."""
    key = _key(partition, baseline, share)
    manifest = store.get_document("state", key)
    if manifest is None or int(manifest["offset"]) > until:
        return None
    offset = int(manifest["offset"])
    parts = []
    for number in range(int(manifest["chunks"])):
        document = store.get_document("state", _chunk(key, offset, number))
        if document is None:
            break  # replaced while it was read
        parts.append(base64.b64decode(document["data"]))
    data = b"".join(parts)
    if hashlib.sha256(data).hexdigest() != manifest["digest"]:
        log.warning("the snapshot of %s at offset %d is not whole; replaying instead", key, offset)
        return None
    return Snapshot(partition, offset, baseline, pl.read_ipc(io.BytesIO(data)), share)


def _key(partition: Partition, baseline: str, share: float) -> str:
    whose = "clients" if share >= 1 else f"sample{share:g}"
    return f"{whose}-{baseline[:16]}-{feature_digest()[:16]}-{partition.epoch}-{partition.topic}-{partition.number}"


def _chunk(key: str, offset: int, number: int) -> str:
    return f"{key}-{offset}-{number:05}"
