"""`python -m benchmarks.privacy`: what privacy costs, in time at parsing and in attacks that are not found.

Time: the same envelopes parsed plainly and privately, in turns, on one core. Detection: average precision on labelled
logs (--log and --labels, may be repeated; else simulated traffic with attacks) as they are and without query strings,
fitted on the first half as it is. Pseudonyms cost no detection: a client's name is no feature.
"""

from __future__ import annotations

import argparse
import datetime as dt
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks.child import pin_to_one_core
from benchmarks.detection import LabelledLog, evaluate, load
from benchmarks.machine import machine
from benchmarks.quality_command import run_command
from benchmarks.tables import markdown, publish
from benchmarks.traffic import filebeat
from oddlog.errors import UsageError
from oddlog.events.logfile import records_from_lines
from oddlog.events.parse import parse
from oddlog.events.privacy import Reader, without_queries
from oddlog.simulation import simulate

AT = dt.datetime(2026, 3, 2, tzinfo=dt.UTC)
ALGORITHMS = ("surprise", "iforest")
BUDGET = 20.0
KEY = b"a key for measurements, 32 bytes"


def speed(events: int, batch: int, rounds: int) -> dict[str, Any]:
    """Microseconds of the processor that an event takes to parse, by reader: the median of the rounds."""
    made = simulate(seed=4, start=AT, lines=events, days=max(1.0, events / 100_000)).lines
    sent = [filebeat(text, AT, n * 200) for n, text in enumerate(made)]
    batches = [records_from_lines(sent[first : first + batch]) for first in range(0, events, batch)]
    readers = {
        "plain (privacy off)": Reader(),
        "pseudonyms": Reader(KEY, clients=True),
        "no query strings": Reader(KEY, queries=True),
        "both": Reader(KEY, clients=True, queries=True),
    }
    spent: dict[str, list[float]] = {name: [] for name in readers}
    for _ in range(rounds + 1):  # the first warms libraries and pseudonyms, and does not count
        for name, reader in readers.items():
            begun = time.process_time()
            for records in batches:
                reader.parse(records)
            spent[name].append(time.process_time() - begun)
    return {name: 1e6 * statistics.median(times[1:]) / events for name, times in spent.items()}


def detection(log: LabelledLog) -> dict[str, dict[str, float]]:
    """Average precision by algorithm, of the events as they are and of those without query strings."""
    found: dict[str, dict[str, float]] = {name: {} for name in ALGORITHMS}
    for kept, events in (("with", log.events), ("without", without_queries(log.events))):
        for group, name, figures in evaluate(replace(log, events=events), ALGORITHMS, 0.5, 1, BUDGET):
            if group == "algorithms":
                found[name][kept] = float(figures["ap"])
    return found


def _simulated() -> LabelledLog:
    made = simulate(seed=7, start=AT, lines=20_000, days=4, attack_share=0.04)
    events = parse(records_from_lines([line.encode() for line in made.lines])).events
    label = pl.Series(made.labels)[events["oddlog.position.offset"]]
    return LabelledLog(events, np.where(label.str.starts_with("attack"), 1, 0).astype(np.int8), label)


def run(arguments: argparse.Namespace) -> None:
    """Measure and print. Raises UsageError."""
    if len(arguments.log) != len(arguments.labels):
        raise UsageError(f"{len(arguments.log)} --log and {len(arguments.labels)} --labels", expected="one for each")
    where = machine()
    pairs = zip(arguments.log, arguments.labels, strict=True)
    logs = {log.absolute().parent.name: load(log, labels) for log, labels in pairs}
    found = {name: detection(log) for name, log in (logs or {"simulated traffic": _simulated()}).items()}
    pin_to_one_core()
    times = speed(arguments.events, arguments.batch, arguments.rounds)
    plain = next(iter(times.values()))
    tables = [
        markdown(
            [f"one core, {arguments.events:,} envelopes parsed, median of {arguments.rounds}", "us/event", "more"],
            [[name, f"{us:.2f}", f"{us - plain:+.2f}"] for name, us in times.items()],
        ),
        markdown(
            ["average precision", *(f"{name}, {kept} queries" for name in ALGORITHMS for kept in ("with", "without"))],
            [
                [log, *(f"{figures[name][kept]:.3f}" for name in ALGORITHMS for kept in ("with", "without"))]
                for log, figures in found.items()
            ],
        ),
    ]
    publish("privacy", where, {"parse_us": times, "average_precision": found}, tables, arguments.json)


def main(argv: Sequence[str] | None = None) -> int:
    """The tables on standard output."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.privacy", description=__doc__)
    parser.add_argument("--log", type=Path, action="append", default=[], help="a labelled log; may be repeated")
    parser.add_argument("--labels", type=Path, action="append", default=[], help="its labels, a line each")
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--batch", type=int, default=4_096)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="where the figures go; default: benchmarks/results/privacy.json")
    return run_command(run, parser, argv)


if __name__ == "__main__":
    sys.exit(main())
