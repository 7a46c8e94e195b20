"""Snapshots of client state in the store, so that a restart replays minutes and not days. When is `enrich.py`'s.

A snapshot belongs to a baseline, a feature declaration and a partition, and says before which offset it was taken.
It is written in numbered chunks, its manifest last: a reader sees the one before, or the new one, never half of one.

A partition has a list of its snapshots, by baseline: when each was written, and which chunks are being written. By it
nothing stays behind: neither chunks of a writer that was killed, nor snapshots of baselines of long ago.
"""

from __future__ import annotations

import base64
import hashlib
import io
import logging
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import polars as pl

from oddlog.connectors.store import Store
from oddlog.events.record import Partition
from oddlog.features.declaration import feature_digest

log = logging.getLogger(__name__)

CHUNK_BYTES = 1_000_000
"""Of one document, before base64."""

ALIVE_SECONDS = 1.0
"""How often a reader of many chunks, or of a slow store, tells that it lives."""

KEPT_SECONDS = 7 * 86_400.0
"""A baseline's snapshots that were not renewed for so long are removed when another baseline's is written.

Going back to the version before finds its clients until then; later, most of them would be forgotten anyway."""


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


@dataclass(slots=True)
class _Listed:
    """A snapshot in its partition's list."""

    at: float
    """When it was begun last, in seconds since 1970."""
    under_way: list[list[int]] = field(default_factory=list)
    """Offset and number of chunks that are being written, and of those that they replace; none when all is done."""


def write_snapshot(store: Store, snapshot: Snapshot, *, clock: Callable[[], float] = time.time) -> None:
    """Write chunks, then the manifest, then remove the chunks of the snapshot before. Raises StoreError."""
    key = _key(snapshot.partition, snapshot.baseline, snapshot.share)
    before = store.get_document("state", key)
    listed = _read_list(store, snapshot.partition)
    for offset, chunks in listed[key].under_way if key in listed else []:  # of a writer that was killed
        if before is None or before["offset"] != offset:
            _remove_chunks(store, key, offset, chunks)
    parts = _parts(snapshot.clients)
    replaced = [[int(before["offset"]), int(before["chunks"])]] if before is not None else []
    listed[key] = _Listed(clock(), [[snapshot.offset, len(parts)], *replaced])
    _write_list(store, snapshot.partition, listed)
    _put_parts(store, key, snapshot.offset, parts, snapshot.clients.height)
    for offset, chunks in replaced:
        _remove_chunks(store, key, offset, chunks, first=len(parts) if offset == snapshot.offset else 0)
    for other in [one for one, entry in listed.items() if one != key and listed[key].at - entry.at > KEPT_SECONDS]:
        _remove(store, other, listed.pop(other))
    listed[key] = _Listed(listed[key].at)
    _write_list(store, snapshot.partition, listed)


def read_snapshot(
    store: Store,
    partition: Partition,
    baseline: str,
    *,
    until: int,
    share: float = 1.0,
    alive: Callable[[], None] = lambda: None,
) -> Snapshot | None:
    """The latest snapshot, if there is one that was taken at or before offset `until` and is whole; else None.

    `alive` is called between chunks: a slow store may take longer for all of them than a group waits for a member."""
    key = _key(partition, baseline, share)
    manifest = store.get_document("state", key)
    if manifest is None or int(manifest["offset"]) > until:
        return None
    data = _whole(store, key, manifest, alive)
    if data is None:
        log.warning("the snapshot of %s at offset %d is not whole; replaying instead", key, manifest["offset"])
        return None
    return Snapshot(partition, int(manifest["offset"]), baseline, pl.read_ipc(io.BytesIO(data)), share)


def drop_clients(store: Store, partition: Partition, clients: Collection[str], *, dry_run: bool = False) -> int:
    """Take clients out of every snapshot of a partition; how many of their states there were. Raises StoreError.

    A consumer that runs has them in its memory, and writes them again: stop it before. Who reads a snapshot while it is
    rewritten finds one that is not whole, and replays. One that is found so, as this was cut short, goes as a whole."""
    found = 0
    for key, entry in _read_list(store, partition).items():
        if (manifest := store.get_document("state", key)) is None:
            continue
        if (data := _whole(store, key, manifest, lambda: None)) is None:
            if not dry_run:
                _remove(store, key, entry)
            continue
        table = pl.read_ipc(io.BytesIO(data))
        kept = table.filter(~pl.col("client").is_in(list(clients)))
        found += table.height - kept.height
        if dry_run or kept.height == table.height:
            continue
        parts, offset = _parts(kept), int(manifest["offset"])
        # The last ones first: until the new manifest, which counts fewer, the old one knows of all that is there.
        _remove_chunks(store, key, offset, int(manifest["chunks"]), first=len(parts))
        _put_parts(store, key, offset, parts, kept.height)
    return found


def written_at(store: Store, partition: Partition) -> float | None:
    """When the newest snapshot of a partition was begun, in seconds since 1970; None where there is none."""
    return max((entry.at for entry in _read_list(store, partition).values()), default=None)


def _key(partition: Partition, baseline: str, share: float) -> str:
    whose = "clients" if share >= 1 else f"sample{share:g}"
    return f"{whose}-{baseline[:16]}-{feature_digest()[:16]}-{partition.epoch}-{partition.topic}-{partition.number}"


def _chunk(key: str, offset: int, number: int) -> str:
    return f"{key}-{offset}-{number:05}"


def _read_list(store: Store, partition: Partition) -> dict[str, _Listed]:
    found = store.get_document("state", _list_id(partition)) or {"snapshots": []}
    return {entry.pop("key"): _Listed(**entry) for entry in found["snapshots"]}


def _write_list(store: Store, partition: Partition, listed: dict[str, _Listed]) -> None:
    # A list, since keys hold dots, which Elasticsearch takes for levels in the names of fields.
    entries = [{"key": key, **asdict(entry)} for key, entry in listed.items()]
    store.put_document("state", _list_id(partition), {"snapshots": entries})


def _list_id(partition: Partition) -> str:
    return f"snapshots-{partition.epoch}-{partition.topic}-{partition.number}"


def _parts(clients: pl.DataFrame) -> list[bytes]:
    """A table of clients as bytes, cut into chunks."""
    buffer = io.BytesIO()
    clients.write_ipc(buffer, compression="zstd")
    data = buffer.getvalue()
    return [data[start : start + CHUNK_BYTES] for start in range(0, len(data), CHUNK_BYTES)]


def _put_parts(store: Store, key: str, offset: int, parts: list[bytes], clients: int) -> None:
    """Chunks, then the manifest."""
    whole = hashlib.sha256()
    for number, part in enumerate(parts):
        whole.update(part)
        store.put_document("state", _chunk(key, offset, number), {"data": base64.b64encode(part).decode()})
    manifest = {"offset": offset, "chunks": len(parts), "clients": clients, "digest": whole.hexdigest()}
    store.put_document("state", key, manifest)


def _whole(store: Store, key: str, manifest: Mapping[str, Any], alive: Callable[[], None]) -> bytes | None:
    """The bytes of a snapshot's table; None where they are not those of the manifest."""
    parts = []
    told = time.monotonic()
    for number in range(int(manifest["chunks"])):
        if time.monotonic() - told >= ALIVE_SECONDS:
            alive()
            told = time.monotonic()
        document = store.get_document("state", _chunk(key, int(manifest["offset"]), number))
        if document is None:
            break  # replaced while it was read
        parts.append(base64.b64decode(document["data"]))
    data = b"".join(parts)
    return data if hashlib.sha256(data).hexdigest() == manifest["digest"] else None


def _remove(store: Store, key: str, entry: _Listed) -> None:
    """A snapshot, its manifest first: who reads it meanwhile finds none, or one that is not whole."""
    manifest = store.get_document("state", key)
    store.delete_document("state", key)
    if manifest is not None:
        _remove_chunks(store, key, int(manifest["offset"]), int(manifest["chunks"]))
    for offset, chunks in entry.under_way:
        _remove_chunks(store, key, offset, chunks)


def _remove_chunks(store: Store, key: str, offset: int, chunks: int, *, first: int = 0) -> None:
    for number in range(first, chunks):
        store.delete_document("state", _chunk(key, offset, number))
