"""`python -m benchmarks.threshold_budget`: do thresholds keep their alert budget on the days after they were chosen?

Clean simulated traffic of one site. Two ways of choosing: `train`, as `oddlog train` does on one week (fitted on the
first 70 % of its events, threshold from the rest), and `recalibrated`, the week before is fitted and the whole week
gives the threshold. Then come four clean days, scored in order: alerts (client, hour) a day by both channels together,
each counted though like ones of a day count once where thresholds are chosen; the same with like ones counted once; and
how many of the former novelty adds. Mean over seeds, for every budget B. Exit code 1 where a mean of all is above 2 B.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import polars as pl
from rich.console import Console
from rich.progress import track
from rich.table import Table

from oddlog.detectors.catalogue import NAMES, create
from oddlog.detectors.novelty import Novelty
from oddlog.errors import OddlogError, UsageError
from oddlog.events.logfile import records_from_lines
from oddlog.events.parse import parse
from oddlog.features.fitting import units_of
from oddlog.scoring.threshold import anomalies, fit_threshold, flagged_per_day
from oddlog.settings import Settings
from oddlog.simulation import simulate
from training.dataset import split_by_time
from training.fit import fit_baseline

BUDGETS = (1.0, 5.0, 20.0)
WEEK, AFTER = dt.timedelta(days=7), dt.timedelta(days=4)
BATCH = 50_000


@dataclass(frozen=True, slots=True)
class Row:
    """Alerts a day of one algorithm, way and budget, by seed."""

    algorithm: str
    way: str
    budget: float
    calibrated: list[float]
    """On the events that the threshold was chosen on."""
    after: list[float]
    """On the four days after."""
    distinct: list[float]
    """Of these, like ones of a day (equal sets of paths) counted once: the unit that the budget is in."""
    by_novelty: list[float]
    """Of all of them, those that the first channel does not raise."""

    @property
    def mean(self) -> float:
        """Over seeds, of the days after."""
        return float(np.mean(self.after))

    @property
    def kept(self) -> bool:
        """Whether the days after stay within twice the budget."""
        return self.mean <= 2 * self.budget


def measure(
    seeds: int, lines_per_day: float, algorithms: Sequence[str]
) -> Iterator[tuple[str, str, float, tuple[float, float, float, float]]]:
    """Yield (algorithm, way, budget, alerts a day: where chosen, after, distinct, by novelty alone), seed by seed."""
    fit_share = Settings().train.fit_share
    for seed in range(seeds):
        days = (2 * WEEK + AFTER) / dt.timedelta(days=1)
        made = simulate(seed=seed, days=days, lines_per_day=lines_per_day, attacks=())
        whole = parse(records_from_lines([line.encode() for line in made.lines])).events
        week_begins, week_ends = made.start + WEEK, made.start + 2 * WEEK
        time = pl.col("@timestamp")
        week = whole.filter(time >= week_begins)
        boundary = split_by_time(week.filter(time < week_ends)["@timestamp"], fit_share).boundary
        ways = {"train": (week, boundary), "recalibrated": (whole, week_begins)}
        for way, (events, since) in ways.items():
            fitted = fit_baseline(events.filter(time < since), events.iter_slices(BATCH), since)
            later = events.filter(time >= since)
            chosen_on = (later["@timestamp"] < week_ends).to_numpy()
            first, rest = later.filter(pl.Series(chosen_on)), later.filter(pl.Series(~chosen_on))
            novelty = Novelty().fit(fitted.fit_data).score(fitted.later)
            behaviours = units_of(later)[0]
            for algorithm in algorithms:
                scores = create(algorithm).fit(fitted.fit_data, seed=seed).score(fitted.later)
                for budget in BUDGETS:
                    threshold = fit_threshold(
                        scores[chosen_on],
                        first["source.address"],
                        first["@timestamp"],
                        budget,
                        novelty=novelty[chosen_on],
                        behaviours=behaviours[chosen_on],
                        until=week_ends,
                    )
                    either, _ = anomalies(threshold, scores[~chosen_on], novelty[~chosen_on])
                    after, by_score = (
                        flagged_per_day(flags, rest["source.address"], rest["@timestamp"])
                        for flags in (either, anomalies(threshold, scores[~chosen_on])[0])
                    )
                    distinct = flagged_per_day(
                        either, rest["source.address"], rest["@timestamp"], behaviours[~chosen_on]
                    )
                    yield algorithm, way, budget, (threshold.expected_per_day, after, distinct, after - by_score)


def table(seeds: int, lines_per_day: float, algorithms: Sequence[str]) -> list[Row]:
    """All rows, in the order of algorithms, ways, budgets."""
    found: dict[tuple[str, str, float], Row] = {}
    steps = seeds * 2 * len(algorithms) * len(BUDGETS)
    measured = measure(seeds, lines_per_day, algorithms)
    for algorithm, way, budget, (chosen, after, distinct, by_novelty) in track(
        measured, description="Measuring", total=steps, console=Console(stderr=True), transient=True
    ):
        row = found.setdefault((algorithm, way, budget), Row(algorithm, way, budget, [], [], [], []))
        row.calibrated.append(chosen)
        row.after.append(after)
        row.distinct.append(distinct)
        row.by_novelty.append(by_novelty)
    return sorted(found.values(), key=lambda row: (algorithms.index(row.algorithm), row.way != "train", row.budget))


def show(rows: Sequence[Row]) -> Table:
    """For people."""
    shown = Table(title="Alerts a day: where the thresholds were chosen, and on the four clean days after")
    for head in (
        "algorithm",
        "way",
        "budget B",
        "chosen on",
        "after, mean",
        "distinct",
        "by novelty",
        "after, by seed",
        "within 2 B",
    ):
        shown.add_column(head)
    for row in rows:
        shown.add_row(
            row.algorithm,
            row.way,
            f"{row.budget:g}",
            f"{np.mean(row.calibrated):.2f}",
            f"{row.mean:.2f}",
            f"{np.mean(row.distinct):.2f}",
            f"{np.mean(row.by_novelty):.2f}",
            " ".join(f"{value:.2f}" for value in row.after),
            "yes" if row.kept else "NO",
        )
    return shown


def run(arguments: argparse.Namespace) -> bool:
    """Measure and print; whether every budget was kept. Raises UsageError."""
    if arguments.seeds < 1:
        raise UsageError(f"--seeds {arguments.seeds}", expected="1 or more")
    algorithms = NAMES if arguments.algorithm == "all" else (create(arguments.algorithm).name,)
    rows = table(arguments.seeds, arguments.lines_per_day, algorithms)
    document = {
        "seeds": arguments.seeds,
        "lines_per_day": arguments.lines_per_day,
        "cores": os.cpu_count(),
        "rows": [{**asdict(row), "mean": row.mean, "kept": row.kept} for row in rows],
    }
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(document, indent=2) + "\n")
    if arguments.json:
        print(json.dumps(document))
    else:
        Console(width=None if sys.stdout.isatty() else 150).print(show(rows))
    return all(row.kept for row in rows)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: 0 every budget was kept, 1 one was not, 2 wrong arguments."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.threshold_budget", description=__doc__)
    parser.add_argument("--seeds", type=int, default=5, help="sites to take the mean of")
    parser.add_argument("--lines-per-day", type=float, default=4_000, help="size of a site")
    parser.add_argument("--algorithm", default="all", help="all, or one of " + ", ".join(NAMES))
    parser.add_argument("--json", action="store_true", help="one JSON document on one line")
    parser.add_argument("--out", type=Path, help="write the JSON document there too")
    try:
        return 0 if run(parser.parse_args(argv)) else 1
    except OddlogError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
