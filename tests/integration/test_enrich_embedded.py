"""The consumer on the embedded column (a file, SQLite, a model in this process): champions that come and go, a scorer
that is away, restarts. What happens while a batch is written is in test_enrich_written.py.

The faults are thin wrappers around the real parts: they refuse, drop or delay a call, and imitate nothing.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from oddlog.connectors.files import FileSource
from oddlog.connectors.sqlite import SqliteStore
from oddlog.connectors.store import EventQuery, WriteOutcome
from oddlog.errors import SourceEpochError
from oddlog.events.record import Partition
from oddlog.settings import SourceSettings, StoreSettings
from serving.backfill import backfill
from tests.embedded_site import FEATURES, LINES, Site


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
