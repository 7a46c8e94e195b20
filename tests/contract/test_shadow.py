"""The challenger beside the champion, over every store: a consumer that runs, its shadow's thread included.

1. what was committed, of the sampled clients, is given the challenger's score, as one pass over the log gives it;
2. the champion's verdicts are what they are without a challenger;
3. a challenger that is slow or refused costs events of the shadow alone, and they are counted.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest

from oddlog.connectors.files import FileSource
from oddlog.connectors.store import EventQuery, Store
from oddlog.errors import ScorerError
from oddlog.events.logfile import records_from_lines
from oddlog.events.parse import parse
from oddlog.events.schema import FEATURE_PREFIX
from oddlog.features.compute import FeatureComputer
from oddlog.features.declaration import FEATURE_NAMES
from oddlog.scoring.local import LocalScorer
from oddlog.scoring.model import Model
from oddlog.scoring.scorer import Scores
from oddlog.scoring.shelf import ModelShelf
from oddlog.settings import EnrichSettings, SourceSettings
from oddlog.simulation.traffic import simulate
from serving.consumer_metrics import ConsumerObserver
from serving.enrich import Enricher
from serving.lane import in_sample
from tests.small_model import small_model
from tests.waiting import until

LINES = [line.encode() for line in simulate(seed=6, lines=1_500, days=2).lines]
FEATURES = [FEATURE_PREFIX + name for name in FEATURE_NAMES]
SHARE = 0.4


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:
    folder = tmp_path_factory.mktemp("models")
    return {"1": small_model(folder / "1", LINES[:900]), "2": small_model(folder / "2", LINES[500:])}


class Noted(ConsumerObserver):
    """What the shadow told."""

    def __init__(self) -> None:
        self.version: str | None = None
        self.shadowed = self.left = 0

    def shadow_lane(self, version: str | None, baseline: str | None = None) -> None:
        self.version = version

    def shadow(self, *, scored: int, dropped: int) -> None:
        self.shadowed += scored
        self.left += dropped


class Held(LocalScorer):
    """Scores with the challenger when it is let, or refuses to."""

    def __init__(self, shelf: ModelShelf) -> None:
        super().__init__(shelf)
        self.free = threading.Event()
        self.free.set()
        self.refuses = False

    def score(self, features: npt.NDArray[np.float32], names: list[str], *, version: str | None = None) -> Scores:
        if version == self.challenger():
            assert self.free.wait(60)
            if self.refuses:
                raise ScorerError("refused by the test")
        return super().score(features, names, version=version)


class World:
    """A log file that grows, and one consumer after another of it."""

    def __init__(self, folder: Path, store: Store, models: dict[str, Model]) -> None:
        self.folder, self.store, self.models = folder, store, models
        self.log = folder / "access.log"
        self.log.touch()
        self.shelf = ModelShelf("oddlog")
        for version, model in models.items():
            self.shelf.hold(version, model)
        self.shelf.set_champion("1")
        self.shelf.set_challenger("2")
        self.scorer = Held(self.shelf)
        self.settings = EnrichSettings(
            batch_rows=200, batch_seconds=0.02, shadow_share=SHARE, shadow_after_seconds=0.0, shadow_waiting=300
        )
        self.arrived = 0

    def start(self) -> None:
        self.noted = Noted()
        self._source = FileSource(SourceSettings(url=f"file://{self.log}", state_dir=self.folder / "places"))
        self.enricher = Enricher(self.settings, self._source, self.store, self.scorer, observe=self.noted)
        self._thread = threading.Thread(target=self.enricher.run)
        self._thread.start()
        self._before = self.arrived

    def stop(self) -> None:
        self.scorer.free.set()
        self.enricher.stop()
        self._thread.join()
        self._source.close()

    def arrive(self, lines: int) -> None:
        with self.log.open("ab", buffering=0) as log:  # at once, so that they are few batches
            log.write(b"".join(line + b"\n" for line in LINES[self.arrived : self.arrived + lines]))
        self.arrived += lines
        until(lambda: self.enricher.counts.records == self.arrived - self._before, "everything committed")

    def sampled(self, start: int, stop: int) -> list[bool]:
        clients = parse(records_from_lines(LINES[start:stop])).events["source.address"]
        return [in_sample(client, self.settings.shadow_share) for client in clients]

    def events(self) -> pl.DataFrame:
        self.store.refresh()
        columns = ["anomaly.status", "anomaly.model.version", "anomaly.score", "anomaly.shadow.version",
                   "anomaly.shadow.score", *FEATURES]  # fmt: skip
        return pl.concat(self.store.read_events(EventQuery(), columns=columns, order="position"))

    def features(self, version: str) -> npt.NDArray[np.float32]:
        events = parse(records_from_lines(LINES[: self.arrived])).events
        return FeatureComputer(self.models[version].baseline).compute(events)

    def main_path_is_sound(self, events: pl.DataFrame) -> None:
        assert events["anomaly.status"].to_list() == ["scored"] * self.arrived
        assert set(events["anomaly.model.version"]) == {"1"}
        features = self.features("1")
        np.testing.assert_allclose(events.select(FEATURES).to_numpy(), features, rtol=1e-5)
        np.testing.assert_allclose(events["anomaly.score"], self.models["1"].score(features), rtol=1e-4, atol=1e-5)


@pytest.fixture
def world(tmp_path: Path, store: Store, models: dict[str, Model]) -> Iterator[World]:
    one = World(tmp_path, store, models)
    yield one
    one.stop()


def test_sampled_clients_are_scored_by_both_whatever_restarts(world: World) -> None:
    for start in (0, 700):
        world.start()
        world.arrive(100)
        until(lambda: world.noted.version == "2", "the challenger's lane")
        for piece in range(start + 100, start + 700, 200):
            before = world.noted.shadowed
            world.arrive(200)
            due = sum(world.sampled(piece, piece + 200))
            until(lambda before=before, due=due: world.noted.shadowed >= before + due, "a piece in the shadow")
        world.stop()
        assert world.enricher.counts.shadow_scored == world.noted.shadowed
        assert world.enricher.counts.shadow_dropped == world.noted.left == 0
    events = world.events()
    world.main_path_is_sound(events)
    shadowed = events["anomaly.shadow.version"].is_not_null().to_numpy()
    sampled = np.array(world.sampled(0, world.arrived))
    assert not shadowed[~sampled].any()
    for start in (0, 700):
        piece = slice(start + 100, start + 700)
        assert (shadowed[piece] == sampled[piece]).all()
    assert 0.1 < sampled.mean() < 0.9
    assert set(events["anomaly.shadow.version"].filter(shadowed)) == {"2"}
    expected = world.models["2"].score(world.features("2")[shadowed])
    np.testing.assert_allclose(events["anomaly.shadow.score"].filter(shadowed), expected, rtol=1e-4, atol=1e-5)


def test_a_slow_challenger_costs_its_own_events_alone(world: World) -> None:
    world.settings = world.settings.model_copy(update={"shadow_share": 1.0})
    world.start()
    world.arrive(100)
    until(lambda: world.noted.version == "2", "the challenger's lane")
    before = world.noted.shadowed
    world.scorer.free.clear()
    for _ in range(5):
        world.arrive(200)  # committed, with the challenger's first answer outstanding
    assert world.noted.shadowed <= before + 100
    assert world.noted.left >= 200
    world.scorer.free.set()
    until(lambda: world.noted.shadowed > before, "the challenger's own pace")
    world.main_path_is_sound(world.events())


def test_what_is_not_due_waits_and_is_scored_at_the_end(world: World) -> None:
    world.settings = world.settings.model_copy(update={"shadow_after_seconds": 3_600.0, "shadow_waiting": 10_000})
    world.start()
    world.arrive(100)
    until(lambda: world.noted.version == "2", "the challenger's lane")
    for _ in range(2):
        world.arrive(200)
    assert (world.noted.shadowed, world.noted.left) == (0, 0)
    world.stop()
    assert world.noted.shadowed >= sum(world.sampled(100, 500))
    assert world.noted.left == 0
    world.main_path_is_sound(world.events())


def test_a_refused_challenger_is_counted_and_told_once(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.scorer.refuses = True
    world.start()
    world.arrive(100)
    until(lambda: world.noted.version == "2", "the challenger's lane")
    for _ in range(4):
        before = world.noted.left
        due = sum(world.sampled(world.arrived, world.arrived + 200))
        world.arrive(200)
        until(lambda before=before, due=due: world.noted.left >= before + due, "a piece counted as dropped")
    world.stop()
    assert world.noted.shadowed == 0
    assert world.enricher.counts.shadow_dropped == world.noted.left
    events = world.events()
    world.main_path_is_sound(events)
    assert events["anomaly.shadow.version"].null_count() == events.height
    told = [one for one in caplog.records if "does not score" in one.message and one.levelno == logging.WARNING]
    assert len(told) == 1


def test_a_challenger_that_saw_every_client_is_champion_without_a_replay(world: World) -> None:
    world.settings = world.settings.model_copy(update={"shadow_share": 1.0})
    world.start()
    world.arrive(600)
    until(lambda: world.noted.version == "2", "the challenger's lane")
    world.arrive(100)
    replayed = world.enricher.counts.replayed
    world.shelf.set_champion("2")
    world.arrive(100)  # the answer to this batch tells who is champion
    world.arrive(500)
    world.stop()
    assert world.enricher.counts.replayed == replayed
    events = world.events()
    versions = events["anomaly.model.version"].to_list()
    assert versions == ["1"] * versions.count("1") + ["2"] * versions.count("2")
    assert versions.count("2") >= 500
    mine = np.array([version == "2" for version in versions])
    np.testing.assert_allclose(events.filter(mine).select(FEATURES).to_numpy(), world.features("2")[mine], rtol=1e-5)


def test_current_versions_are_those_of_now_before_any_refresh(store: Store) -> None:
    from tests.store_frames import read, scored, write

    write(store, scored(3))
    more = scored(6)
    assert not store.write_events(more).retry
    unseen: Callable[[], pl.DataFrame] = lambda: store.current_versions(  # noqa: E731
        pl.concat([more, scored(1).with_columns(pl.lit("nowhere").alias("_id"))]).select("_id", "@timestamp")
    )
    found = unseen()
    assert found["_id"].to_list() == more["_id"].to_list()
    assert found.columns == ["_id", "@timestamp", "_version"]
    changes = found.with_columns(pl.lit("9").alias("anomaly.shadow.version"), pl.lit(0.5).alias("anomaly.shadow.score"))
    assert store.update_events(changes) == 6
    assert store.update_events(changes) == 0
    again = unseen().with_columns(pl.lit("9").alias("anomaly.previous.version"))
    assert store.update_events(again) == 6
    store.refresh()
    after: Any = read(store, columns=["anomaly.shadow.version", "anomaly.shadow.score", "anomaly.previous.version"])
    assert after.rows() == [("9", 0.5, "9")] * 6
    assert store.current_versions(more.select("_id", "@timestamp").clear()).height == 0
