"""`python -m benchmarks.memory`: memory of `oddlog enrich` over a million records with half a million clients.

Real Kafka, a real `bentoml serve`, and Elasticsearch (or SQLite, --store sqlite). The records are simulated traffic
whose client addresses are replaced: every other record is of a client never seen before, the rest of earlier ones.
The consumer is the program that users run; it is looked at from outside, by its metrics and what the system says.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.child import peak, resident
from benchmarks.machine import machine
from benchmarks.program import end_when_asked
from benchmarks.tables import markdown, publish

if TYPE_CHECKING:
    from oddlog.settings import Settings

PARTITION_FETCH_BYTES, FETCH_BYTES = 4 * 2**20, 32 * 2**20
"""As oddlog/connectors/kafka.py asks the client library for."""
CLIENT_BYTES = 265
"""A client's, measured by `benchmarks.features`."""
EVERY = 100_000
"""Records between two looks."""
SIMULATED = 100_000


def strangers(lines: Sequence[str], records: int, clients: int) -> Iterator[str]:
    """`records` lines in order of time, of `clients` distinct clients.

    The simulated lines are repeated, a second of them spread over the time that their copies take."""
    share = clients / records
    known = 0
    for n in range(records):
        if math.ceil((n + 1) * share) > known:
            number, known = known, known + 1
        else:
            number = (n * 2_654_435_761) % known
        line = lines[n * len(lines) // records]
        address = f"{11 + (number >> 24)}.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
        yield address + line[line.index(" ") :]


def limits(settings: Settings, partitions: int, record_bytes: int) -> list[list[str]]:
    """What bounds each part of the memory, in words and in bytes."""
    from oddlog.features.urls import MOST_CHARACTERS, MOST_URLS

    enrich, store = settings.enrich, settings.store
    batch = (enrich.in_flight + 1) * enrich.batch_rows * record_bytes
    fetched = min(FETCH_BYTES, partitions * PARTITION_FETCH_BYTES)
    return [
        [
            f"batches: {enrich.in_flight} written (`enrich.in_flight`), one prepared; each at most "
            f"{enrich.batch_rows:,} records (`enrich.batch_rows`), "
            f"here of {record_bytes} bytes, some six times that as columns and documents",
            f"{6 * batch / 1e6:.0f}",
        ],
        [
            f"fetched and not yet polled: {PARTITION_FETCH_BYTES / 1e6:.0f} MB a partition, "
            f"{FETCH_BYTES / 1e6:.0f} MB an answer",
            f"{fetched / 1e6:.0f}",
        ],
        [
            f"bodies of bulk requests: `store.bulk_bytes` for each of {enrich.in_flight} batches",
            f"{enrich.in_flight * store.bulk_bytes / 1e6:.0f}",
        ],
        [
            f"clients: {enrich.max_clients:,} a partition (`enrich.max_clients`), {partitions} partitions, "
            f"about {CLIENT_BYTES} bytes each",
            f"{partitions * enrich.max_clients * CLIENT_BYTES / 1e6:,.0f}",
        ],
        [f"URLs remembered: {MOST_URLS:,} of {MOST_CHARACTERS / 1e6:.0f} million characters", "30"],
        ["a snapshot while it is written: its clients once more, without their index", ""],
    ]


def run(arguments: argparse.Namespace) -> None:
    """Produce, consume, look, print, write."""
    about, begun = machine(), time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - begun:7.1f} s  {text}", file=sys.stderr, flush=True)

    from benchmarks.consumed import looks_until
    from benchmarks.place import ENRICH, place, running
    from benchmarks.traffic import PARTITIONS, produce, traffic
    from oddlog.settings import load
    from oddlog.stack.process import free_port

    made = traffic(1, 20_000, SIMULATED)
    with place(made.fitted, ["surprise"], say) as where:
        topic, prefix = f"{where.name}-memory", f"{where.name}_memory"
        lines = list(strangers(made.consumed, arguments.records, arguments.clients))
        record_bytes = produce(where.kafka, topic, lines)
        say(f"{arguments.records:,} records of {arguments.clients:,} clients are in {PARTITIONS} partitions")
        del lines
        port = free_port(*range(29_300, 29_400))
        variables = where.consumer_variables(topic, prefix) | {"ODDLOG_ENRICH__METRICS_PORT": str(port)}
        if arguments.store == "sqlite":
            variables["ODDLOG_STORE__URL"] = f"sqlite:///{where.folder / 'memory.sqlite'}"
        else:
            where.make_indices(prefix)
        log = where.folder / "enrich.log"
        looks: list[dict[str, float]] = []
        with running(where, ENRICH, variables, log) as consumer:
            started = time.monotonic()
            for seen in looks_until(arguments.records, port, consumer, log):
                if not looks or seen.records >= len(looks) * EVERY or seen.records >= arguments.records:
                    looks.append(
                        {
                            "records": seen.records, "seconds": seen.moment - started,
                            "resident": resident(consumer.pid), "peak": peak(consumer.pid),
                        }
                    )  # fmt: skip
        if arguments.store == "elasticsearch":
            if (count := where.count(prefix)) != arguments.records:
                raise SystemExit(f"{count:,} documents of {arguments.records:,} records")
            where.remove_indices(prefix)
    table = markdown(
        [
            f"records committed ({arguments.store})",
            "clients met",
            "resident MB",
            "peak MB",
            "records/s since the start",
        ],
        [
            [
                f"{one['records']:,.0f}",
                f"{int(one['records'] * arguments.clients / arguments.records):,}",
                f"{one['resident'] / 1e6:,.0f}",
                f"{one['peak'] / 1e6:,.0f}",
                f"{one['records'] / max(one['seconds'], 1e-9):,.0f}",
            ]
            for one in looks
        ],
    )
    stated = markdown(["what bounds it", "MB at most"], limits(load(), PARTITIONS, record_bytes))
    figures: dict[str, Any] = {"store": arguments.store, "clients": arguments.clients, "looks": looks}
    publish("memory", about, figures, [table, stated], arguments.json)


def main(argv: Sequence[str] | None = None) -> int:
    """The tables on standard output."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--clients", type=int, default=500_000)
    parser.add_argument("--store", choices=["elasticsearch", "sqlite"], default="elasticsearch")
    parser.add_argument("--json", type=Path, help="where the figures go; default: benchmarks/results/memory.json")
    arguments = parser.parse_args(argv)
    end_when_asked()
    run(arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main())
