"""When people are awake: day and night, weekdays and weekends, and days that differ; no requests are made here."""

from __future__ import annotations

import numpy as np

from oddlog.simulation.streams import Floats, Ints

DAY_MS = 86_400_000

# Share of a day's visits by local hour, of a site that people read at work and in the evening.
_WORKDAY = np.array(
    [12, 7, 5, 4, 4, 6, 14, 28, 46, 60, 66, 64, 58, 62, 64, 60, 56, 52, 50, 52, 56, 52, 38, 22], dtype=float
)
_WEEKEND = np.array(
    [18, 12, 8, 5, 4, 5, 8, 14, 22, 32, 38, 40, 38, 36, 36, 38, 38, 38, 38, 40, 42, 40, 32, 24], dtype=float
)
_REGIONS = ((1, 0.62), (0, 0.12), (-5, 0.14), (-8, 0.05), (5, 0.04), (9, 0.03))  # hours from UTC, share
_BIN_MS = 600_000


def intensity(start_ms: int, end_ms: int, rng: np.random.Generator) -> Floats:
    """Cumulative share of visits at the end of each ten minutes between start and end."""
    bins = max(1, -(-(end_ms - start_ms) // _BIN_MS))
    middle = start_ms + (np.arange(bins) + 0.5) * _BIN_MS
    total = np.zeros(bins)
    for offset, share in _REGIONS:
        local = middle + offset * 3_600_000
        day = np.floor(local / DAY_MS)
        weekend = (day + 3) % 7 >= 5  # 1 January 1970 was a Thursday
        hour = (local % DAY_MS) / 3_600_000
        work = np.interp(hour, np.arange(25), np.append(_WORKDAY, _WORKDAY[0]))
        rest = np.interp(hour, np.arange(25), np.append(_WEEKEND, _WEEKEND[0]))
        total += share * np.where(weekend, rest, work)
    days = int((end_ms - start_ms) // DAY_MS) + 2
    mood = rng.lognormal(0.0, 0.08, days)
    total *= mood[((middle - start_ms) // DAY_MS).astype(int)] * rng.lognormal(0.0, 0.06, bins)
    # The last bin may reach past the end.
    total[-1] *= ((end_ms - start_ms) - (bins - 1) * _BIN_MS) / _BIN_MS
    return np.asarray(np.cumsum(total) / total.sum(), dtype=np.float64)


def visit_times(rng: np.random.Generator, cumulative: Floats, start_ms: int, end_ms: int, count: int) -> Ints:
    """`count` moments, in UTC milliseconds, by the rhythm; in no order."""
    which = np.minimum(np.searchsorted(cumulative, rng.random(count), side="right"), len(cumulative) - 1)
    moment = start_ms + which * _BIN_MS + rng.random(count) * _BIN_MS
    return np.minimum(moment, end_ms - 1).astype(np.int64)


def even_times(rng: np.random.Generator, start_ms: int, end_ms: int, count: int) -> Ints:
    """`count` moments spread evenly, as of programs that know no night; in no order."""
    return rng.integers(start_ms, end_ms, size=count, dtype=np.int64)
