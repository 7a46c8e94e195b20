"""A matrix that goes to the service in several requests is judged by one threshold, whatever changes in between."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from oddlog.features.declaration import FEATURE_NAMES
from oddlog.scoring.local import LocalScorer
from oddlog.scoring.model import Model
from oddlog.scoring.scorer import Scores
from oddlog.scoring.shelf import ModelShelf
from oddlog.settings import ScorerSettings
from oddlog.simulation.traffic import simulate
from serving import client
from tests.small_model import small_model

NAMES = list(FEATURE_NAMES)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    lines = [line.encode() for line in simulate(seed=5, lines=1_000, days=1.0, attack_share=0.0).lines]
    return small_model(tmp_path_factory.mktemp("parts") / "artifact", lines)


class Asked(client.HttpScorer):
    """Its requests are answered by a shelf in this process; before the one named a lower threshold is put in force."""

    def __init__(self, model: Model, change_before: int) -> None:
        super().__init__(ScorerSettings())
        self.shelf, self.requests, self._change = ModelShelf("oddlog"), 0, change_before
        self.shelf.hold("1", model)
        self.shelf.set_champion("1")

    def _ask(self, path: str, features: Any, names: list[str], version: str | None) -> Scores:
        self.requests += 1
        if self.requests == self._change:
            held = self.shelf.get("1")
            self.shelf.hold("1", held.model, held.threshold.model_copy(update={"version": "2", "value": -1e9}))
        return LocalScorer(self.shelf).score(features, names, version=version)


@pytest.mark.parametrize(("change_before", "requests"), [(99, 5), (1, 5), (2, 6), (5, 9)])
def test_one_threshold_judges_all_of_a_batch(
    model: Model, monkeypatch: pytest.MonkeyPatch, change_before: int, requests: int
) -> None:
    monkeypatch.setattr(client, "CHUNK_ROWS", 20)
    rows = (np.random.default_rng(3).random((90, len(NAMES))) * 6).astype(np.float32)
    scorer = Asked(model, change_before)
    found = scorer.score(rows, NAMES)
    scorer.close()
    held = scorer.shelf.get("1")
    verdict = model.judge(rows, held.threshold)
    assert (found.threshold_version, found.threshold) == (held.threshold.version, held.threshold.value)
    assert scorer.requests == requests
    np.testing.assert_array_equal(found.is_anomaly, verdict.is_anomaly)
    np.testing.assert_array_equal(found.score, verdict.score)
    assert set(found.reasons) == set(verdict.reasons)
