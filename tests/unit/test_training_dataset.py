"""Pulling, snapshotting and splitting of a data set, out of a real embedded store."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from oddlog.connectors.by_url import open_store
from oddlog.connectors.store import Store
from oddlog.errors import UsageError
from oddlog.events.logfile import records_from_lines
from oddlog.events.parse import parse
from oddlog.settings import StoreSettings
from training.dataset import COLUMNS, digest_of, pull, split_by_time

START = dt.datetime(2024, 5, 1, tzinfo=dt.UTC)


def line(minute: int, path: str = "/") -> bytes:
    moment = START + dt.timedelta(minutes=minute)
    return (
        f'192.0.2.{minute % 7} - - [{moment:%d/%b/%Y:%H:%M:%S} +0000] "GET {path} HTTP/1.1" 200 12 "-" "agent"'
    ).encode()


def events(minutes: list[int], *, topic: str = "log", partition: int = 0) -> pl.DataFrame:
    records = records_from_lines([line(minute) for minute in minutes], topic=topic, labels=None)
    records.partition = [partition] * len(records)
    return parse(records).events.with_columns(pl.lit("pending").alias("anomaly.status"))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(StoreSettings(url=f"sqlite:///{tmp_path}/oddlog.sqlite"))
    opened.setup()
    yield opened
    opened.close()


def test_a_data_set_is_the_period_in_record_order_with_a_snapshot(store: Store, tmp_path: Path) -> None:
    store.write_events(events([9, 3, 50, 20], partition=1))
    store.write_events(events([5, 1], partition=0))
    since, until = START + dt.timedelta(minutes=3), START + dt.timedelta(minutes=50)
    dataset = pull(store, url="http://u:secret@es:9200", folder=tmp_path / "sets", since=since, until=until)
    minutes = [(moment - START).seconds // 60 for moment in dataset.events["@timestamp"].to_list()]
    # Partition by partition, each in offset order; since is in, until is out.
    assert minutes == [5, 9, 3, 20]
    assert dataset.events.columns == list(COLUMNS)
    assert (dataset.since, dataset.until) == (since, START + dt.timedelta(minutes=20))
    assert dataset.snapshot.name == f"{dataset.digest}.parquet"
    assert pl.read_parquet(dataset.snapshot).equals(dataset.events)
    assert [path.name for path in (tmp_path / "sets").iterdir()] == [dataset.snapshot.name]
    assert dataset.source == "http://es:9200, events since 2024-05-01 00:03:00 until 2024-05-01 00:50:00"


def test_equal_events_give_equal_digests_and_others_do_not(store: Store, tmp_path: Path) -> None:
    store.write_events(events(list(range(100))))
    whole = pull(store, url="x", folder=tmp_path)
    again = pull(store, url="y", folder=tmp_path)
    part = pull(store, url="x", folder=tmp_path, until=START + dt.timedelta(minutes=99))
    assert whole.digest == again.digest == digest_of(whole.events)
    assert part.digest != whole.digest
    assert len(whole.digest) == 32
    changed = whole.events.with_columns(pl.lit("attack:scan").alias("labels.truth"))
    assert digest_of(changed) != whole.digest


def test_an_empty_store_says_what_fills_it(store: Store, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the store holds no events") as caught:
        pull(store, url="x", folder=tmp_path / "sets", min_events=1_000)
    assert caught.value.expected == "at least 1,000 (setting train.min_events)"
    assert list((tmp_path / "sets").iterdir()) == []


def test_a_period_without_events_says_what_the_store_holds(store: Store, tmp_path: Path) -> None:
    store.write_events(events([0, 59]))
    with pytest.raises(UsageError, match="0 events since 2025-01-01 00:00:00 to train on") as caught:
        pull(store, url="x", folder=tmp_path, since=dt.datetime(2025, 1, 1, tzinfo=dt.UTC), min_events=1)
    assert "holds 2, from 2024-05-01 00:00:00 to 2024-05-01 00:59:00 UTC" in caught.value.found


def test_too_few_events_say_how_many_are_needed(store: Store, tmp_path: Path) -> None:
    store.write_events(events([0, 1, 2]))
    with pytest.raises(UsageError, match="3 events to train on") as caught:
        pull(store, url="x", folder=tmp_path, min_events=10)
    assert caught.value.expected == "at least 10 (setting train.min_events)"


def test_a_split_keeps_equal_times_on_one_side() -> None:
    frame = events([0, 1, 2, 3, 3, 3, 3, 4, 5, 6])
    split = split_by_time(frame, 0.5)
    assert split.boundary == START + dt.timedelta(minutes=3)
    assert split.fitted.tolist() == [True] * 3 + [False] * 7


def test_a_split_goes_by_time_not_by_row() -> None:
    split = split_by_time(events([9, 0, 8, 1, 7, 2]), 0.5)
    assert split.fitted.tolist() == [False, True, False, True, False, True]


def test_events_of_one_moment_cannot_be_split() -> None:
    with pytest.raises(UsageError, match="at the same moment"):
        split_by_time(events([4] * 20), 0.7)
