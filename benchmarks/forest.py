"""The compiled forest against scikit-learn's own, in process: `python -m benchmarks.forest`, two minutes.

One isolation forest of 200 trees, fitted on simulated traffic. scikit-learn is asked as the detector asks it
(`score_samples` on normalised features), the compiled one as the service asks it (`Model.score`: one ONNX graph from
raw features to scores). One core, one thread in every library, the same rows, in turn. Contributions are a second
graph, run for anomalies alone; its time stands beside.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.child import ONE_THREAD, pin_to_one_core, result_of
from benchmarks.machine import machine
from benchmarks.tables import markdown, publish

SIZES = (1, 32, 512, 4_096)
TARGETS = {1: 300.0, 4_096: 1.5}
"""How many times as fast as scikit-learn, by rows."""
AIM = 3.0
"""For 4,096 rows."""


def measure(lines: int, rounds: int) -> dict[str, Any]:
    """Microseconds a call by side and number of rows, medians over rounds; ratios round by round."""
    import numpy as np

    from oddlog.detectors.iforest import IForest
    from oddlog.events.logfile import records_from_lines
    from oddlog.events.parse import parse
    from oddlog.features.compute import FeatureComputer
    from oddlog.scoring.artifact import write_artifact
    from oddlog.scoring.model import Model
    from oddlog.simulation.traffic import simulate
    from tests.small_model import parts_of

    made = [line.encode() for line in simulate(seed=6, lines=lines + max(SIZES), days=2.0).lines]
    parts = parts_of(made[:lines], IForest())
    with tempfile.TemporaryDirectory(prefix="oddlog-forest-") as folder:
        write_artifact(Path(folder) / "artifact", **parts)
        model = Model.load(Path(folder) / "artifact", threads=1)
    detector = parts["detector"]
    features = FeatureComputer(model.baseline).compute(parse(records_from_lines(made[lines:])).events)
    found: dict[str, Any] = {}
    for size in SIZES:
        rows = np.ascontiguousarray(features[:size])
        difference = float(np.abs(model.score(rows) - detector.score(rows)).max())
        sides: dict[str, Callable[[], object]] = {
            "scikit-learn": lambda rows=rows: detector.score(rows),
            "compiled": lambda rows=rows: model.score(rows),
            "contributions": lambda rows=rows: model.contributions(rows),
        }
        for side in sides.values():
            side()
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(rounds):
            for name, side in sides.items():
                seconds[name].append(_per_call(side))
        ratios = [a / b for a, b in zip(seconds["scikit-learn"], seconds["compiled"], strict=True)]
        found[str(size)] = {
            "us": {name: 1e6 * statistics.median(taken) for name, taken in seconds.items()},
            "ratio": statistics.median(ratios),
            "slowest_ratio": min(ratios),
            "largest_difference": difference,
        }
    return {
        "trees": detector.parameters()["n_estimators"],
        "features": features.shape[1],
        "rounds": rounds,
        "rows": found,
    }


def _per_call(side: Callable[[], object], least: float = 0.1) -> float:
    """Seconds a call takes, over as many as fill `least` seconds."""
    calls, begun = 0, time.perf_counter()
    while (taken := time.perf_counter() - begun) < least:
        side()
        calls += 1
    return taken / calls


def table(found: dict[str, Any]) -> str:
    """Markdown."""
    rows = []
    for size, one in found["rows"].items():
        us = one["us"]
        target = TARGETS.get(int(size))
        met = "" if target is None else f"{target:g} ({'met' if one['ratio'] >= target else 'not met'})"
        rows.append(
            [
                f"{int(size):,}",
                *(f"{us[name]:,.1f}" for name in ("scikit-learn", "compiled", "contributions")),
                f"**{one['ratio']:,.1f}**",
                met,
                f"{one['largest_difference']:.1e}",
            ]
        )
    head = [
        f"rows; {found['trees']} trees, {found['features']} features, one thread",
        "`score_samples`, us", "compiled score, us", "compiled contributions, us", "times as fast", "asked for",
        "largest difference",
    ]  # fmt: skip
    return markdown(head, rows)


def main(argv: Sequence[str] | None = None) -> int:
    """The table on standard output. Exit code 1 where a target is missed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.forest", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lines", type=int, default=20_000, help="that the forest is fitted on")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--json", type=Path, help="where the figures go; default: benchmarks/results/forest.json")
    parser.add_argument("--part", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args(argv)
    if given.part:
        pin_to_one_core()
        print(json.dumps(measure(given.lines, given.rounds)))
        return 0
    where = machine()
    own = ["--part", "--lines", str(given.lines), "--rounds", str(given.rounds)]
    found = result_of("benchmarks.forest", own, ONE_THREAD)
    publish("forest", where, found, [table(found)], given.json)
    return int(any(found["rows"][str(size)]["ratio"] < target for size, target in TARGETS.items()))


if __name__ == "__main__":
    sys.exit(main())
