"""`python -m benchmarks.poisoning` and `benchmarks.story`: what they plant and print, without the simulation."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pytest

from benchmarks import poisoning, story
from oddlog.events.logfile import records_from_lines
from oddlog.events.parse import parse

DAY = dt.datetime(2026, 3, 2, tzinfo=dt.UTC)


@pytest.mark.parametrize("kind", poisoning.KINDS)
def test_an_attacker_sends_its_requests_within_a_day(kind: str) -> None:
    made = list(poisoning.attack_lines(np.random.default_rng(3), kind, 1, DAY, 40))
    parsed = parse(records_from_lines([line.encode() for line, _ in made]))
    assert parsed.dead.height == 0
    assert {label for _, label in made} == {f"attack:{kind}"}
    events = parsed.events
    assert events.height == 40
    assert events["source.address"].n_unique() == 1
    times = events["@timestamp"]
    assert times.is_sorted()
    assert times[0] >= DAY
    assert times[-1] < DAY + dt.timedelta(days=1)
    assert (events["http.response.status_code"] == 404).all() == (kind == "scan")


def test_the_table_of_poisoning_has_a_row_for_each_way_to_retrain() -> None:
    kinds = {kind: {"events_flagged": 0.5, "median_severity": 2.25} for kind in poisoning.KINDS}
    found = {name: {"kinds": kinds, "outcome": "promoted", "alerts": {"false": 7}} for name in poisoning.VARIANTS}
    head, _, *rows = poisoning.table(found).splitlines()
    assert head.count("flagged") == 3
    assert rows[2] == "| retrained, alerted left out | 50% | 2.2 | 50% | 2.2 | 50% | 2.2 | 7 | passed |"


def test_the_story_compares_the_days_before_the_release_with_the_last() -> None:
    days = [{"day": n, "false": 10 * (n + 1), "found_hours": n, "attack_hours": 10} for n in range(6)]
    told = story.Told(days=days)
    rows = story.table({"with retraining": told}, before=2, after=4).splitlines()[2:]
    assert rows == [
        "| before the release | 15.0 | 5% |",
        "| its first two days | 35.0 | 25% |",
        "| the last 2 days | 55.0 | 45% |",
    ]
