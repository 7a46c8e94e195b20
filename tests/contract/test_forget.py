"""What is stored of a client is gone after it was forgotten, in every store, and nothing else is."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from oddlog.connectors.store import Collection, EventQuery, Store
from oddlog.errors import StoreUnavailable
from oddlog.events.record import Partition
from oddlog.settings import Settings
from serving import snapshots
from serving.forget import Forgotten, forget
from serving.forget_files import forget_in_files
from serving.mentions import FORGOTTEN
from serving.snapshots import Snapshot, drop_clients, read_snapshot, write_snapshot
from tests.store_frames import dead_letters, events, read, write

CLIENT, OTHER, LONGER = "192.0.2.3", "192.0.2.4", "192.0.2.30"
HERE = Partition("e1", "logs.raw", 0)


def table(*clients: str) -> pl.DataFrame:
    return pl.DataFrame({"client": list(clients), "last": [1.0] * len(clients)})


def fill(store: Store) -> None:
    clients = [CLIENT, OTHER, LONGER, CLIENT]
    write(store, events(4).with_columns(pl.Series("source.address", clients)))
    letters = dead_letters(4).with_columns(
        original=pl.Series([f"{CLIENT}:443 - what?".encode(), f"{LONGER} what?".encode(), b"", None], dtype=pl.Binary),
        reason=pl.Series(["found a; expected b", "a", f"found '{CLIENT} x'; expected b", "c"]),
    )
    assert not store.write_dead(letters).rejected
    store.put_document("marks", "m1", {"client": CLIENT, "verdict": "expected"})
    store.put_document("marks", "m2", {"client": LONGER, "verdict": "expected"})
    store.put_document("incidents", "i1", {"client": CLIENT, "title": f"{CLIENT} did"})
    store.put_document(
        "incidents", "i2", {"client": None, "clients": [CLIENT, OTHER], "hours": [{"clients": [CLIENT]}]}
    )
    for baseline, share in (("b" * 64, 1.0), ("f" * 64, 0.1)):
        write_snapshot(store, Snapshot(HERE, 4, baseline, table(OTHER, CLIENT, LONGER), share))
    store.refresh()


def test_a_client_is_forgotten_and_nobody_else(store: Store) -> None:
    fill(store)
    expected = Forgotten(True, events=2, dead_letters=2, documents=2, redacted=1, states=2)
    counted = forget(store, [CLIENT], dry_run=True)
    assert counted.snapshot_at is not None
    assert abs(counted.snapshot_at - dt.datetime.now(dt.UTC)) < dt.timedelta(hours=1)
    counted.snapshot_at = None
    assert counted == expected
    assert store.count_events(EventQuery(clients=(CLIENT,))) == 2

    done = forget(store, [CLIENT])
    done.snapshot_at = None
    assert done == Forgotten(False, events=2, dead_letters=2, documents=2, redacted=1, states=2)
    store.refresh()
    assert sorted(read(store)["source.address"]) == [LONGER, OTHER]
    assert store.count_dead() == 2
    assert [mark["_id"] for mark in store.list_documents("marks")] == ["m2"]
    (left,) = store.list_documents("incidents")
    assert (left["clients"], left["hours"]) == ([FORGOTTEN, OTHER], [{"clients": [FORGOTTEN]}])
    for baseline, share in (("b" * 64, 1.0), ("f" * 64, 0.1)):
        snapshot = read_snapshot(store, HERE, baseline, until=4, share=share)
        assert snapshot is not None
        assert snapshot.clients.equals(table(OTHER, LONGER))
    again = forget(store, [CLIENT])
    assert (again.events, again.dead_letters, again.documents, again.redacted, again.states) == (0, 0, 0, 0, 0)


@pytest.fixture
def many(store: Store, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The clients of a snapshot of several chunks."""
    monkeypatch.setattr(snapshots, "CHUNK_BYTES", 1_000)
    names = [f"host-{number:03}-{number * 7919 % 1_003:03}.example" for number in range(600)]
    write_snapshot(store, Snapshot(HERE, 9, "b" * 64, table(*names)))
    assert chunks(store) > 2
    return names


def chunks(store: Store) -> int:
    return len([one for one in store.list_documents("state") if "data" in one])


def test_a_large_snapshot_loses_chunks_with_its_clients(store: Store, many: list[str]) -> None:
    assert drop_clients(store, HERE, many[:-1]) == len(many) - 1
    snapshot = read_snapshot(store, HERE, "b" * 64, until=9)
    assert snapshot is not None
    assert snapshot.clients["client"].to_list() == many[-1:]
    assert chunks(store) == 1


@pytest.mark.parametrize("writes", [0, 1])
def test_a_second_call_leaves_nothing_of_what_the_first_did_not_finish(
    store: Store, many: list[str], writes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    left, real = iter(range(writes)), store.put_document

    def fails(collection: Collection, id: str, document: Mapping[str, Any]) -> None:
        if next(left, None) is None:
            raise StoreUnavailable("away")
        real(collection, id, document)

    with monkeypatch.context() as patch:
        patch.setattr(store, "put_document", fails)
        with pytest.raises(StoreUnavailable):
            drop_clients(store, HERE, many[:-1])
    drop_clients(store, HERE, many[:-1])
    assert read_snapshot(store, HERE, "b" * 64, until=9) is None
    assert chunks(store) == 0


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        registry={
            "url": f"sqlite:///{tmp_path}/mlflow.db",
            "artifacts": str(tmp_path / "artifacts"),
            "cache_dir": tmp_path / "artifacts" / "cache",
        },
        drift={"workspace": tmp_path / "drift", "evidently": None},
        promote={"reports": tmp_path / "promotions"},
        train={"pulls": tmp_path / "pulls"},
    )


def test_files_lose_the_name_or_go(tmp_path: Path, settings: Settings) -> None:
    for name, text in {
        "artifacts/1/first_alerts.html": f"<td>{CLIENT}</td><td>{LONGER}</td>",
        "artifacts/1/model/card.json": f'{{"source": "{CLIENT}"}}',
        "drift/day.json": f'["{CLIENT}"]',
        "drift/other.json": f'["{LONGER}"]',
        "promotions/1.md": f"by {CLIENT}.",
        "mlflow.db": f"SQLite {CLIENT}",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "pulls").mkdir()
    for name, client in (("mine", CLIENT), ("others", LONGER)):
        pl.DataFrame({"source.address": [OTHER, client]}).write_parquet(tmp_path / "pulls" / f"{name}.parquet")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    counted = forget_in_files(settings, [CLIENT], dry_run=True)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    done = forget_in_files(settings, [CLIENT])
    assert (done.redacted, done.removed, done.staying) == (counted.redacted, counted.removed, counted.staying)
    assert {path.name for path in done.redacted} == {"first_alerts.html", "day.json", "1.md"}
    assert [path.name for path in done.removed] == ["mine.parquet"]
    assert {path.name for path in done.staying} == {"card.json", "mlflow.db"}
    assert (tmp_path / "artifacts/1/first_alerts.html").read_text() == f"<td>{FORGOTTEN}</td><td>{LONGER}</td>"
    changed = {path for path, data in before.items() if not path.exists() or path.read_bytes() != data}
    assert changed == {*done.redacted, *done.removed}


def test_artifacts_elsewhere_are_told_of(settings: Settings) -> None:
    elsewhere = settings.registry.model_copy(update={"url": "https://me:secret@mlflow:5000"})
    found = forget_in_files(settings.model_copy(update={"registry": elsewhere}), [CLIENT])
    assert found.unseen == ["the artifacts of mlflow:5000"]
