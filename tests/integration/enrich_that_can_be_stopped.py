"""`oddlog enrich`, run as a program, that tells its test where it stands and can be held there to be killed.

    python enrich_that_can_be_stopped.py POINT MARKER ARGUMENTS...

POINT `between-write-and-commit`: after some acknowledged bulks it writes MARKER and never commits.
POINT `anywhere`: it writes MARKER after the first acknowledged bulk and goes on.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Mapping
from pathlib import Path

import polars as pl

from oddlog.connectors.elastic import ElasticStore
from oddlog.connectors.kafka import KafkaSource
from oddlog.connectors.store import WriteOutcome
from oddlog.events.record import Partition

BULKS_BEFORE_HOLDING = 2


def hold(point: str, marker: Path) -> None:
    """Put the kill point into store and source."""
    acknowledged = 0
    write_events, commit = ElasticStore.write_events, KafkaSource.commit

    def counted_write(store: ElasticStore, events: pl.DataFrame) -> WriteOutcome:
        nonlocal acknowledged
        outcome = write_events(store, events)
        if events.height and not outcome.retry:
            acknowledged += 1
            if point == "anywhere":
                marker.touch()
        return outcome

    def held_commit(source: KafkaSource, next_offsets: Mapping[Partition, int]) -> None:
        if point == "between-write-and-commit" and acknowledged >= BULKS_BEFORE_HOLDING:
            marker.touch()
            while True:
                signal.pause()  # only SIGKILL ends this: a stop signal must not commit what is to stay uncommitted
        commit(source, next_offsets)

    ElasticStore.write_events = counted_write  # type: ignore[method-assign]
    KafkaSource.commit = held_commit  # type: ignore[method-assign]


if __name__ == "__main__":
    chosen_point, chosen_marker, *arguments = sys.argv[1:]
    hold(chosen_point, Path(chosen_marker))
    sys.argv = ["oddlog", *arguments]

    from cli.main import main

    main()
