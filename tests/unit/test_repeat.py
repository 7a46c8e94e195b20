"""Which settings a repeated training takes: those that its run tells, and not those in force today."""

from __future__ import annotations

import pytest

from oddlog.connectors.mlflow_training import RunRecord
from oddlog.features.declaration import feature_digest
from oddlog.settings import TrainSettings
from training.repeat import _options

TOLD = {
    "train.algorithm": "surprise",
    "train.seed": "7",
    "train.exclude_alerted": "True",
    "data.digest": "d" * 32,
    "data.source": "a test's events",
    "features.digest": feature_digest(),
}


@pytest.mark.parametrize(("told", "bound"), [({}, None), ({"train.exclude_up_to": "3.5"}, 3.5)])
def test_a_bound_of_today_is_not_that_of_the_run(told: dict[str, str], bound: float | None) -> None:
    today = TrainSettings(seed=1, exclude_up_to=2.0)
    options = _options(today, RunRecord("run", {**TOLD, **told}, {}))
    assert (options.seed, options.exclude_alerted, options.exclude_up_to) == (7, True, bound)
    assert options.min_events == today.min_events
