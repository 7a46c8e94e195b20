"""`python -m benchmarks.ablation`: what is lost where one part of the features or of the fitting is taken away.

On labelled logs (`--log FILE --labels FILE`, several times): average precision over events, fitted on the first part,
the rest scored. On simulated sites: mean average precision over all scenarios, as `benchmarks.scenarios` plants them,
after fitted halves with 10 and with 40 % of attack lines. The product has no switches for this: a part is replaced for
the run, or its features are made constant, which no detector sees then.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
import polars as pl
from rich.console import Console
from rich.progress import track

from benchmarks.labelled_logs import add_log_flags, check_logs, labelled_logs
from benchmarks.quality_command import add_flags, algorithms_of, run_command
from benchmarks.scenario_tables import precision
from benchmarks.scenarios import average_precision, streams
from benchmarks.tables import markdown
from oddlog.detectors.catalogue import create
from oddlog.errors import UsageError
from oddlog.features import fitting, keys
from oddlog.features.compute import FeatureComputer, FitData, fit_features
from oddlog.features.declaration import EVENT_FEATURES, FEATURE_NAMES, HORIZONS, client_feature
from training.metrics import metrics

CONTAMINATION = (0.1, 0.4)
SITE_LINES = 20_000

Matrix = npt.NDArray[np.float32]


def _each_client_hour(client_hour: npt.NDArray[np.int64], path: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return client_hour


def _client_hours() -> AbstractContextManager[Any]:
    return patch.object(fitting, "_behaviours", _each_client_hour)


def _no_user_agents() -> AbstractContextManager[Any]:
    return patch.object(fitting, "MIN_USER_AGENTS", sys.maxsize)


def _no_standard_files() -> AbstractContextManager[Any]:
    return patch.object(keys, "_STANDARD", "[a&&b]")  # an empty class: it matches nothing


@dataclass(frozen=True, slots=True)
class Variant:
    """The product without one of its parts."""

    without: str
    replaced: tuple[Callable[[], AbstractContextManager[Any]], ...] = ()
    """What is replaced while features are fitted and computed."""
    constant: tuple[str, ...] = ()
    """Features that are made constant."""
    parameters: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Of detectors, by name; where there are any, the other detectors are not asked."""


def _client(*signals: str) -> tuple[str, ...]:
    return tuple(client_feature(signal, horizon) for signal in signals for horizon in HORIZONS)


WHOLE = "nothing"
VARIANTS: tuple[Variant, ...] = (
    Variant(WHOLE),
    Variant("behaviours (client-hours are counted)", replaced=(_client_hours,)),
    Variant("user agents as units", replaced=(_no_user_agents,)),
    Variant("both (client-hours alone are counted)", replaced=(_client_hours, _no_user_agents)),
    Variant("standard files", replaced=(_no_standard_files,)),
    Variant("company", constant=_client("company")),
    Variant("rarity of words", constant=(*_client("token"), "token_rarity")),
    Variant("page and post", constant=_client("page", "post")),
    Variant("the request's own features", constant=tuple(feature.name for feature in EVENT_FEATURES)),
    Variant("the client's features", constant=_client("error", "token", "company", "page", "post")),
    Variant(
        "choice of the sounder rows to learn from",
        parameters={"iforest": {"sound_share": 1.0}, "autoencoder": {"sound_share": 1.0}},
    ),
    Variant("background rows", parameters={"iforest": {"background": 0.0}}),
)


@dataclass(frozen=True, slots=True)
class Case:
    """A column of the table: one fitted period, and what is scored after it."""

    column: str
    streams: Sequence[tuple[pl.DataFrame, int]]
    """Events in order and how many of them are fitted, the same ones in every stream."""
    judge: Callable[[int, npt.NDArray[np.float32]], list[float]]
    """(number of the stream, scores of its later part) -> average precisions."""


def check_sites(arguments: argparse.Namespace) -> int:
    """How many cases the logs, --sites and --lines make. Raises UsageError where they make none, or no sense."""
    check_logs(arguments)
    if arguments.sites < 0 or arguments.lines < 2_000:
        raise UsageError(f"--sites {arguments.sites} --lines {arguments.lines}", expected="0 sites or more, 2000 lines")
    total: int = len(arguments.log) + arguments.sites * len(CONTAMINATION)
    if not total:
        raise UsageError("there is nothing to measure on", mend="--log and --labels, or --sites 1")
    return total


def cases(arguments: argparse.Namespace) -> Iterator[Case]:
    """Of every log, then of every simulated site and contamination. Raises UsageError."""
    for name, log in labelled_logs(arguments):
        fitted = int(len(log.events) * arguments.fit_share)
        truth = log.truth[fitted:]
        if not ((truth == 0).any() and (truth == 1).any()):
            raise UsageError(f"{name}: not both attacks and benign lines are scored", mend="another --fit-share")
        yield Case(name, [(log.events, fitted)], lambda _, scores, truth=truth: [metrics(truth, scores)["ap"]])  # type: ignore[misc]
    for contamination in CONTAMINATION:
        for site in range(arguments.sites):
            made = list(streams(site, arguments.lines, contamination))

            def judge(number: int, scores: Matrix, made: Any = made) -> list[float]:
                scenario = made[number].scenario
                clean = scenario.is_null().to_numpy()
                return [
                    average_precision(scores, (scenario == name).fill_null(False).to_numpy(), clean)
                    for name in scenario.drop_nulls().unique(maintain_order=True)
                ]

            yield Case(f"scenarios, {contamination:.0%}", [(one.events, one.fitted) for one in made], judge)


def measure(case: Case, algorithms: Sequence[str], seeds: int) -> Iterator[tuple[str, str, list[list[float]]]]:
    """Yield (variant, algorithm, what is judged of every stream by seed) of one case."""
    whole = _features(case)
    for variant in VARIANTS:
        asked = [name for name in algorithms if not variant.parameters or name in variant.parameters]
        data, later = whole
        if variant.replaced and asked:
            with ExitStack() as stack:
                for replace in variant.replaced:
                    stack.enter_context(replace())
                data, later = _features(case)
        columns = [FEATURE_NAMES.index(name) for name in variant.constant]
        data = FitData(_constant(data.features, columns), data.weights, data.behaviour, data.names)
        for name in asked:
            found: list[list[float]] = []
            for seed in range(seeds):
                detector = create(name, variant.parameters.get(name)).fit(data, seed=seed)
                judged = (case.judge(n, detector.score(_constant(x, columns))) for n, x in enumerate(later))
                found.append([value for values in judged for value in values])
            yield variant.without, name, found


def _features(case: Case) -> tuple[FitData, list[Matrix]]:
    events, fitted = case.streams[0]
    baseline, data = fit_features(events[:fitted])
    return data, [FeatureComputer(baseline).compute(events)[fitted:] for events, fitted in case.streams]


def _constant(features: Matrix, columns: Sequence[int]) -> Matrix:
    changed = features.copy()
    changed[:, columns] = 0.0
    return changed


def table(found: Mapping[str, Mapping[str, Sequence[float]]], algorithm: str) -> str:
    """Of one algorithm, variant -> column -> values of each case; means over the logs, and changes against WHOLE."""
    whole = found[WHOLE]
    rows = []
    for without, by_column in found.items():
        means = {column: float(np.mean(values)) for column, values in by_column.items()}
        change = float(np.mean([value - np.mean(whole[column]) for column, value in means.items()]))
        rows.append([without, *map(precision, means.values()), "" if without == WHOLE else f"{change:+.3f}"])
    return markdown([f"{algorithm} without", *whole, "mean change"], rows)


def run(arguments: argparse.Namespace) -> None:
    """Measure and print. Raises UsageError."""
    algorithms = algorithms_of(arguments)
    total = check_sites(arguments)
    found: dict[str, dict[str, dict[str, list[float]]]] = {name: {} for name in algorithms}
    console = Console(stderr=True)
    for case in track(cases(arguments), description="Measuring", total=total, console=console, transient=True):
        for without, name, judged in measure(case, algorithms, arguments.seeds):
            found[name].setdefault(without, {}).setdefault(case.column, []).append(float(np.mean(judged)))
    if arguments.json:
        print(json.dumps({"seeds": arguments.seeds, "sites": arguments.sites, "algorithms": found}))
    else:
        print("\n\n".join(table(found[name], name) for name in algorithms))


def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: 0, 2 for wrong arguments or files."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ablation", description=__doc__)
    add_log_flags(parser)
    add_flags(parser, seeds=1, seeds_mean="runs of every detector to take the mean of")
    parser.add_argument("--sites", type=int, default=2, help="simulated sites, each at each contamination")
    parser.add_argument("--lines", type=int, default=SITE_LINES, help="sound lines of a simulated site, over six days")
    return run_command(run, parser, argv)


if __name__ == "__main__":
    sys.exit(main())
