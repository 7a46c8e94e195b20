"""A store that a champion scored, and another version with a baseline of its own: real MLflow, real SQLite, and models
that are fitted in a second."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from oddlog.connectors.by_url import open_registry, open_store
from oddlog.connectors.registry import CHAMPION, Registry
from oddlog.connectors.store import Store
from oddlog.events.logfile import records_from_lines
from oddlog.events.parse import parse
from oddlog.scoring.local import LocalScorer
from oddlog.scoring.model import Model
from oddlog.scoring.shelf import ModelShelf
from oddlog.settings import Settings
from oddlog.simulation.traffic import simulate
from serving.backfill import backfill
from tests.small_model import small_model
from tests.small_registry import register, registry_in

LINES, DAYS = 6_000, 3.0
TRAFFIC = simulate(seed=11, lines=LINES, days=DAYS, attack_share=0.04)
FITTED = {"1": 2_400, "2": 1_800}
"""Lines that each version was fitted on, from the first."""


@dataclass(frozen=True)
class RegisteredPlace:
    """Version 1 is champion, and scored all that is in the store."""

    settings: Settings
    store: Store
    registry: Registry
    models: dict[str, Model]
    events: pl.DataFrame
    """All of them, in record order."""

    @property
    def environment(self) -> dict[str, str]:
        """The settings as a user's environment has them."""
        return {
            "ODDLOG_STORE__URL": self.settings.store.url,
            "ODDLOG_REGISTRY__URL": self.settings.registry.url,
            "ODDLOG_REGISTRY__ARTIFACTS": self.settings.registry.artifacts,
            "ODDLOG_REGISTRY__CACHE_DIR": str(self.settings.registry.cache_dir),
            "ODDLOG_TRAIN__PULLS": str(self.settings.train.pulls),
        }


@contextlib.contextmanager
def registered_place(folder: Path) -> Iterator[RegisteredPlace]:
    """Make it below `folder`."""
    settings = Settings(
        store={"url": f"sqlite:///{folder}/oddlog.sqlite"},
        registry=registry_in(folder),
        train={"pulls": folder / "pulls"},
    )
    lines = [text.encode() for text in TRAFFIC.lines]
    models = {}
    for version, fitted in FITTED.items():
        model = small_model(folder / f"model {version}", lines[:fitted])
        models[register(settings.registry, folder / f"model {version}")] = model
    assert list(models) == list(FITTED)
    registry, store = open_registry(settings.registry), open_store(settings.store)
    registry.set_alias(CHAMPION, "1")
    store.setup()
    events = parse(records_from_lines(lines, labels=TRAFFIC.labels)).events
    outcome = store.write_events(events.with_columns(pl.lit("pending").alias("anomaly.status")))
    assert not outcome.rejected
    assert not outcome.retry
    shelf = ModelShelf(settings.registry.model)
    shelf.hold("1", models["1"])
    shelf.set_champion("1")
    backfill(store, LocalScorer(shelf), lead_in=dt.timedelta(days=14))
    try:
        yield RegisteredPlace(settings, store, registry, models, events)
    finally:
        store.close()
