"""Expected patterns over every store: alerts that are stored stop being alerts, and are alerts again; scores stay."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import polars as pl
import pytest

from oddlog.connectors.marks import Hushes, Mark, Verdict, list_marks, new_mark, put_marks, remove_mark
from oddlog.connectors.store import EventQuery, Store
from oddlog.errors import StoreUnavailable
from oddlog.scoring.scorer import Scores
from serving.documents import scored_events
from serving.hush import HushFollower, hush_stored, unhush_stored
from tests.store_frames import MIDNIGHT as T0
from tests.store_frames import events as event_frame
from tests.waiting import until

ROWS = 12
SCORE = "anomaly.score"


def expected(**about: Any) -> Mark:
    about = {"client": "192.0.2.1", "until": T0 + dt.timedelta(days=1), **about}
    return new_mark("expected", by="ada", **about)


def scored(hushes: Hushes | None = None) -> pl.DataFrame:
    """Twelve events of four clients, the last nine odd."""
    rows = range(ROWS)
    columns: dict[str, Any] = {
        "source__address": [f"192.0.2.{n % 4}" for n in rows],
        "url__path": ["/report" if n < 6 else "/api/x" for n in rows],
        "@timestamp": [T0 + dt.timedelta(hours=n) for n in rows],
    }
    events = event_frame(ROWS, **columns)
    score = np.linspace(0, 1, ROWS, dtype=np.float32)
    odd = np.arange(ROWS) >= 3
    scores = Scores("oddlog", "1", "d" * 64, float(score[3]), "1", "1", score, score.astype(np.float64), odd)
    features = np.zeros((ROWS, 1), np.float32)
    return scored_events(events, features, ["f"], scores, *([hushes] if hushes else []))


def read(store: Store) -> pl.DataFrame:
    store.refresh()
    return pl.concat(store.read_events(EventQuery(), order="time"))


def alerts(events: pl.DataFrame) -> list[int]:
    return [row for row, odd in enumerate(events["anomaly.is_anomaly"]) if odd]


def test_what_is_expected_is_stored_with_its_score_and_is_no_alert(store: Store) -> None:
    mark = expected(path_prefix="/api/")
    events = scored(Hushes([mark]))
    assert not store.write_events(events).rejected
    found = read(store)
    assert alerts(found) == [3, 4, 5, 6, 7, 8, 10, 11]
    assert found["anomaly.hushed"].to_list() == [mark.id if n == 9 else None for n in range(ROWS)]
    assert found[SCORE].to_list() == scored()[SCORE].to_list()
    assert found["anomaly.channel"][9] == "score"
    assert store.count_events(EventQuery(only_anomalies=True)) == 8
    assert store.count_events(EventQuery(hushed_by=mark.id)) == 1
    assert store.summarise_events(EventQuery()).alerts == 8


def test_a_new_mark_hushes_stored_alerts_and_its_end_brings_them_back(store: Store) -> None:
    store.write_events(scored())
    before = read(store)
    wide, narrow = expected(), expected(path_prefix="/api/")
    put_marks(store, [wide])
    assert hush_stored(store, wide) == 2
    assert alerts(read(store)) == [3, 4, 6, 7, 8, 10, 11]
    assert hush_stored(store, wide) == 0
    put_marks(store, [narrow])
    assert unhush_stored(store, remove_mark(store, wide.id), Hushes(list_marks(store))) == 2
    found = read(store)
    assert alerts(found) == [3, 4, 5, 6, 7, 8, 10, 11]
    assert found["anomaly.hushed"][9] == narrow.id
    assert unhush_stored(store, remove_mark(store, narrow.id), Hushes([])) == 1
    assert read(store).equals(before)


@pytest.mark.parametrize("verdict", ["false-alarm", "true-anomaly"])
def test_other_verdicts_hush_nothing(store: Store, verdict: Verdict) -> None:
    store.write_events(scored())
    mark = new_mark(verdict, by="ada", client="192.0.2.1", until=T0 + dt.timedelta(days=1))
    assert hush_stored(store, mark) == 0
    assert alerts(read(store)) == list(range(3, ROWS))


def test_marks_are_followed_while_they_change_and_kept_while_the_store_is_away(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    follower = HushFollower(store, 0.01)
    follower.look()
    follower.start()
    try:
        assert not follower.now
        mark = expected()
        put_marks(store, [mark])
        until(lambda: follower.now.marks == (mark,), "the new mark")
        with monkeypatch.context() as patch:

            def away(collection: str) -> list[dict[str, object]]:
                raise StoreUnavailable("the store is away")

            patch.setattr(store, "list_documents", away)
            until(lambda: "the store is away" in caplog.text, "word of it")
            assert follower.now.marks == (mark,)
        remove_mark(store, mark.id)
        until(lambda: not follower.now, "its removal")
    finally:
        follower.close()


def test_what_was_scored_before_a_change_was_seen_and_stored_after_it_is_judged_again(store: Store) -> None:
    follower = HushFollower(store, 10)
    follower.look()
    mark = expected()
    put_marks(store, [mark])
    follower.follow()
    store.write_events(scored())
    assert alerts(read(store)) == list(range(3, ROWS))
    follower.follow()
    assert alerts(read(store)) == [3, 4, 6, 7, 8, 10, 11]
    remove_mark(store, mark.id)
    follower.follow()
    assert alerts(read(store)) == [3, 4, 6, 7, 8, 10, 11], "batches of now may still be on their way"
    follower.follow()
    assert alerts(read(store)) == list(range(3, ROWS))
