"""A store whose events were scored by a champion that was trained on their first half: embedded, a few seconds."""

from __future__ import annotations

import contextlib
import datetime as dt
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from oddlog.connectors.by_url import open_registry, open_store
from oddlog.connectors.registry import CHAMPION, Registry
from oddlog.connectors.store import EventQuery, Store
from oddlog.events.logfile import records_from_lines
from oddlog.events.parse import parse
from oddlog.scoring.local import LocalScorer
from oddlog.scoring.model import Model
from oddlog.scoring.shelf import ModelShelf
from oddlog.settings import Settings
from oddlog.simulation import simulate
from serving.backfill import backfill
from training.train import TrainResult, train

LINES, DAYS = 5_000, 3
TRAFFIC = simulate(seed=21, lines=LINES, days=DAYS, attack_share=0.06)
MIDDLE = TRAFFIC.start + (TRAFFIC.end - TRAFFIC.start) / 2


@dataclass(frozen=True)
class Place:
    """The store, the registry with the champion, and the settings that name them."""

    settings: Settings
    store: Store
    registry: Registry
    champion: Model
    first: TrainResult

    def training(self, **options: object) -> Settings:
        """The settings with other ones of training."""
        changed = self.settings.train.model_copy(update=options)
        return self.settings.model_copy(update={"train": changed})


def fill(store: Store) -> None:
    """Write all events, pending, in two partitions, each client in one of them."""
    records = records_from_lines([text.encode() for text in TRAFFIC.lines], labels=TRAFFIC.labels)
    second = pl.col("source.address").str.len_bytes() % 2
    events = parse(records).events.with_columns(second.cast(pl.Int32).alias("oddlog.position.partition"))
    left = events.with_columns(pl.lit("pending").alias("anomaly.status"))
    deadline = time.monotonic() + 120
    while left.height:  # a server that is busy takes some of them later
        assert time.monotonic() < deadline
        outcome = store.write_events(left)
        assert not outcome.rejected
        left = left[sorted(outcome.retry)]


@contextlib.contextmanager
def trained_place(folder: Path) -> Iterator[Place]:
    """Make it below `folder`."""
    settings = Settings(
        store={"url": f"sqlite:///{folder}/oddlog.sqlite"},
        registry={"url": f"sqlite:///{folder}/mlflow.db", "artifacts": str(folder / "artifacts")},
        train={"seed": 3, "algorithm": "surprise", "pulls": folder / "pulls", "min_events": 500},
    )
    store, registry = open_store(settings.store), open_registry(settings.registry)
    store.setup()
    fill(store)
    first = train(settings, until=MIDDLE, store=store, registry=registry)
    registry.set_alias(CHAMPION, first.version)
    champion = Model.load(registry.download(first.version, folder))
    shelf = ModelShelf(settings.registry.model)
    shelf.hold(first.version, champion)
    shelf.set_champion(first.version)
    backfill(store, LocalScorer(shelf), lead_in=dt.timedelta(days=14), batch_rows=700)
    assert store.count_events(EventQuery(status="scored")) > 0.9 * LINES
    yield Place(settings, store, registry, champion, first)
    store.close()
