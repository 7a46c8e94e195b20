"""Dead letters of events that the store refuses: written whatever the broker's time was."""

from __future__ import annotations

from pathlib import Path

import pytest

from oddlog.connectors.sqlite import SqliteStore
from oddlog.events.logfile import records_from_lines
from oddlog.events.parse import LATEST_MS, parse
from oddlog.settings import StoreSettings
from serving.documents import dead_letters_of_rejected

LINE = b'192.0.2.1 - - [17/May/2015:10:05:03 +0200] "GET / HTTP/1.1" 200 12 "-" "curl/8"'


@pytest.mark.parametrize(
    ("broker", "kept"), [(-1, 0), (10**18, LATEST_MS), (-(10**18), 0), (1_431_857_103_000, 1_431_857_103_000)]
)
def test_a_brokers_time_of_no_calendar_loses_no_letter(tmp_path: Path, broker: int, kept: int) -> None:
    records = records_from_lines([LINE, LINE])
    events = parse(records).events
    records.timestamp_ms = [broker, broker]
    letters = dead_letters_of_rejected(records, events, {1: "mapping conflict"})
    store = SqliteStore(StoreSettings(url=f"sqlite:///{tmp_path / 'events.sqlite'}"))
    assert not store.write_dead(letters).rejected
    found = store.read_dead()
    store.close()
    assert found["_id"].to_list() == [events["_id"][1]]
    assert found["@timestamp"].dt.epoch("ms").to_list() == [kept]
    assert found["original"].to_list() == [LINE]
