"""Where the consumer's time goes: `oddlog enrich` under py-spy, at full speed, by stage.

    python -m benchmarks.where_time_goes

py-spy runs in an environment of its own (made in a cache folder) and looks at every thread 200 times a second. Threads
that wait (for an answer, for work, for another thread) are left out by what they are in, for py-spy cannot tell
everywhere; what is left runs, or waits for a core or for the interpreter's lock. Servers and scorer are real, as in
`benchmarks.throughput`. The stacks themselves are left beside the JSON, as flame graph tools read them.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.machine import cpu_seconds, machine
from benchmarks.place import ENRICH, Place, place, running, still_running
from benchmarks.program import end_when_asked, told_by_the_clock
from benchmarks.tables import FOLDER, publish
from benchmarks.tools import PY_SPY, NoEnvironment, environment_with
from benchmarks.traffic import produce, traffic

STALLED_SECONDS = 180.0

STAGES = (
    ("read: kafka-python (fetch, decode)", ("poll (oddlog/connectors/kafka.py", "(kafka/")),
    ("commit", ("commit (oddlog/connectors/kafka.py",)),
    ("parse", ("parse (oddlog/events/parse.py",)),
    ("features", ("compute (oddlog/features/compute.py",)),
    ("score: HTTP client", ("score (serving/client.py",)),
    ("document: columns", ("scored_events (serving/documents.py",)),
    ("document: JSON", ("create_lines (oddlog/connectors/elastic_bulk.py",)),
    (
        "bulk: HTTP, answers",
        ("send (oddlog/connectors/elastic_bulk.py", "_send_part (oddlog/connectors/elastic_bulk.py"),
    ),
    ("shadow lane", ("(serving/shadow.py",)),
    ("rest of the loop", ("(serving/",)),
)
"""The first whose mark is in a stack has it; commits are looked for before what they are made of."""
ORDER = (1, 2, 3, 4, 5, 6, 7, 0, 8, 9)


WAITING = (
    " (threading.py",
    "readinto (socket.py",
    "select (selectors.py",
    "_worker (concurrent/futures/thread.py",
    "_poll_once (kafka/net/selector.py",
    "sleep",
)
"""Innermost calls of threads that do nothing."""


def stage_of(stack: str) -> str:
    """The stage that a stack belongs to.

    >>> stage_of("MainThread;_loop (serving/enrich.py:1);poll (oddlog/connectors/kafka.py:9);take (kafka/x.py:3)")
    'read: kafka-python (fetch, decode)'
    """
    for number in ORDER:
        name, marks = STAGES[number]
        if any(mark in stack for mark in marks):
            return name
    return "elsewhere"


def by_stage(raw: Iterable[str]) -> Counter[str]:
    """Samples by stage, of lines `frame;frame;... count`."""
    found: Counter[str] = Counter()
    for line in raw:
        stack, _, count = line.rstrip("\n").rpartition(" ")
        if count.isdigit() and not any(mark in stack.rpartition(";")[2] for mark in WAITING):
            found[stage_of(stack)] += int(count)
    return found


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=200_000)
    parser.add_argument("--model", default="surprise")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--json", type=Path, help="where the figures go; default: benchmarks/results/where_time_goes.json"
    )
    given = parser.parse_args()
    say = told_by_the_clock()
    end_when_asked()
    try:
        spy = environment_with(PY_SPY) / "py-spy"
    except NoEnvironment as error:
        raise SystemExit(f"no py-spy: {error}") from None
    about = machine()
    made = traffic(given.seed, 20_000, given.records)
    raw = (given.json or FOLDER / "where_time_goes.json").absolute().with_suffix(".raw")
    raw.parent.mkdir(parents=True, exist_ok=True)
    with place(made.fitted, [given.model], say) as where:
        topic = f"{where.name}-traffic"
        produce(where.kafka, topic, made.consumed)
        # The first run warms the servers up; the second is looked at.
        for number, watched in enumerate((None, spy)):
            measured = run(where, topic, f"{where.name}_{number}", given.records, watched, raw)
            say(f"{'looked at' if watched else 'warming up'}: {measured['rate']:,.0f} events/s")
    with raw.open() as lines:
        samples = by_stage(lines)
    document = {**measured, "samples": dict(samples)}
    publish("where_time_goes", about, document, [table(document)], given.json)
    say(f"the stacks are in {raw}")


def run(where: Place, topic: str, prefix: str, records: int, spy: Path | None, raw: Path) -> dict[str, Any]:
    """One run of the consumer; from its first documents on it is looked at."""
    where.make_indices(prefix)
    log = where.folder / f"{prefix}.log"
    looking: subprocess.Popen[bytes] | None = None
    first: tuple[float, int, float] | None = None
    seen, moved_at = 0, time.monotonic()
    with running(where, ENRICH, where.consumer_variables(topic, prefix), log) as process:
        while seen < records:
            now, done = time.monotonic(), where.indexed(prefix)
            if done > seen:
                seen, moved_at = done, now
            if first is None and done:
                first = now, done, cpu_seconds(process.pid)
                if spy is not None:
                    command = [
                        str(spy),
                        "record",
                        "--pid",
                        str(process.pid),
                        "--rate",
                        "200",
                        "--threads",
                        "--nolineno",
                    ]
                    looking = subprocess.Popen(
                        [*command, "--format", "raw", "--output", str(raw), "--duration", "100000"],
                        stdout=subprocess.DEVNULL,
                        stderr=subprocess.DEVNULL,
                    )
            still_running(process, log)
            if now - moved_at > STALLED_SECONDS:
                raise SystemExit(f"the consumer stays at {seen:,} of {records:,} documents")
            time.sleep(0.1)
        assert first is not None
        spent, seconds = cpu_seconds(process.pid) - first[2], now - first[0]
        if looking is not None:
            looking.send_signal(signal.SIGINT)  # it writes what it has seen
            looking.wait(60)
    where.remove_indices(prefix)
    counted = records - first[1]
    return {"events": counted, "rate": counted / seconds, "consumer_us": 1e6 * spent / counted}


def table(document: dict[str, Any]) -> str:
    """Markdown."""
    samples = document["samples"]
    total = sum(samples.values())
    lines = ["| stage of the consumer | share | microseconds an event |", "| --- | ---: | ---: |"]
    for name, count in sorted(samples.items(), key=lambda found: -found[1]):
        share = count / total
        lines.append(f"| {name} | {100 * share:.0f} % | {share * document['consumer_us']:.1f} |")
    lines.append(f"| together | 100 % | {document['consumer_us']:.1f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
