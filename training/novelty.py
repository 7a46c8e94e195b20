"""The second channel: requests odd in themselves, though their clients look sound. The first is the detector's score.

A detector weighs a client's whole behaviour, so that one strange request of a busy sound client is lost in it: a web
shell used from an office's address. Here the request alone counts, how new its path and words are, with a threshold of
its own among what the first channel finds usual. Kept apart, not merged: merging costs either (a threshold that lets
every new article alarm, or one that hides the shell).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl

from oddlog.detectors.normal import Normal
from oddlog.detectors.surprise import BLOCKS
from oddlog.features.declaration import FEATURE_NAMES
from oddlog.scoring.explanation import explain
from oddlog.scoring.scorer import Reason
from oddlog.scoring.threshold import fit_threshold
from training.filescore import Matrix, Rows, ScoredLog

PER_DAY = 1.0
"""Alerts of this channel a day: a look beside the first one's, not a second budget."""

_COLUMNS = [FEATURE_NAMES.index(name) for name in BLOCKS["novelty"].features]


def novel_rows(scored: ScoredLog) -> tuple[Rows, Matrix]:
    """Rows of the log that stand out by novelty alone, most novel first, and their z float32 [k, 4].

    Novelty: mean z of the four rarities of path and words, every line weighted 1 / (lines of its client-hour), as
    in `surprise`. Requests that the detector finds odd are none of it; PER_DAY alerts a day at most.
    """
    quiet = ~scored.odd
    if not quiet.any():
        return np.empty(0, dtype=np.intp), np.empty((0, len(_COLUMNS)), dtype=np.float32)
    events = scored.log.events
    z = _z(scored.features[:, _COLUMNS], events)
    novelty = z.mean(axis=1)
    kept = events.filter(pl.Series(quiet))
    threshold = fit_threshold(novelty[quiet], kept["source.address"], kept["@timestamp"], PER_DAY)
    rows = np.flatnonzero(quiet & (novelty.astype(np.float64) >= threshold.value))
    rows = rows[np.argsort(-novelty[rows], kind="stable")]
    return rows, z[rows]


def novel_reasons(scored: ScoredLog, rows: Rows, z: Matrix) -> list[list[Reason]]:
    """Why each of these rows (with its z) is novel."""
    if not len(rows):
        return []
    carried = np.zeros((len(rows), len(FEATURE_NAMES)), dtype=np.float32)
    carried[:, _COLUMNS] = z
    return explain(scored.features[rows], carried, FEATURE_NAMES, scored.typical)


def _z(rarities: Matrix, events: pl.DataFrame) -> Matrix:
    hour = events.select(pl.struct("source.address", pl.col("@timestamp").dt.truncate("1h")).rank("dense")).to_series()
    number = hour.to_numpy().astype(np.int64)
    weights: npt.NDArray[np.float64] = 1.0 / np.bincount(number)[number]
    return Normal.fit(rarities, weights)(rarities)
