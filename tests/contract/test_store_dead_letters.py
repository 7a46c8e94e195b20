"""What every event store promises of dead letters: bytes untouched, each once, removed by id."""

from __future__ import annotations

import polars as pl
import pytest

from oddlog.connectors.store import DeadQuery, Store
from tests.store_frames import ALL, dead_letters, events, write, write_letters


def test_dead_letters_come_back_oldest_first_bytes_untouched(store: Store) -> None:
    frame = dead_letters(7)
    write_letters(store, frame)
    assert store.read_dead().equals(frame.reverse())
    assert store.read_dead(limit=2).equals(frame.reverse().head(2))
    assert store.read_dead(limit=0).is_empty()
    assert store.count_dead() == 7
    assert store.count_events(ALL) == 0


def test_a_dead_letter_is_written_once(store: Store) -> None:
    write_letters(store, dead_letters(3))
    write_letters(store, dead_letters(5, start=1).with_columns(pl.lit("another reason").alias("reason")))
    assert store.count_dead() == 6
    reasons = store.read_dead().sort("oddlog.position.offset")["reason"].to_list()
    assert [reason == "another reason" for reason in reasons] == [False] * 3 + [True] * 3


def test_a_dead_letter_too_may_have_no_id_that_fits(store: Store) -> None:
    outcome = store.write_dead(dead_letters(2).with_columns(pl.Series("_id", ["x" * 600, "fits"])))
    store.refresh()
    assert list(outcome.rejected) == [0]
    assert store.count_dead() == 1


def test_dead_letters_are_chosen_by_kind_and_id_and_come_in_frames(store: Store) -> None:
    frame = dead_letters(7).with_columns(pl.Series("kind", ["empty", "no_format"] * 3 + ["empty"]))
    write_letters(store, frame)
    whole = pl.concat(store.iterate_dead(DeadQuery(), batch_rows=3))
    assert whole.equals(frame.reverse())
    assert [one.height for one in store.iterate_dead(DeadQuery(), batch_rows=3)] == [3, 3, 1]
    assert pl.concat(store.iterate_dead(DeadQuery(), newest_first=True)).equals(frame)
    empty = pl.concat(store.iterate_dead(DeadQuery(kind="empty"), columns=["_id", "kind"]))
    assert empty.to_dict(as_series=False) == {
        "_id": [f"e1-logs.raw-0-{offset}" for offset in (6, 4, 2, 0)],
        "kind": ["empty"] * 4,
    }
    some = DeadQuery(kind="no_format", ids=("e1-logs.raw-0-1", "e1-logs.raw-0-2", "never"))
    assert pl.concat(store.iterate_dead(some, columns=["_id"]))["_id"].to_list() == ["e1-logs.raw-0-1"]
    assert list(store.iterate_dead(DeadQuery(ids=()))) == []
    assert list(store.iterate_dead(DeadQuery(kind="never"))) == []
    with pytest.raises(ValueError, match=r"no column 'url\.path'"):
        list(store.iterate_dead(DeadQuery(), columns=["url.path"]))


def test_dead_letters_are_removed_by_id_and_nothing_else_is(store: Store) -> None:
    assert store.delete_dead(["never"]) == 0
    write_letters(store, dead_letters(5))
    write(store, events(5))
    assert store.delete_dead([]) == 0
    assert store.delete_dead(["e1-logs.raw-0-1", "e1-logs.raw-0-3", "never"]) == 2
    store.refresh()
    assert store.read_dead()["oddlog.position.offset"].to_list() == [4, 2, 0]
    assert store.count_events(ALL) == 5
    assert store.delete_dead(["e1-logs.raw-0-1"]) == 0


def test_dead_letters_can_be_removed_while_they_are_read(store: Store) -> None:
    write_letters(store, dead_letters(5))
    seen = 0
    for frame in store.iterate_dead(DeadQuery(), batch_rows=2):
        seen += frame.height
        assert store.delete_dead(frame["_id"].to_list()) == frame.height
    store.refresh()
    assert seen == 5
    assert store.count_dead() == 0
