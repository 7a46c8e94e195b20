"""The tables of a run, and the ratios that were promised."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.throughput.rounds import Round


@dataclass(frozen=True, slots=True)
class Ratio:
    """One side's rate over another's, round by round."""

    above: str
    below: str
    model: str
    target: float


TARGETS = (
    Ratio("product", "constant", "surprise", 0.8),
    Ratio("product", "constant", "iforest", 0.65),
    Ratio("constant", "bare", "surprise", 0.85),
    Ratio("product", "naive", "surprise", 100.0),
    Ratio("product", "quix", "surprise", 2.0),
)

PROCESSES = ("consumer", "scorer", "kafka", "elasticsearch")


def rates(rounds: Sequence[Round], side: str, model: str) -> list[float]:
    """Events a second of each round of a side."""
    return [one.rate for one in rounds if (one.side, one.model) == (side, model)]


def ratios(rounds: Sequence[Round], wanted: Ratio) -> list[float]:
    """The ratio in each round; where a side ran once, its one rate stands for all.

    >>> of = lambda side, rate: Round(side, "m", 1, 1.0, rate)
    >>> ratios([of("a", 8.0), of("b", 10.0), of("a", 9.0), of("b", 9.0)], Ratio("a", "b", "m", 0.8))
    [0.8, 1.0]
    """
    above, below = rates(rounds, wanted.above, wanted.model), rates(rounds, wanted.below, wanted.model)
    if not above or not below:
        return []
    if len(below) == len(above):
        return [a / b for a, b in zip(above, below, strict=True)]
    return [a / statistics.median(below) for a in above]


def as_document(rounds: Sequence[Round], about: dict[str, Any]) -> dict[str, Any]:
    """Everything, for programs."""
    found = []
    for wanted in TARGETS:
        if values := ratios(rounds, wanted):
            met = statistics.median(values) >= wanted.target
            found.append({**asdict(wanted), "ratio": statistics.median(values), "rounds": values, "met": met})
    return {**about, "rounds": [asdict(one) for one in rounds], "ratios": found}


def tables(document: dict[str, Any]) -> str:
    """Markdown: rates, processor time, ratios."""
    rounds = [Round(**one) for one in document["rounds"]]
    cores = document["machine"]["cores"]
    lines = ["| model | side | records | events/s (median) | lowest - highest |", "| --- | --- | ---: | ---: | --- |"]
    seen = list(dict.fromkeys((one.model, one.side) for one in rounds))
    for model, side in seen:
        found = rates(rounds, side, model)
        records = next(one.records for one in rounds if (one.side, one.model) == (side, model))
        middle = statistics.median(found)
        digits = 0 if middle > 1_000 else 1
        lines.append(
            f"| {model} | {side} | {records:,} | {middle:,.{digits}f} | "
            f"{min(found):,.{digits}f} - {max(found):,.{digits}f} |"
        )
    if any("elasticsearch" in one.cpu for one in rounds):
        lines += ["", f"Processor time, microseconds an event (the machine has {cores} cores):", ""]
        lines.append(f"| model | side | {' | '.join(PROCESSES)} | all | cores busy |")
        lines.append(f"| --- | --- |{' ---: |' * (len(PROCESSES) + 2)}")
        for model, side in seen:
            chosen = [one for one in rounds if (one.side, one.model) == (side, model)]
            spent = [statistics.median(one.cpu.get(name, 0.0) for one in chosen) for name in PROCESSES]
            busy = sum(spent) * statistics.median(rates(rounds, side, model)) / 1e6
            lines.append(
                f"| {model} | {side} | {' | '.join(f'{one:,.1f}' for one in spent)} | {sum(spent):,.1f} | {busy:.2f} |"
            )
    lines += ["", "| ratio | model | median | by round | target | |", "| --- | --- | ---: | --- | ---: | --- |"]
    for one in document["ratios"]:
        digits = 2 if one["target"] < 10 else 0
        by_round = " ".join(f"{value:.{digits}f}" for value in one["rounds"])
        met = "met" if one["met"] else "not met"
        lines.append(
            f"| {one['above']} / {one['below']} | {one['model']} | {one['ratio']:.{digits}f} | {by_round} "
            f"| {one['target']:g} | {met} |"
        )
    return "\n".join(lines)
