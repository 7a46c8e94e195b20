"""Charts of a scored log as SVG, for a page without libraries: requests over time, and how scores are distributed."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from training.filescore import ScoredLog

Counts = npt.NDArray[np.int64]

LEFT, RIGHT, TOP, BOTTOM = 46, 8, 8, 22
BINS = 120
"""Bars of a timeline, at most; each is a whole number of the steps below."""
STEPS = (60, 300, 900, 1_800, 3_600, 3 * 3_600, 6 * 3_600, 12 * 3_600, 86_400, 7 * 86_400, 30 * 86_400, 365 * 86_400)
"""Seconds a bar of a timeline may stand for."""


def timeline(scored: ScoredLog) -> str:
    """Requests (above) and odd requests (below) by time, log scales: one flood must not hide the rest."""
    times = scored.log.events["@timestamp"].dt.epoch("s").to_numpy()
    low, high = int(times.min()), int(times.max())
    step = next((step for step in STEPS if (high - low) / step <= BINS), STEPS[-1])
    first = low // step * step
    place = (times - first) // step
    bins = int(place.max()) + 1
    everything = np.bincount(place, minlength=bins)
    odd = np.bincount(place[scored.odd], minlength=bins)
    width, height, half = 760, 260, 128
    drawn = _Chart(width, height)

    def titled(counts: Counts, what: str) -> Callable[[int], str]:
        return lambda i: f"{_moment(first + i * step)}: {counts[i]:,} {what}"

    drawn.bars(everything, TOP, half - TOP, lambda _: "all", titled(everything, "requests"))
    drawn.bars(odd, half + 12, height - BOTTOM - half - 12, lambda _: "odd", titled(odd, "odd requests"))
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        at = first + round(share * (bins - 1)) * step
        anchor = "start" if share == 0 else "end" if share == 1 else "middle"
        label = _moment(at, day=bins * step > 40 * 86_400)
        drawn.label(drawn.x((at - first) / step + 0.5, bins), height - 6, label, anchor)
    return drawn.svg("Requests and odd requests over time")


def distribution(scored: ScoredLog) -> str:
    """Events by score, log scale, the threshold marked."""
    scores = scored.scores.astype(np.float64)
    low, high = float(scores.min()), float(scores.max())
    high = high if high > low else low + 1.0
    counts, edges = np.histogram(scores, bins=48, range=(low, high))
    width, height = 380, 260
    drawn = _Chart(width, height)
    limit = scored.threshold.value
    drawn.bars(
        counts, TOP, height - BOTTOM - TOP, lambda i: "odd" if edges[i] >= limit else "all",
        lambda i: f"score {edges[i]:.3g} to {edges[i + 1]:.3g}: {counts[i]:,} events",
    )  # fmt: skip
    if low <= limit <= high:
        drawn.line(LEFT + (limit - low) / (high - low) * (width - LEFT - RIGHT), "limit")
    for share, anchor in ((0.0, "start"), (0.5, "middle"), (1.0, "end")):
        value = low + share * (high - low)
        drawn.label(LEFT + share * (width - LEFT - RIGHT), height - 6, f"{value:.3g}", anchor)
    return drawn.svg("Number of events by score; dashed: the threshold")


class _Chart:
    """Marks of one SVG. All text in it is the program's own: numbers and times."""

    def __init__(self, width: int, height: int) -> None:
        self._width, self._height = width, height
        self._marks: list[str] = []

    def x(self, place: float, bins: int) -> float:
        return LEFT + place / bins * (self._width - LEFT - RIGHT)

    def bars(
        self, counts: Counts, top: float, height: float, style: Callable[[int], str], title: Callable[[int], str]
    ) -> None:
        """Bars of `counts` between `top` and `top + height` on a log scale, with the highest count at the axis."""
        most = int(counts.max(initial=0))
        scale = math.log1p(most)
        for i in np.flatnonzero(counts).tolist():
            tall = max(math.log1p(int(counts[i])) / scale * height, 1.0)
            left, right = self.x(float(i), len(counts)), self.x(float(i) + 1, len(counts))
            self._marks.append(
                f'<rect class="{style(i)}" x="{left:.1f}" y="{top + height - tall:.1f}" '
                f'width="{max(right - left - 1, 0.8):.1f}" height="{tall:.1f}"><title>{title(i)}</title></rect>'
            )
        base = top + height
        self._marks.append(
            f'<line class="axis" x1="{LEFT}" x2="{self._width - RIGHT}" y1="{base:.1f}" y2="{base:.1f}"/>'
        )
        self.label(LEFT - 5, top + 9, f"{most:,}", "end")
        self.label(LEFT - 5, base, "0", "end")

    def line(self, x: float, style: str) -> None:
        self._marks.append(f'<line class="{style}" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{self._height - BOTTOM}"/>')

    def label(self, x: float, y: float, text: str, anchor: str) -> None:
        self._marks.append(f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{text}</text>')

    def svg(self, title: str) -> str:
        size = f"0 0 {self._width} {self._height}"
        return f'<svg viewBox="{size}" role="img" aria-label="{title}">{"".join(self._marks)}</svg>'


def _moment(seconds: int, *, day: bool = False) -> str:
    return dt.datetime.fromtimestamp(seconds, dt.UTC).strftime("%d %b %Y" if day else "%d %b %H:%M")
