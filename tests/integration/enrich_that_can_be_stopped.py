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

point, marker, *arguments = sys.argv[1:]
acknowledged = 0

write_events, commit = ElasticStore.write_events, KafkaSource.commit


def counted_write(store: ElasticStore, events: pl.DataFrame) -> WriteOutcome:
    global acknowledged  # noqa: PLW0603  one consumer a process
    outcome = write_events(store, events)
    if events.height and not outcome.retry:
        acknowledged += 1
        if point == "anywhere":
            Path(marker).touch()
    return outcome


def held_commit(source: KafkaSource, next_offsets: Mapping[Partition, int]) -> None:
    if point == "between-write-and-commit" and acknowledged >= 2:
        Path(marker).touch()
        while True:
            signal.pause()  # only SIGKILL ends this: a stop signal must not commit what the test wants uncommitted
    commit(source, next_offsets)


ElasticStore.write_events = counted_write  # type: ignore[method-assign]
KafkaSource.commit = held_commit  # type: ignore[method-assign]
sys.argv = ["oddlog", *arguments]

from cli.main import main  # noqa: E402  after the patches, as a consumer's own imports would be

main()
