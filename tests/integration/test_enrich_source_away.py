"""The consumer while the source cannot commit, nor tell what is committed: brokers that are away for longer than one
commit is tried. Faults of other parts are in test_enrich_embedded.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from oddlog.connectors.files import FileSource
from oddlog.connectors.sqlite import SqliteStore
from oddlog.connectors.store import EventQuery
from oddlog.errors import SourceError
from oddlog.events.record import Partition
from oddlog.scoring.local import LocalScorer
from oddlog.scoring.shelf import ModelShelf
from oddlog.settings import EnrichSettings, SourceSettings, StoreSettings
from oddlog.simulation.traffic import simulate
from serving.enrich import Enricher

LINES = [line.encode() for line in simulate(seed=5, lines=600, days=1).lines]


class BrokersAway(FileSource):
    """Answers no question about committed positions for a while, from the second commit on."""

    commits = 0
    silent = 0

    def commit(self, next_offsets: Mapping[Partition, int]) -> None:
        self.commits += 1
        if self.commits == 2:
            self.silent = 4
        self._ask()
        super().commit(next_offsets)

    def committed(self, partition: Partition) -> int | None:
        self._ask()
        return super().committed(partition)

    def rewind(self) -> None:
        self._ask()
        super().rewind()

    def _ask(self) -> None:
        if self.silent:
            self.silent -= 1
            raise SourceError("the brokers do not answer")


def test_brokers_that_are_away_for_longer_than_a_commit_is_tried_are_waited_for(tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    log.write_bytes(b"".join(line + b"\n" for line in LINES))
    store = SqliteStore(StoreSettings(url=f"sqlite:///{tmp_path / 'events.sqlite'}"))
    store.setup()
    source = BrokersAway(SourceSettings(url=f"file://{log}", state_dir=tmp_path / "places"))
    try:
        settings = EnrichSettings(batch_rows=100, batch_seconds=0.02, retry_seconds=0.01)
        Enricher(settings, source, store, LocalScorer(ModelShelf("oddlog"))).run(until_idle=0.2)
    finally:
        source.close()
    assert source.commits > 2
    assert store.count_events(EventQuery()) == len(LINES)
    store.close()
