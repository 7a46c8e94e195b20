"""The consumer on the embedded column while batches are written and committed: what the store refuses or cannot take
now, and several batches in flight. Faults of the scorer, and restarts, are in test_enrich_embedded.py.

The faults are thin wrappers around the real parts: they refuse, drop or delay a call, and imitate nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from oddlog.connectors.files import FileSource
from oddlog.connectors.source import Poll
from oddlog.connectors.sqlite import SqliteStore
from oddlog.connectors.store import EventQuery, WriteOutcome
from oddlog.errors import SourceError, StoreRefused
from oddlog.events.record import Partition
from oddlog.settings import SourceSettings, StoreSettings
from serving.enrich import Enricher
from tests.embedded_site import FEATURES, LINES, UNTIL_IDLE, Site


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


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


def test_a_source_is_not_taken_for_empty_while_the_store_is_waited_for(site: Site) -> None:
    class OnceEmpty(FileSource):
        polls = 0

        def poll(self, max_records: int, timeout: float) -> Poll:
            self.polls += 1
            return Poll() if self.polls == 3 else super().poll(max_records, timeout)

    class Slow(SqliteStore):
        def write_events(self, events: pl.DataFrame) -> WriteOutcome:
            threading.Event().wait(1.5 * UNTIL_IDLE)
            return super().write_events(events)

    site.arrive(LINES[:400])
    counts = site.consume(
        source=OnceEmpty(SourceSettings(url=f"file://{site.log}", state_dir=site.folder / "p")),
        store=Slow(StoreSettings(url=f"sqlite:///{site.folder / 'events.sqlite'}")),
    )
    assert counts.records == 400


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
