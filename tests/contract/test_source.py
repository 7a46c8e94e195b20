"""What every source promises (oddlog/connectors/source.py), asked of a real file and of a real broker alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import pytest

from oddlog.connectors.by_url import open_source
from oddlog.connectors.source import Source
from oddlog.errors import UsageError
from oddlog.events.record import Partition, Records
from oddlog.settings import SourceSettings
from tests.kafka_topic import Topic
from tests.waiting import at_once, until

LINES = [b"line %d" % number for number in range(40)]


class Lab(Protocol):
    """A place that records come from, and what a test does to it from outside."""

    def write(self, *values: bytes) -> None:
        """Append records, in order, to one partition."""

    def settings(self, group: str) -> SourceSettings:
        """How a consumer reaches it."""

    def close(self) -> None:
        """Remove it."""


class FileLab:
    """A log file that a server appends to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, *values: bytes) -> None:
        with (self.folder / "access.log").open("ab") as file:
            file.write(b"".join(value + b"\n" for value in values))

    def settings(self, group: str) -> SourceSettings:
        url = f"file://{self.folder / 'access.log'}"
        return SourceSettings(url=url, group=group, state_dir=self.folder / "places")

    def close(self) -> None:
        """The folder is pytest's."""


class KafkaLab:
    """A topic of one partition."""

    def __init__(self, url: str) -> None:
        self.topic = Topic(url)
        self.topic.make()

    def write(self, *values: bytes) -> None:
        self.topic.write(*values)

    def settings(self, group: str) -> SourceSettings:
        return self.topic.settings(group=f"{group}-{self.topic.name}")

    def close(self) -> None:
        self.topic.close()


@pytest.fixture(params=["file", pytest.param("kafka", marks=pytest.mark.kafka)])
def lab(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Lab]:
    made: Lab = FileLab(tmp_path) if request.param == "file" else KafkaLab(request.getfixturevalue("kafka_url"))
    yield made
    made.close()


Open = Callable[..., Source]


@pytest.fixture
def opened(lab: Lab) -> Iterator[Open]:
    """Opens a source in a group; whatever is open at the end is closed."""
    sources: list[Source] = []

    def open_one(group: str = "g") -> Source:
        sources.append(open_source(lab.settings(group)))
        return sources[-1]

    yield open_one
    for source in sources:
        source.close()


def assignment(source: Source) -> Partition:
    """The partition that the source assigns."""

    def assigned() -> list[Partition]:
        poll = source.poll(100, 0.2)
        assert len(poll.records) == 0, "records of a partition that was not started"
        return poll.assigned

    (partition,) = until(assigned, "an assignment", each=at_once)
    return partition


def started(source: Source) -> Partition:
    """The partition that the source assigns, flowing."""
    partition = assignment(source)
    source.start(partition)
    return partition


def read(source: Source, count: int, *, limit: int = 100) -> Records:
    """`count` records of a source that flows; no more may come with them."""
    got = Records()

    def enough() -> bool:
        records = source.poll(min(limit, count - len(got)), 0.2).records
        for name in ("value", "epoch", "topic", "partition", "offset", "timestamp_ms"):
            getattr(got, name).extend(getattr(records, name))
        got.next_offset.update(records.next_offset)
        return len(got) >= count

    until(enough, f"{count} records", each=at_once, told=lambda: f"{len(got)} came")
    assert len(got) == count
    return got


def replayed(
    source: Source, partition: Partition, until: int, since_ms: int | None = None
) -> list[tuple[int, bytes | None]]:
    batches = source.replay(partition, until, since_ms)
    return [pair for batch in batches for pair in zip(batch.offset, batch.value, strict=True)]


def test_nothing_flows_before_start(lab: Lab, opened: Open) -> None:
    lab.write(*LINES[:3])
    source = opened()
    partition = assignment(source)
    for _ in range(3):
        poll = source.poll(100, 0.2)
        assert (len(poll.records), poll.assigned, poll.revoked) == (0, [], [])
    source.start(partition)
    assert read(source, 3).value == LINES[:3]


def test_records_come_in_order_with_their_positions(lab: Lab, opened: Open) -> None:
    before = int(time.time() * 1000) - 60_000
    lab.write(*LINES)
    source = opened()
    partition = started(source)
    records = read(source, len(LINES), limit=7)
    assert records.value == LINES
    assert records.offset == sorted(set(records.offset))
    assert set(zip(records.epoch, records.topic, records.partition, strict=True)) == {partition}
    assert list(records.next_offset) == [partition]
    assert records.next_offset[partition] > records.offset[-1]
    assert all(stamp > before for stamp in records.timestamp_ms)


def test_bytes_come_as_they_were_written(lab: Lab, opened: Open) -> None:
    values = [b"\xff\xfe\x00 no text", b"", b" ", b"x" * 300_000, "\N{SNOWMAN}".encode()]
    lab.write(*values)
    source = opened()
    started(source)
    assert read(source, len(values)).value == values


def test_what_is_committed_is_not_read_again(lab: Lab, opened: Open) -> None:
    lab.write(*LINES[:10])
    source = opened()
    started(source)
    first = read(source, 4)
    source.commit(first.next_offset)
    source.close()
    lab.write(*LINES[10:12])
    source = opened()
    started(source)
    second = read(source, 8)
    assert first.value + second.value == LINES[:12]


def test_what_is_not_committed_is_read_again_at_the_same_positions(lab: Lab, opened: Open) -> None:
    lab.write(*LINES[:10])
    source = opened()
    started(source)
    first = read(source, 10)
    source.close()
    source = opened()
    started(source)
    second = read(source, 10)
    for name in ("value", "epoch", "topic", "partition", "offset", "next_offset"):
        assert getattr(second, name) == getattr(first, name)


def test_a_commit_may_lie_before_what_was_read(lab: Lab, opened: Open) -> None:
    lab.write(*LINES[:10])
    source = opened()
    partition = started(source)
    records = read(source, 10)
    source.commit({partition: records.offset[6]})
    source.close()
    source = opened()
    assert started(source) == partition
    assert read(source, 4).value == LINES[6:10]


def test_committed_tells_the_last_commit(lab: Lab, opened: Open) -> None:
    lab.write(*LINES[:5])
    source = opened()
    partition = assignment(source)
    assert source.committed(partition) is None
    source.start(partition)
    records = read(source, 5)
    assert source.committed(partition) is None
    source.commit(records.next_offset)
    assert source.committed(partition) == records.next_offset[partition]
    source.close()
    source = opened()
    assert source.committed(assignment(source)) == records.next_offset[partition]


def test_groups_do_not_know_of_each_other(lab: Lab, opened: Open) -> None:
    lab.write(*LINES[:5])
    one, other = opened("one"), opened("other")
    started(one)
    one.commit(read(one, 5).next_offset)
    partition = assignment(other)
    assert other.committed(partition) is None
    other.start(partition)
    assert read(other, 5).value == LINES[:5]


def test_rewind_reads_again_from_the_commit(lab: Lab, opened: Open) -> None:
    lab.write(*LINES[:10])
    source = opened()
    partition = started(source)
    records = read(source, 10)
    source.rewind()
    assert read(source, 10).value == LINES[:10]
    source.commit({partition: records.offset[3]})
    source.rewind()
    assert read(source, 7).value == LINES[3:10]


def test_replay_ends_before_an_offset_and_moves_nothing(lab: Lab, opened: Open) -> None:
    lab.write(*LINES[:20])
    source = opened()
    partition = started(source)
    records = read(source, 10)
    source.commit(records.next_offset)
    expected = list(zip(records.offset, LINES, strict=False))
    assert replayed(source, partition, records.next_offset[partition]) == expected
    assert replayed(source, partition, records.offset[4]) == expected[:4]
    assert replayed(source, partition, 0) == []
    assert len(replayed(source, partition, 10**12)) == 20
    later = [(one, value) for batch in source.replay(partition, records.offset[9], from_offset=records.offset[4])
             for one, value in zip(batch.offset, batch.value, strict=True)]  # fmt: skip
    assert later == expected[4:9]
    assert source.committed(partition) == records.next_offset[partition]
    assert read(source, 10).value == LINES[10:20]


def test_replay_works_before_start_and_takes_an_age(lab: Lab, opened: Open) -> None:
    lab.write(*LINES[:5])
    source = opened()
    partition = assignment(source)
    hour = 3_600_000
    now = int(time.time() * 1000)
    assert [value for _, value in replayed(source, partition, 10**12, now - hour)] == LINES[:5]
    assert replayed(source, partition, 10**12, now + hour) == []
    source.start(partition)
    assert read(source, 5).value == LINES[:5]


def test_a_replay_that_is_left_early_disturbs_nothing(lab: Lab, opened: Open) -> None:
    lab.write(*LINES[:5])
    source = opened()
    partition = started(source)
    next(iter(source.replay(partition, 10**12)))
    assert read(source, 5).value == LINES[:5]


def test_lag_falls_to_zero(lab: Lab, opened: Open) -> None:
    lab.write(*LINES[:10])
    source = opened()
    partition = started(source)
    read(source, 4)
    middle = source.lag()[partition]
    assert middle > 0
    read(source, 6)
    assert source.lag() == {partition: 0}
    lab.write(*LINES[10:12])
    assert 0 < source.lag()[partition] < middle
    assert read(source, 2).value == LINES[10:12]


def test_keeping_alive_fetches_nothing(lab: Lab, opened: Open) -> None:
    lab.write(*LINES[:10])
    source = opened()
    started(source)
    assert read(source, 3).value == LINES[:3]
    for _ in range(3):
        source.keep_alive()
    assert read(source, 7).value == LINES[3:10]


def test_an_idle_poll_comes_back_empty(lab: Lab, opened: Open) -> None:
    lab.write(*LINES[:2])
    source = opened()
    started(source)
    source.commit(read(source, 2).next_offset)
    poll = source.poll(100, 0.05)
    assert (len(poll.records), poll.records.next_offset, poll.assigned, poll.revoked) == (0, {}, [], [])
    lab.write(LINES[2])
    assert read(source, 1).value == [LINES[2]]


@pytest.mark.parametrize("url", ["ftp://host/x", "/var/log/access.log", "kafka://", "file://relative.log"])
def test_urls_that_name_no_source_are_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        open_source(SourceSettings(url=url, state_dir=tmp_path))
    assert caught.value.expected
