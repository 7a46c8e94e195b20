"""`oddlog enrich`, run as a program, that notes when Elasticsearch has acknowledged which records.

    python -m benchmarks.latency.noted FILE ARGUMENTS...

A line of FILE is a batch: the clock's seconds at the moment the store had acknowledged it, then `partition:offset`s.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import polars as pl

from oddlog.connectors.elastic import ElasticStore
from oddlog.connectors.store import WriteOutcome

write_events = ElasticStore.write_events
notes = Path(sys.argv[1]).open("a", buffering=1)  # noqa: SIM115  open until this process ends


def noted_write(store: ElasticStore, events: pl.DataFrame) -> WriteOutcome:
    outcome = write_events(store, events)
    now = time.time()
    if not outcome.retry:
        places = zip(events["oddlog.position.partition"], events["oddlog.position.offset"], strict=True)
        notes.write(f"{now} {' '.join(f'{partition}:{offset}' for partition, offset in places)}\n")
    return outcome


ElasticStore.write_events = noted_write  # type: ignore[method-assign,assignment]
sys.argv = ["oddlog", "enrich", *sys.argv[2:]]

from cli.main import main  # noqa: E402  after the patch, as a consumer's own imports would be

main()
