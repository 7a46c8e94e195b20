"""The scorer in this process: the port of scorer.py over the models of a shelf. HTTP: serving/client.py."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from oddlog.features.baseline import Baseline
from oddlog.scoring.scorer import Scores
from oddlog.scoring.shelf import Held, ModelShelf


class LocalScorer:
    """Scores with the models on `shelf`.

    `refresh(version)` brings the shelf up to date: champion and thresholds as they are now and, where a version
    is named, that version if it can be had. It is called before every answer, so that looking too often is its
    own to prevent. Without it the shelf is somebody else's care (the service's).
    """

    def __init__(self, shelf: ModelShelf, refresh: Callable[[str | None], None] | None = None) -> None:
        self.shelf = shelf
        self._refresh = refresh

    def champion(self) -> str | None:
        """The champion's version now; None while nothing is promoted."""
        self._bring(None)
        held = self.shelf.champion()
        return None if held is None else held.version

    def challenger(self) -> str | None:
        """The challenger's version now; None where there is none, or it is not held."""
        self._bring(None)
        return self.shelf.challenger()

    def baseline(self, version: str) -> Baseline:
        """The baseline a version was fitted with. Raises ScorerError for an unknown version."""
        self._bring(version)
        return self.shelf.get(version).model.baseline

    def score(self, features: npt.NDArray[np.float32], names: list[str], *, version: str | None = None) -> Scores:
        """Scores of a float32 matrix [n, len(names)] by `version` (None: the champion); n may be 0.

        Raises ScorerUnavailable while there is no champion; ScorerError where the names are not the model's
        (the error names the columns that differ), or the version is unknown (it names those held)."""
        self._bring(version)
        held, champion = self.shelf.choose(version)
        return score_with(held, champion, self.shelf.name, features, names)

    def close(self) -> None:
        """Nothing is open."""

    def _bring(self, version: str | None) -> None:
        if self._refresh is not None:
            self._refresh(version)


def score_with(
    held: Held, champion: str, model_name: str, features: npt.NDArray[np.float32], names: list[str]
) -> Scores:
    """The verdict of one held version on a matrix. Raises ScorerError where the names are not the model's."""
    verdict = held.model.judge(held.model.ordered(features, names), held.threshold)
    return Scores(
        model_name=model_name,
        model_version=held.version,
        baseline_digest=held.model.card.baseline_digest,
        threshold=held.threshold.value,
        threshold_version=held.threshold.version,
        champion=champion,
        score=verdict.score,
        severity=verdict.severity,
        is_anomaly=verdict.is_anomaly,
        reasons=verdict.reasons,
        novelty=verdict.novelty,
    )
