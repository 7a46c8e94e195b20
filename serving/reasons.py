"""Reasons on demand, for every row of a matrix: an anomaly has its own already, the rest is explained when asked for.

What a reason is, and how it is chosen, is in oddlog/scoring/explanation.py.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from oddlog.scoring.explanation import explain
from oddlog.scoring.scorer import Scores
from oddlog.scoring.shelf import Held


def with_reasons(scores: Scores, held: Held, features: npt.NDArray[np.float32]) -> Scores:
    """`scores` of a matrix [n, d] with reasons for each of its rows; its columns are in the order of the model.

    What the second channel found in a row (a reason that names no feature) stays behind what the first one says."""
    card = held.model.card
    found = explain(features, held.model.contributions(features), card.feature_names, card.typical)
    for row, reasons in scores.reasons.items():
        found[row] += [reason for reason in reasons if reason["feature"] not in card.feature_names]
    return replace(scores, reasons=dict(enumerate(found)))
