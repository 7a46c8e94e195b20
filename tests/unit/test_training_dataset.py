"""Pulling, snapshotting and splitting of a data set, out of a real embedded store."""

from __future__ import annotations

import datetime as dt
import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from oddlog.connectors.by_url import open_store
from oddlog.connectors.store import EventQuery, Store
from oddlog.errors import StoreUnavailable, UsageError
from oddlog.events.logfile import records_from_lines
from oddlog.events.parse import parse
from oddlog.settings import StoreSettings
from training.dataset import COLUMNS, Selection, digest_of, split_by_time
from training.limits import within_memory
from training.pull import RESUME_WITHIN, pull
from training.sample import in_sample

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
    dataset = pull(store, Selection(since, until), url="http://u:secret@es:9200", folder=tmp_path / "sets")
    pulled = dataset.events()
    minutes = [(moment - START).seconds // 60 for moment in pulled["@timestamp"].to_list()]
    # Partition by partition, each in offset order; since is in, until is out.
    assert minutes == [5, 9, 3, 20]
    assert pulled.columns == list(COLUMNS) == list(dataset.columns)
    assert (dataset.rows, dataset.clients) == (4, 4)
    assert (dataset.since, dataset.until) == (since, START + dt.timedelta(minutes=20))
    assert dataset.snapshot.name == f"{dataset.digest}.parquet"
    assert pl.read_parquet(dataset.snapshot).equals(pulled)
    assert pl.concat(dataset.batches(rows=3)).equals(pulled)
    assert dataset.events(["_id"], since=START + dt.timedelta(minutes=9)).height == 2
    assert [path.name for path in (tmp_path / "sets").iterdir()] == [dataset.snapshot.name]
    assert dataset.source == "http://es:9200, events since 2024-05-01 00:03:00 until 2024-05-01 00:50:00"


def test_equal_events_give_equal_digests_and_others_do_not(store: Store, tmp_path: Path) -> None:
    store.write_events(events(list(range(100))))
    whole = pull(store, Selection(), url="x", folder=tmp_path)
    again = pull(store, Selection(), url="y", folder=tmp_path, part_rows=7)
    part = pull(store, Selection(until=START + dt.timedelta(minutes=99)), url="x", folder=tmp_path)
    assert whole.digest == again.digest == digest_of(whole.events())
    assert part.digest != whole.digest
    assert len(whole.digest) == 32
    changed = whole.events().with_columns(pl.lit("attack:scan").alias("labels.truth"))
    assert digest_of(changed) != whole.digest


def test_an_empty_store_says_what_fills_it(store: Store, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the store holds no events") as caught:
        pull(store, Selection(), url="x", folder=tmp_path / "sets", min_events=1_000)
    assert caught.value.expected == "at least 1,000 (setting train.min_events)"
    assert list((tmp_path / "sets").iterdir()) == []


def test_a_period_without_events_says_what_the_store_holds(store: Store, tmp_path: Path) -> None:
    store.write_events(events([0, 59]))
    with pytest.raises(UsageError, match="0 events since 2025-01-01 00:00:00 to train on") as caught:
        pull(store, Selection(since=dt.datetime(2025, 1, 1, tzinfo=dt.UTC)), url="x", folder=tmp_path, min_events=1)
    assert "holds 2, from 2024-05-01 00:00:00 to 2024-05-01 00:59:00 UTC" in caught.value.found


def test_too_few_events_say_how_many_are_needed(store: Store, tmp_path: Path) -> None:
    store.write_events(events([0, 1, 2]))
    with pytest.raises(UsageError, match="3 events to train on") as caught:
        pull(store, Selection(), url="x", folder=tmp_path, min_events=10)
    assert caught.value.expected == "at least 10 (setting train.min_events)"


def test_a_split_keeps_equal_times_on_one_side() -> None:
    frame = events([0, 1, 2, 3, 3, 3, 3, 4, 5, 6])
    split = split_by_time(frame["@timestamp"], 0.5)
    assert split.boundary == START + dt.timedelta(minutes=3)
    assert split.fitted.tolist() == [True] * 3 + [False] * 7


def test_a_split_goes_by_time_not_by_row() -> None:
    split = split_by_time(events([9, 0, 8, 1, 7, 2])["@timestamp"], 0.5)
    assert split.fitted.tolist() == [False, True, False, True, False, True]


def test_events_of_one_moment_cannot_be_split() -> None:
    with pytest.raises(UsageError, match="at the same moment"):
        split_by_time(events([4] * 20)["@timestamp"], 0.7)


def test_an_unfinished_pull_is_gone_on_with_and_ends_the_same(store: Store, tmp_path: Path) -> None:
    """A process that is killed in the middle of a pull leaves what the next one goes on from, and no more is read."""
    for partition in range(3):
        store.write_events(events(list(range(partition, 300, 3)), partition=partition))
    whole = pull(store, Selection(), url="x", folder=tmp_path / "whole")
    script = f"""
import os, signal
from pathlib import Path
from oddlog.connectors.by_url import open_store
from oddlog.settings import StoreSettings
from training.dataset import Selection
from training.pull import pull

class Killed:
    read = 0
    def __init__(self, store): self.store = store
    def __getattr__(self, name): return getattr(self.store, name)
    def read_events(self, query, **options):
        for frame in self.store.read_events(query, batch_rows=10, **options):
            yield frame
            Killed.read += frame.height
            if Killed.read >= 150:
                os.kill(os.getpid(), signal.SIGKILL)

store = open_store(StoreSettings(url="sqlite:///{tmp_path}/oddlog.sqlite"))
pull(Killed(store), Selection(), url="x", folder=Path("{tmp_path}/sets"), pulls=Path("{tmp_path}/pulls"), part_rows=20)
"""
    ended = subprocess.run([sys.executable, "-c", script], cwd=Path(__file__).parents[2], check=False, timeout=120)
    assert ended.returncode == -signal.SIGKILL
    assert not list((tmp_path / "sets").iterdir())
    # Meanwhile events arrive; they are another pull's.
    store.write_events(events([400, 401], partition=7))

    counting = _Counting(store)
    told: list[str] = []
    place = tmp_path / "pulls"
    resumed = pull(
        counting,  # type: ignore[arg-type]
        Selection(),
        url="x",
        folder=tmp_path / "sets",
        pulls=place,
        part_rows=20,
        progress=told.append,
    )
    assert resumed.digest == whole.digest
    assert resumed.rows == 300
    assert 150 <= counting.rows <= 180  # what stood in whole parts was not read again
    assert any("interrupted pull" in line for line in told)
    assert list(place.iterdir()) == []
    assert pull(store, Selection(), url="x", folder=tmp_path / "sets", pulls=place).rows == 302


class _Counting:
    """A store that counts the events it hands out."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.rows = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    def read_events(self, query: EventQuery, *, columns: Sequence[str], order: str) -> Iterator[pl.DataFrame]:
        for frame in self._store.read_events(query, columns=columns, order=order, batch_rows=10):  # type: ignore[arg-type]
            self.rows += frame.height
            yield frame


def _leave_unfinished(store: Store, place: Path) -> Path:
    """The folder of a pull that failed in the middle."""

    class Breaking(_Counting):
        def read_events(self, query: EventQuery, **options: Any) -> Iterator[pl.DataFrame]:
            for number, frame in enumerate(super().read_events(query, **options)):
                if number == 3:
                    raise StoreUnavailable("taken away by the test")
                yield frame

    with pytest.raises(StoreUnavailable):
        pull(Breaking(store), Selection(), url="x", folder=place, pulls=place, part_rows=10)  # type: ignore[arg-type]
    (left,) = (path for path in place.iterdir() if path.is_dir())
    return left


def test_a_torn_part_is_read_again(store: Store, tmp_path: Path) -> None:
    store.write_events(events(list(range(100))))
    whole = pull(store, Selection(), url="x", folder=tmp_path / "whole")
    left = _leave_unfinished(store, tmp_path / "pulls")
    last = max(left.glob("*.parquet"))
    last.write_bytes(last.read_bytes()[:-20])
    resumed = pull(store, Selection(), url="x", folder=tmp_path, pulls=tmp_path / "pulls", part_rows=10)
    assert resumed.digest == whole.digest


def test_an_old_unfinished_pull_is_thrown_away(store: Store, tmp_path: Path) -> None:
    store.write_events(events(list(range(100))))
    left = _leave_unfinished(store, tmp_path / "pulls")
    plan = json.loads((left / "plan.json").read_text())
    plan["started"] = (dt.datetime.now(dt.UTC) - RESUME_WITHIN - dt.timedelta(minutes=1)).isoformat()
    (left / "plan.json").write_text(json.dumps(plan))
    store.write_events(events([500], partition=1))
    counting = _Counting(store)
    again = pull(counting, Selection(), url="x", folder=tmp_path, pulls=tmp_path / "pulls")  # type: ignore[arg-type]
    assert again.rows == counting.rows == 101


def test_two_pulls_of_the_same_do_not_share_a_folder(store: Store, tmp_path: Path) -> None:
    store.write_events(events(list(range(100))))
    inner: list[str] = []

    class Nested(_Counting):
        def read_events(self, query: EventQuery, **options: Any) -> Iterator[pl.DataFrame]:
            if not inner:
                inner.append(pull(store, Selection(), url="x", folder=tmp_path / "b", pulls=tmp_path / "pulls").digest)
            yield from super().read_events(query, **options)

    outer = pull(Nested(store), Selection(), url="x", folder=tmp_path / "a", pulls=tmp_path / "pulls")  # type: ignore[arg-type]
    assert [outer.digest] == inner
    assert list((tmp_path / "pulls").iterdir()) == []


def test_a_sample_keeps_whole_clients_and_grows_with_its_share(store: Store, tmp_path: Path) -> None:
    store.write_events(events(list(range(210))))
    whole = pull(store, Selection(), url="x", folder=tmp_path).events()
    sampled = pull(store, Selection(sample=0.5), url="x", folder=tmp_path)
    kept = sampled.events()
    clients = set(kept["source.address"])
    assert 0 < len(clients) < whole["source.address"].n_unique()
    assert kept.equals(whole.filter(pl.col("source.address").is_in(list(clients))))
    assert sampled.source == "x, all events, 50 % of the clients by hash"
    names = pl.Series([f"client {i}" for i in range(2_000)])
    small, large = in_sample(names, 0.2), in_sample(names, 0.6)
    assert (small <= large).all()
    assert 300 < small.sum() < 500
    assert 1_100 < large.sum() < 1_300


def test_what_does_not_fit_into_memory_is_sampled_and_said(store: Store) -> None:
    store.write_events(events(list(range(1_000))))
    assert within_memory(store, Selection(), 4_096) == (Selection(), [])

    class Large(_Counting):
        def count_events(self, query: EventQuery) -> int:
            return 100_000_000

    for asked in (1.0, 0.5):
        selection, (caution,) = within_memory(Large(store), Selection(sample=asked), 4_096)  # type: ignore[arg-type]
        assert 0.01 < selection.sample < 0.1
        assert caution.name == "sampled_for_memory"
        assert "4,096 MB" in caution.text
    assert within_memory(Large(store), Selection(sample=0.001), 4_096)[1] == []  # type: ignore[arg-type]
