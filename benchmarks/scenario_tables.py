"""The tables of `benchmarks.scenarios`, made from its document. No measuring here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from benchmarks.rules import RULES
from benchmarks.tables import markdown

Figures = dict[str, dict[str, dict[str, float]]]
"""scenario -> method -> `ap`, `detected`; of detectors `with_novelty`, the share detected by both channels."""

MARGIN = 0.02
"""A smaller difference of average precision is noise."""


def tables(document: dict[str, Any], default: str) -> list[str]:
    """Average precision and detection by scenario; their means; where the default is below a rule; distributed ones."""
    by_share: dict[str, Figures] = document["contamination"]
    shares = ", ".join(_percent(share) for share in by_share)
    budget, seeds = document["budget"], document["seeds"]
    told = f"in the order of the share of attacks among the fitted lines: {shares}; mean over {seeds} sites"
    parts = [
        f"Average precision, {told}.",
        _by_scenario(by_share, "ap", precision),
        f"Instances with at least one alert at {budget}, %, {told}.",
        _by_scenario(by_share, "detected", _hundredths),
        "Mean over the scenarios: average precision, instances found in %; of detectors, also those found where the "
        "second channel has its part of the same budget.",
        _means(by_share),
    ]
    below = list(_below(by_share, default))
    if below:
        parts += [
            f"Where the default, {default}, is more than {MARGIN:g} below the best rule.",
            _losses(below, default),
        ]
    else:
        parts.append(f"The default, {default}, is nowhere more than {MARGIN:g} below the best rule.")
    parts += [
        "Instances of the other scenarios that are found, %: where distributed attacks are away, where they share the "
        "budget and every alert counts, where like ones of a day count once.",
        _distributed(document["distributed"]),
    ]
    return parts


def precision(value: float) -> str:
    """Two digits after the point.

    >>> precision(0.957), precision(0.9961)
    ('.96', '1.0')
    """
    return "1.0" if value >= 0.995 else f"{value:.2f}"[1:]


def _hundredths(value: float) -> str:
    return f"{100 * value:.0f}"


def _percent(share: str) -> str:
    return f"{float(share):.0%}".replace("%", " %")


def _by_scenario(by_share: dict[str, Figures], figure: str, shown: Callable[[float], str]) -> str:
    first = next(iter(by_share.values()))
    methods = list(next(iter(first.values())))

    def cell(scenario: str, method: str) -> str:
        return " ".join(shown(figures[scenario][method][figure]) for figures in by_share.values())

    return markdown(["scenario", *methods], [[name, *(cell(name, method) for method in methods)] for name in first])


def _means(by_share: dict[str, Figures]) -> str:
    first = next(iter(by_share.values()))
    methods = list(next(iter(first.values())))
    rows = []
    for share, figures in by_share.items():
        cells = []
        for method in methods:
            ones = [by_method[method] for by_method in figures.values()]
            shown = [precision(_mean(ones, "ap")), _hundredths(_mean(ones, "detected"))]
            if "with_novelty" in ones[0]:
                shown.append(_hundredths(_mean(ones, "with_novelty")))
            cells.append(" ".join(shown))
        rows.append([_percent(share), *cells])
    return markdown(["attacks in the fitted half", *methods], rows)


def _mean(ones: Sequence[dict[str, float]], figure: str) -> float:
    return float(np.mean([one[figure] for one in ones]))


def _below(by_share: dict[str, Figures], default: str) -> Iterator[tuple[str, str, str, dict[str, dict[str, float]]]]:
    """(scenario, share, best rule, figures by method) wherever a rule ranks better."""
    for scenario in next(iter(by_share.values())):
        for share, figures in by_share.items():
            by_method = figures[scenario]
            best = max(RULES, key=lambda name: by_method[name]["ap"])
            if by_method[default]["ap"] < by_method[best]["ap"] - MARGIN:
                yield scenario, share, best, by_method


def _losses(below: Sequence[tuple[str, str, str, dict[str, dict[str, float]]]], default: str) -> str:
    head = ["scenario", "attacks in the fitted half", "best rule", "its AP", default, "found: rule", default]
    return markdown(
        head,
        [
            [
                scenario, _percent(share), best, precision(by_method[best]["ap"]), precision(by_method[default]["ap"]),
                f"{_hundredths(by_method[best]['detected'])} %", f"{_hundredths(by_method[default]['detected'])} %",
            ]
            for scenario, share, best, by_method in below
        ],
    )  # fmt: skip


def _distributed(by_share: dict[str, dict[str, dict[str, float]]]) -> str:
    names = list(next(iter(by_share.values())))
    rows = [
        [
            _percent(share),
            *(" ".join(_hundredths(costs[name][key]) for key in ("clean", "every_alert", "by_behaviour"))
              for name in names),
        ]
        for share, costs in by_share.items()
    ]  # fmt: skip
    return markdown(["attacks in the fitted half", *names], rows)
