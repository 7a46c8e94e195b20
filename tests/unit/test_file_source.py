"""FileSource beyond the contract: half lines, restarts, replay, and what must stop it loudly. Rotation is beside it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import orjson
import pytest

from oddlog.connectors import files
from oddlog.connectors.files import FileSource
from oddlog.connectors.shipping import ship
from oddlog.errors import SourceEpochError, SourceError, UsageError
from oddlog.events.record import Partition
from oddlog.settings import SourceSettings
from tests.log_site import LogSite


@pytest.fixture
def site(tmp_path: Path) -> Iterator[LogSite]:
    with closing(LogSite(tmp_path)) as site:
        yield site


def test_a_missing_file_is_waited_for(site: LogSite) -> None:
    assert site.drain() == []
    site.restart()
    assert site.drain() == []
    site.write(b"one")
    assert site.drain() == [b"one"]


def test_half_a_last_line_waits_for_its_end(site: LogSite) -> None:
    site.write(b"one", b"tw", end=b"")
    assert site.drain() == [b"one"]
    (partition,) = site.source.lag()
    assert site.source.lag() == {partition: 0}
    site.restart()
    assert site.drain() == []
    site.write(b"o")
    assert site.drain() == [b"two"]
    assert [offset for _, offset in site.read] == [0, 4]


def test_an_empty_file_and_half_a_first_line_are_no_generation_yet(site: LogSite) -> None:
    site.write(end=b"")
    site.write(b"on", end=b"")
    assert site.drain() == []
    assert site.generations == []
    site.write(b"e")
    assert site.drain() == [b"one"]


def test_a_name_stays_while_the_file_grows_and_is_the_same_for_a_group_without_memory(site: LogSite) -> None:
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


def test_replay_of_an_earlier_generation(site: LogSite) -> None:
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


def test_replay_stops_before_half_a_line_that_is_not_committed(site: LogSite) -> None:
    site.write(b"one", b"half", end=b"")
    site.drain()
    partition = Partition(site.generations[0], "access.log", 0)
    assert [batch.value for batch in site.source.replay(partition, 4)] == [[b"one"]]


def test_many_lines_come_in_batches_of_the_asked_size(site: LogSite) -> None:
    lines = [b"%d" % number * (number % 50) for number in range(20_000)]
    site.write(*lines)
    assert site.drain() == lines
    partition = Partition(site.generations[0], "access.log", 0)
    again = [value for batch in site.source.replay(partition, 10**9) for value in batch.value]
    assert again == lines


def test_a_line_larger_than_any_chunk(site: LogSite) -> None:
    large = b"x" * 10_000_000
    site.write(b"one", large, b"three")
    assert site.drain() == [b"one", large, b"three"]


def test_lines_known_and_gone_stop_the_source(site: LogSite) -> None:
    site.write(*[b"line %d" % number for number in range(50)])
    poll = site.source.poll(10, 0)
    site.source.start(poll.assigned[0])
    site.source.commit(site.source.poll(10, 0).records.next_offset)
    site.source.close()
    site.path.write_bytes(b"another\n")
    site.source = site.open()
    with pytest.raises(SourceEpochError, match="cannot be read any more"):
        site.drain()


def test_two_processes_of_a_group_are_refused(site: LogSite) -> None:
    with pytest.raises(SourceError, match="another process"):
        site.open()
    site.open("another").close()
    site.restart()


def test_a_commit_past_what_was_read_is_refused(site: LogSite) -> None:
    site.write(b"one")
    site.drain()
    partition = Partition(site.generations[0], "access.log", 0)
    with pytest.raises(SourceError, match="read is up to 4"):
        site.source.commit({partition: 5})
    with pytest.raises(SourceEpochError, match="no generation"):
        site.source.commit({partition._replace(epoch="g00000009-00000000"): 1})


def test_a_place_that_cannot_be_read_is_named(site: LogSite) -> None:
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


def test_a_path_in_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no folder") as caught:
        FileSource(SourceSettings(url=f"file://{tmp_path}/nowhere/access.log", state_dir=tmp_path / "places"))
    assert caught.value.exit_code == 2
    assert not (tmp_path / "places").exists()


def test_it_is_said_once_a_minute_that_a_file_is_waited_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "access.log"
    source = FileSource(SourceSettings(url=path.as_uri(), state_dir=tmp_path / "places"))
    try:
        for _ in range(3):
            assert not source.poll(10, 0).assigned
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        assert str(path) in caplog.text
        monkeypatch.setattr(files, "TELL_SECONDS", 0.0)
        source.poll(10, 0)
        assert len(caplog.records) == 2
        path.write_bytes(b"a line that has")  # the file is there, which is waited for no more; its line is not
        source.poll(10, 0)
        assert len(caplog.records) == 2
        path.write_bytes(b"a line that has an end\n")
        assert source.poll(10, 0).assigned
    finally:
        source.close()


def test_the_name_of_a_log_need_be_no_utf8(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.log"))
    try:
        path.write_bytes(b"one\ntwo\n")
    except OSError:
        pytest.skip("this file system takes names in UTF-8 alone")
    source = FileSource(SourceSettings(url=path.as_uri(), state_dir=tmp_path / "places"))
    try:
        (partition,) = source.poll(10, 0).assigned
        assert partition.topic == "caf\ufffd.log"
        source.start(partition)
        records = source.poll(10, 0).records
        assert records.value == [b"one", b"two"]
        source.commit(records.next_offset)
    finally:
        source.close()
    assert "caf\\udce9.log: generation" in caplog.text  # written out: no terminal and no file takes such a name
    shipped = tmp_path / "envelopes.json"
    assert ship([b"one\n"], shipped.as_uri(), labels=None, path=str(path)) == 1
    assert orjson.loads(shipped.read_bytes())["log"]["file"]["path"] == f"{tmp_path}/caf\ufffd.log"
