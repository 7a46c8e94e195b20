"""`python -m benchmarks.agreement`: do planted attacks rank models as labels do?

On labelled logs (`--log FILE --labels FILE`, several times), fitted on the first part. The models are every algorithm,
whole and without each of the parts that `benchmarks.ablation` takes away: good ones, and such as are broken in one
place. Each is judged twice on the later part: by its labels, and as on a site that has none, by attacks planted among
the same events, which all count as benign then (`training/planting.py`, the figures of `oddlog train`). For each log:
Spearman's correlation over the models, and over those within CLOSE of the best by labels; what is lost by choosing the
model that planted attacks put first.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from rich.console import Console
from rich.progress import track

from benchmarks.ablation import Case, Matrix, measure
from benchmarks.detection import LabelledLog
from benchmarks.labelled_logs import add_log_flags, check_logs, labelled_logs
from benchmarks.quality_command import add_flags, algorithms_of, run_command
from benchmarks.tables import markdown
from oddlog.errors import UsageError
from training.evaluate import judge_planted
from training.metrics import metrics
from training.planting import plant_among

CLOSE = 0.05
"""Models this near the best are those that one chooses among."""

PLANTED = {
    "all": "all planted attacks",
    "mean": "mean over scenarios",
    "cleaned": "all, own attacks left out",
}
"""Ways to make one figure of planted attacks; the last needs the labels, and tells what the log's own attacks spoil."""

Models = dict[str, dict[str, float]]
"""Model -> `labels` and the keys of PLANTED: average precisions."""


def case_of(name: str, log: LabelledLog, fit_share: float, plantings: int) -> Case:
    """Stream 0 is the log, judged by labels; the others are the log with attacks planted by seed."""
    fitted = int(len(log.events) * fit_share)
    before, after, truth = log.events[:fitted], log.events[fitted:], log.truth[fitted:]
    if not ((truth == 0).any() and (truth == 1).any()):
        raise UsageError(f"{name}: not both attacks and benign lines are scored", mend="another --fit-share")
    planted = [plant_among(after, lead_in=lambda: iter([before]), seed=seed) for seed in range(plantings)]
    attacks = after.filter(pl.Series(truth == 1))["_id"].implode()
    known = [one.events["_id"].is_in(attacks).to_numpy() for one in planted]

    def judge(number: int, scores: Matrix) -> list[float]:
        if number == 0:
            return [metrics(truth, scores)["ap"]]
        one = planted[number - 1]
        nothing_known = np.zeros(len(scores), dtype=np.bool_)
        unlabelled, cleaned = (
            judge_planted(scores, one.scenario, one.instance, np.inf, known_attacks=own_attacks)
            for own_attacks in (nothing_known, known[number - 1])
        )
        assert unlabelled is not None
        assert cleaned is not None
        mean = float(np.mean([outcome.average_precision for outcome in unlabelled.by_scenario.values()]))
        return [unlabelled.average_precision, mean, cleaned.average_precision]

    mixed = [(pl.concat([before, one.events]), fitted) for one in planted]
    return Case(name, [(log.events, fitted), *mixed], judge)


def models_of(case: Case, algorithms: Sequence[str], seeds: int) -> Models:
    """Both judgements of every model, the mean over seeds and plantings."""
    found: Models = {}
    for without, name, judged in measure(case, algorithms, seeds):
        values = np.mean(judged, axis=0)
        planted = values[1:].reshape(-1, len(PLANTED)).mean(axis=0)
        figures = dict(zip(("labels", *PLANTED), (float(values[0]), *map(float, planted)), strict=True))
        found[f"{name} without {without}"] = figures
    return found


def agreement(models: Models) -> dict[str, Any]:
    """By every way of PLANTED: `rank` and `close` (NaN under three models), `chosen` model and its AP by labels."""
    labels = np.array([figures["labels"] for figures in models.values()])
    near = labels >= labels.max() - CLOSE
    found: dict[str, Any] = {"models": len(labels), "near": int(near.sum()), "best": float(labels.max())}
    for way in PLANTED:
        planted = np.array([figures[way] for figures in models.values()])
        first = int(planted.argmax())
        found[way] = {
            "rank": _spearman(labels, planted),
            "close": _spearman(labels[near], planted[near]),
            "chosen": list(models)[first],
            "chosen_ap": float(labels[first]),
        }
    return found


def _spearman(one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> float:
    if len(one) < 3 or np.ptp(one) == 0 or np.ptp(other) == 0:
        return float("nan")
    first, second = (pl.Series(values).rank().to_numpy() for values in (one, other))
    return float(np.corrcoef(first, second)[0, 1])


def table(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Log -> agreement; two correlations by every way, then what choosing by planted attacks costs."""
    rows = []
    for name, one in found.items():
        ranks = [f"{one[way]['rank']:+.2f} {one[way]['close']:+.2f}" for way in PLANTED]
        chosen = [f"{one[way]['chosen_ap']:.3f}" for way in ("all", "mean")]
        rows.append([name, f"{one['models']}, {one['near']}", *ranks, f"{one['best']:.3f}", *chosen])
    head = ["log", f"models, within {CLOSE:g}", *PLANTED.values(), "best AP by labels", "chosen by all", "by mean"]
    return markdown(head, rows)


def run(arguments: argparse.Namespace) -> None:
    """Measure and print. Raises UsageError."""
    algorithms = algorithms_of(arguments)
    check_logs(arguments)
    if not arguments.log or arguments.plantings < 1:
        raise UsageError(
            f"{len(arguments.log)} --log, --plantings {arguments.plantings}",
            expected="a labelled log at least, and a planting",
        )
    steps = track(
        labelled_logs(arguments), "Measuring", total=len(arguments.log), console=Console(stderr=True), transient=True
    )
    models = {
        name: models_of(case_of(name, log, arguments.fit_share, arguments.plantings), algorithms, arguments.seeds)
        for name, log in steps
    }
    found = {name: agreement(one) for name, one in models.items()}
    if arguments.json:
        print(json.dumps({"models": models, "agreement": found}))
        return
    print(table(found))
    for name, one in found.items():
        print("\n" + "; ".join(f"{name}, {way}: {one[key]['chosen']}" for key, way in PLANTED.items()))


def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: 0, 2 for wrong arguments or files."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.agreement", description=__doc__)
    add_log_flags(parser)
    add_flags(parser, seeds=1, seeds_mean="runs of every detector to take the mean of")
    parser.add_argument("--plantings", type=int, default=2, help="times that attacks are planted, each by its own seed")
    return run_command(run, parser, argv)


if __name__ == "__main__":
    sys.exit(main())
