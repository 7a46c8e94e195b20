"""FileSource beyond the contract: rotation of every kind, truncation, restarts, and what must stop it loudly."""

from __future__ import annotations

import gzip
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from oddlog.connectors.files import FileSource
from oddlog.errors import SourceEpochError, SourceError, UsageError
from oddlog.events.record import Partition
from oddlog.settings import SourceSettings


class Site:
    """A log file, what a server and logrotate do to it, and one consumer."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "access.log"
        self.source = self.open()
        self.read: dict[tuple[str, int], bytes] = {}
        self.generations: list[str] = []

    def open(self, group: str = "g") -> FileSource:
        url = f"file://{self.path}"
        return FileSource(SourceSettings(url=url, group=group, state_dir=self.folder / "places"))

    def restart(self) -> None:
        self.source.close()
        self.source = self.open()

    def write(self, *lines: bytes, end: bytes = b"\n") -> None:
        with self.path.open("ab") as file:
            file.write(b"\n".join(lines) + end)

    def rename(self) -> Path:
        """logrotate's default: what is rotated moves on by one name."""
        names = [self.folder / f"access.log.{number}" for number in range(1, 30)]
        for number in range(len(names) - 2, -1, -1):
            if names[number].exists():
                names[number].rename(names[number + 1])
        self.path.rename(names[0])
        return names[0]

    def copytruncate(self, *, keep: bool = True) -> None:
        copy = self.folder / "access.log.1"
        number = 1
        while copy.exists():
            number += 1
            copy = self.folder / f"access.log.{number}"
        if keep:
            shutil.copyfile(self.path, copy)
        os.truncate(self.path, 0)

    def drain(self, *, commit: bool = True) -> list[bytes]:
        """Everything there is to read now, in the order in which it comes."""
        got: list[bytes] = []
        while True:
            poll = self.source.poll(7, 0)
            for partition in poll.assigned:
                self.generations.append(partition.epoch)
                self.source.start(partition)
            records = poll.records
            for epoch, offset, value in zip(records.epoch, records.offset, records.value, strict=True):
                assert value is not None
                assert self.read.setdefault((epoch, offset), value) == value, "another line at the same position"
                got.append(value)
            if commit and len(records):
                self.source.commit(records.next_offset)
            if not (len(records) or poll.assigned or poll.revoked):
                return got


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.source.close()


def test_a_missing_file_is_waited_for(site: Site) -> None:
    assert site.drain() == []
    site.restart()
    assert site.drain() == []
    site.write(b"one")
    assert site.drain() == [b"one"]


def test_half_a_last_line_waits_for_its_end(site: Site) -> None:
    site.write(b"one", b"tw", end=b"")
    assert site.drain() == [b"one"]
    (partition,) = site.source.lag()
    assert site.source.lag() == {partition: 0}
    site.restart()
    assert site.drain() == []
    site.write(b"o")
    assert site.drain() == [b"two"]
    assert [offset for _, offset in site.read] == [0, 4]


def test_an_empty_file_and_half_a_first_line_are_no_generation_yet(site: Site) -> None:
    site.write(end=b"")
    site.write(b"on", end=b"")
    assert site.drain() == []
    assert site.generations == []
    site.write(b"e")
    assert site.drain() == [b"one"]


@pytest.mark.parametrize("away", [False, True])
def test_a_renamed_file_is_read_to_its_end_before_the_new_one(site: Site, away: bool) -> None:
    site.write(b"one", b"two")
    site.drain()
    site.write(b"three")
    if away:
        site.source.close()
    old = site.rename()
    site.write(b"new one")
    with old.open("ab") as late:  # a server writes on until it is told to reopen
        late.write(b"four\n")
    if away:
        site.source = site.open()
    assert site.drain() == [b"three", b"four", b"new one"]
    assert site.generations[0].startswith("g00000001-")
    assert site.generations[-1].startswith("g00000002-")


def test_a_line_that_comes_late_to_the_old_file_is_read(site: Site) -> None:
    site.write(b"one")
    site.drain()
    old = site.rename()
    site.write(b"new")
    assert site.drain() == [b"new"]
    with old.open("ab") as late:
        late.write(b"late\n")
    assert site.drain() == [b"late"]
    with old.open("ab") as late:
        late.write(b"later\n")
    site.restart()
    assert site.drain() == [b"later"]


def test_an_old_file_is_let_go_once_it_is_certain_that_nobody_writes_to_it(site: Site) -> None:
    site.write(b"one", b"cut off", end=b"")
    assert site.drain() == [b"one"]
    old = site.rename()
    os.utime(old, (1_000_000, 1_000_000))
    site.write(b"new")
    (first, *_) = site.source.lag()
    assert site.drain() == [b"cut off", b"new"]
    assert first not in site.source.lag()
    place = json.loads(next((site.folder / "places").glob("*.json")).read_text())
    assert [each["done"] for each in place["generations"]] == [True, False]


def test_an_unlinked_file_that_is_open_is_read_to_its_end(site: Site) -> None:
    site.write(b"one")
    site.drain()
    site.write(b"two")
    site.path.unlink()
    site.write(b"new")
    assert site.drain() == [b"two", b"new"]


@pytest.mark.parametrize("away", [False, True])
def test_two_rotations_at_once_lose_no_generation(site: Site, away: bool) -> None:
    site.write(b"one")
    site.drain()
    if away:
        site.source.close()
    site.write(b"two")
    site.rename()
    site.write(b"between")
    site.rename()
    site.write(b"now")
    if away:
        site.source = site.open()
    assert site.drain() == [b"two", b"between", b"now"]
    assert [name[:9] for name in dict.fromkeys(site.generations)] == ["g00000001", "g00000002", "g00000003"]


def test_an_empty_file_that_was_rotated_is_no_generation(site: Site) -> None:
    site.write(b"one")
    site.drain()
    site.copytruncate()
    site.path.rename(site.folder / "access.log.5")
    site.write(b"between")
    site.rename()
    site.write(b"now")
    assert site.drain() == [b"between", b"now"]


def test_truncated_between_reading_and_committing(site: Site) -> None:
    site.write(*[b"line %d" % number for number in range(20)])
    site.drain(commit=False)
    site.source.rewind()
    records = site.source.poll(10, 0).records
    site.copytruncate()
    site.write(b"new")
    site.source.commit(records.next_offset)
    site.restart()
    assert site.drain() == [*[b"line %d" % number for number in range(10, 20)], b"new"]


def test_rotated_files_of_before_and_neighbours_are_not_read(site: Site) -> None:
    for name in ("access.log.1", "access.log.labels", "access.log.2.gz", "access.log.bak", "error.log.1"):
        (site.folder / name).write_bytes(b"not ours\n")
        os.utime(site.folder / name, (1_000_000, 1_000_000))
    site.write(b"one")
    assert site.drain() == [b"one"]
    (site.folder / "access.log.labels").write_bytes(b"changed\n")
    site.rename()
    site.write(b"new")
    assert site.drain() == [b"new"]


@pytest.mark.parametrize("away", [False, True])
@pytest.mark.parametrize("grown", [0, 100])
def test_copytruncate_goes_on_in_the_copy_then_in_the_file(site: Site, away: bool, grown: int) -> None:
    site.write(b"one", b"two")
    site.drain()
    site.write(b"three")
    if away:
        site.source.close()
    site.copytruncate()
    more = [b"new %d" % number for number in range(1 + grown)]  # with 100 it is longer than before
    site.write(*more)
    if away:
        site.source = site.open()
    assert site.drain() == [b"three", *more]
    assert len(set(site.generations)) == 2


def test_a_file_emptied_after_it_was_read_is_a_new_generation(site: Site) -> None:
    site.write(b"one", b"two")
    site.drain()
    site.copytruncate(keep=False)
    site.write(b"new")
    assert site.drain() == [b"new"]
    site.source.close()
    site.path.write_bytes(b"newer\n")
    site.source = site.open()
    assert site.drain() == [b"newer"]
    assert [name[:9] for name in site.generations] == ["g00000001", "g00000002", "g00000003"]


def test_an_inode_that_is_used_again_is_another_file(site: Site) -> None:
    site.write(b"one")
    site.drain()
    site.source.close()
    inode = site.path.stat().st_ino
    site.path.write_bytes(b"ONE\nTWO\n")
    assert site.path.stat().st_ino == inode
    site.source = site.open()
    assert site.drain() == [b"ONE", b"TWO"]


def test_files_that_begin_alike_are_told_apart_by_what_stands_before_the_place(site: Site) -> None:
    header = [b"# the same header" * 100, b"# and more"]
    site.write(*header, b"one", b"two")
    site.drain()
    site.source.close()
    site.path.write_bytes(b"\n".join([*header, b"ONE", b"TWO", b"THREE"]) + b"\n")
    site.source = site.open()
    assert site.drain() == [*header, b"ONE", b"TWO", b"THREE"]


def test_the_same_file_under_another_inode_is_read_on(site: Site) -> None:
    site.write(b"one")
    site.drain()
    site.source.close()
    copy = site.folder / "moved"
    shutil.copyfile(site.path, copy)
    site.path.unlink()
    copy.rename(site.path)
    site.write(b"two")
    site.source = site.open()
    assert site.drain() == [b"two"]


def test_a_name_stays_while_the_file_grows_and_is_the_same_for_a_group_without_memory(site: Site) -> None:
    site.write(b"one")
    site.drain()
    site.write(*[b"more %d" % number for number in range(500)])
    site.drain()
    site.restart()
    site.drain()
    assert len(set(site.generations)) == 1
    other = site.open("another")
    (partition,) = other.poll(10, 0).assigned
    other.close()
    assert partition.epoch == site.generations[0]


def test_replay_of_an_earlier_generation(site: Site) -> None:
    site.write(b"one", b"two")
    site.drain()
    old = site.rename()
    site.write(b"new")
    site.drain()
    site.restart()
    site.drain()
    earlier = Partition(site.generations[0], "access.log", 0)
    assert [batch.value for batch in site.source.replay(earlier, 8)] == [[b"one", b"two"]]
    old.unlink()
    assert list(site.source.replay(earlier, 8)) == []


def test_replay_stops_before_half_a_line_that_is_not_committed(site: Site) -> None:
    site.write(b"one", b"half", end=b"")
    site.drain()
    partition = Partition(site.generations[0], "access.log", 0)
    assert [batch.value for batch in site.source.replay(partition, 4)] == [[b"one"]]


def test_many_lines_come_in_batches_of_the_asked_size(site: Site) -> None:
    lines = [b"%d" % number * (number % 50) for number in range(20_000)]
    site.write(*lines)
    assert site.drain() == lines
    partition = Partition(site.generations[0], "access.log", 0)
    again = [value for batch in site.source.replay(partition, 10**9) for value in batch.value]
    assert again == lines


def test_a_line_larger_than_any_chunk(site: Site) -> None:
    large = b"x" * 10_000_000
    site.write(b"one", large, b"three")
    assert site.drain() == [b"one", large, b"three"]


def test_what_was_rotated_and_compressed_while_away_stops_the_source(site: Site) -> None:
    site.write(b"one")
    site.drain()
    site.source.close()
    site.write(b"not read")
    old = site.rename()
    packed = old.with_suffix(".1.gz")
    packed.write_bytes(gzip.compress(old.read_bytes()))
    later = old.stat().st_mtime_ns + 1
    os.utime(packed, ns=(later, later))
    old.unlink()
    site.write(b"new")
    site.source = site.open()
    with pytest.raises(SourceEpochError, match=r"access\.log\.1\.gz") as caught:
        site.drain()
    assert "source.group" in str(caught.value.mend)


def test_lines_known_and_gone_stop_the_source(site: Site) -> None:
    site.write(*[b"line %d" % number for number in range(50)])
    poll = site.source.poll(10, 0)
    site.source.start(poll.assigned[0])
    site.source.commit(site.source.poll(10, 0).records.next_offset)
    site.source.close()
    site.path.write_bytes(b"another\n")
    site.source = site.open()
    with pytest.raises(SourceEpochError, match="cannot be read any more"):
        site.drain()


def test_a_rotated_file_that_is_gone_after_it_was_read_is_no_loss(site: Site) -> None:
    site.write(b"one")
    site.drain()
    old = site.rename()
    site.write(b"new")
    site.drain()
    site.source.close()
    old.unlink()
    site.write(b"newer")
    site.source = site.open()
    assert site.drain() == [b"newer"]


def test_two_processes_of_a_group_are_refused(site: Site) -> None:
    with pytest.raises(SourceError, match="another process"):
        site.open()
    site.open("another").close()
    site.restart()


def test_a_commit_past_what_was_read_is_refused(site: Site) -> None:
    site.write(b"one")
    site.drain()
    partition = Partition(site.generations[0], "access.log", 0)
    with pytest.raises(SourceError, match="read is up to 4"):
        site.source.commit({partition: 5})
    with pytest.raises(SourceEpochError, match="no generation"):
        site.source.commit({partition._replace(epoch="g00000009-00000000"): 1})


def test_a_place_that_cannot_be_read_is_named(site: Site) -> None:
    site.write(b"one")
    site.drain()
    site.source.close()
    place = next((site.folder / "places").glob("*.json"))
    place.write_text("{")
    with pytest.raises(UsageError, match="cannot be read from") as caught:
        site.open()
    assert str(place) in str(caught.value.mend)
    place.unlink()
    site.source = site.open()


@pytest.mark.parametrize("name", ["access.log.gz", "access.log.2.xz"])
def test_compressed_files_are_refused_with_the_way_to_read_them(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="compressed") as caught:
        FileSource(SourceSettings(url=f"file://{tmp_path / name}", state_dir=tmp_path / "places"))
    assert "oddlog ship" in str(caught.value.mend)


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no regular file"):
        FileSource(SourceSettings(url=f"file://{tmp_path}", state_dir=tmp_path / "places"))


class Life(RuleBasedStateMachine):
    """A server writes, logrotate rotates, the consumer is stopped and started: nothing is lost, nothing is twice."""

    folder: Path
    counter = 0

    @initialize()
    def begin(self) -> None:
        type(self).counter += 1
        home = self.folder / str(type(self).counter)
        home.mkdir()
        self.site = Site(home)
        self.written: list[bytes] = []
        self.half = b""

    @rule(count=st.integers(1, 30))
    def write(self, count: int) -> None:
        first = len(self.written)
        lines = [b"line %d" % number for number in range(first, first + count)]
        self.site.write(*lines)
        self.written += [self.half + lines[0], *lines[1:]]
        self.half = b""

    @rule()
    def write_half(self) -> None:
        self.site.write(b"half ", end=b"")
        self.half += b"half "

    @precondition(lambda self: self.site.path.exists() and not self.half)
    @rule()
    def rename(self) -> None:
        if not self.site.generations:
            self.site.drain()  # a log that was rotated before anyone looked at it is not read
        self.site.rename()

    @precondition(lambda self: self.site.path.exists() and not self.half and self.site.path.stat().st_size)
    @rule()
    def copytruncate(self) -> None:
        # A look between writing and truncating: a process that never looked at a file cannot miss it either.
        self.drain(commit=True)
        self.site.copytruncate()

    @rule(commit=st.booleans())
    def drain(self, commit: bool) -> None:
        self.site.drain(commit=commit)

    @rule()
    def read_a_little_and_fail(self) -> None:
        poll = self.site.source.poll(3, 0)
        for partition in poll.assigned:
            self.site.source.start(partition)
        self.site.source.rewind()

    @rule()
    def restart(self) -> None:
        self.site.restart()

    @invariant()
    def positions_name_lines(self) -> None:
        if hasattr(self, "site"):
            assert len(set(self.site.read.values())) == len(self.site.read), "a line at two positions"

    def teardown(self) -> None:
        if hasattr(self, "site"):
            self.write(1)  # between rotation and creation there is nothing to go on to
            self.site.source.rewind()
            self.site.drain()
            self.site.source.close()
            self.site.source = self.site.open()
            self.site.drain()
            assert sorted(self.site.read.values()) == sorted(self.written)
            self.site.source.close()


def test_whatever_happens_every_line_is_at_one_position(tmp_path: Path) -> None:
    Life.folder = tmp_path
    run_state_machine_as_test(Life, settings=settings(max_examples=25, stateful_step_count=20, deadline=None))
