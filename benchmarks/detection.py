"""`python -m benchmarks.detection`: how well detectors and trivial rules find labelled attacks in a log.

Fitted on the first part of the log as it is, unlabelled; the rest is scored. `benign` lines are negatives,
`attack...` lines positives; lines with any other label stay in the stream but are not counted.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.rules import RULES
from oddlog.detectors.catalogue import NAMES, create
from oddlog.errors import OddlogError, UsageError
from oddlog.events.logfile import read_log, records_from_lines
from oddlog.events.parse import parse
from oddlog.features.compute import FeatureComputer, fit_features

Metrics = dict[str, float]
METRICS = ("ap", "roc_auc", "precision_at_1pct")
BATCH = 16_384


@dataclass(frozen=True, slots=True)
class LabelledLog:
    """Parsed events in order, and the truth of each: 1 attack, 0 benign, -1 not counted (int8 [n])."""

    events: pl.DataFrame
    truth: npt.NDArray[np.int8]


def read_labels(path: Path) -> list[str]:
    """One label a line, plain or .gz."""
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return content.decode().splitlines()


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
    return LabelledLog(events, truth)


def metrics(truth: npt.NDArray[np.int8], scores: npt.NDArray[np.floating]) -> Metrics:
    """Average precision, area under the ROC curve, and precision among the top 1 % of the counted events.

    Equal scores share their places: of a group that the cut goes through, the expected number counts.
    """
    from sklearn.metrics import average_precision_score, roc_auc_score

    counted = truth >= 0
    positive, score = truth[counted] == 1, np.asarray(scores)[counted]
    places = max(1, round(0.01 * len(score)))
    cut = np.partition(score, -places)[-places]
    above, level = score > cut, score == cut
    found = positive[above].sum() + positive[level].mean() * (places - above.sum())
    return {
        "ap": float(average_precision_score(positive, score)),
        "roc_auc": float(roc_auc_score(positive, score)),
        "precision_at_1pct": float(found / places),
    }


def mean_of(runs: Sequence[Metrics]) -> Metrics:
    """Mean over seeds, and the deviation of average precision where there are several."""
    mean = {name: float(np.mean([run[name] for run in runs])) for name in METRICS}
    if len(runs) > 1:
        mean["ap_sd"] = float(np.std([run["ap"] for run in runs]))
    return mean


def evaluate(
    log: LabelledLog, algorithms: Sequence[str], fit_share: float, seeds: int
) -> Iterator[tuple[str, str, Metrics]]:
    """Yield ("rules" or "algorithms", name, metrics), one after the other as they are ready."""
    fitted = int(len(log.events) * fit_share)
    truth = log.truth[fitted:]
    for positive in (0, 1):
        if not (truth == positive).any():
            kind = "attack" if positive else "benign"
            raise UsageError(f"no {kind} line is in the scored part of the log", mend="another --fit-share")
    for name, rule in RULES.items():
        yield "rules", name, mean_of([metrics(truth, rule(log.events, fitted))])
    baseline, data = fit_features(log.events[:fitted])
    computer = FeatureComputer(baseline)
    features = np.concatenate([computer.compute(batch) for batch in log.events.iter_slices(BATCH)])[fitted:]
    for name in algorithms:
        runs = [metrics(truth, create(name).fit(data, seed=seed).score(features)) for seed in range(seeds)]
        yield "algorithms", name, mean_of(runs)


def run(arguments: argparse.Namespace) -> None:
    """Measure and print. Raises UsageError."""
    if not 0.0 < arguments.fit_share < 1.0:
        raise UsageError(f"--fit-share {arguments.fit_share}", expected="more than 0 and less than 1")
    if arguments.seeds < 1:
        raise UsageError(f"--seeds {arguments.seeds}", expected="1 or more")
    algorithms = NAMES if arguments.algorithm == "all" else (create(arguments.algorithm).name,)
    log = load(arguments.log, arguments.labels)
    scored = log.truth[int(len(log.events) * arguments.fit_share) :]
    results: dict[str, dict[str, Metrics]] = {"algorithms": {}, "rules": {}}
    steps = track(
        evaluate(log, algorithms, arguments.fit_share, arguments.seeds),
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
    table = Table(title=f"{arguments.log}: {events:,} events scored, {positives:,} attacks", title_justify="left")
    table.add_column("")
    for column in ("average precision", "ROC-AUC", "precision at 1 %"):
        table.add_column(column, justify="right")
    for group in ("algorithms", "rules"):
        for name, result in results[group].items():
            spread = f" ±{result['ap_sd']:.3f}" if "ap_sd" in result else ""
            cells = [f"{result['ap']:.3f}{spread}", f"{result['roc_auc']:.3f}", f"{result['precision_at_1pct']:.3f}"]
            table.add_row(name, *cells)
        table.add_section()
    Console().print(table)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: 0, 2 for wrong arguments or files."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.detection", description=__doc__)
    parser.add_argument("--log", type=Path, required=True, help="access log, plain or .gz")
    parser.add_argument("--labels", type=Path, required=True, help="one label a line, plain or .gz")
    parser.add_argument("--fit-share", type=float, default=0.5, help="share of the lines, oldest first, to fit on")
    parser.add_argument("--algorithm", default="all", help="all, or one of " + ", ".join(NAMES))
    parser.add_argument("--seeds", type=int, default=1, help="runs to take the mean of")
    parser.add_argument("--json", action="store_true", help="one JSON document on one line")
    try:
        run(parser.parse_args(argv))
    except OddlogError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
