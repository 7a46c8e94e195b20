"""The consumer on the embedded column (a file, SQLite, a model in this process), with faults put between the ports.

The faults are thin wrappers around the real parts: they refuse, drop or delay a call, and imitate nothing.
"""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest

from oddlog.connectors.files import FileSource
from oddlog.connectors.source import Poll
from oddlog.connectors.sqlite import SqliteStore
from oddlog.connectors.store import EventQuery, WriteOutcome
from oddlog.errors import ScorerUnavailable, SourceEpochError, SourceError, StoreRefused
from oddlog.events.logfile import records_from_lines
from oddlog.events.parse import parse
from oddlog.events.record import Partition
from oddlog.events.schema import FEATURE_PREFIX, POSITION_ORDER
from oddlog.features.compute import FeatureComputer
from oddlog.features.declaration import FEATURE_NAMES
from oddlog.scoring.local import LocalScorer
from oddlog.scoring.scorer import Scores
from oddlog.scoring.shelf import ModelShelf
from oddlog.settings import EnrichSettings, SourceSettings, StoreSettings
from oddlog.simulation.traffic import simulate
from serving.backfill import backfill
from serving.enrich import Counts, Enricher
from tests.small_model import small_model

LINES = [line.encode() for line in simulate(seed=3, lines=3_000, days=2).lines]
FEATURES = [FEATURE_PREFIX + name for name in FEATURE_NAMES]


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
            return enricher.run(until_idle=0.1)
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


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_without_a_champion_events_are_pending_and_committed(site: Site) -> None:
    site.arrive([*LINES[:500], b"not a log line"])
    counts = site.consume()
    assert (counts.records, counts.pending, counts.scored, counts.dead_letters) == (501, 500, 0, 1)
    assert site.consume().records == 0
    assert site.store.count_events(EventQuery(status="pending")) == 500
    assert site.store.read_dead()["original"].to_list() == [b"not a log line"]


def test_a_champion_that_comes_later_is_given_what_came_before(site: Site) -> None:
    site.arrive(LINES[:1_000])
    site.consume()
    site.promote("1", LINES[:1_000])
    site.arrive(LINES[1_000:2_000])
    counts = site.consume()
    assert (counts.scored, counts.replayed) == (1_000, 1_000)
    live = site.events(status="scored")
    np.testing.assert_allclose(live.select(FEATURES).to_numpy(), site.expected("1")[1_000:], rtol=1e-5)


def test_backfill_gives_what_a_live_consumer_would_have_given(site: Site) -> None:
    site.arrive(LINES[:2_000])
    site.consume()
    site.promote("1", LINES[:1_000])
    result = backfill(site.store, site.scorer, lead_in=dt.timedelta(days=14), batch_rows=300)
    assert (result.due, result.updated, result.left_alone) == (2_000, 2_000, 0)
    events = site.events()
    np.testing.assert_allclose(events.select(FEATURES).to_numpy(), site.expected("1"), rtol=1e-5)
    assert set(events["anomaly.status"]) == {"scored"}
    assert backfill(site.store, site.scorer, lead_in=dt.timedelta(days=14)).due == 0


def test_restarts_change_no_feature(site: Site) -> None:
    site.promote("1", LINES[:1_000])
    for start in range(0, 2_000, 250):
        site.arrive(LINES[start : start + 250])
        site.consume()
    np.testing.assert_allclose(site.events().select(FEATURES).to_numpy(), site.expected("1"), rtol=1e-5)


def test_events_of_a_scorer_that_was_away_are_scored_when_it_is_back(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.enrich.SCORER_REST_SECONDS", 0.0)
    site.promote("1", LINES[:1_000])
    site.arrive(LINES[:600])

    class LosesScorer(FileSource):
        polls = 0

        def poll(self, max_records: int, timeout: float) -> Any:
            self.polls += 1
            site.scorer.away = 2 <= self.polls < 5
            return super().poll(max_records, timeout)

    counts = site.consume(source=LosesScorer(SourceSettings(url=f"file://{site.log}", state_dir=site.folder / "p")))
    assert counts.pending > 0
    assert counts.settled == counts.pending
    events = site.events()
    assert set(events["anomaly.status"]) == {"scored"}
    features = events.select(FEATURES).to_numpy()
    np.testing.assert_allclose(features, site.expected("1"), rtol=1e-5)
    again = site.shelf.get("1").model.score(features)
    np.testing.assert_allclose(events["anomaly.score"].to_numpy(), again, rtol=1e-4, atol=1e-5)


def test_a_promotion_changes_lanes_between_batches_and_mixes_nothing(site: Site) -> None:
    site.promote("1", LINES[:1_000])
    site.arrive(LINES)

    class Promotes(SqliteStore):
        written = 0

        def write_events(self, events: pl.DataFrame) -> WriteOutcome:
            outcome = super().write_events(events)
            self.written += events.height
            if self.written >= 1_000 and site.shelf.versions() == ["1"]:
                site.promote("2", LINES[1_000:2_500])
            return outcome

    site.consume(store=Promotes(StoreSettings(url=f"sqlite:///{site.folder / 'events.sqlite'}")))
    events = site.events()
    versions = events["anomaly.model.version"].to_list()
    assert versions == sorted(versions)
    assert set(versions) == {"1", "2"}
    for version in ("1", "2"):
        mine = np.array([one == version for one in versions])
        held = site.shelf.get(version).model
        assert set(events.filter(mine)["anomaly.baseline"]) == {held.baseline.digest}
        features = events.filter(mine).select(FEATURES).to_numpy()
        np.testing.assert_allclose(features, site.expected(version)[mine], rtol=1e-5)
        np.testing.assert_allclose(events.filter(mine)["anomaly.score"], held.score(features), rtol=1e-4, atol=1e-5)


def test_what_the_store_refuses_for_good_is_a_dead_letter_with_its_bytes(site: Site) -> None:
    class Refuses(SqliteStore):
        def write_events(self, events: pl.DataFrame) -> WriteOutcome:
            row = 3 if events.height > 3 else None
            kept = events if row is None else events.with_row_index("row").filter(pl.col("row") != row).drop("row")
            outcome = super().write_events(kept)
            assert not outcome.rejected
            if row is not None:
                outcome.rejected[row] = "document_parsing_exception: failed to parse field"
            return outcome

    site.arrive(LINES[:200])
    counts = site.consume(store=Refuses(StoreSettings(url=f"sqlite:///{site.folder / 'events.sqlite'}")))
    dead = site.store.read_dead()
    assert counts.dead_letters == dead.height == 1
    assert dead["original"].to_list() == [LINES[3]]
    assert "document_parsing_exception" in dead["reason"].item()
    assert site.store.count_events(EventQuery()) == 199


def test_a_store_that_is_away_for_now_is_waited_for_with_the_source_alive(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Watched(FileSource):
        kept_alive = 0

        def keep_alive(self) -> None:
            self.kept_alive += 1
            super().keep_alive()

    class Busy(SqliteStore):
        """Takes half of what it is given, until the source has been kept alive three times."""

        def write_events(self, events: pl.DataFrame) -> WriteOutcome:
            if source.kept_alive >= 3:
                return super().write_events(events)
            half = events.height // 2
            outcome = super().write_events(events.head(half))
            outcome.retry.update(dict.fromkeys(range(half, events.height), "429"))
            return outcome

    monkeypatch.setattr("serving.enrich.ALIVE_SECONDS", 0.01)
    site.arrive(LINES[:200])
    source = Watched(SourceSettings(url=f"file://{site.log}", state_dir=site.folder / "p"))
    counts = site.consume(source=source, store=Busy(StoreSettings(url=f"sqlite:///{site.folder / 'events.sqlite'}")))
    assert counts.retries >= 1
    assert source.kept_alive >= 3
    assert site.store.count_events(EventQuery()) == 200


def test_a_stop_while_the_store_is_away_commits_nothing(site: Site) -> None:
    site.arrive(LINES[:200])
    source = site.source()

    class Never(SqliteStore):
        def write_events(self, events: pl.DataFrame) -> WriteOutcome:
            enricher.stop()
            return WriteOutcome(retry=dict.fromkeys(range(events.height), "connection lost"))

    never = Never(StoreSettings(url=f"sqlite:///{site.folder / 'events.sqlite'}"))
    enricher = Enricher(site.settings, source, never, site.scorer)
    counts = enricher.run()
    source.close()
    assert counts.records == 0
    assert site.consume().records == 200


def test_batches_in_flight_are_committed_in_order_whichever_is_stored_first(site: Site) -> None:
    second_is_stored = threading.Event()
    stored: list[int] = []
    committed: list[tuple[int, list[int]]] = []

    class FirstIsSlow(SqliteStore):
        def write_events(self, events: pl.DataFrame) -> WriteOutcome:
            first = int(events["oddlog.position.offset"].item(0))
            if first == 0:
                assert second_is_stored.wait(30)
            outcome = super().write_events(events)
            stored.append(first)
            if first != 0:
                second_is_stored.set()
            return outcome

    class Watched(FileSource):
        def commit(self, next_offsets: Mapping[Partition, int]) -> None:
            committed.append((*next_offsets.values(), list(stored)))
            super().commit(next_offsets)

    site.promote("1", LINES[:1_000])
    site.arrive(LINES[:1_000])
    counts = site.consume(
        source=Watched(SourceSettings(url=f"file://{site.log}", state_dir=site.folder / "p")),
        store=FirstIsSlow(StoreSettings(url=f"sqlite:///{site.folder / 'events.sqlite'}")),
    )
    assert counts.records == counts.scored == 1_000
    assert stored[0] != 0
    offsets = [offset for offset, _ in committed]
    assert offsets == sorted(offsets)
    assert 0 in committed[0][1], "the second batch was committed before the first was stored"
    np.testing.assert_array_equal(site.events().select(FEATURES).to_numpy(), site.expected("1"))


def test_what_is_in_flight_of_a_partition_that_was_given_back_is_not_committed(site: Site) -> None:
    """It comes to us again, from the committed offset: older commits would go back behind newer ones."""
    given_back = threading.Event()
    committed: list[int] = []

    class GivesBack(FileSource):
        polls = 0
        ours: list[Partition]

        def poll(self, max_records: int, timeout: float) -> Poll:
            self.polls += 1
            if self.polls != 4:  # the first assigns, then come two batches
                found = super().poll(max_records, timeout)
                self.ours = found.assigned or self.ours
                return found
            self.rewind()
            given_back.set()
            return Poll(assigned=self.ours, revoked=self.ours)

        def commit(self, next_offsets: Mapping[Partition, int]) -> None:
            committed.extend(next_offsets.values())
            super().commit(next_offsets)

    class Slow(SqliteStore):
        def write_events(self, events: pl.DataFrame) -> WriteOutcome:
            assert given_back.wait(30)
            return super().write_events(events)

    site.promote("1", LINES[:1_000])
    site.arrive(LINES[:1_000])
    counts = site.consume(
        source=GivesBack(SourceSettings(url=f"file://{site.log}", state_dir=site.folder / "p")),
        store=Slow(StoreSettings(url=f"sqlite:///{site.folder / 'events.sqlite'}")),
    )
    assert counts.records > 1_000, "nothing was in flight when the partition was given back"
    assert committed == sorted(committed)
    assert site.store.count_events(EventQuery()) == 1_000
    np.testing.assert_array_equal(site.events().select(FEATURES).to_numpy(), site.expected("1"))


def test_a_batch_that_ends_the_consumer_does_not_leave_it_waiting_for_another(site: Site) -> None:
    second_waits = threading.Event()

    class RefusesOneAndTakesNoOther(SqliteStore):
        def write_events(self, events: pl.DataFrame) -> WriteOutcome:
            if int(events["oddlog.position.offset"].item(0)) == 0:
                assert second_waits.wait(30)
                raise StoreRefused("the key is not valid any more")
            second_waits.set()
            return WriteOutcome(retry=dict.fromkeys(range(events.height), "429"))

    site.arrive(LINES[:1_000])
    with pytest.raises(StoreRefused, match="not valid"):
        site.consume(store=RefusesOneAndTakesNoOther(StoreSettings(url=f"sqlite:///{site.folder / 'events.sqlite'}")))
    assert site.consume().records == 1_000


def test_a_refused_commit_reads_again_and_doubles_nothing(site: Site) -> None:
    class LosesMembership(FileSource):
        refused = 0

        def commit(self, next_offsets: Mapping[Partition, int]) -> None:
            if self.refused < 2:
                self.refused += 1
                raise SourceError("the group has rebalanced")
            super().commit(next_offsets)

    site.promote("1", LINES[:1_000])
    site.arrive(LINES[:1_000])
    site.consume(source=LosesMembership(SourceSettings(url=f"file://{site.log}", state_dir=site.folder / "p")))
    events = site.events()
    assert events.height == 1_000
    np.testing.assert_allclose(events.select(FEATURES).to_numpy(), site.expected("1"), rtol=1e-5)


def test_a_restart_reads_a_snapshot_and_replays_only_what_came_after(site: Site) -> None:
    site.promote("1", LINES[:1_000])
    site.arrive(LINES[:1_500])
    site.consume()
    site.arrive(LINES[1_500:])
    counts = site.consume()
    assert (counts.scored, counts.replayed) == (1_500, 0)
    np.testing.assert_array_equal(site.events().select(FEATURES).to_numpy(), site.expected("1"))


def test_a_snapshot_that_is_not_whole_is_not_used(site: Site) -> None:
    site.promote("1", LINES[:1_000])
    site.arrive(LINES[:1_500])
    site.consume()
    broken = [one for one in site.store.list_documents("state") if "data" in one]
    assert broken
    for one in broken:
        site.store.put_document("state", one["_id"], {"data": "AAAA"})
    site.arrive(LINES[1_500:])
    assert site.consume().replayed == 1_500
    np.testing.assert_array_equal(site.events().select(FEATURES).to_numpy(), site.expected("1"))


def test_snapshots_taken_under_way_are_those_of_committed_boundaries(site: Site) -> None:
    site.settings = site.settings.model_copy(update={"snapshot_seconds": 0.001})
    site.promote("1", LINES[:1_000])
    site.arrive(LINES[:1_500])
    source = site.source()

    class DiesBeforeTheSixthCommit(Exception):
        pass

    class Dies(FileSource):
        commits = 0

        def commit(self, next_offsets: Mapping[Partition, int]) -> None:
            self.commits += 1
            if self.commits == 6:
                raise DiesBeforeTheSixthCommit
            super().commit(next_offsets)

    source.close()
    with pytest.raises(DiesBeforeTheSixthCommit):
        site.consume(source=Dies(SourceSettings(url=f"file://{site.log}", state_dir=site.folder / "places")))
    assert any("data" in one for one in site.store.list_documents("state"))
    site.arrive(LINES[1_500:])
    assert site.consume().replayed < 1_500
    np.testing.assert_array_equal(site.events().select(FEATURES).to_numpy(), site.expected("1"))


def test_a_source_made_anew_under_the_same_epoch_is_refused_by_name(site: Site) -> None:
    """Kafka deletes committed offsets with the topic: the store is the only one that remembers."""
    site.arrive(LINES[:300])
    site.consume()
    site.store.close()
    site.store = SqliteStore(StoreSettings(url=f"sqlite:///{site.folder / 'events.sqlite'}"))

    class Forgets(FileSource):
        """Other records under the positions of before, and no commit."""

        def poll(self, max_records: int, timeout: float) -> Any:
            poll = super().poll(max_records, timeout)
            poll.records.value = [LINES[-1]] * len(poll.records)
            return poll

    with pytest.raises(SourceEpochError, match="made anew") as caught:
        site.consume(source=Forgets(SourceSettings(url=f"file://{site.log}", state_dir=site.folder / "elsewhere")))
    assert "ODDLOG_SOURCE__EPOCH" in str(caught.value)
    again = site.consume(source=FileSource(SourceSettings(url=f"file://{site.log}", state_dir=site.folder / "third")))
    assert again.records == 300
    assert site.store.count_events(EventQuery()) == 300
