"""`python -m benchmarks.scenarios`: which simulated attacks are found, how well, after how foul a fitted period.

Sound traffic of a simulated site; its first half is fitted on with a share of attack lines among it (every scenario in
equal parts), unlabelled. In the second half, otherwise clean, three instances of each scenario are planted. By
scenario, against the clean events: average precision, and the share of instances with at least one alert at the score
that gives the budget's alerts a day on the clean events alone. For detectors also that share where the second channel
has its part of the same budget, as in a trained model; `novelty` is that channel by itself, at its part alone. Figures
are the mean over seeds; `benchmarks.detection` measures on labelled logs.

The last table is what a distributed attack costs the others: the share of their instances that is found where the
budget is spent on a period that holds the attacks of ONE_PATTERN too, each alert counted, or like ones of a day once.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
from rich.console import Console
from rich.progress import track

from benchmarks.quality_command import add_flags, algorithms_of, run_command
from benchmarks.rules import RULES
from benchmarks.scenario_tables import Figures, tables
from oddlog.detectors.catalogue import create
from oddlog.detectors.detector import Detector
from oddlog.detectors.novelty import Novelty
from oddlog.errors import UsageError
from oddlog.events.logfile import records_from_lines
from oddlog.events.parse import parse
from oddlog.features.compute import FeatureComputer, fit_features
from oddlog.features.fitting import units_of
from oddlog.scoring.threshold import NOVELTY_SHARE, parse_budget
from oddlog.settings import Settings
from oddlog.simulation import SCENARIOS, plant, planted_of, simulate
from training.metrics import Cut, Ranking, Scores
from training.metrics import mean_of as mean_figures

DAYS = 6.0
INSTANCES = 3
CONTAMINATION = (0.0, 0.01, 0.1, 0.4, 0.7)

ON_SOUND_CLIENTS = ("web_shell_use", "shell_from_busy_client", "error_outage")
"""Played by clients that are there: planted one by one, or they would change what the others are judged against."""

ONE_PATTERN = ("botnet_one_request", "distributed_bruteforce")
"""Many clients that do one and the same thing, a few times each."""

NOVELTY = "novelty"

Spent = dict[str, dict[str, float]]
"""detector -> `clean`, `every_alert`, `by_behaviour`: share of the other scenarios' instances found."""


@dataclass(frozen=True, slots=True)
class Stream:
    """Fitted events, then the scored ones with attacks among them. Of the latter: `scenario` (null: clean) and
    `instance` [m]."""

    events: pl.DataFrame
    fitted: int
    scenario: pl.Series
    instance: pl.Series

    def alert(self) -> npt.NDArray[np.int64]:
        """Number of the client-hour of every scored event [m]."""
        scored = self.events[self.fitted :].select(
            pl.struct("source.address", pl.col("@timestamp").dt.truncate("1h")).rank("dense")
        )
        return scored.to_series().to_numpy().astype(np.int64)


Method = Callable[[Stream], Scores]


def streams(seed: int, lines: int, contamination: float) -> Iterator[Stream]:
    """The same fitted and clean events every time, other attacks planted among the latter."""
    made = simulate(seed=seed, lines=round(lines / (1 - contamination)), days=DAYS, attack_share=contamination)
    middle = made.start + (made.end - made.start) / 2
    early = pl.col("time") < middle
    kept = made.frame.filter(early | (pl.col("label") == "benign"))
    fitted = kept.filter(early).height
    events = parse(records_from_lines([line.encode() for line in kept["line"].to_list()])).events
    if events.height != kept.height:
        raise UsageError(f"{kept.height - events.height} simulated lines do not parse", expected="none")
    before, after = events[:fitted], events[fitted:]
    together = [name for name in SCENARIOS if name not in ON_SOUND_CLIENTS]
    for names in (together, *([name] for name in ON_SOUND_CLIENTS)):
        planted = plant(after, names, seed=seed, instances=INSTANCES)
        mixed = pl.concat([after, planted]).sort("@timestamp", maintain_order=True)
        marks = planted_of(mixed["_id"])
        yield Stream(pl.concat([before, mixed]), fitted, marks["scenario"], marks["instance"])


def measure(
    seed: int, lines: int, contamination: float, budget: float, algorithms: Sequence[str]
) -> tuple[Figures, Spent]:
    """Figures of every method for every scenario, and what a distributed attack costs each detector, of one seed."""
    found: Figures = {}
    spent: Spent = {}
    methods: dict[str, Method] = {}
    places = budget * DAYS / 2
    for stream in streams(seed, lines, contamination):
        if not methods:
            methods = _methods(stream, seed, algorithms)
        alert = stream.alert()
        clean = stream.scenario.is_null().to_numpy()
        all_scores = {name: np.asarray(score(stream), dtype=np.float64) for name, score in methods.items()}
        if ONE_PATTERN[0] in stream.scenario:
            spent = {name: _spent(stream, all_scores[name], alert, places) for name in algorithms}
        novelty = all_scores[NOVELTY]
        new_hours = _by_alert(novelty[clean], alert[clean])
        for method, scores in all_scores.items():
            hours = _by_alert(scores[clean], alert[clean])
            cut = Cut.at(hours, places * NOVELTY_SHARE if method == NOVELTY else places)
            first = Cut.at(hours, places * (1 - NOVELTY_SHARE))
            second = Cut.at(new_hours[first.taken(hours) == 0], places * NOVELTY_SHARE)
            for scenario in stream.scenario.drop_nulls().unique().to_list():
                rows = (stream.scenario == scenario).fill_null(False).to_numpy()
                one = found.setdefault(scenario, {})[method] = {
                    "ap": average_precision(scores, rows, clean),
                    "detected": _detected([(scores, cut)], rows, stream.instance, alert),
                }
                if method in algorithms:
                    channels = [(scores, first), (novelty, second)]
                    one["with_novelty"] = _detected(channels, rows, stream.instance, alert)
    return {name: found[name] for name in SCENARIOS}, spent


def _spent(stream: Stream, scores: Scores, alert: npt.NDArray[np.int64], places: float) -> dict[str, float]:
    """Share of the instances of scenarios that are not of ONE_PATTERN with an alert, by where the budget is spent."""
    events = stream.events[stream.fitted :]
    day = events["@timestamp"].dt.truncate("1d").rank("dense").to_numpy().astype(np.int64)
    behaviour = units_of(events)[0] * (int(day.max()) + 1) + day
    clean = stream.scenario.is_null().to_numpy()
    attacked = clean | stream.scenario.is_in(ONE_PATTERN).fill_null(False).to_numpy()
    others = [name for name in stream.scenario.drop_nulls().unique().to_list() if name not in ONE_PATTERN]
    found = {}
    for name, rows, unit in (
        ("clean", clean, alert), ("every_alert", attacked, alert), ("by_behaviour", attacked, behaviour),
    ):  # fmt: skip
        cut = Cut.at(_by_alert(scores[rows], unit[rows]), places)
        shares = [
            _detected([(scores, cut)], (stream.scenario == one).fill_null(False).to_numpy(), stream.instance, alert)
            for one in others
        ]
        found[name] = float(np.mean(shares))
    return found


def _methods(stream: Stream, seed: int, algorithms: Sequence[str]) -> dict[str, Method]:
    """Detectors, fitted once; then the rules, which look at the whole stream."""
    baseline, data = fit_features(stream.events[: stream.fitted])
    detectors = {name: create(name).fit(data, seed=seed) for name in algorithms}
    channel = Novelty().fit(data)
    kept: tuple[Stream, npt.NDArray[np.float32]] | None = None

    def features(of: Stream) -> npt.NDArray[np.float32]:
        nonlocal kept
        if kept is None or kept[0] is not of:
            kept = of, FeatureComputer(baseline).compute(of.events)[of.fitted :]
        return kept[1]

    def by_detector(detector: Detector) -> Method:
        return lambda stream: detector.score(features(stream))

    def by_rule(rule: Callable[[pl.DataFrame, int], Scores]) -> Method:
        return lambda stream: rule(stream.events, stream.fitted)

    return {
        **{name: by_detector(detector) for name, detector in detectors.items()},
        NOVELTY: lambda stream: channel.score(features(stream)),
        **{name: by_rule(rule) for name, rule in RULES.items()},
    }


def _by_alert(scores: Scores, alert: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """The highest score of every client-hour there is."""
    _, place = np.unique(alert, return_inverse=True)
    highest = np.full(int(place.max()) + 1, -np.inf)
    np.maximum.at(highest, place, scores)
    return highest


def average_precision(scores: Scores, rows: npt.NDArray[np.bool_], clean: npt.NDArray[np.bool_]) -> float:
    """Of the chosen rows against the clean ones, all the rest left out."""
    chosen = rows | clean
    return Ranking(rows[chosen], scores[chosen]).average_precision(np.ones(int(chosen.sum())))


def _detected(
    channels: Sequence[tuple[Scores, Cut]],
    rows: npt.NDArray[np.bool_],
    instance: pl.Series,
    alert: npt.NDArray[np.int64],
) -> float:
    """Share of the instances with at least one alert, by any of the channels (scores, and where their budget ends); the
    expected one where a cut goes through equal scores."""
    caught = []
    numbers = instance.to_numpy()
    for number in instance.filter(pl.Series(rows)).unique().to_list():
        own = rows & (numbers == number)
        missed = [np.prod(1.0 - cut.taken(_by_alert(scores[own], alert[own]))) for scores, cut in channels]
        caught.append(1.0 - float(np.prod(missed)))
    return float(np.mean(caught))


def mean_of(runs: Sequence[Figures]) -> Figures:
    """Mean over seeds."""
    return {
        scenario: {
            method: {name: float(np.mean([run[scenario][method][name] for run in runs])) for name in figures}
            for method, figures in methods.items()
        }
        for scenario, methods in runs[0].items()
    }


def run(arguments: argparse.Namespace) -> None:
    """Measure and print. Raises UsageError."""
    algorithms = algorithms_of(arguments)
    if arguments.lines < 2_000:
        raise UsageError(f"--lines {arguments.lines}", expected="2000 or more")
    shares = _shares(arguments.contamination)
    budget = parse_budget(arguments.budget)
    tasks = [(share, seed) for share in shares for seed in range(arguments.seeds)]
    found: dict[float, list[Figures]] = {share: [] for share in shares}
    spent: dict[float, list[Spent]] = {share: [] for share in shares}
    console = Console(stderr=True)
    for share, seed in track(tasks, description="Simulating", console=console, transient=True):
        figures, cost = measure(seed, arguments.lines, share, budget, algorithms)
        found[share].append(figures)
        spent[share].append(cost)
    means = {f"{share:g}": mean_of(runs) for share, runs in found.items()}
    costs = {
        f"{share:g}": {name: mean_figures([run[name] for run in runs]) for name in algorithms}
        for share, runs in spent.items()
    }
    settings = {"seeds": arguments.seeds, "lines": arguments.lines, "budget": arguments.budget}
    document = {**settings, "contamination": means, "distributed": costs}
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(document) + "\n")
    if arguments.json:
        print(json.dumps(document))
    else:
        print("\n\n".join(tables(document, _default(algorithms))))


def _default(algorithms: Sequence[str]) -> str:
    """The product's default where it was measured."""
    chosen = Settings().train.algorithm
    return chosen if chosen in algorithms else algorithms[0]


def _shares(text: str) -> list[float]:
    try:
        shares = [float(part) for part in text.split(",")]
    except ValueError:
        shares = []
    if not shares or not all(0 <= share <= 0.9 for share in shares):
        raise UsageError(f"--contamination {text}", expected="shares from 0 to 0.9 with commas between: 0,0.1,0.4")
    return shares


def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: 0, 2 for wrong arguments."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scenarios", description=__doc__)
    add_flags(parser, seeds=3, seeds_mean="runs to take the mean of; each is another site")
    parser.add_argument("--lines", type=int, default=40_000, help="sound lines, over six days")
    shares = ",".join(f"{share:g}" for share in CONTAMINATION)
    parser.add_argument("--contamination", default=shares, help="shares of attack lines in the fitted half")
    parser.add_argument("--out", type=Path, help="write the JSON document there too")
    return run_command(run, parser, argv)


if __name__ == "__main__":
    sys.exit(main())
