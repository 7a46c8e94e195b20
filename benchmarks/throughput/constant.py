"""`oddlog enrich` with constant features and scores: everything it does but to compute features and ask the scorer.

Run as a program, with the consumer's own arguments. The first batch is computed and scored as always; its median row
and that row's verdict are what every event gets from then on.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from oddlog.features.compute import FeatureComputer
from oddlog.scoring.scorer import Scores
from serving.client import HttpScorer

compute, score = FeatureComputer.compute, HttpScorer.score
row: list[npt.NDArray[np.float32]] = []
verdict: list[Scores] = []


def same_features(computer: FeatureComputer, events: pl.DataFrame) -> npt.NDArray[np.float32]:
    if not row:
        row.append(np.median(compute(computer, events), axis=0).astype(np.float32))
    return np.tile(row[0], (events.height, 1))


def same_scores(scorer: HttpScorer, features: npt.NDArray[np.float32], names: list[str], **how: Any) -> Scores:
    if not verdict:
        verdict.append(score(scorer, features[:1], names, **how))
    n, one = len(features), verdict[0]
    return replace(
        one,
        score=np.repeat(one.score, n),
        severity=np.repeat(one.severity, n),
        is_anomaly=np.repeat(one.is_anomaly, n),
        novelty=one.novelty
        and replace(
            one.novelty,
            score=np.repeat(one.novelty.score, n),
            severity=np.repeat(one.novelty.severity, n),
            is_anomaly=np.repeat(one.novelty.is_anomaly, n),
        ),
    )


FeatureComputer.compute = same_features  # type: ignore[method-assign]
HttpScorer.score = same_scores  # type: ignore[method-assign,assignment]
sys.argv = ["oddlog", "enrich", *sys.argv[1:]]

from cli.main import main  # noqa: E402  after the patches, as the consumer's own imports would be

main()
