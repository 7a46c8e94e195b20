"""A consumer's run before a measurement: Elasticsearch's Java compiles itself on it, and is far slower before."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence

from benchmarks.place import ENRICH, Place, Say, running, still_running
from benchmarks.traffic import produce

RECORDS = 200_000
STALLED_SECONDS = 180.0


def warm_up(where: Place, lines: Sequence[str], say: Say, *, records: int = RECORDS) -> None:
    """Have `oddlog enrich` consume so many records of these lines at full speed, into indices that are removed.

    Raises SystemExit where it ends, or gets no further."""
    topic = prefix = f"{where.name}_warm"
    produce(where.kafka, topic, list(itertools.islice(itertools.cycle(lines), records)))
    where.make_indices(prefix)
    log = where.folder / f"{prefix}.log"
    begun = moved = time.monotonic()
    seen = 0
    with running(where, ENRICH, where.consumer_variables(topic, prefix), log) as process:
        while seen < records:
            still_running(process, log)
            if (count := where.indexed(prefix)) > seen:
                seen, moved = count, time.monotonic()
            if time.monotonic() - moved > STALLED_SECONDS:
                raise SystemExit(f"warming up stays at {seen:,} of {records:,} documents")
            time.sleep(0.2)
    where.remove_indices(prefix)
    say(f"warmed up by {records:,} records in {time.monotonic() - begun:.0f} s")
