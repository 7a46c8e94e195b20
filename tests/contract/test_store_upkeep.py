"""What every event store promises its keeper: set-up, retention, the range of times, an end."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable

import polars as pl

from oddlog.connectors.store import EventQuery, Store
from oddlog.events.schema import TIMESTAMP
from tests.store_frames import ALL, MIDNIGHT, dead_letters, events, read, scored, write


def test_the_range_of_times_is_that_of_the_events_that_fit(store: Store) -> None:
    assert store.time_range(ALL) is None
    frame = events(10)
    write(store, frame)
    assert store.time_range(ALL) == (frame["@timestamp"][0], frame["@timestamp"][9])
    assert store.time_range(EventQuery(from_offset=4)) == (frame["@timestamp"][4], frame["@timestamp"][9])
    assert store.time_range(EventQuery(status="pending")) is None


def test_days_before_a_day_go_and_nothing_else_does(store: Store) -> None:
    days = [
        dt.datetime(1969, 12, 31, 23, tzinfo=dt.UTC),
        MIDNIGHT - dt.timedelta(days=2),
        MIDNIGHT - dt.timedelta(milliseconds=1),
        MIDNIGHT,
        MIDNIGHT + dt.timedelta(days=1),
    ]
    write(store, events(5).with_columns(pl.Series("@timestamp", days, dtype=TIMESTAMP)))
    store.write_dead(dead_letters(3))
    store.put_document("marks", "one", {"note": "stays"})
    store.refresh()
    expected = {day.date(): 1 for day in days[:3]}
    today = MIDNIGHT.date()
    assert store.delete_before(dt.date(1969, 12, 31)) == {}
    assert store.delete_before(today, dry_run=True) == expected
    assert store.count_events(ALL) == 5
    assert list(store.delete_before(today)) == sorted(expected)
    store.refresh()
    assert read(store)["@timestamp"].to_list() == days[3:]
    assert store.count_dead() == 3
    assert store.get_document("marks", "one") == {"note": "stays"}
    assert store.delete_before(today) == {}


def test_a_late_event_of_a_deleted_day_is_kept_until_the_next_deletion(store: Store) -> None:
    write(store, events(1))  # of the day before
    store.delete_before(MIDNIGHT.date())
    write(store, scored(1))
    assert read(store, columns=scored(1).columns).equals(scored(1))
    assert store.setup_problems() == []
    assert store.delete_before(MIDNIGHT.date()) == {MIDNIGHT.date() - dt.timedelta(days=1): 1}


def test_what_is_set_up_has_no_problems(connect: Callable[[], Store]) -> None:
    one = connect()
    assert one.setup_problems()
    assert one.setup_problems()  # and asking has made nothing
    one.setup()
    assert one.setup_problems() == []
    write(one, scored(3))
    assert connect().setup_problems() == []


def test_a_store_that_can_be_used_answers_a_ping(store: Store) -> None:
    store.ping()


def test_closing_twice_is_harmless(store: Store) -> None:
    store.close()
    store.close()
