"""Two consumers in one group against one, on the same records.

    python -m benchmarks.two_consumers
    python -m benchmarks.two_consumers --consumers 3 --workers 2

Real Kafka and Elasticsearch (started here, or TEST_KAFKA_URL and TEST_ELASTICSEARCH_URL), a real `bentoml serve`. The
rate is taken between 30 and 95 % of the documents, when the group has settled and no member is out of records. All
processes share this machine: the table tells how much of its cores they had, and what of it each of them took.
"""

from __future__ import annotations

import argparse
import statistics
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.machine import cpu_seconds, machine
from benchmarks.place import ENRICH, Place, place, running, still_running
from benchmarks.program import end_when_asked, told_by_the_clock
from benchmarks.tables import publish
from benchmarks.traffic import PARTITIONS, produce, traffic

FROM, TO = 0.3, 0.95
STALLED_SECONDS = 180.0
PROCESSES = ("consumers", "scorer", "kafka", "elasticsearch")


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--consumers", type=int, default=2)
    parser.add_argument("--records", type=int, default=150_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1, help="processes of the scorer")
    parser.add_argument("--model", default="surprise")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--json", type=Path, help="where the figures go; default: benchmarks/results/two_consumers.json"
    )
    given = parser.parse_args()
    say = told_by_the_clock()
    end_when_asked()
    about = machine()
    made = traffic(given.seed, 20_000, given.records)
    runs: list[dict[str, Any]] = []
    with place(made.fitted, [given.model], say, workers=given.workers) as where:
        topic = f"{where.name}-traffic"
        partitions = max(PARTITIONS, given.consumers)
        produce(where.kafka, topic, made.consumed, partitions=partitions)
        say(f"{given.records:,} records are in {partitions} partitions")
        for number in range(-1, given.rounds):
            counts = [1] if number < 0 else [1, given.consumers] if number % 2 == 0 else [given.consumers, 1]
            for count in counts:
                one = run(where, topic, f"{where.name}_{number + 1}_{count}", count, given.records)
                say(f"{count} consumer(s): {one['rate']:,.0f} events/s{' (warming up)' if number < 0 else ''}")
                if number >= 0:
                    runs.append(one)
    document = {"machine": about, "workers": given.workers, "runs": runs}
    publish("two_consumers", about, document, [table(document)], given.json)


def run(where: Place, topic: str, prefix: str, count: int, records: int) -> dict[str, Any]:
    """One run of `count` consumers: events a second, and processor microseconds an event by process."""
    where.make_indices(prefix)
    logs = [where.folder / f"{prefix}-{number}.log" for number in range(count)]
    variables = where.consumer_variables(topic, prefix)
    with ExitStack() as consumers:
        processes = [consumers.enter_context(running(where, ENRICH, variables, log)) for log in logs]

        def cpu() -> dict[str, float]:
            return {"consumers": sum(cpu_seconds(process.pid) for process in processes), **where.cpu()}

        first: tuple[float, int, dict[str, float]] | None = None
        seen, moved_at = 0, time.monotonic()
        while True:
            now, done = time.monotonic(), where.indexed(prefix)
            if done > seen:
                seen, moved_at = done, now
            if first is None and done >= FROM * records:
                first = now, done, cpu()
            if first is not None and done >= TO * records:
                last = now, done, cpu()
                break
            for process, log in zip(processes, logs, strict=True):
                still_running(process, log)
            if now - moved_at > STALLED_SECONDS:
                raise SystemExit(f"{count} consumers stay at {seen:,} of {records:,} documents")
            time.sleep(0.1)
        while where.indexed(prefix) < records and time.monotonic() < moved_at + STALLED_SECONDS:
            time.sleep(0.2)
    found = where.count(prefix)
    where.remove_indices(prefix)
    if found != records:
        raise SystemExit(f"{count} consumers: {found:,} documents of {records:,}")
    events = last[1] - first[1]
    spent = {name: 1e6 * (seconds - first[2][name]) / events for name, seconds in last[2].items()}
    return {"consumers": count, "rate": events / (last[0] - first[0]), "cpu": spent}


def table(document: dict[str, Any]) -> str:
    """Markdown."""
    runs = document["runs"]
    counts = sorted({one["consumers"] for one in runs})
    rate = {n: statistics.median(one["rate"] for one in runs if one["consumers"] == n) for n in counts}
    known = [name for name in PROCESSES if all(name in one["cpu"] for one in runs)]
    whole = len(known) == len(PROCESSES)  # servers that were running before are not looked into
    lines = [
        "| consumers | events/s (median) | by round | factor "
        f"| {' | '.join(f'{name}, us/event' for name in known)} |{' cores busy |' * whole}",
        f"| ---: | ---: | --- | ---: |{' ---: |' * (len(known) + whole)}",
    ]
    for n in counts:
        chosen = [one for one in runs if one["consumers"] == n]
        spent = [statistics.median(one["cpu"][name] for one in chosen) for name in known]
        busy = f" {sum(spent) * rate[n] / 1e6:.2f} of {document['machine']['cores']} |" * whole
        by_round = " ".join(f"{one['rate']:,.0f}" for one in chosen)
        lines.append(
            f"| {n} | {rate[n]:,.0f} | {by_round} | {rate[n] / rate[counts[0]]:.2f} "
            f"| {' | '.join(f'{one:,.1f}' for one in spent)} |{busy}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
