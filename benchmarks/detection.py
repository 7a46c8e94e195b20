"""`python -m benchmarks.detection`: how well detectors and trivial rules find labelled attacks in a log.

Fitted on the first part of the log as it is, unlabelled; the rest is scored. `benign` lines are negatives,
`attack...` lines positives; lines with any other label stay in the stream but are not counted.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.quality_command import add_flags, algorithms_of, run_command
from benchmarks.rules import RULES
from oddlog.detectors.catalogue import create
from oddlog.errors import UsageError
from oddlog.events.logfile import read_log, records_from_lines
from oddlog.events.parse import parse
from oddlog.features.compute import FeatureComputer, fit_features
from oddlog.scoring.threshold import parse_budget
from training.metrics import Scored, Scores, Truth, intervals, judge, mean_of

Result = dict[str, Any]
"""Of one algorithm or rule: figures by name; `client_hours` and `by_type` hold more of them."""

BATCH = 16_384


@dataclass(frozen=True, slots=True)
class LabelledLog:
    """Parsed events in order, the label of each, and its truth: 1 attack, 0 benign, -1 not counted (int8 [n])."""

    events: pl.DataFrame
    truth: Truth
    label: pl.Series


def read_labels(path: Path) -> list[str]:
    """One label a line, plain or .gz. Raises UsageError."""
    try:
        return [line.decode().rstrip("\r") for line in read_log(path)]
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} holds no labels: {error}", expected="one label a line, UTF-8") from None


def load(log: Path, labels: Path) -> LabelledLog:
    """Parse a log and lay its labels beside it. Raises UsageError where they do not fit together."""
    for path in (log, labels):
        if not path.is_file():
            raise UsageError(f"there is no file {path}")
    lines, names = read_log(log), read_labels(labels)
    if len(lines) != len(names):
        raise UsageError(
            f"{log} has {len(lines)} lines and {labels} has {len(names)}", expected="one label for every line"
        )
    events = parse(records_from_lines(lines)).events
    name = pl.Series(names)[events["oddlog.position.offset"]]
    truth = np.where(name.str.starts_with("attack"), 1, np.where(name == "benign", 0, -1)).astype(np.int8)
    return LabelledLog(events, truth, name)


def evaluate(
    log: LabelledLog, algorithms: Sequence[str], fit_share: float, seeds: int, budget: float
) -> Iterator[tuple[str, str, Result]]:
    """Yield ("rules" or "algorithms", name, figures), one after the other as they are ready."""
    fitted = int(len(log.events) * fit_share)
    truth = log.truth[fitted:]
    for positive in (0, 1):
        if not (truth == positive).any():
            kind = "attack" if positive else "benign"
            raise UsageError(f"no {kind} line is in the scored part of the log", mend="another --fit-share")
    scored = Scored.of(log.events[fitted:], truth, log.label[fitted:])
    for name, rule in RULES.items():
        yield "rules", name, summarise(scored, [rule(log.events, fitted)], budget)
    baseline, data = fit_features(log.events[:fitted])
    computer = FeatureComputer(baseline)
    features = np.concatenate([computer.compute(batch) for batch in log.events.iter_slices(BATCH)])[fitted:]
    for name in algorithms:
        rankings = [create(name).fit(data, seed=seed).score(features) for seed in range(seeds)]
        yield "algorithms", name, summarise(scored, rankings, budget)


def summarise(scored: Scored, rankings: Sequence[Scores], budget: float) -> Result:
    """Figures of an algorithm, the mean over its seeds; the deviation of average precision where there are several."""
    runs = [judge(scored, scores, budget) for scores in rankings]
    ranges = intervals(scored, rankings)
    result: Result = {**mean_of([run.events for run in runs])}
    if len(runs) > 1:
        result["ap_sd"] = float(np.std([run.events["ap"] for run in runs]))
    result["ap_interval"] = list(ranges["events"])
    result["client_hours"] = {
        **mean_of([run.client_hours for run in runs]), "ap_interval": list(ranges["client_hours"]),
    }  # fmt: skip
    result["by_type"] = {label: mean_of([run.by_type[label] for run in runs]) for label in runs[0].by_type}
    return result


def run(arguments: argparse.Namespace) -> None:
    """Measure and print. Raises UsageError."""
    if not 0.0 < arguments.fit_share < 1.0:
        raise UsageError(f"--fit-share {arguments.fit_share}", expected="more than 0 and less than 1")
    algorithms = algorithms_of(arguments)
    budget = parse_budget(arguments.budget)
    log = load(arguments.log, arguments.labels)
    scored = log.truth[int(len(log.events) * arguments.fit_share) :]
    results: dict[str, dict[str, Result]] = {"algorithms": {}, "rules": {}}
    steps = track(
        evaluate(log, algorithms, arguments.fit_share, arguments.seeds, budget),
        description="Evaluating",
        total=len(RULES) + len(algorithms),
        console=Console(stderr=True),
        transient=True,
    )
    for group, name, result in steps:
        results[group][name] = result
    events, positives = int((scored >= 0).sum()), int((scored == 1).sum())
    if arguments.json:
        print(json.dumps({**results, "events": events, "positives": positives}))
        return
    console = Console(width=None if sys.stdout.isatty() else 160)
    title = f"{arguments.log}: {events:,} events scored, {positives:,} attacks"
    console.print(_table(title, results, arguments.budget))
    console.print("[..]: 95 %, bootstrap over clients. r/p: recall and precision at the budget.", markup=False)
    console.print(_types(results))


def _table(title: str, results: dict[str, dict[str, Result]], budget: str) -> Table:
    """Rows: algorithms, then rules; over events, then over client-hours."""
    table = Table(title=title, title_justify="left")
    table.add_column("")
    heads = ("average precision", "ROC-AUC", "p at 1 %", f"r/p at {budget}")
    for column in (*heads, *(f"client-hours: {head}" for head in heads)):
        table.add_column(column, justify="right")
    for group in ("algorithms", "rules"):
        for name, result in results[group].items():
            table.add_row(name, *_cells(result), *_cells(result["client_hours"]))
        table.add_section()
    return table


def _cells(figures: Result) -> list[str]:
    low, high = figures["ap_interval"]
    spread = f" ±{figures['ap_sd']:.3f}" if "ap_sd" in figures else ""
    return [
        f"{figures['ap']:.3f}{spread} \\[{low:.2f} {high:.2f}]",
        f"{figures['roc_auc']:.3f}",
        f"{figures['precision_at_1pct']:.3f}",
        f"{figures['recall_at_budget']:.2f}/{figures['precision_at_budget']:.2f}",
    ]


def _types(results: dict[str, dict[str, Result]]) -> Table:
    """Rows: labels of attacks; for everything the average precision against benign events, and recall at the budget."""
    everything = {**results["algorithms"], **results["rules"]}
    table = Table(title="by attack: average precision against benign, and recall at the budget", title_justify="left")
    table.add_column("")
    table.add_column("events", justify="right")
    for name in everything:
        table.add_column(name, justify="right")
    for label, figures in next(iter(everything.values()))["by_type"].items():
        own = [result["by_type"][label] for result in everything.values()]
        cells = [f"{one['ap']:.2f} {one['recall_at_budget']:.2f}" for one in own]
        table.add_row(label, f"{figures['events']:,.0f}", *cells)
    return table


def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: 0, 2 for wrong arguments or files."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.detection", description=__doc__)
    parser.add_argument("--log", type=Path, required=True, help="access log, plain or .gz")
    parser.add_argument("--labels", type=Path, required=True, help="one label a line, plain or .gz")
    parser.add_argument("--fit-share", type=float, default=0.5, help="share of the lines, oldest first, to fit on")
    add_flags(parser, seeds=1, seeds_mean="runs to take the mean of")
    return run_command(run, parser, argv)


if __name__ == "__main__":
    sys.exit(main())
