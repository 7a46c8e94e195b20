"""`oddlog enrich`, run as a program, that tells its test where it stands and can be held there to be killed.

    python enrich_that_can_be_stopped.py POINT MARKER ARGUMENTS...

POINT `between-write-and-commit`: after some acknowledged bulks it writes MARKER and never commits.
POINT `after-N-steps`: it writes MARKER when it has polled, written or committed N times since its first acknowledged
bulk, and goes on.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Mapping
from pathlib import Path

import polars as pl

from oddlog.connectors.elastic import ElasticStore
from oddlog.connectors.kafka import KafkaSource
from oddlog.connectors.source import Poll
from oddlog.connectors.store import WriteOutcome
from oddlog.events.record import Partition

HELD = "between-write-and-commit"
BULKS_BEFORE_HOLDING = 2


def hold(point: str, marker: Path) -> None:
    """Put the kill point into store and source."""
    acknowledged = 0
    held = point == HELD
    steps_left = 0 if held else int(point.removeprefix("after-").removesuffix("-steps"))
    write_events, poll, commit = ElasticStore.write_events, KafkaSource.poll, KafkaSource.commit

    def step() -> None:
        nonlocal steps_left
        if acknowledged and not held:
            steps_left -= 1
            if steps_left < 0:
                marker.touch()

    def counted_write(store: ElasticStore, events: pl.DataFrame) -> WriteOutcome:
        nonlocal acknowledged
        outcome = write_events(store, events)
        if events.height and not outcome.retry:
            acknowledged += 1
        step()
        return outcome

    def counted_poll(source: KafkaSource, max_records: int, timeout: float) -> Poll:
        found = poll(source, max_records, timeout)
        step()
        return found

    def held_commit(source: KafkaSource, next_offsets: Mapping[Partition, int]) -> None:
        if held and acknowledged >= BULKS_BEFORE_HOLDING:
            marker.touch()
            while True:
                signal.pause()  # only SIGKILL ends this: a stop signal must not commit what is to stay uncommitted
        commit(source, next_offsets)
        step()

    ElasticStore.write_events = counted_write  # type: ignore[method-assign]
    KafkaSource.poll = counted_poll  # type: ignore[method-assign]
    KafkaSource.commit = held_commit  # type: ignore[method-assign]


if __name__ == "__main__":
    chosen_point, chosen_marker, *arguments = sys.argv[1:]
    hold(chosen_point, Path(chosen_marker))
    sys.argv = ["oddlog", *arguments]

    from cli.main import main

    main()
