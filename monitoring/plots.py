"""Small plots of a distribution in a batch against the one expected: SVG, a few kilobytes each, no script."""

from __future__ import annotations

from collections.abc import Callable
from html import escape

import numpy as np
import numpy.typing as npt
import polars as pl

WIDTH, HEIGHT, BELOW = 420, 120, 18
BINS = 42


def distribution_svg(expected: pl.Series, batch: pl.Series, *, title: str, show: Callable[[float], str]) -> str:
    """Both histograms over the range that 99 of 100 points of both lie in; empty where either has no values.

    `show`: how the ends of that range are written."""
    was, is_now = (side.drop_nulls().to_numpy().astype(np.float64) for side in (expected, batch))
    if not was.size or not is_now.size:
        return ""
    low = float(min(np.quantile(was, 0.005), np.quantile(is_now, 0.005)))
    high = float(max(np.quantile(was, 0.995), np.quantile(is_now, 0.995)))
    if high <= low:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, BINS + 1)
    # By root, so that a tail beside a peak can be seen.
    tops = [np.sqrt(np.histogram(np.clip(side, low, high), edges)[0] / side.size) for side in (was, is_now)]
    highest = float(max(top.max() for top in tops)) or 1.0
    shapes = [
        f'<path class="{kind}" d="{_steps(top / highest)}"/>' for kind, top in zip(("was", "now"), tops, strict=True)
    ]
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT + BELOW}" role="img" aria-label="{title}">'
        + "".join(shapes)
        + f'<line class="axis" x1="0" y1="{HEIGHT}" x2="{WIDTH}" y2="{HEIGHT}"/>'
        + f'<text x="0" y="{HEIGHT + 13}">{escape(show(low))}</text>'
        + f'<text x="{WIDTH}" y="{HEIGHT + 13}" text-anchor="end">{escape(show(high))}</text></svg>'
    )


def _steps(tops: npt.NDArray[np.float64]) -> str:
    """A closed outline over bins of equal width; `tops` are from 0 to 1."""
    width = WIDTH / len(tops)
    parts = [f"M0 {HEIGHT}"]
    for place, top in enumerate(tops):
        parts.append(f"V{HEIGHT - top * (HEIGHT - 6):.1f}H{(place + 1) * width:.1f}")
    return "".join(parts) + f"V{HEIGHT}Z"
