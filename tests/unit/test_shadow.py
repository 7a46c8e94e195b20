"""The challenger's lane, driven as the consumer drives it: whatever the order of reading, warming, losing and getting
partitions back, the features it gives are those of one pass over the whole log.

The file, the store of snapshots and the models are real; no thread runs.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from oddlog.connectors.files import FileSource
from oddlog.connectors.sqlite import SqliteStore
from oddlog.errors import ScorerUnavailable
from oddlog.events.logfile import records_from_lines
from oddlog.events.parse import parse
from oddlog.events.record import Partition
from oddlog.features.compute import FeatureComputer
from oddlog.scoring.local import LocalScorer
from oddlog.scoring.model import Model
from oddlog.scoring.shelf import ModelShelf
from oddlog.settings import EnrichSettings, SourceSettings, StoreSettings
from oddlog.simulation.traffic import simulate
from serving import snapshots
from serving.consumer_metrics import ConsumerObserver
from serving.lane import Lane, in_sample
from serving.shadow import Shadow
from serving.snapshots import write_snapshot
from tests.small_model import small_model

LINES = [line.encode() for line in simulate(seed=4, lines=1_200, days=2).lines]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:
    folder = tmp_path_factory.mktemp("models")
    return {"1": small_model(folder / "1", LINES[:700]), "2": small_model(folder / "2", LINES[400:])}


class Consumer:
    """Reads a whole log file in parts, and drives the shadow of `2` beside champion `1`."""

    def __init__(self, folder: Path, models: dict[str, Model], share: float) -> None:
        log = folder / "access.log"
        log.write_bytes(b"".join(line + b"\n" for line in LINES))
        shelf = ModelShelf("oddlog")
        for version, model in models.items():
            shelf.hold(version, model)
        shelf.set_champion("1")
        self.shelf, self.share = shelf, share
        self.store = SqliteStore(StoreSettings(url=f"sqlite:///{folder / 'events.sqlite'}"))
        self.source = FileSource(SourceSettings(url=f"file://{log}", state_dir=folder / "places"))
        (self.partition,) = self.source.poll(1, 1.0).assigned
        self.source.start(self.partition)
        self.stands: dict[Partition, int] = {self.partition: 0}
        self.shadow = self.fresh()
        self.found: set[int] = set()
        features = FeatureComputer(models["2"].baseline).compute(parse(records_from_lines(LINES)).events)
        begins = np.cumsum([0, *(len(line) + 1 for line in LINES)])[:-1]
        self.expected = dict(zip(begins.tolist(), features, strict=True))
        """By offset."""

    def fresh(self) -> Shadow:
        settings = EnrichSettings(shadow_share=self.share)
        return Shadow(settings, self.source, self.store, LocalScorer(self.shelf), ConsumerObserver())

    def follow(self) -> None:
        self.shadow.look()
        self.shadow.follow("1", self.stands)

    def read(self, rows: int) -> None:
        records = self.source.poll(rows, 0.0).records
        events = parse(records).events
        was_warm = self.shadow.version == "2"
        given = self.shadow.compute(events)
        self.stands.update(records.next_offset)
        sampled = events.filter([in_sample(client, self.share) for client in events["source.address"]])
        if given is None:
            assert not was_warm or not sampled.height or self.shadow.version is None, "left out"
            return
        assert given.keys["_id"].to_list() == sampled["_id"].to_list()
        offsets = sampled["oddlog.position.offset"].to_list()
        np.testing.assert_allclose(given.features, [self.expected[offset] for offset in offsets], rtol=1e-5)
        self.found.update(offsets)

    def commit(self) -> None:
        self.source.commit(self.stands)

    def snapshot(self) -> None:
        self.commit()
        for snapshot in self.shadow.snapshots(self.stands):
            write_snapshot(self.store, snapshot)

    def rewind(self) -> None:
        """The commit was refused: memory is thrown away."""
        self.source.rewind()
        self.stands[self.partition] = self.source.committed(self.partition) or 0
        self.shadow.forget(self.partition)

    def restart(self) -> None:
        self.rewind()
        self.shadow = self.fresh()

    def until_warm(self) -> None:
        for _ in range(1_000):
            self.follow()
            if self.shadow.version == "2":
                return
        pytest.fail("the lane never got warm")

    def close(self) -> None:
        self.shadow.close()
        self.source.close()
        self.store.close()


STEPS = st.one_of(
    st.tuples(st.just("read"), st.integers(1, 300)),
    *(st.tuples(st.just(name)) for name in ("follow", "commit", "snapshot", "rewind", "restart", "until_warm")),
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEPS, min_size=4, max_size=25), share=st.sampled_from([0.3, 1.0]))
def test_features_are_those_of_one_pass(models: dict[str, Model], steps: list[Any], share: float) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr("oddlog.connectors.files.REPLAY_RECORDS", 64)  # so that a replay has many parts
        patch.setattr("serving.shadow.WARM_SECONDS", 0.001)
        consumer = Consumer(Path(folder), models, share)
        consumer.shelf.set_challenger("2")
        try:
            for name, *arguments in steps:
                getattr(consumer, name)(*arguments)
            consumer.until_warm()
            consumer.read(10_000)
            assert not consumer.source.lag()[consumer.partition]
        finally:
            consumer.close()


@pytest.fixture
def consumer(tmp_path: Path, models: dict[str, Model]) -> Any:
    one = Consumer(tmp_path, models, share=1.0)
    yield one
    one.close()


def test_without_a_challenger_there_is_no_lane(consumer: Consumer) -> None:
    consumer.follow()
    consumer.read(100)
    assert consumer.shadow.version is None
    assert not consumer.found


def test_a_lane_that_is_warm_becomes_the_champions(consumer: Consumer) -> None:
    consumer.shelf.set_challenger("2")
    consumer.read(500)
    consumer.until_warm()
    assert consumer.shadow.take("1", consumer.stands) is None
    lane = consumer.shadow.take("2", consumer.stands)
    assert isinstance(lane, Lane)
    records = consumer.source.poll(300, 0.0).records
    events = parse(records).events
    expected = np.stack([consumer.expected[offset] for offset in events["oddlog.position.offset"]])
    np.testing.assert_allclose(lane.compute(events), expected, rtol=1e-5)
    assert consumer.shadow.version is None


def test_a_snapshot_of_many_chunks_is_restored_with_the_source_alive(
    consumer: Consumer, models: dict[str, Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "CHUNK_BYTES", 2_000)
    lane = Lane("2", models["2"].baseline)
    records = consumer.source.poll(500, 0.0).records
    lane.compute(parse(records).events)
    offset = records.next_offset[consumer.partition]
    write_snapshot(consumer.store, lane.snapshot(consumer.partition, offset))
    chunks = sum("data" in one for one in consumer.store.list_documents("state"))
    assert chunks > 2
    told: list[int] = []
    monkeypatch.setattr(consumer.source, "keep_alive", lambda: told.append(1))
    for seconds, times in ((3_600.0, 0), (0.0, chunks)):  # not for every chunk of a quick store
        monkeypatch.setattr(snapshots, "ALIVE_SECONDS", seconds)
        restored = Lane("2", models["2"].baseline)
        assert restored.restore(consumer.source, consumer.store, consumer.partition, offset) == 0
        assert len(told) == times
    rest = parse(consumer.source.poll(300, 0.0).records).events
    expected = np.stack([consumer.expected[offset] for offset in rest["oddlog.position.offset"]])
    np.testing.assert_allclose(restored.compute(rest), expected, rtol=1e-5)


def test_a_lane_of_a_sample_never_becomes_the_champions(tmp_path: Path, models: dict[str, Model]) -> None:
    consumer = Consumer(tmp_path, models, share=0.5)
    consumer.shelf.set_challenger("2")
    consumer.until_warm()
    assert consumer.shadow.take("2", consumer.stands) is None
    consumer.close()


def test_a_challenger_that_is_gone_for_one_look_keeps_its_lane(consumer: Consumer) -> None:
    consumer.shelf.set_challenger("2")
    consumer.until_warm()
    consumer.shelf.set_challenger(None)
    consumer.follow()
    assert consumer.shadow.version == "2"
    consumer.follow()
    assert consumer.shadow.version is None


def test_a_scorer_that_is_away_changes_nothing(consumer: Consumer, monkeypatch: pytest.MonkeyPatch) -> None:
    consumer.shelf.set_challenger("2")
    consumer.until_warm()

    def away(self: LocalScorer) -> str | None:
        raise ScorerUnavailable("taken away by the test")

    monkeypatch.setattr(LocalScorer, "challenger", away)
    for _ in range(3):
        consumer.follow()
    assert consumer.shadow.version == "2"


def test_a_lane_that_fails_is_given_up_and_fails_nobody(
    consumer: Consumer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    consumer.shelf.set_challenger("2")
    consumer.until_warm()

    def broken(self: Lane, events: pl.DataFrame) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr(Lane, "compute", broken)
    consumer.read(100)
    assert consumer.shadow.version is None
    monkeypatch.undo()
    consumer.follow()
    consumer.read(100)
    assert not consumer.found
    assert sum("fails" in record.message for record in caplog.records) == 1
