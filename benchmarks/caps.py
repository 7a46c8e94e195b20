"""`python -m benchmarks.caps`: what it costs to hold fewer keys in a baseline, and fewer clients in memory.

On labelled logs and simulated sites, as `benchmarks.ablation`: fitted once on the first part, then the rest is scored
under the baseline capped to so many keys a table (`oddlog/features/capping.py`), or with so many clients kept
(`enrich.max_clients`). Average precision of each.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

from benchmarks.ablation import SITE_LINES, Case, cases, check_sites
from benchmarks.labelled_logs import add_log_flags
from benchmarks.quality_command import add_flags, algorithms_of, run_command
from benchmarks.scenario_tables import precision
from benchmarks.tables import markdown
from oddlog.detectors.catalogue import create
from oddlog.features.baseline import Baseline
from oddlog.features.capping import capped
from oddlog.features.clients import MAX_CLIENTS
from oddlog.features.compute import FeatureComputer, fit_features

KEYS = (5_000, 2_000, 1_000, 500, 200, 100)
CLIENTS = (1_000, 300, 100, 30, 10)
UNBOUNDED = "all keys, all clients"

Found = dict[str, Any]
"""Of one case: `column`, `largest` table, `clients` kept in the end, `rows`: cap -> algorithm -> average precision."""


def measure(case: Case, algorithms: Sequence[str], seeds: int) -> Found:
    """All caps of one case."""
    events, fitted = case.streams[0]
    baseline, data = fit_features(events[:fitted])
    detectors = [(name, create(name).fit(data, seed=seed)) for name in algorithms for seed in range(seeds)]
    most = 0
    rows: dict[str, dict[str, float]] = {}
    for cap, held, limit in _caps(baseline):
        found: dict[str, list[float]] = {name: [] for name in algorithms}
        for number, (stream, begin) in enumerate(case.streams):
            computer = FeatureComputer(held, max_clients=limit)
            features = computer.compute(stream)[begin:]
            if cap == UNBOUNDED:
                most = max(most, computer.clients)
            for name, detector in detectors:
                found[name] += case.judge(number, detector.score(features))
        rows[cap] = {name: float(np.mean(values)) for name, values in found.items()}
    return {"column": case.column, "largest": _largest(baseline), "clients": most, "rows": rows}


def _caps(baseline: Baseline) -> Iterator[tuple[str, Baseline, int]]:
    yield UNBOUNDED, baseline, MAX_CLIENTS
    for most in KEYS:
        yield f"{most:,} keys a table", capped(baseline, most), MAX_CLIENTS
    for limit in CLIENTS:
        yield f"{limit:,} clients", baseline, limit


def _largest(baseline: Baseline) -> int:
    tables = (baseline.token, baseline.section, baseline.subsection, baseline.path)
    return max(len(table.keys) for table in tables)


def table(found: Sequence[Found], algorithm: str) -> str:
    """Of one algorithm, a row for every cap; the cases of one column are averaged."""
    columns: dict[str, list[Found]] = {}
    for one in found:
        columns.setdefault(one["column"], []).append(one)

    def mean(column: str, key: str) -> float:
        return float(np.mean([one[key] for one in columns[column]]))

    def ap(column: str, cap: str) -> float:
        return float(np.mean([one["rows"][cap][algorithm] for one in columns[column]]))

    rows = [
        ["keys in the largest table", *(f"{mean(column, 'largest'):,.0f}" for column in columns)],
        ["clients kept in the end", *(f"{mean(column, 'clients'):,.0f}" for column in columns)],
        *([cap, *(precision(ap(column, cap)) for column in columns)] for cap in found[0]["rows"]),
    ]
    return markdown([algorithm, *columns], rows)


def run(arguments: argparse.Namespace) -> None:
    """Measure and print. Raises UsageError."""
    algorithms = algorithms_of(arguments)
    total = check_sites(arguments)
    steps = track(cases(arguments), "Measuring", total=total, console=Console(stderr=True), transient=True)
    found = [measure(case, algorithms, arguments.seeds) for case in steps]
    if arguments.json:
        settings: Mapping[str, Any] = {"seeds": arguments.seeds, "sites": arguments.sites}
        print(json.dumps({**settings, "cases": found}))
    else:
        print("\n\n".join(table(found, name) for name in algorithms))


def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: 0, 2 for wrong arguments or files."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.caps", description=__doc__)
    add_log_flags(parser)
    add_flags(parser, seeds=1, seeds_mean="runs of every detector to take the mean of")
    parser.add_argument("--sites", type=int, default=1, help="simulated sites, each at each contamination")
    parser.add_argument("--lines", type=int, default=SITE_LINES, help="sound lines of a simulated site, over six days")
    return run_command(run, parser, argv)


if __name__ == "__main__":
    sys.exit(main())
