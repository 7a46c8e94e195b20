"""A consumer on the embedded column: a file, SQLite, a model in this process, which tests put faults between."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from oddlog.connectors.files import FileSource
from oddlog.connectors.sqlite import SqliteStore
from oddlog.connectors.store import EventQuery
from oddlog.errors import ScorerUnavailable
from oddlog.events.logfile import records_from_lines
from oddlog.events.parse import parse
from oddlog.events.schema import FEATURE_PREFIX, POSITION_ORDER
from oddlog.features.compute import FeatureComputer
from oddlog.features.declaration import FEATURE_NAMES
from oddlog.scoring.local import LocalScorer
from oddlog.scoring.scorer import Scores
from oddlog.scoring.shelf import ModelShelf
from oddlog.settings import EnrichSettings, SourceSettings, StoreSettings
from oddlog.simulation.traffic import simulate
from serving.counts import Counts
from serving.enrich import Enricher
from tests.small_model import small_model

LINES = [line.encode() for line in simulate(seed=3, lines=3_000, days=2).lines]
FEATURES = [FEATURE_PREFIX + name for name in FEATURE_NAMES]

UNTIL_IDLE = 0.1
"""Seconds that a source is empty before a consumer ends."""


class Away(LocalScorer):
    """A scorer that can be taken away."""

    away = False

    def champion(self) -> str | None:
        self._answer()
        return super().champion()

    def score(self, features: npt.NDArray[np.float32], names: list[str], *, version: str | None = None) -> Scores:
        self._answer()
        return super().score(features, names, version=version)

    def _answer(self) -> None:
        if self.away:
            raise ScorerUnavailable("taken away by the test")


class Site:
    """A log file that grows, a store, and consumers of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "access.log"
        self.log.touch()
        self.store = SqliteStore(StoreSettings(url=f"sqlite:///{folder / 'events.sqlite'}"))
        self.store.setup()
        self.shelf = ModelShelf("oddlog")
        self.scorer = Away(self.shelf)
        self.settings = EnrichSettings(batch_rows=256, batch_seconds=0.02, settle_seconds=0.01, retry_seconds=0.01)

    def arrive(self, lines: list[bytes]) -> None:
        with self.log.open("ab") as log:
            log.writelines(line + b"\n" for line in lines)

    def source(self) -> FileSource:
        return FileSource(SourceSettings(url=f"file://{self.log}", state_dir=self.folder / "places"))

    def consume(self, *, source: Any = None, store: Any = None) -> Counts:
        source = source or self.source()
        try:
            enricher = Enricher(self.settings, source, store or self.store, self.scorer)
            return enricher.run(until_idle=UNTIL_IDLE)
        finally:
            source.close()

    def promote(self, version: str, lines: list[bytes], seed: int = 0) -> None:
        model = small_model(self.folder / f"model-{version}", lines, seed=seed)
        self.shelf.hold(version, model)
        self.shelf.set_champion(version)

    def events(self, **query: Any) -> pl.DataFrame:
        columns = [*POSITION_ORDER, "anomaly.status", "anomaly.score", "anomaly.model.version", "anomaly.baseline",
                   "features.*"]  # fmt: skip
        return pl.concat(
            self.store.read_events(EventQuery(**query), columns=columns, order="position"), how="diagonal_relaxed"
        )

    def expected(self, version: str) -> npt.NDArray[np.float32]:
        """Features of the whole file under a version's baseline, computed in one go."""
        events = parse(records_from_lines(self.log.read_bytes().splitlines())).events
        return FeatureComputer(self.shelf.get(version).model.baseline).compute(events)
