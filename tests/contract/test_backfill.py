"""Scoring of stored events, over every store: the pending by the champion, or a period anew by any version.

1. features and scores are those of one pass over each partition, however many partitions are worked on side by side;
2. a rescoring keeps the verdict that was there before it, and never its own;
3. one that was interrupted and is called again ends where an undisturbed one ends, and then changes nothing more.
"""

from __future__ import annotations

import datetime as dt
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from oddlog.connectors.sqlite import SqliteStore
from oddlog.connectors.store import EventQuery, Store
from oddlog.errors import ScorerUnavailable, UsageError
from oddlog.events.logfile import records_from_lines
from oddlog.events.parse import parse
from oddlog.events.schema import FEATURE_PREFIX, POSITION_ORDER
from oddlog.features.compute import FeatureComputer
from oddlog.features.declaration import FEATURE_NAMES
from oddlog.scoring.local import LocalScorer
from oddlog.scoring.model import Model
from oddlog.scoring.scorer import Scores
from oddlog.scoring.shelf import ModelShelf
from oddlog.settings import StoreSettings
from oddlog.simulation.traffic import simulate
from serving.backfill import BackfillResult, backfill, rescore
from serving.documents import pending_events, scored_events
from serving.lane import Lane
from tests.small_model import small_model

LINES = [line.encode() for line in simulate(seed=8, lines=900, days=2).lines]
FEATURES = [FEATURE_PREFIX + name for name in FEATURE_NAMES]
COLUMNS = ["_id", "@timestamp", *POSITION_ORDER, "anomaly.status", "anomaly.score", "anomaly.severity",
           "anomaly.is_anomaly", "anomaly.model.version", "anomaly.baseline", "anomaly.previous.version",
           "anomaly.previous.score", *FEATURES]  # fmt: skip
LEAD_IN = dt.timedelta(days=14)
PARTITIONS = 3


class Interrupted(LocalScorer):
    """Is away at some of the calls, counted over all threads."""

    def __init__(self, shelf: ModelShelf, away: set[int] | None = None) -> None:
        super().__init__(shelf)
        self.away = away or set()
        self.calls = 0
        self._turn = threading.Lock()

    def score(self, features: npt.NDArray[np.float32], names: list[str], *, version: str | None = None) -> Scores:
        with self._turn:
            self.calls += 1
            if self.calls in self.away:
                raise ScorerUnavailable("taken away by the test")
        return super().score(features, names, version=version)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> ModelShelf:
    folder = tmp_path_factory.mktemp("models")
    shelf = ModelShelf("oddlog")
    for version, lines in (("1", LINES[:500]), ("2", LINES[300:]), ("3", LINES[::2])):
        shelf.hold(version, small_model(folder / version, lines))
    shelf.set_champion("1")
    return shelf


@pytest.fixture(scope="module")
def events() -> pl.DataFrame:
    """The lines over three partitions, each client in one."""
    events = parse(records_from_lines(LINES)).events
    number = [hash_of(client) % PARTITIONS for client in events["source.address"]]
    epoch, topic = events["oddlog.position.epoch"][0], events["oddlog.position.topic"][0]
    return events.with_columns(
        pl.Series("oddlog.position.partition", number, dtype=pl.Int32),
        pl.concat_str(
            pl.lit(f"{epoch}-{topic}-"), pl.Series(number).cast(pl.String), pl.lit("-"), "oddlog.position.offset"
        ).alias("_id"),
    )


def hash_of(client: str) -> int:
    return sum(client.encode())


def fill(store: Store, shelf: ModelShelf, events: pl.DataFrame, *, pending: slice = slice(600, 700)) -> None:
    """The events as version 1 scored them, but for some that are pending."""
    lane = Lane("1", shelf.get("1").model.baseline)
    features = lane.compute(events)
    scored = scored_events(events, features, lane.names, LocalScorer(shelf).score(features, lane.names, version="1"))
    waiting = events[list(range(*pending.indices(events.height)))]
    assert not store.write_events(pending_events(waiting, None, None)).retry
    assert not store.write_events(scored.join(waiting, on="_id", how="anti")).retry
    store.refresh()


def read(store: Store, **query: Any) -> pl.DataFrame:
    store.refresh()
    return pl.concat(store.read_events(EventQuery(**query), columns=COLUMNS, order="position", with_version=True))


def expected(shelf: ModelShelf, events: pl.DataFrame, version: str) -> tuple[Any, Any]:
    """Features and scores of one pass, in position order."""
    model: Model = shelf.get(version).model
    ordered = events.sort(POSITION_ORDER)
    features = FeatureComputer(model.baseline).compute(ordered)
    return features, model.score(features)


def scored_by(found: pl.DataFrame, shelf: ModelShelf, events: pl.DataFrame, version: str) -> None:
    features, scores = expected(shelf, events, version)
    assert found["_id"].to_list() == events.sort(POSITION_ORDER)["_id"].to_list()
    assert set(found["anomaly.status"]) == {"scored"}
    assert set(found["anomaly.model.version"]) == {version}
    assert set(found["anomaly.baseline"]) == {shelf.get(version).model.baseline.digest}
    np.testing.assert_allclose(found.select(FEATURES).to_numpy(), features, rtol=1e-5)
    np.testing.assert_allclose(found["anomaly.score"], scores, rtol=1e-4, atol=1e-5)


def test_pending_events_of_all_partitions_are_scored_side_by_side(
    store: Store, shelf: ModelShelf, events: pl.DataFrame
) -> None:
    fill(store, shelf, events, pending=slice(0, 900))
    told: list[tuple[int, int]] = []
    scorer = LocalScorer(shelf)

    def progress(result: BackfillResult) -> None:
        told.append((result.updated, result.due))

    result = backfill(store, scorer, lead_in=LEAD_IN, workers=3, batch_rows=100, progress=progress)
    assert (result.due, result.updated, result.left_alone, result.read) == (900, 900, 0, 900)
    assert told == sorted(told)
    assert told[-1] == (900, 900)
    found = read(store)
    scored_by(found, shelf, events, "1")
    assert found["anomaly.previous.version"].null_count() == found.height
    assert backfill(store, scorer, lead_in=LEAD_IN).due == 0


def test_a_rescoring_keeps_what_was_there(store: Store, shelf: ModelShelf, events: pl.DataFrame) -> None:
    fill(store, shelf, events)
    before = read(store)
    result = rescore(store, LocalScorer(shelf), "2", lead_in=LEAD_IN, batch_rows=150)
    assert (result.version, result.due, result.updated) == ("2", 900, 900)
    found = read(store)
    scored_by(found, shelf, events, "2")
    assert found["anomaly.previous.version"].to_list() == before["anomaly.model.version"].to_list()
    assert found["anomaly.previous.score"].to_list() == before["anomaly.score"].to_list()
    assert before["anomaly.status"].to_list().count("pending") == found["anomaly.previous.score"].null_count() == 100


def test_a_second_call_changes_nothing(store: Store, shelf: ModelShelf, events: pl.DataFrame) -> None:
    fill(store, shelf, events)
    scorer = Interrupted(shelf)
    rescore(store, scorer, "2", lead_in=LEAD_IN)
    before, calls = read(store), scorer.calls
    result = rescore(store, scorer, "2", lead_in=LEAD_IN)
    assert (result.due, result.updated, result.left_alone) == (0, 0, 0)
    assert scorer.calls == calls
    assert read(store).equals(before), "not even a document's version"


def test_the_way_back_and_on_keeps_the_last_one_before(store: Store, shelf: ModelShelf, events: pl.DataFrame) -> None:
    fill(store, shelf, events)
    for version, previous in (("2", "1"), ("3", "2"), ("2", "3")):
        before = read(store)
        rescore(store, LocalScorer(shelf), version, lead_in=LEAD_IN)
        found = read(store)
        scored_by(found, shelf, events, version)
        assert set(found["anomaly.previous.version"].drop_nulls()) == {previous}
        assert found["anomaly.previous.score"].to_list() == before["anomaly.score"].to_list()


def test_only_the_period_changes(store: Store, shelf: ModelShelf, events: pl.DataFrame) -> None:
    fill(store, shelf, events, pending=slice(0, 0))
    times = events["@timestamp"].sort()
    since, until = times[300], times[600]
    due = events.filter(pl.col("@timestamp").is_between(since, until, closed="left"))
    before = read(store)
    result = rescore(store, LocalScorer(shelf), "2", lead_in=LEAD_IN, since=since, until=until, batch_rows=77)
    assert result.due == result.updated == due.height
    found = read(store)
    within = found["_id"].is_in(due["_id"].to_list()).to_numpy()
    assert found.filter(~within).equals(before.filter(~within))
    assert set(found.filter(within)["anomaly.model.version"]) == {"2"}
    features, _ = expected(shelf, events, "2")
    np.testing.assert_allclose(found.filter(within).select(FEATURES).to_numpy(), features[within], rtol=1e-5)


def test_an_unknown_version_is_refused_with_those_that_there_are(store: Store, shelf: ModelShelf) -> None:
    with pytest.raises(UsageError, match="'99'") as caught:
        rescore(store, LocalScorer(shelf), "99", lead_in=LEAD_IN)
    for version in ("1", "2", "3"):
        assert version in (caught.value.expected or "")


def test_one_that_fails_stops_the_others_and_tells_where(store: Store, shelf: ModelShelf, events: pl.DataFrame) -> None:
    fill(store, shelf, events)
    with pytest.raises(ScorerUnavailable, match=r"by the test \(at partition .*-\d; [\d,]+ of 900") as caught:
        rescore(store, Interrupted(shelf, {4}), "2", lead_in=LEAD_IN, workers=3, batch_rows=20)
    done = read(store).filter(pl.col("anomaly.model.version") == "2")
    assert 0 < done.height < 900
    assert f"; {done.height:,} of 900" in caught.value.found
    assert not [one for one in threading.enumerate() if one.name.startswith("backfill")]
    rescore(store, LocalScorer(shelf), "2", lead_in=LEAD_IN)
    found = read(store)
    scored_by(found, shelf, events, "2")
    assert set(found["anomaly.previous.version"].drop_nulls()) == {"1"}


def test_what_changes_meanwhile_is_left_alone(
    store: Store, connect: Callable[[], Store], shelf: ModelShelf, events: pl.DataFrame
) -> None:
    fill(store, shelf, events)
    other = connect()

    class Meddles(LocalScorer):
        done = False

        def score(self, features: Any, names: list[str], *, version: str | None = None) -> Scores:
            if not self.done:
                self.done = True
                some = read(other).head(5).select("_id", "@timestamp", "_version")
                assert other.update_events(some.with_columns(pl.lit("7").alias("anomaly.shadow.version"))) == 5
            return super().score(features, names, version=version)

    result = rescore(store, Meddles(shelf), "2", lead_in=LEAD_IN, workers=1, batch_rows=1_000)
    assert (result.updated, result.left_alone) == (895, 5)
    assert rescore(store, LocalScorer(shelf), "2", lead_in=LEAD_IN).updated == 5
    scored_by(read(store), shelf, events, "2")


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    workers=st.integers(1, 4),
    batch_rows=st.integers(30, 400),
    away=st.sets(st.integers(1, 40), max_size=8),
    pending=st.integers(0, 900),
)
def test_interrupted_again_and_again_it_ends_where_an_undisturbed_one_ends(
    shelf: ModelShelf, events: pl.DataFrame, workers: int, batch_rows: int, away: set[int], pending: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = SqliteStore(StoreSettings(url=f"sqlite:///{Path(folder) / 'events.sqlite'}"))
        fill(store, shelf, events, pending=slice(pending, pending + 150))
        before = read(store)
        scorer = Interrupted(shelf, away)
        for _ in range(len(away) + 1):
            try:
                rescore(store, scorer, "2", lead_in=LEAD_IN, workers=workers, batch_rows=batch_rows)
                break
            except ScorerUnavailable:
                continue
        found = read(store)
        scored_by(found, shelf, events, "2")
        assert found["anomaly.previous.version"].to_list() == before["anomaly.model.version"].to_list()
        assert found["anomaly.previous.score"].to_list() == before["anomaly.score"].to_list()
        store.close()
