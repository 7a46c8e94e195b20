"""What every event store promises of counts over events, and of a share of them chosen by position."""

from __future__ import annotations

import datetime as dt

import polars as pl
import pytest

from oddlog.connectors.store import DeadQuery, EventQuery, Store
from tests.store_frames import MIDNIGHT, dead_letters, events, scored, write, write_letters


def hours(count: int) -> dt.datetime:
    return MIDNIGHT + dt.timedelta(hours=count)


def fill(store: Store) -> None:
    """Ten events an hour for four hours: one client has half of them; hours 0 to 2 are scored, 3 is pending."""
    columns = {
        "@timestamp": [hours(n // 10) + dt.timedelta(minutes=n % 10) for n in range(40)],
        "source__address": [f"192.0.2.{n % 10 if n % 2 else 0}" for n in range(40)],
        "http__response__status_code": [(200, 200, 301, 404, None)[n % 5] for n in range(40)],
    }
    whole = scored(40, **columns, anomaly__is_anomaly=[n in {1, 11, 13, 20, 22} for n in range(40)])
    write(store, whole[:30])
    write(store, events(40, **columns, anomaly__status=["pending"] * 40)[30:])


def test_counts_over_events(store: Store) -> None:
    assert store.summarise_events(EventQuery()).events == 0
    assert store.client_hours(EventQuery()).height == 0
    fill(store)
    whole = store.summarise_events(EventQuery())
    assert (whole.events, whole.pending, whole.clients, whole.busiest) == (40, 10, 6, 20)
    assert whole.statuses == {"1xx": 0, "2xx": 16, "3xx": 8, "4xx": 8, "5xx": 0}
    # Six clients an hour; odd were .1 in hour 0, .1 and .3 in hour 1, .0 twice in hour 2.
    assert (whole.client_hours, whole.alerts) == (18, 4)
    part = store.summarise_events(EventQuery(since=hours(2), until=hours(4)))
    assert (part.events, part.pending, part.client_hours, part.alerts) == (20, 10, 6, 1)
    assert store.summarise_events(EventQuery(since=hours(9))).statuses == dict.fromkeys(whole.statuses, 0)


def test_hours_of_clients(store: Store) -> None:
    fill(store)
    found = store.client_hours(EventQuery(clients=("192.0.2.0", "192.0.2.3", "203.0.113.1"), until=hours(2)))
    assert sorted(found.rows()) == [(client, hours(hour)) for client in ("192.0.2.0", "192.0.2.3") for hour in range(2)]


def test_a_share_is_the_same_each_time_and_takes_of_every_client_its_part(store: Store) -> None:
    write(store, events(2_000, source__address=["busy" if n % 4 else "quiet" for n in range(2_000)]))
    query = EventQuery(share=0.25)
    first, second = (pl.concat(store.read_events(query, columns=["_id", "source.address"])) for _ in range(2))
    assert sorted(first["_id"]) == sorted(second["_id"])
    assert first.height == store.count_events(query) == pytest.approx(500, abs=90)
    assert (first["source.address"] == "quiet").mean() == pytest.approx(0.25, abs=0.08)
    assert store.count_events(EventQuery(share=1.0)) == 2_000


def test_dead_letters_by_kind(store: Store) -> None:
    assert store.dead_kinds(DeadQuery()) == {}
    letters = dead_letters(6).with_columns(pl.Series("kind", ["empty", "no_format"] * 3))
    write_letters(store, letters)
    assert store.dead_kinds(DeadQuery()) == {"empty": 3, "no_format": 3}
    times = letters["@timestamp"].sort().to_list()
    assert sum(store.dead_kinds(DeadQuery(since=times[1], until=times[4])).values()) == 3
