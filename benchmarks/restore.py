"""`python -m benchmarks.restore`: how long a consumer that was killed takes until it is ready again.

A consumer of a Kafka topic has committed all of it and is killed by -9; the last snapshots in Elasticsearch hold many
clients and were taken before the whole topic, so that all of its records are replayed. A new consumer of the group is
started at once. Timed from its start: until every partition is restored, until its first batch is committed; and where
the time went. Also: what taking and writing those snapshots took.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.machine import machine
from benchmarks.program import end_when_asked
from benchmarks.tables import markdown, publish

if TYPE_CHECKING:
    from benchmarks.place import Place
    from oddlog.connectors.store import Store
    from oddlog.events.record import Partition
    from oddlog.settings import Settings
    from serving.consumer_metrics import Totals
    from serving.snapshots import Snapshot

TARGET_SECONDS = 30.0
FRESH = 20_000
"""Records that are new to the consumer that is started."""
FEED_ROWS = 10_000
PHASES = {
    "imports": "process started, libraries imported",
    "open": "store, source and scorer opened",
    "group": "waiting for the group: the killed one's session times out, rebalance",
    "read": "snapshots: chunks read from Elasticsearch",
    "decode": "snapshots: decoded",
    "take": "snapshots: made client state",
    "replay_read": "replay: records read from Kafka",
    "replay_compute": "replay: parsed, features computed",
    "rest": "the rest",
}


# --- the consumers ----------------------------------------------------------------------------------------------------


def commit_all(settings: Settings, records: int) -> None:
    """Join the group, commit every record, say so, and wait to be killed."""
    from oddlog.connectors.by_url import open_source

    source = open_source(settings.source)
    seen = 0
    while True:
        poll = source.poll(8_192, 0.2)
        for partition in poll.assigned:
            source.start(partition)
        seen += len(poll.records)
        if poll.records.next_offset:
            source.commit(poll.records.next_offset)
            if seen == records:
                break
    print(json.dumps({"committed": seen}), flush=True)
    while True:  # a member that takes nothing more, until it is killed
        source.keep_alive()
        time.sleep(0.5)


def consume(settings: Settings, fresh: int, started: float) -> dict[str, Any]:
    """The consumer, timed; `started` on the clock of time.monotonic(), which all processes share."""
    spent: dict[str, float] = defaultdict(float)
    spent["imports"] = time.monotonic() - started
    from oddlog.connectors.by_url import open_source, open_store
    from oddlog.features.compute import FeatureComputer
    from serving import lane as lanes
    from serving.consumer_metrics import ConsumerObserver
    from serving.enrich import Enricher
    from serving.scorers import open_scorer

    spent["imports"] = time.monotonic() - started
    marks: dict[str, float] = {}
    waiting: set[Partition] = set()

    class Watch(ConsumerObserver):
        def assigned(self, partitions: Any) -> None:
            waiting.update(partitions)
            if partitions:
                marks.setdefault("assigned", time.monotonic())

        def restored(self, partition: Partition) -> None:
            waiting.discard(partition)
            if not waiting:
                marks["ready"] = time.monotonic()

        def batch(self, totals: Totals, dead: Mapping[str, int]) -> None:
            marks.setdefault("first", time.monotonic())
            if totals.records >= fresh:
                marks["all"] = time.monotonic()
                enricher.stop()

    store, source, scorer = open_store(settings.store), open_source(settings.source), open_scorer(settings)
    _timed(spent, "read", store, "get_document")
    _timed(spent, "read_and_decode", lanes, "read_snapshot")
    _timed(spent, "take", FeatureComputer, "take_client_table")
    replay = source.replay

    def timed_replay(*arguments: Any, **more: Any) -> Iterator[Any]:
        records = iter(replay(*arguments, **more))
        while True:
            begun = time.monotonic()
            batch = next(records, None)
            spent["replay_read"] += time.monotonic() - begun
            if batch is None:
                return
            begun = time.monotonic()
            yield batch
            spent["replay_compute"] += time.monotonic() - begun

    source.replay = timed_replay  # type: ignore[method-assign]
    enricher = Enricher(settings.enrich, source, store, scorer, observe=Watch())
    spent["open"] = time.monotonic() - started - spent["imports"]
    counts = enricher.run()
    clients = enricher.lane._computer.clients if enricher.lane else 0
    source.close()
    spent["group"] = marks["assigned"] - started - spent["imports"] - spent["open"]
    spent["decode"] = spent.pop("read_and_decode") - spent["read"]
    ready = marks["ready"] - started
    spent["rest"] = ready - sum(spent.values())
    return {
        "ready_seconds": ready, "first_batch_seconds": marks["first"] - marks["ready"],
        "phases": dict(spent), "replayed": counts.replayed, "clients": clients, "records": counts.records,
    }  # fmt: skip


def _timed(spent: dict[str, float], name: str, owner: Any, method: str) -> None:
    call: Callable[..., Any] = getattr(owner, method)

    def timed(*arguments: Any, **more: Any) -> Any:
        begun = time.monotonic()
        try:
            return call(*arguments, **more)
        finally:
            spent[name] += time.monotonic() - begun

    setattr(owner, method, timed)


# --- what they find ---------------------------------------------------------------------------------------------------


def make_snapshots(
    settings: Settings, version: str, baseline: Any, clients: int, partitions: int
) -> Iterator[dict[str, float]]:
    """Write a snapshot of each partition with its share of the clients; what each took."""
    from oddlog.connectors.by_url import open_store
    from oddlog.events.record import Partition
    from serving.lane import Lane
    from serving.snapshots import write_snapshot

    store = open_store(settings.store)
    topic = settings.source.url.rpartition("/")[2]
    for number in range(partitions):
        lane, partition = Lane(version, baseline), Partition(settings.source.epoch, topic, number)
        for start in range(0, clients // partitions, FEED_ROWS):
            lane.compute(_strangers(partition, start, min(FEED_ROWS, clients // partitions - start)))
        begun = time.monotonic()
        snapshot = lane.snapshot(partition, 0)
        taken = time.monotonic() - begun
        yield {"take": taken, **_written(store, snapshot, write_snapshot), "clients": snapshot.clients.height}
    store.close()


def _written(store: Store, snapshot: Snapshot, write: Callable[[Store, Snapshot], None]) -> dict[str, float]:
    sizes: list[int] = []
    put = store.put_document

    def counted(collection: Any, id: str, document: Mapping[str, Any]) -> None:
        sizes.append(len(document.get("data", "")))
        put(collection, id, document)

    store.put_document = counted  # type: ignore[method-assign]
    begun, cpu = time.monotonic(), time.process_time()
    write(store, snapshot)
    store.put_document = put  # type: ignore[method-assign]
    return {
        "write": time.monotonic() - begun, "cpu": time.process_time() - cpu,
        "bytes": sum(sizes), "chunks": len(sizes) - 1,
    }  # fmt: skip


def _strangers(partition: Partition, first: int, count: int) -> Any:
    """Events of clients who each ask once, the day before the traffic; no two alike, for a snapshot is compressed."""
    import datetime as dt
    import random

    from benchmarks.traffic import START
    from oddlog.events.parse import parse
    from oddlog.events.record import Records

    day = START - dt.timedelta(days=1)
    chance = random.Random(f"{partition.number}/{first}")
    lines: list[bytes | None] = []
    for n in range(first, first + count):
        number = (partition.number << 22) + n * 2_654_435_761 % 2**22  # odd, so that no two are the same
        address = f"{10 + (number >> 24)}.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
        moment = (day + dt.timedelta(seconds=chance.randrange(86_400))).strftime("%d/%b/%Y:%H:%M:%S +0000")
        page, status = chance.randrange(100_000), chance.choice((200, 200, 200, 301, 304, 404, 500))
        size = chance.randrange(100_000)
        lines.append(f'{address} - - [{moment}] "GET /page/{page} HTTP/1.1" {status} {size} "-" "a"'.encode())
    offsets = list(range(first, first + count))
    n = len(lines)
    return parse(
        Records(
            lines, [partition.epoch] * n, [partition.topic] * n, [partition.number] * n, offsets, [-1] * n,
            {partition: first + n},
        )
    ).events  # fmt: skip


# --- the run ----------------------------------------------------------------------------------------------------------


def run(arguments: argparse.Namespace) -> None:
    """Prepare, kill, start, print, write."""
    about = machine()
    begun = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - begun:7.1f} s  {text}", file=sys.stderr, flush=True)

    from benchmarks.place import place
    from benchmarks.traffic import PARTITIONS, produce, traffic
    from oddlog.settings import load
    from serving.scorers import open_scorer

    made = traffic(1, 20_000, arguments.records + FRESH)
    with place(made.fitted, ["surprise"], say) as where, ExitStack() as ending:
        topic, prefix = f"{where.name}-restore", f"{where.name}_restore"
        variables = where.consumer_variables(topic, prefix)
        where.make_indices(prefix)
        ending.callback(where.remove_indices, prefix)
        settings = load(_nested(variables))
        produce(where.kafka, topic, made.consumed[: arguments.records])
        say(f"{arguments.records:,} records are in {PARTITIONS} partitions")
        scorer = open_scorer(settings)
        version = scorer.champion()
        assert version is not None
        snapshots = list(make_snapshots(settings, version, scorer.baseline(version), arguments.clients, PARTITIONS))
        say(f"{sum(one['clients'] for one in snapshots):,} clients are in {len(snapshots)} snapshots")
        with _child(where, variables, ["--part", "commit", "--records", str(arguments.records)]) as doomed:
            _line(doomed)
            produce(where.kafka, topic, made.consumed[arguments.records :])
            say("all is committed; killing the consumer")
            doomed.send_signal(signal.SIGKILL)
            doomed.wait()
        part = ["--part", "consume", "--records", str(FRESH), "--started", str(time.monotonic())]
        with _child(where, variables, part) as consumer:
            found = _line(consumer)
    publish("restore", about, {**found, "snapshots": snapshots}, _tables(found, snapshots), arguments.json)


@contextmanager
def _child(where: Place, variables: Mapping[str, str], part: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    from benchmarks.place import environment

    command = [sys.executable, "-m", "benchmarks.restore", *part]
    process = subprocess.Popen(
        command, env=environment(where.folder, variables), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _line(child: subprocess.Popen[bytes]) -> dict[str, Any]:
    assert child.stdout is not None
    line = child.stdout.readline()
    if not line:
        raise SystemExit(f"a consumer ended with exit code {child.wait()}")
    found: dict[str, Any] = json.loads(line)
    return found


def _nested(variables: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """ODDLOG_GROUP__FIELD as settings."""
    nested: dict[str, dict[str, str]] = defaultdict(dict)
    for name, value in variables.items():
        group, field = name.removeprefix("ODDLOG_").lower().split("__")
        nested[group][field] = value
    return dict(nested)


def _tables(found: Mapping[str, Any], snapshots: Sequence[Mapping[str, float]]) -> list[str]:
    rows = [[text, f"{found['phases'].get(name, 0.0):.2f}"] for name, text in PHASES.items()]
    head = f"killed by -9 and started again: {found['clients']:,} clients, {found['replayed']:,} records replayed"
    total = {name: sum(one[name] for one in snapshots) for name in snapshots[0]}
    return [
        markdown(
            [head, "s"],
            [
                *rows,
                [f"**ready again** (target {TARGET_SECONDS:.0f} s)", f"**{found['ready_seconds']:.2f}**"],
                ["first batch committed, after that", f"{found['first_batch_seconds']:.2f}"],
            ],
        ),
        markdown(
            [f"snapshots of {total['clients']:,.0f} clients in {len(snapshots)} partitions", "all", "largest"],
            [
                [
                    "taken from memory: the consumer waits, s",
                    f"{total['take']:.2f}",
                    f"{max(one['take'] for one in snapshots):.2f}",
                ],
                [
                    "written to Elasticsearch, aside, s",
                    f"{total['write']:.2f}",
                    f"{max(one['write'] for one in snapshots):.2f}",
                ],
                ["- processor time of it, s", f"{total['cpu']:.2f}", f"{max(one['cpu'] for one in snapshots):.2f}"],
                ["MB", f"{total['bytes'] / 1e6:.1f}", f"{max(one['bytes'] for one in snapshots) / 1e6:.1f}"],
                ["chunks", f"{total['chunks']:.0f}", f"{max(one['chunks'] for one in snapshots):.0f}"],
            ],
        ),
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """The tables on standard output."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.restore", description=__doc__)
    parser.add_argument("--clients", type=int, default=500_000)
    parser.add_argument("--records", type=int, default=150_000, help="records to replay")
    parser.add_argument("--json", type=Path, help="where the figures go; default: benchmarks/results/restore.json")
    parser.add_argument("--part", choices=["commit", "consume"], help=argparse.SUPPRESS)
    parser.add_argument("--started", type=float, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.part is None:
        end_when_asked()
        run(arguments)
        return 0
    logging.basicConfig(level=os.environ.get("BENCHMARK_LOG", "WARNING"))
    from oddlog.settings import load

    if arguments.part == "commit":
        commit_all(load(), arguments.records)
    print(json.dumps(consume(load(), arguments.records, arguments.started)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
