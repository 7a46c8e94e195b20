"""What every store gives to snapshots of client state: whole or none, and nothing left behind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from oddlog.connectors.store import Collection, Store
from oddlog.errors import StoreUnavailable
from oddlog.events.record import Partition
from oddlog.features.clients import ClientState
from serving import snapshots
from serving.snapshots import KEPT_SECONDS, Snapshot, read_snapshot, write_snapshot

ONE, OTHER = Partition("e1", "logs.raw", 0), Partition("e1", "logs.raw", 1)
OLD, NEW = "a" * 64, "b" * 64


@pytest.fixture(autouse=True)
def _short_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "CHUNK_BYTES", 2_000)


def snapshot(offset: int, *, baseline: str = OLD, partition: Partition = ONE, clients: int = 100) -> Snapshot:
    state = ClientState()
    signals = np.random.default_rng(offset).random((clients, 5))
    names = [f"{baseline[0]}{offset}-{n}" for n in range(clients)]
    state.advance(names, np.arange(clients, dtype=float), signals, np.zeros(5))
    return Snapshot(partition, offset, baseline, pl.DataFrame(state.table()))


def ids(store: Store, baseline: str) -> list[str]:
    """Ids of the manifest and chunks of a baseline."""
    return [one["_id"] for one in store.list_documents("state") if f"-{baseline[:16]}-" in one["_id"]]


def test_a_snapshot_comes_back_to_the_bit_and_replaces_the_one_before(store: Store) -> None:
    first, second = snapshot(10), snapshot(20, clients=40)
    write_snapshot(store, first)
    found = read_snapshot(store, ONE, OLD, until=10)
    assert found is not None
    assert found.offset == 10
    assert_frame_equal(found.clients, first.clients, check_exact=True)
    many = len(ids(store, OLD))
    write_snapshot(store, second)
    found = read_snapshot(store, ONE, OLD, until=25)
    assert found is not None
    assert found.offset == 20
    assert_frame_equal(found.clients, second.clients, check_exact=True)
    assert len(ids(store, OLD)) < many
    assert all("-20-" in id for id in ids(store, OLD)[1:])


def test_one_that_is_ahead_or_of_others_is_not_read(store: Store) -> None:
    write_snapshot(store, snapshot(10))
    assert read_snapshot(store, ONE, OLD, until=9) is None
    assert read_snapshot(store, OTHER, OLD, until=10) is None
    assert read_snapshot(store, ONE, NEW, until=10) is None


def test_the_same_boundary_may_be_written_again(store: Store) -> None:
    write_snapshot(store, snapshot(10, clients=200))
    write_snapshot(store, snapshot(10, clients=30))
    found = read_snapshot(store, ONE, OLD, until=10)
    assert found is not None
    assert found.clients.height == 30
    assert len(ids(store, OLD)) == 1 + len(range(0, _size(found), 2_000))


def test_what_a_killed_writer_left_is_removed_by_the_next(store: Store) -> None:
    class Killed(Exception):
        pass

    write_snapshot(store, snapshot(10))
    put, chunks = store.put_document, 0

    def put_two(collection: Collection, id: str, document: Mapping[str, Any]) -> None:
        nonlocal chunks
        chunks += "data" in document
        if chunks > 2:
            raise Killed
        put(collection, id, document)

    store.put_document = put_two  # type: ignore[method-assign]
    with pytest.raises(Killed):
        write_snapshot(store, snapshot(20))
    store.put_document = put  # type: ignore[method-assign]
    found = read_snapshot(store, ONE, OLD, until=99)
    assert found is not None
    assert found.offset == 10
    assert any("-20-" in id for id in ids(store, OLD))
    write_snapshot(store, snapshot(30))
    assert not any("-20-" in id or "-10-" in id for id in ids(store, OLD))
    assert read_snapshot(store, ONE, OLD, until=99) is not None


def test_what_a_writer_that_was_killed_while_cleaning_left_is_removed_by_the_next(store: Store) -> None:
    class Killed(Exception):
        pass

    def killed(collection: Collection, id: str) -> None:
        raise Killed

    write_snapshot(store, snapshot(10))
    remove, store.delete_document = store.delete_document, killed  # type: ignore[method-assign]
    with pytest.raises(Killed):
        write_snapshot(store, snapshot(20))
    store.delete_document = remove  # type: ignore[method-assign]
    assert any("-10-" in id for id in ids(store, OLD))
    write_snapshot(store, snapshot(30))
    assert not any("-20-" in id or "-10-" in id for id in ids(store, OLD))


def test_snapshots_of_baselines_of_long_ago_are_removed(store: Store) -> None:
    """Those of the version before stay for a while, so that going back finds its clients."""
    begun = 1_700_000_000.0
    write_snapshot(store, snapshot(10), clock=lambda: begun)
    write_snapshot(store, snapshot(10, partition=OTHER), clock=lambda: begun)
    write_snapshot(store, snapshot(20, baseline=NEW), clock=lambda: begun + KEPT_SECONDS)
    assert read_snapshot(store, ONE, OLD, until=99) is not None
    write_snapshot(store, snapshot(30, baseline=NEW), clock=lambda: begun + KEPT_SECONDS + 1)
    assert read_snapshot(store, ONE, OLD, until=99) is None
    assert read_snapshot(store, ONE, NEW, until=99) is not None
    assert all(id.endswith("-1") or "-raw-1-" in id or "logs.raw-1" in id for id in ids(store, OLD))
    assert read_snapshot(store, OTHER, OLD, until=99) is not None


def test_a_store_that_is_away_leaves_the_one_before(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    write_snapshot(store, snapshot(10))

    def away(collection: Collection, id: str, document: Mapping[str, Any]) -> None:
        raise StoreUnavailable("away")

    with monkeypatch.context() as patched:
        patched.setattr(store, "put_document", away)
        with pytest.raises(StoreUnavailable):
            write_snapshot(store, snapshot(20))
    found = read_snapshot(store, ONE, OLD, until=99)
    assert found is not None
    assert found.offset == 10


def _size(found: Snapshot) -> int:
    import io

    buffer = io.BytesIO()
    found.clients.write_ipc(buffer, compression="zstd")
    return len(buffer.getvalue())
