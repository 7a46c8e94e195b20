"""Marks: which events each is about, which of several counts, what they hush, and the labels they stand for."""

from __future__ import annotations

import datetime as dt
from typing import Any

import polars as pl
import pytest

from oddlog.connectors.marks import Hushes, Mark, Verdict, new_mark, verdicts
from oddlog.errors import UsageError
from training.marks import Marks

NOON = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)

EVENTS = pl.DataFrame(
    {
        "_id": [f"e{n}" for n in range(6)],
        "@timestamp": [NOON + n * HOUR for n in range(6)],
        "source.address": ["192.0.2.7", "192.0.2.8", "192.0.2.7", "192.0.2.7", "192.0.2.8", "192.0.2.7"],
        "url.path": ["/", "/api/a", "/api/a", "/api", "/api/b", "/api/c"],
        "labels.truth": [None, "attack:scan", None, "benign", None, "attack:scan"],
        "anomaly.is_anomaly": [None, False, True, True, False, True],
    },
    schema_overrides={"@timestamp": pl.Datetime("ms", "UTC")},
)


def mark(verdict: Verdict, at: int, **about: Any) -> Mark:
    return Mark(f"m{at}", verdict, "ada", NOON + at * HOUR, **about)


def test_a_pattern_is_about_all_that_it_names() -> None:
    def said(**about: Any) -> list[str]:
        found = verdicts([mark("expected", 0, **about)], EVENTS)
        return EVENTS["_id"].filter(found == "expected").to_list()

    assert said(client="192.0.2.7") == ["e0", "e2", "e3", "e5"]
    assert said(path_prefix="/api/") == ["e1", "e2", "e4", "e5"]
    assert said(path_prefix="/api") == ["e1", "e2", "e3", "e4", "e5"]
    assert said(client="192.0.2.7", path_prefix="/api/", since=NOON + 2 * HOUR, until=NOON + 5 * HOUR) == ["e2"]
    assert said(client="192.0.2.7", since=NOON + 2 * HOUR) == ["e2", "e3", "e5"]


def test_a_mark_of_the_event_beats_a_pattern_and_a_later_one_an_earlier() -> None:
    marks = [
        mark("expected", 5, path_prefix="/api", until=NOON + 9 * HOUR),
        mark("true-anomaly", 3, event="e2"),
        mark("false-alarm", 2, event="e2"),
        mark("false-alarm", 4, client="192.0.2.8", until=NOON + 9 * HOUR),
        mark("false-alarm", 6, client="192.0.2.7", until=NOON + 1 * HOUR),
    ]
    found = verdicts(marks, EVENTS).to_list()
    assert found == ["false-alarm", "expected", "true-anomaly", "expected", "expected", "expected"]
    assert verdicts([], EVENTS).to_list() == [None] * 6


def test_only_what_is_odd_and_expected_is_hushed_by_the_oldest_mark() -> None:
    marks = [
        mark("expected", 2, path_prefix="/api/", until=NOON + 5 * HOUR),
        mark("expected", 3, client="192.0.2.7", until=NOON + 4 * HOUR),
        mark("expected", 1, event="e5"),
        mark("false-alarm", 1, client="192.0.2.7", until=NOON + 9 * HOUR),
    ]
    hushes = Hushes(marks)
    odd = EVENTS["anomaly.is_anomaly"].fill_null(value=False)
    assert hushes.ids(EVENTS, odd).to_list() == [None, None, "m2", "m3", None, None]
    assert hushes.ids(EVENTS.clear(), odd.clear()).to_list() == []
    assert not Hushes(marks[2:])
    assert Hushes(marks) == Hushes(marks[:2])


def test_labels_and_alerts_are_told_by_marks() -> None:
    marks = Marks.of(
        [mark("expected", 1, path_prefix="/api/a", until=NOON + 9 * HOUR), mark("true-anomaly", 2, event="e4")]
    )
    told = marks.over(EVENTS)
    assert told["labels.truth"].to_list() == [None, "benign", "benign", "benign", "attack:marked", "attack:scan"]
    assert told["anomaly.is_anomaly"].to_list() == [None, False, False, True, True, True]
    assert marks.false_alarms(EVENTS).tolist() == [False, True, True, False, False, False]
    assert marks.true_anomalies(EVENTS).tolist() == [False, False, False, False, True, False]
    assert Marks().over(EVENTS) is EVENTS


@pytest.mark.parametrize(
    ("about", "found"),
    [
        ({"until": NOON}, "a mark of every event there is"),
        ({"client": "192.0.2.7"}, "without an end"),
        ({"client": "192.0.2.7", "since": NOON, "until": NOON}, "which is no time"),
    ],
)
def test_a_mark_of_everything_or_of_no_end_is_refused(about: dict[str, Any], found: str) -> None:
    with pytest.raises(UsageError, match=found):
        new_mark("expected", by="ada", **about)
