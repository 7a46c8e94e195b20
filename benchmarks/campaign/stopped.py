"""`oddlog enrich`, run as a program, that holds still for ever at a stated point, where it is then killed.

    python -m benchmarks.campaign.stopped POINT MARKER ARGUMENTS...

It writes MARKER when it is there. The points are calls of the ports, so that they stay where they are however the
consumer is built inside.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from oddlog.connectors.elastic import ElasticStore
from oddlog.connectors.kafka import KafkaSource
from oddlog.connectors.store import WriteOutcome
from oddlog.events.record import Partition, Records

point, marker, *arguments = sys.argv[1:]
written = threading.Event()

write_events, commit, replay = ElasticStore.write_events, KafkaSource.commit, KafkaSource.replay


def hold() -> None:
    """Never returns: only SIGKILL ends this, for a signal to stop would let the consumer end in good order."""
    Path(marker).touch()
    while True:
        threading.Event().wait()


def noted_write(store: ElasticStore, events: pl.DataFrame) -> WriteOutcome:
    outcome = write_events(store, events)
    if events.height and not outcome.retry:
        written.set()
    return outcome


def held_commit(source: KafkaSource, next_offsets: Mapping[Partition, int]) -> None:
    if point == "between-write-and-commit" and written.is_set():
        hold()
    commit(source, next_offsets)
    if point == "between-commit-and-snapshot" and written.is_set():
        hold()


def held_replay(source: KafkaSource, *where: Any, **until: Any) -> Iterator[Records]:
    for records in replay(source, *where, **until):
        yield records
        if point == "during-restore":
            hold()


ElasticStore.write_events = noted_write  # type: ignore[method-assign,assignment]
KafkaSource.commit = held_commit  # type: ignore[method-assign,assignment]
KafkaSource.replay = held_replay  # type: ignore[method-assign,assignment]
sys.argv = ["oddlog", *arguments]

from cli.main import main  # noqa: E402  after the patches, as a consumer's own imports would be

main()
