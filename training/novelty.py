"""The second list of a scored log: requests odd in themselves, though their clients look sound. What novelty is:
oddlog/detectors/novelty.py.

A trained model brings its second channel and that one's threshold. Where the log is judged by itself, the channel is
fitted on the log, and has a threshold of its own among what the first one finds usual.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from oddlog.features.declaration import FEATURE_NAMES
from oddlog.scoring.explanation import explain
from oddlog.scoring.scorer import Reason
from oddlog.scoring.threshold import fit_threshold
from training.filescore import Rows, ScoredLog

PER_DAY = 1.0
"""Alerts of this channel a day where it has no threshold: a look beside the first one's, not a second budget."""


def novel_rows(scored: ScoredLog) -> Rows:
    """Rows of the log that stand out by novelty alone, most novel first.

    Requests that the first channel finds odd are none of it.
    """
    quiet = ~scored.odd
    if not quiet.any():
        return np.empty(0, dtype=np.intp)
    if scored.threshold.novelty is not None:
        value = scored.threshold.novelty.value
    else:
        kept = scored.log.events.filter(pl.Series(quiet))
        value = fit_threshold(scored.novelty[quiet], kept["source.address"], kept["@timestamp"], PER_DAY).value
    rows = np.flatnonzero(quiet & (scored.novelty.astype(np.float64) >= value))
    return rows[np.argsort(-scored.novelty[rows], kind="stable")]


def novel_reasons(scored: ScoredLog, rows: Rows) -> list[list[Reason]]:
    """Why each of these rows is novel."""
    if not len(rows):
        return []
    chosen = np.ascontiguousarray(scored.features[rows])
    return explain(chosen, scored.novel_parts(chosen), FEATURE_NAMES, scored.typical)
