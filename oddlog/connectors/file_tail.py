"""One generation of a log file that is open: reading its lines, noticing that it was truncated. Which generation
comes next is in `files.py`.
"""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from oddlog.connectors.file_place import PREFIX_BYTES, Generation, Key, digest, recent, topic_of
from oddlog.connectors.file_rotation import find
from oddlog.events.printable import printable
from oddlog.events.record import Partition, Records

log = logging.getLogger(__name__)

CHUNK_BYTES = 64 * 1024
LARGEST_CHUNK_BYTES = 8 * 1024 * 1024
LINE_BYTES = 64 * 1024 * 1024
"""A longer line is cut, so that memory is bounded."""


class Tail:
    """One generation that is open: where we are in its file."""

    def __init__(self, path: Path, generation: Generation, fd: int) -> None:
        self.partition = Partition(generation.name, topic_of(path), 0)
        self.generation = generation
        self.started = False
        self.final = False
        """Nobody writes to it any more."""
        self.position = generation.committed or 0
        self.fd: int | None = None
        self.key: Key | None = None
        """Device and inode; None where the file was truncated away under us."""
        self._open(fd)
        self._recent_digest = generation.recent_digest
        """Of the bytes before our position: tells a copy of what we read from other files."""

    @property
    def mtime_ns(self) -> int:
        """When it was last written to."""
        return os.fstat(self.fd).st_mtime_ns if self.fd is not None else self.generation.mtime_ns

    def seek_to_committed(self) -> None:
        """The next line is the first one that is not committed."""
        self.position = self.generation.committed or 0
        self._recent_digest = self.generation.recent_digest

    def read(self, limit: int, records: Records) -> None:
        """Append up to `limit` lines."""
        if self.fd is None:
            return
        lines, end = read_lines(self.fd, self.position, limit, final=self.final)
        if not lines or not self._intact(end):
            return  # nothing whole yet; or truncated while we read, which the next look notices
        append_lines(records, self.partition, lines, self.position, end, mtime_ms(self.fd))
        self.position = end
        self._recent_digest = digest(recent(self.fd, end))

    def ahead(self) -> int:
        """Bytes of whole lines not yet read; of all that is there, once nobody writes any more."""
        if self.fd is None:
            return 0
        end = os.fstat(self.fd).st_size
        while end > self.position and not self.final:
            begin = max(self.position, end - CHUNK_BYTES)
            line_end = os.pread(self.fd, end - begin, begin).rfind(b"\n")
            if line_end >= 0:
                return begin + line_end + 1 - self.position
            end = begin
        return max(0, end - self.position)

    def commit(self, offset: int, path: Path) -> None:
        """Note what is needed to find the place again."""
        self.notice_truncation(path)  # else the marks would be taken from what stands there now
        generation = self.generation
        generation.committed = offset
        generation.seen = self.position + self.ahead()
        if offset == self.position:
            generation.recent_digest = self._recent_digest
        elif self.fd is not None:
            generation.recent_digest = digest(recent(self.fd, offset))
        if self.fd is not None:
            generation.mtime_ns = self.mtime_ns
            generation.learn(self.fd, offset)

    def notice_truncation(self, path: Path) -> None:
        """Where the file has become another one (copytruncate), go on in the copy, if there is one."""
        if self.fd is None or self._intact(self.position):
            return
        os.close(self.fd)
        self.fd = self.key = None
        self.final = True
        copy = find(path, self.generation, self.position, self._recent_digest)
        if copy is not None:
            self._open(copy)
            return
        log.warning(
            "%s was truncated and no copy of it is in %s: lines after byte %d of %s that were not read are lost",
            printable(path.name), printable(str(path.parent)), self.position, self.generation.name,
        )  # fmt: skip

    def close(self) -> None:
        """Close the file."""
        if self.fd is not None:
            os.close(self.fd)
            self.fd = None

    def _open(self, fd: int) -> None:
        self.fd, self.key = fd, key_of(fd)
        self.generation.device, self.generation.inode = self.key  # others, if it was found by what it holds

    def _intact(self, end: int) -> bool:
        """Whether the file still holds what we have read of it, up to `end`."""
        return self.fd is not None and os.fstat(self.fd).st_size >= end and self.generation.begins(self.fd)


def key_of(fd: int) -> Key:
    status = os.fstat(fd)
    return status.st_dev, status.st_ino


def mtime_ms(fd: int) -> int:
    return os.fstat(fd).st_mtime_ns // 1_000_000


def first_line(fd: int) -> bytes | None:
    """The first line, with its end; None while it has none. Of a very long one the first PREFIX_BYTES."""
    data = os.pread(fd, PREFIX_BYTES, 0)
    end = data.find(b"\n") + 1
    if end:
        return data[:end]
    return data if len(data) == PREFIX_BYTES else None


def read_lines(fd: int, offset: int, limit: int, *, final: bool) -> tuple[list[bytes], int]:
    """Up to `limit` whole lines from an offset, without their ends, and where the last one ends.

    `final`: what stands after the last line end is a line too."""
    size = min(max(CHUNK_BYTES, 512 * limit), LARGEST_CHUNK_BYTES)
    while True:
        data = os.pread(fd, size, offset)
        cut = data.rfind(b"\n") + 1
        if cut:
            break
        if len(data) < size or size >= LINE_BYTES:
            cut = len(data) if final or size >= LINE_BYTES else 0
            break
        size *= 4
    if not cut:
        return [], offset
    lines = data[:cut].split(b"\n", limit)
    if len(lines) > limit or data[cut - 1 : cut] == b"\n":
        rest = lines.pop()  # what follows the last line that is taken: nothing, or more lines
        return lines, offset + cut - len(rest)
    return lines, offset + cut


def append_lines(
    records: Records, partition: Partition, lines: list[bytes], offset: int, end: int, mtime_ms: int
) -> None:
    """Add lines that stand one after the other from `offset` to `end`."""
    count = len(lines)
    records.value += lines
    records.epoch += [partition.epoch] * count
    records.topic += [partition.topic] * count
    records.partition += [partition.number] * count
    records.offset += starts(lines, offset)
    records.timestamp_ms += [mtime_ms] * count
    records.next_offset[partition] = end


def starts(lines: list[bytes], offset: int) -> Iterator[int]:
    """Where each line begins, of lines that stand one after the other from `offset`; at least one."""
    return itertools.accumulate((len(line) + 1 for line in lines[:-1]), initial=offset)
