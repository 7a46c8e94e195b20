"""FileSource and rotation of every kind, away or watching: nothing is lost, nothing is twice."""

from __future__ import annotations

import gzip
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import closing
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

from oddlog.errors import SourceEpochError
from tests.log_site import LogSite


@pytest.fixture
def site(tmp_path: Path) -> Iterator[LogSite]:
    with closing(LogSite(tmp_path)) as site:
        yield site


@pytest.mark.parametrize("away", [False, True])
def test_a_renamed_file_is_read_to_its_end_before_the_new_one(site: LogSite, away: bool) -> None:
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


def test_a_line_that_comes_late_to_the_old_file_is_read(site: LogSite) -> None:
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


def test_an_old_file_is_let_go_once_it_is_certain_that_nobody_writes_to_it(site: LogSite) -> None:
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


def test_an_unlinked_file_that_is_open_is_read_to_its_end(site: LogSite) -> None:
    site.write(b"one")
    site.drain()
    site.write(b"two")
    site.path.unlink()
    site.write(b"new")
    assert site.drain() == [b"two", b"new"]


@pytest.mark.parametrize("away", [False, True])
def test_two_rotations_at_once_lose_no_generation(site: LogSite, away: bool) -> None:
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


def test_an_empty_file_that_was_rotated_is_no_generation(site: LogSite) -> None:
    site.write(b"one")
    site.drain()
    site.copytruncate()
    site.path.rename(site.folder / "access.log.5")
    site.write(b"between")
    site.rename()
    site.write(b"now")
    assert site.drain() == [b"between", b"now"]


def test_truncated_between_reading_and_committing(site: LogSite) -> None:
    site.write(*[b"line %d" % number for number in range(20)])
    site.drain(commit=False)
    site.source.rewind()
    records = site.source.poll(10, 0).records
    site.copytruncate()
    site.write(b"new")
    site.source.commit(records.next_offset)
    site.restart()
    assert site.drain() == [*[b"line %d" % number for number in range(10, 20)], b"new"]


def test_rotated_files_of_before_and_neighbours_are_not_read(site: LogSite) -> None:
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
def test_copytruncate_goes_on_in_the_copy_then_in_the_file(site: LogSite, away: bool, grown: int) -> None:
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


def test_a_file_emptied_after_it_was_read_is_a_new_generation(site: LogSite) -> None:
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


def test_an_inode_that_is_used_again_is_another_file(site: LogSite) -> None:
    site.write(b"one")
    site.drain()
    site.source.close()
    inode = site.path.stat().st_ino
    site.path.write_bytes(b"ONE\nTWO\n")
    assert site.path.stat().st_ino == inode
    site.source = site.open()
    assert site.drain() == [b"ONE", b"TWO"]


def test_files_that_begin_alike_are_told_apart_by_what_stands_before_the_place(site: LogSite) -> None:
    header = [b"# the same header" * 100, b"# and more"]
    site.write(*header, b"one", b"two")
    site.drain()
    site.source.close()
    site.path.write_bytes(b"\n".join([*header, b"ONE", b"TWO", b"THREE"]) + b"\n")
    site.source = site.open()
    assert site.drain() == [*header, b"ONE", b"TWO", b"THREE"]


def test_the_same_file_under_another_inode_is_read_on(site: LogSite) -> None:
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


def test_what_was_rotated_and_compressed_while_away_stops_the_source(site: LogSite) -> None:
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


def test_with_no_file_in_place_after_a_restart_the_rest_of_the_rotated_one_waits(site: LogSite) -> None:
    site.write(b"one")
    site.drain()
    site.rename()
    site.write(b"now")
    site.drain()
    with (site.folder / "access.log.1").open("ab") as late:
        late.write(b"late\n")
    site.source.close()
    site.path.unlink()
    site.source = site.open()
    assert site.drain() == []
    assert site.source.lag() == {}
    site.write(b"new")
    assert site.drain() == [b"late", b"new"]


def test_a_rotated_file_that_is_gone_after_it_was_read_is_no_loss(site: LogSite) -> None:
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


class Life(RuleBasedStateMachine):
    """A server writes, logrotate rotates, the consumer is stopped and started: nothing is lost, nothing is twice."""

    folder: Path
    counter = 0

    @initialize()
    def begin(self) -> None:
        type(self).counter += 1
        home = self.folder / str(type(self).counter)
        home.mkdir()
        self.site = LogSite(home)
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
