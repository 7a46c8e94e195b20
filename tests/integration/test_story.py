"""The story of a release, small: paths move, drift is noticed, a retraining passes the gates, and false alerts fall.
`python -m benchmarks.story` tells it at length, beside the same site without the retraining.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.story import live, table

FITTED, BEFORE, AFTER = 4, 1, 2


@pytest.mark.timeout(300)
def test_after_a_release_a_retraining_brings_the_alerts_back(tmp_path: Path) -> None:
    told = live(
        tmp_path, seed=1, lines_per_day=8_000, fitted=FITTED, before=BEFORE, after=AFTER, algorithm="iforest",
        retraining=True,
    )  # fmt: skip
    before, harmed, last = told.days[0], told.days[BEFORE], told.days[-1]
    assert told.quiet_alarms == 0
    assert told.first_alarm is not None
    assert told.first_alarm <= 12
    assert harmed["false_hours"] > 3 * before["false_hours"]
    # It waits until there is a day of events to learn from.
    assert told.promoted is not None
    assert 24 <= told.promoted <= 36
    (training,) = told.trained
    assert training["outcome"] == "promoted"
    assert "since the logs changed" in training["why"]
    # A quarter of the last day is the old champion's.
    assert last["false_hours"] < harmed["false_hours"] / 2
    assert "| before the release |" in table({"with retraining": told}, before=BEFORE, after=AFTER)
