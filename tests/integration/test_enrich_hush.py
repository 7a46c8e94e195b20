"""A running consumer follows marks: what is expected from a moment on raises no alert, without a restart."""

from __future__ import annotations

import contextlib
import datetime as dt
import threading
from pathlib import Path

import polars as pl
import pytest

from oddlog.connectors.files import FileSource
from oddlog.connectors.sqlite import SqliteStore
from oddlog.connectors.store import Collection, EventQuery
from oddlog.scoring.local import LocalScorer
from oddlog.scoring.shelf import ModelShelf
from oddlog.settings import EnrichSettings, SourceSettings, StoreSettings
from oddlog.simulation.traffic import simulate
from serving.enrich import Enricher
from serving.marking import mark_pattern
from tests.small_model import small_model
from tests.waiting import until

LINES = [line.encode() for line in simulate(seed=3, lines=1_500, days=2, attacks=[]).lines]
SCAN = [
    f'203.0.113.{client} - - [04/Mar/2026:12:00:{second:02} +0000] "GET /backup-{second}.tar.gz.old HTTP/1.1" 404 0 '
    '"-" "curl/8"'.encode()
    for second in range(20)
    for client in (7, 8)
]  # fmt: skip


def test_what_is_expected_raises_no_alert_from_then_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, store = tmp_path / "access.log", SqliteStore(StoreSettings(url=f"sqlite:///{tmp_path / 'events.sqlite'}"))
    log.touch()
    asked: list[str] = []
    real = store.list_documents

    def counted(collection: Collection, *, since: dt.datetime | None = None) -> list[dict[str, object]]:
        asked.append(threading.current_thread().name)
        return real(collection, since=since)

    monkeypatch.setattr(store, "list_documents", counted)
    shelf = ModelShelf("oddlog")
    shelf.hold("1", small_model(tmp_path / "model", LINES))
    shelf.set_champion("1")
    source = FileSource(SourceSettings(url=f"file://{log}", state_dir=tmp_path / "places"))
    settings = EnrichSettings(batch_rows=64, batch_seconds=0.02, marks_seconds=0.02)
    consumer = Enricher(settings, source, store, LocalScorer(shelf))
    thread = threading.Thread(target=consumer.run)

    def arrive(lines: list[bytes]) -> pl.DataFrame:
        """The scan's events, when all lines are stored."""
        before = store.count_events(EventQuery())
        with log.open("ab") as file:
            file.writelines(line + b"\n" for line in lines)
        until(lambda: store.count_events(EventQuery()) == before + len(lines), "the lines in the store")
        return pl.concat(store.read_events(EventQuery(clients=("203.0.113.7", "203.0.113.8")), order="position"))

    with contextlib.closing(source), contextlib.closing(store):
        thread.start()
        try:
            first = arrive([*LINES, *SCAN])
            odd = first.filter("anomaly.is_anomaly")
            assert {"203.0.113.7", "203.0.113.8"} == set(odd["source.address"])
            begin, end = dt.datetime(2026, 3, 4, 13, tzinfo=dt.UTC), dt.datetime(2026, 3, 5, tzinfo=dt.UTC)
            done = mark_pattern(store, "expected", by="ada", client="203.0.113.7", since=begin, until=end)
            assert done.hushed == 0  # the alerts before it stay
            until(lambda: bool(consumer._hush.now), "the mark, followed")
            later = arrive([line.replace(b":12:00:", b":13:00:") for line in SCAN])[len(SCAN) :]
            after = arrive([line.replace(b"04/Mar/2026:12:00:", b"05/Mar/2026:00:00:") for line in SCAN])[
                2 * len(SCAN) :
            ]
        finally:
            consumer.stop()
            thread.join(30)
    hushed = later.filter(pl.col("anomaly.hushed").is_not_null())
    assert set(hushed["source.address"]) == {"203.0.113.7"}
    assert set(hushed["anomaly.hushed"]) == {done.marks[0].id}
    assert not hushed["anomaly.is_anomaly"].any()
    assert (hushed["anomaly.score"] >= hushed["anomaly.threshold"]).any()
    assert hushed["anomaly.channel"].null_count() == 0
    assert set(later.filter("anomaly.is_anomaly")["source.address"]) == {"203.0.113.8"}
    assert after["anomaly.hushed"].null_count() == after.height
    assert {"203.0.113.7", "203.0.113.8"} == set(after.filter("anomaly.is_anomaly")["source.address"])
    assert consumer.counts.hushed == hushed.height
    # Marks are looked at once before the first batch, then beside the batches.
    assert asked.count(thread.name) == 1
    assert set(asked) == {thread.name, "marks"}
