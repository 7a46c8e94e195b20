"""`python -m benchmarks.features`: Filebeat envelopes -> parsed -> features on one core, and what clients cost.

Simulated traffic (or the lines of --log) in the whole envelope that Filebeat sends, in batches as the consumer takes
them. The baseline is of the first tenth. Each part runs in a process of its own that is kept to one core, with one
thread in every library.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.child import ONE_THREAD, pin_to_one_core, resident, result_of
from benchmarks.machine import machine
from benchmarks.tables import markdown, publish

if TYPE_CHECKING:
    from oddlog.events.record import Records

AT = dt.datetime(2026, 3, 2, tzinfo=dt.UTC)
TARGET_EVENTS = 100_000
"""A second, on one core."""
TARGET_STATE = 400_000_000
"""Bytes, for CLIENTS clients."""
CLIENTS = 500_000


def speed(lines: list[bytes], batch: int, rounds: int) -> dict[str, Any]:
    """Seconds by stage, of each round over the whole stream with a client state that begins empty.

    Rates are by the clock on the wall; `cpu_per_second` is by the processor's time, which others on the machine do
    not take away."""
    from oddlog.events.parse import parse
    from oddlog.features.compute import FeatureComputer, fit_features

    batches = list(_batches(lines, batch))
    baseline, _ = fit_features(parse(_records(lines[: max(1, len(lines) // 10)], 0)).events)
    parsing: list[float] = []
    computing: list[float] = []
    cpu: list[float] = []
    events = clients = 0
    for _ in range(rounds):
        computer = FeatureComputer(baseline)
        events, parse_seconds, compute_seconds, cpu_begun = 0, 0.0, 0.0, time.process_time()
        for records in batches:
            begun = time.perf_counter()
            parsed = parse(records).events
            middle = time.perf_counter()
            computer.compute(parsed)
            compute_seconds += time.perf_counter() - middle
            parse_seconds += middle - begun
            events += parsed.height
        cpu.append(len(lines) / (time.process_time() - cpu_begun))
        parsing.append(parse_seconds)
        computing.append(compute_seconds)
        clients = computer.clients
    rates = [len(lines) / (a + b) for a, b in zip(parsing, computing, strict=True)]
    return {
        "records": len(lines), "bytes": round(statistics.fmean(map(len, lines))), "events": events,
        "batch_rows": batch, "clients": clients, "baseline_entries": baseline.entries,
        "parse_us": 1e6 * statistics.median(parsing) / len(lines),
        "features_us": 1e6 * statistics.median(computing) / len(lines),
        "events_per_second": statistics.median(rates), "cpu_per_second": statistics.median(cpu),
        "slowest_round": min(rates), "fastest_round": max(rates), "rounds": rounds,
    }  # fmt: skip


def steps(lines: list[bytes], batch: int) -> dict[str, float]:
    """Microseconds an event of each step of the way, in one round; and of what nobody does without: JSON and a regex.

    The last two are the libraries alone on the same records, nothing made of what they give."""
    from collections import deque
    from functools import partial

    import orjson
    import polars as pl

    from oddlog.events import parse as parsing
    from oddlog.events.line import _SOUND
    from oddlog.features import compute as computing
    from oddlog.features.lookup import Lookup

    spent: dict[str, float] = {}

    def timed(name: str, call: Any, *arguments: Any, **more: Any) -> Any:
        begun = time.perf_counter()
        try:
            return call(*arguments, **more)
        finally:
            spent[name] = spent.get(name, 0.0) + time.perf_counter() - begun

    batches = list(_batches(lines, batch))
    baseline, _ = computing.fit_features(parsing.parse(_records(lines[: max(1, len(lines) // 10)], 0)).events)
    computer = computing.FeatureComputer(baseline)
    watched: list[tuple[Any, str, str]] = [
        (parsing, "tell_apart", "parse: envelopes decoded, lines taken out"),
        (parsing, "_positions", "parse: positions and ids"),
        (parsing, "read_lines", "parse: lines to columns"),
        (parsing, "valid_ips", "parse: addresses that are one"),
        (parsing, "to_time", "parse: times"),
        (Lookup, "signals", "features: signals of requests looked up"),
        (computing, "_client_means", "features: means of clients"),
    ]
    for owner, name, label in watched:
        call = getattr(owner, name)
        # A method is called with its object: partial alone would not be bound to it.
        setattr(owner, name, (lambda me, events, call=call, label=label: timed(label, call, me, events))
                if owner is Lookup else partial(timed, label, call))  # fmt: skip
    for records in batches:
        events = timed("parse", parsing.parse, records).events
        timed("features", computer.compute, events)
    texts = [pl.Series([orjson.loads(value)["message"] for value in records.value if value]) for records in batches]
    for records in batches:
        timed("JSON alone: orjson.loads", deque, map(orjson.loads, records.value), maxlen=0)
    for text in texts:
        timed("a regex alone: polars extract_groups", text.str.extract_groups, _SOUND)
    return {name: 1e6 * seconds / len(lines) for name, seconds in spent.items()}


def state(clients: int, batch: int) -> dict[str, Any]:
    """Bytes that `clients` one-request clients add to the process, by what the system counts as resident."""
    from oddlog.events.parse import parse
    from oddlog.events.record import Partition
    from oddlog.features.compute import FeatureComputer, fit_features

    def feed(computer: FeatureComputer, count: int, first: int) -> None:
        for start in range(0, count, batch):
            lines = [
                b'{"message":"%s - - [02/Mar/2026:%02d:%02d:%02d +0000] \\"GET /page/%d HTTP/1.1\\" 200 512"}'
                % (_address(first + n), n // 3600 % 24, n // 60 % 60, n % 60, n % 50)
                for n in range(start, min(start + batch, count))
            ]
            computer.compute(parse(_records(lines, start)).events)

    line = b'192.0.2.1 - - [02/Mar/2026:00:00:00 +0000] "GET / HTTP/1.1" 200 5'
    warm = FeatureComputer(fit_features(parse(_records([line], 0)).events)[0])
    feed(warm, 20 * batch, 0)  # what libraries keep for themselves is there before the first look
    computer = FeatureComputer(warm.baseline)
    before = resident()
    feed(computer, clients, 2**25)
    after = resident()
    table = computer.client_table(Partition("e1", "logs.raw", 0))
    return {
        "clients": computer.clients, "state_bytes": after - before,
        "table_bytes": table.estimated_size(), "with_table_bytes": resident() - before,
    }  # fmt: skip


def _address(number: int) -> bytes:
    return b"%d.%d.%d.%d" % (number >> 24 & 255, number >> 16 & 255, number >> 8 & 255, number & 255)


def _lines(log: Path | None, count: int) -> list[bytes]:
    """`count` envelopes; a log that is shorter is gone through again."""
    from benchmarks.traffic import filebeat
    from oddlog.events.logfile import read_log
    from oddlog.simulation import simulate

    if log is None:
        texts = simulate(seed=4, start=AT, lines=count, days=max(1.0, count / 100_000)).lines
    else:
        kept = [line.decode(errors="replace") for line in read_log(log)]
        texts = [kept[n % len(kept)] for n in range(count)]
    return [filebeat(text, AT, n * 200) for n, text in enumerate(texts)]


def _records(values: Sequence[bytes], first: int) -> Records:
    from oddlog.events.record import Partition, Records

    n = len(values)
    return Records(
        list(values), ["e1"] * n, ["logs.raw"] * n, [0] * n, list(range(first, first + n)), [-1] * n,
        {Partition("e1", "logs.raw", 0): first + n},
    )  # fmt: skip


def _batches(lines: Sequence[bytes], batch: int) -> Iterator[Records]:
    for start in range(0, len(lines), batch):
        yield _records(lines[start : start + batch], start)


def run(arguments: argparse.Namespace) -> None:
    """Measure in child processes, print, write."""
    where = machine()
    common = ["--batch", str(arguments.batch)]
    chosen = [*common, "--events", str(arguments.events), "--rounds", str(arguments.rounds)]
    chosen += ["--log", str(arguments.log)] if arguments.log else []
    fast = result_of("benchmarks.features", ["--part", "speed", *chosen], ONE_THREAD)
    by_step = result_of("benchmarks.features", ["--part", "steps", *chosen], ONE_THREAD)
    counted = [*common, "--clients", str(arguments.clients)]
    kept = result_of("benchmarks.features", ["--part", "state", *counted], ONE_THREAD)
    figures = {"speed": fast, "steps": by_step, "state": kept}
    publish("features", where, figures, _tables(arguments, fast, by_step, kept), arguments.json)


def _tables(
    arguments: argparse.Namespace, fast: dict[str, Any], by_step: dict[str, float], kept: dict[str, Any]
) -> list[str]:
    whose = arguments.log or "simulated traffic"
    what = f"{fast['records']:,} envelopes of {fast['bytes']} bytes, {whose}, batches of {fast['batch_rows']:,}"
    per_second = fast["events_per_second"]

    def size(name: str) -> list[str]:
        return [f"{kept[name] / 1e6:.0f}", f"{kept[name] / kept['clients']:.0f}"]

    return [
        markdown(
            [f"one core, {what}", "us/event", "events/s"],
            [
                ["parse", f"{fast['parse_us']:.2f}", f"{1e6 / fast['parse_us']:,.0f}"],
                ["features", f"{fast['features_us']:.2f}", f"{1e6 / fast['features_us']:,.0f}"],
                [
                    f"**envelope to features**, median of {fast['rounds']} rounds (target {TARGET_EVENTS:,})",
                    f"{1e6 / per_second:.2f}",
                    f"**{per_second:,.0f}**",
                ],
                ["slowest, fastest round", "", f"{fast['slowest_round']:,.0f}, {fast['fastest_round']:,.0f}"],
                [
                    "by processor time, whatever else the machine did",
                    f"{1e6 / fast['cpu_per_second']:.2f}",
                    f"{fast['cpu_per_second']:,.0f}",
                ],
            ],
        ),
        markdown(
            ["by step, one round with a clock around each", "us/event"],
            [[name, f"{by_step[name]:.2f}"] for name in sorted(by_step, key=_step_order)],
        ),
        markdown(
            [f"state of {kept['clients']:,} clients", "MB", "bytes/client"],
            [
                [
                    f"resident memory that it adds (target {TARGET_STATE / 1e6:.0f} MB for {CLIENTS:,})",
                    *size("state_bytes"),
                ],
                ["the same while a snapshot of it is taken", *size("with_table_bytes")],
            ],
        ),
    ]


def _step_order(name: str) -> tuple[bool, str]:
    """The way's steps, each whole before its parts, then what the libraries take alone."""
    return "alone" in name, name


def main(argv: Sequence[str] | None = None) -> int:
    """The tables on standard output."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.features", description=__doc__)
    parser.add_argument("--events", type=int, default=400_000)
    parser.add_argument("--batch", type=int, default=4_096, help="rows of a batch (setting enrich.batch_rows)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clients", type=int, default=CLIENTS, help="of the state whose memory is measured")
    parser.add_argument("--log", type=Path, help="an access log instead of simulated traffic, plain or .gz")
    parser.add_argument("--json", type=Path, help="where the figures go; default: benchmarks/results/features.json")
    parser.add_argument("--part", choices=["speed", "steps", "state"], help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.part is None:
        run(arguments)
        return 0
    pin_to_one_core()
    if arguments.part == "speed":
        found = speed(_lines(arguments.log, arguments.events), arguments.batch, arguments.rounds)
    elif arguments.part == "steps":
        found = steps(_lines(arguments.log, arguments.events), arguments.batch)
    else:
        found = state(arguments.clients, arguments.batch)
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
