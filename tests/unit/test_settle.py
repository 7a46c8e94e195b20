"""Scoring of what was written as pending: once, and with a sign of life after every frame. The consumer that does it
is in tests/integration/.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from oddlog.connectors.sqlite import SqliteStore
from oddlog.connectors.store import EventQuery
from oddlog.events.logfile import records_from_lines
from oddlog.events.parse import parse
from oddlog.scoring.local import LocalScorer
from oddlog.scoring.shelf import ModelShelf
from oddlog.settings import StoreSettings
from oddlog.simulation.traffic import simulate
from serving.documents import pending_events
from serving.lane import Lane
from serving.settle import settle_pending
from tests.small_model import small_model

LINES = [line.encode() for line in simulate(seed=9, lines=800, days=1).lines]


def test_a_sign_of_life_comes_after_every_frame(tmp_path: Path) -> None:
    shelf = ModelShelf("oddlog")
    shelf.hold("1", small_model(tmp_path / "model", LINES))
    shelf.set_champion("1")
    scorer = LocalScorer(shelf)
    lane = Lane("1", scorer.baseline("1"))
    events = parse(records_from_lines(LINES)).events
    store = SqliteStore(StoreSettings(url=f"sqlite:///{tmp_path / 'events.sqlite'}"))
    store.setup()
    store.write_events(pending_events(events, lane.compute(events), lane))
    waiting = EventQuery(status="pending", baseline=lane.baseline.digest)

    left: list[int] = []
    settled = settle_pending(store, scorer, waiting, "1", alive=lambda: left.append(store.count_events(waiting)))
    assert settled == len(LINES)
    assert left[-1] == 0  # after the frame was written, not before
    found = pl.concat(store.read_events(EventQuery(), columns=["_id", "anomaly.status", "anomaly.model.version"]))
    assert set(found.select("anomaly.status", "anomaly.model.version").unique().rows()) == {("scored", "1")}
    assert settle_pending(store, scorer, waiting, "1", alive=lambda: left.append(-1)) == 0
    assert left[-1] == 0
    store.close()
