"""What every event store promises who forgets a client."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable

import polars as pl

from oddlog.connectors.store import EventQuery, Store
from oddlog.events.schema import TIMESTAMP
from tests.store_frames import ALL, MIDNIGHT, dead_letters, events, read, write

CLIENT = "192.0.2.3"


def test_events_of_a_client_go_from_every_day_and_no_other_do(store: Store) -> None:
    days = [MIDNIGHT + dt.timedelta(days=3 * row) for row in range(6)]
    frame = events(6).with_columns(
        pl.Series("@timestamp", days, dtype=TIMESTAMP),
        pl.Series("source.address", [CLIENT, CLIENT + "0", CLIENT, "x" + CLIENT, CLIENT, "host.example"]),
    )
    write(store, frame)
    store.write_dead(dead_letters(2))
    assert store.delete_client("192.0.2") == 0
    assert store.delete_client(CLIENT) == 3
    assert sorted(read(store)["source.address"].to_list()) == sorted([CLIENT + "0", "x" + CLIENT, "host.example"])
    assert store.count_events(EventQuery(clients=(CLIENT,))) == 0
    assert store.delete_client(CLIENT) == 0
    assert store.count_dead() == 2


def test_a_store_without_events_has_none_of_a_client(store: Store) -> None:
    assert store.delete_client(CLIENT) == 0
    store.expunge()


def test_an_expunged_store_has_what_it_had(store: Store, connect: Callable[[], Store]) -> None:
    write(store, events(40))
    store.put_document("marks", "one", {"note": "stays"})
    assert store.delete_client(CLIENT) == 1
    store.expunge()
    assert store.count_events(ALL) == 39
    again = connect()
    assert again.count_events(ALL) == 39
    assert again.get_document("marks", "one") == {"note": "stays"}
    write(store, events(1, start=3))
    assert read(store).height == 40
