"""Whether a retraining is due and on which period; and what the documents of drift checks tell of a change."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from monitoring.documents import iso
from monitoring.lately import Drifting, drifting
from oddlog.connectors.by_url import open_store
from oddlog.connectors.marks import new_mark
from oddlog.connectors.registry import ModelVersion
from oddlog.connectors.store import Store
from oddlog.scoring.card import DatasetInfo
from oddlog.settings import RetrainSettings, StoreSettings
from training.due import Champion, Change, Conditions, Look, look, period_of

NOON = dt.datetime(2026, 3, 10, 12, tzinfo=dt.UTC)
HOUR, DAY = dt.timedelta(hours=1), dt.timedelta(days=1)
VERSION = ModelVersion("oddlog", "3", "r" * 32, "iforest", created_ms=int((NOON - 2 * DAY).timestamp() * 1000))
OPTIONS = RetrainSettings()


def champion(since: dt.datetime, until: dt.datetime) -> Champion:
    dataset = DatasetInfo(
        digest="d" * 32, since=since, fit_until=until - DAY, until=until, events=1, clients=1, source="s"
    )
    return Champion(VERSION, dataset)


CHAMPION = champion(NOON - 10 * DAY, NOON - 3 * DAY)


def looked(conditions: Conditions, change: Change | None = None, marks: int = 0) -> list[Look]:
    before = new_mark("false-alarm", by="ada", at=NOON - 3 * DAY, event="e0")
    since = [new_mark("false-alarm", by="ada", at=NOON, event=f"e{n}") for n in range(marks)]
    return look(conditions, OPTIONS, CHAMPION, newest=NOON, change=change, marks=[before, *since])


def test_age_counts_from_the_last_event_that_was_learnt_from() -> None:
    assert [one.met for one in looked(Conditions(older_than=3 * DAY))] == [True]
    (young,) = looked(Conditions(older_than=4 * DAY))
    assert (young.met, young.condition) == (False, "older-than")
    assert "3.0 days after the last one that version 3 was made from (asked for: 4)" in young.text


def test_marks_count_since_the_training() -> None:
    assert [one.met for one in looked(Conditions(marks=2), marks=2)] == [True]
    (few,) = looked(Conditions(marks=2), marks=1)
    assert (few.met, few.text) == (False, "1 marks since version 3 was trained (asked for: 2)")


@pytest.mark.parametrize(("hours", "met"), [(5, False), (6, True), (30, True)])
def test_drift_has_to_last(hours: int, met: bool) -> None:
    (found,) = looked(Conditions(drifted=True), Change(NOON - hours * HOUR, NOON, "drifted: 9 of 16"))
    assert found.met == met
    assert f"drifted for {hours} h without a break" in found.text
    (none,) = looked(Conditions(drifted=True))
    assert not none.met


def test_the_period_begins_with_the_change_or_where_the_champion_began() -> None:
    def begins(held: Champion | None, change: Change | None = None, oldest: dt.datetime = NOON - 99 * DAY) -> Any:
        return period_of(OPTIONS, held, oldest=oldest, newest=NOON, change=change)

    changed = Change(NOON - 2 * DAY, NOON, "")
    assert begins(CHAMPION, changed) == (NOON - 2 * DAY, "since the logs changed")
    assert begins(CHAMPION)[0] == NOON - 10 * DAY
    assert begins(champion(NOON - 50 * DAY, NOON)) == (NOON - 14 * DAY, "the last 14 days")
    assert begins(champion(NOON - 50 * DAY, NOON), Change(NOON - 40 * DAY, NOON, ""))[0] == NOON - 14 * DAY
    assert begins(None) == (NOON - 14 * DAY, "the last 14 days")
    assert begins(None, oldest=NOON - DAY) == (NOON - DAY, "all events")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(StoreSettings(url=f"sqlite:///{tmp_path}/oddlog.sqlite"))
    yield opened
    opened.close()


def checked(store: Store, hour: int, drifted: bool, **change: Any) -> None:
    """A batch that begins so many hours after noon was judged, as monitoring/documents.py tells it."""
    length, against = change.get("length", HOUR), change.get("against", "reference")
    begin = NOON + hour * HOUR
    document = {
        "@timestamp": iso(begin + length), "kind": "batch", "against": against, "drifted": drifted,
        "model": {"name": "oddlog", "version": change.get("version", "3")}, "verdict": f"hour {hour}",
        "batch": {"since": iso(begin), "until": iso(begin + length), "compared": change.get("compared", 500)},
    }  # fmt: skip
    id = f"{change.get('version', '3')}-{begin:%d%H}-{length}-{against}"
    store.put_document("drift", id, document)
    store.put_document("drift", f"{id}-tok", {**document, "kind": "measure", "drifted": True})


def found(store: Store) -> Drifting | None:
    return drifting(store, VERSION, newest=NOON + DAY)


def test_drift_lasts_since_the_first_of_the_last_batches_that_all_drifted(store: Store) -> None:
    assert found(store) is None
    for hour, drifted in enumerate([True, False, True, True, True]):
        checked(store, hour, drifted)
    assert found(store) == Drifting(NOON + 2 * HOUR, NOON + 5 * HOUR, 3, "hour 4")
    checked(store, 5, False, compared=0)  # nobody was there: it tells nothing
    checked(store, 6, True)
    assert found(store) == Drifting(NOON + 2 * HOUR, NOON + 7 * HOUR, 4, "hour 6")
    checked(store, 7, False)
    assert found(store) is None


def test_batches_of_other_lengths_and_versions_are_told_apart(store: Store) -> None:
    checked(store, 0, True, version="2")
    checked(store, 0, False)
    assert found(store) is None
    checked(store, 1, True)
    checked(store, -6, True, length=6 * HOUR)
    checked(store, 3, False, against="previous")
    assert found(store) == Drifting(NOON - 6 * HOUR, NOON, 1, "hour -6")
    checked(store, 2, True, length=24 * HOUR)
    checked(store, -80 * 24, True, length=240 * HOUR)  # too long ago
    assert found(store) == Drifting(NOON + 2 * HOUR, NOON + 26 * HOUR, 1, "hour 2")
