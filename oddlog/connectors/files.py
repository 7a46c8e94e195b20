"""Source of records from a log file that grows and is rotated. One generation is read in `file_tail.py`, what is
remembered is in `file_place.py`, where rotated files are found in `file_rotation.py`.

Delivery: at least once. A generation (the file from its creation or truncation to the next) is a partition, a
line's first byte its offset. Lines are handed out whole; the generations one after the other, the old one to its
end first, whether it was renamed, deleted while we had it open, or copied and truncated.
"""

from __future__ import annotations

import bisect
import contextlib
import logging
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from oddlog.connectors.file_place import Generation, Place, topic_of
from oddlog.connectors.file_rotation import COMPRESSED, compressed_since, find, open_regular, unseen
from oddlog.connectors.file_tail import (
    CHUNK_BYTES,
    Tail,
    append_lines,
    first_line,
    key_of,
    mtime_ms,
    read_lines,
    starts,
)
from oddlog.connectors.source import Poll
from oddlog.errors import SourceEpochError, SourceError, UsageError
from oddlog.events.printable import printable
from oddlog.events.record import Partition, Records

if TYPE_CHECKING:
    from oddlog.settings import SourceSettings

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.1
"""How often a file is looked at that has nothing new."""
TELL_SECONDS = 60.0
"""How often it is logged that a file is not there."""
LATE_NS = 60 * 10**9
"""A rotated file is watched until its successor was written to so much later: writers close it late."""
REPLAY_RECORDS = 8_192


class FileSource:
    """The port Source over one path."""

    def __init__(self, settings: SourceSettings) -> None:
        """Raises UsageError for a path that cannot be tailed, SourceError when another process has the place."""
        self._path = path_of(settings.url)
        if not self._path.parent.is_dir():
            raise UsageError(
                f"there is no folder {printable(str(self._path.parent))}, in which the log file is to be",
                expected="an existing folder; the file itself may come later",
                mend="correct --source or ODDLOG_SOURCE__URL, or make the folder",
            )
        self._place = Place(settings.state_dir, settings.group, self._path)
        self._tails: list[Tail] = []
        self._told_missing = float("-inf")

    def poll(self, max_records: int, timeout: float) -> Poll:
        """Up to `max_records` records; waits at most `timeout` seconds for the first of them.

        Raises SourceEpochError where lines that were not read are known to be gone."""
        deadline = time.monotonic() + timeout
        while True:
            with self._failing("reading"):
                assigned, revoked = self._look()
                records = self._read(max_records)
            if not self._tails:
                self._tell_missing()
            left = deadline - time.monotonic()
            if len(records) or assigned or revoked or left <= 0:
                return Poll(records, assigned, revoked)
            time.sleep(min(left, LOOK_SECONDS))

    def start(self, partition: Partition) -> None:
        """Let a generation flow, from its committed position."""
        for tail in self._tails:
            if tail.partition == partition:
                with self._failing("reading"):
                    tail.seek_to_committed()
                tail.started = True

    def commit(self, next_offsets: Mapping[Partition, int]) -> None:
        """Remember that everything before these offsets is stored. Raises SourceError."""
        with self._failing("committing to"):
            for partition, offset in next_offsets.items():
                self._generation(partition)
                tail = next((each for each in self._tails if each.partition == partition), None)
                if tail is None:
                    continue  # revoked: everything of it was committed
                if offset > tail.position:
                    raise SourceError(
                        f"offset {offset} of {partition.epoch} cannot be committed: read is up to {tail.position}",
                        expected="an offset from Records.next_offset",
                    )
                tail.commit(offset, self._path)
            self._place.save()

    def committed(self, partition: Partition) -> int | None:
        """The committed offset, or None before the first commit.

        Raises SourceEpochError for a generation that this group does not know."""
        return self._generation(partition).committed

    def replay(
        self, partition: Partition, until_offset: int, since_ms: int | None = None, *, from_offset: int = 0
    ) -> Iterator[Records]:
        """Records of the generation from `from_offset` (where a line begins) to `until_offset`.

        Touches neither position nor assignment. Nothing where its file is gone, or was last written to before
        `since_ms` (a file has one time for all its lines)."""
        generation = self._generation(partition)
        with self._failing("replaying"):
            open_already = next((each.fd for each in self._tails if each.generation is generation), None)
            fd = os.dup(open_already) if open_already is not None else find(self._path, generation)
            if fd is None:
                return
            try:
                if since_ms is not None and mtime_ms(fd) < since_ms:
                    return
                offset, until = from_offset, min(until_offset, os.fstat(fd).st_size)
                while offset < until:
                    lines, end = read_lines(fd, offset, REPLAY_RECORDS, final=True)
                    begins = list(starts(lines, offset))
                    kept = bisect.bisect_left(begins, until)
                    if kept < len(lines):
                        lines, end = lines[:kept], begins[kept]
                    if not lines:
                        return
                    records = Records()
                    append_lines(records, partition, lines, offset, end, mtime_ms(fd))
                    yield records
                    offset = end
            finally:
                os.close(fd)

    def keep_alive(self) -> None:
        """Nothing to keep: the place is held by a lock."""

    def rewind(self) -> None:
        """Throw away what was read and not committed: the next poll starts at the committed positions."""
        with self._failing("reading"):
            for tail in self._tails:
                tail.seek_to_committed()

    def lag(self) -> dict[Partition, int]:
        """Bytes of whole lines not yet read, by assigned generation."""
        with self._failing("reading"):
            return {tail.partition: tail.ahead() for tail in self._tails}

    def close(self) -> None:
        """Leave; commits nothing."""
        for tail in self._tails:
            tail.close()
        self._tails = []
        self._place.close()

    # generations

    def _look(self) -> tuple[list[Partition], list[Partition]]:
        """What began and what ended: (assigned, revoked)."""
        if not self._tails:
            return self._resume(), []
        revoked = self._retire()
        current = self._tails[-1]
        if not current.started:
            return [], revoked
        current.notice_truncation(self._path)
        if current.ahead():
            return [], revoked
        successor = self._successor(current)
        if successor is None:
            return [], revoked
        current.generation.end = current.position
        return [self._begin(successor)], revoked

    def _resume(self) -> list[Partition]:
        """Open what is not read to its end, or the file as it is now. All of it or, until the newest is there or is
        known to be gone, nothing: what is opened is told as assigned at once."""
        tails: list[Tail] = []
        with contextlib.ExitStack() as opened:
            for generation in self._place.generations:
                if generation.done or self._finished(generation):
                    continue
                fd = find(self._path, generation)
                if fd is not None:
                    tails.append(Tail(self._path, generation, fd))
                    opened.callback(tails[-1].close)
                elif generation.end is None:
                    fresh = self._fresh_file()
                    if fresh is None:
                        return []  # between rotation and creation, or not made yet
                    self._accept_loss(generation, fresh)
                else:
                    raise self._lost(generation, f"{generation.end - (generation.committed or 0)} bytes")
            opened.pop_all()
        self._tails = tails
        if tails:
            return [tail.partition for tail in tails]
        fd = self._fresh_file()
        return [] if fd is None else [self._begin(fd)]

    def _tell_missing(self) -> None:
        """Log, at once and then now and again, that nothing can be read where the file is not there."""
        if time.monotonic() - self._told_missing >= TELL_SECONDS and not self._path.exists():
            self._told_missing = time.monotonic()
            log.warning("there is no file %s (yet): waiting for it", printable(str(self._path)))

    def _finished(self, generation: Generation) -> bool:
        """Whether a generation that has a successor needs no more reading: its file has not grown since."""
        if generation.end is None or (generation.committed or 0) < generation.end:
            return False
        fd = find(self._path, generation)
        if fd is None:
            return True
        try:
            return os.fstat(fd).st_size <= generation.end
        finally:
            os.close(fd)

    def _accept_loss(self, generation: Generation, fresh: int) -> None:
        """The newest generation is nowhere, and another file is in its place. Raises SourceEpochError where that
        loses lines for certain; a file that was emptied or deleted after it was read loses none that we know."""
        os.close(fresh)
        unread = generation.seen - (generation.committed or 0)
        if unread > 0:
            raise self._lost(generation, f"{unread} bytes")
        if packed := compressed_since(self._path, generation.mtime_ns):
            raise self._lost(generation, f"what {', '.join(packed)} got since")
        log.warning(
            "%s, read up to byte %d as %s, is gone; the file in its place is a new generation",
            printable(str(self._path)), generation.committed or 0, generation.name,
        )  # fmt: skip
        generation.end = generation.committed or 0
        generation.done = True

    def _lost(self, generation: Generation, what: str) -> SourceEpochError:
        return SourceEpochError(
            f"{what} of {self._path} cannot be read any more: {generation.name} was read up to byte "
            f"{generation.committed or 0}, and no file in {self._path.parent} continues there",
            expected="rotated files kept, uncompressed, until they are read (logrotate: delaycompress)",
            mend="restore the file under its rotated name; to go on without it, set source.group to a new name",
        )

    def _fresh_file(self) -> int | None:
        """The file at the path, once it has a whole line."""
        fd = open_regular(self._path)
        if fd is None or first_line(fd) is not None:
            return fd
        os.close(fd)
        return None

    def _successor(self, current: Tail) -> int | None:
        """The file that was begun after the current one, once it has a whole line."""
        fresh = self._fresh_file()
        if fresh is None:
            return None
        if key_of(fresh) == current.key:
            os.close(fresh)
            return None
        for candidate in unseen(self._path, current.mtime_ns, self._place.generations):
            fd = open_regular(candidate)
            if fd is not None and key_of(fd) != key_of(fresh):
                os.close(fresh)
                return fd
            if fd is not None:
                os.close(fd)
        return fresh

    def _begin(self, fd: int) -> Partition:
        first = first_line(fd)
        generation = self._place.begin(fd, first if first is not None else os.pread(fd, CHUNK_BYTES, 0))
        tail = Tail(self._path, generation, fd)
        self._tails.append(tail)
        log.info("%s: generation %s", printable(str(self._path)), generation.name)
        return tail.partition

    def _retire(self) -> list[Partition]:
        """Let go of rotated files that nobody writes to any more, once all of them is committed."""
        revoked = []
        newest = self._tails[-1]
        for tail in self._tails[:-1]:
            tail.notice_truncation(self._path)
            if tail is not self._tails[-2] or newest.mtime_ns - tail.mtime_ns > LATE_NS:
                tail.final = True  # its last line has no end, and will not get one
            if tail.final and tail.started and not tail.ahead():
                if (tail.generation.committed or 0) < tail.position:
                    continue
                tail.generation.end, tail.generation.done = tail.position, True
                revoked.append(tail.partition)
                tail.close()
        if revoked:
            self._tails = [tail for tail in self._tails if not tail.generation.done]
            self._place.save()
        return revoked

    def _read(self, max_records: int) -> Records:
        records = Records()
        for tail in self._tails:
            if tail.started and len(records) < max_records:
                tail.read(max_records - len(records), records)
        return records

    def _generation(self, partition: Partition) -> Generation:
        generation = self._place.by_name(partition.epoch)
        if generation is None or partition.topic != topic_of(self._path):
            raise SourceEpochError(
                f"there is no generation {partition.epoch} of {partition.topic} in the place of {self._path}",
                expected=f"one of {', '.join(each.name for each in self._place.generations[-5:]) or '(none yet)'}",
            )
        return generation

    @contextlib.contextmanager
    def _failing(self, doing: str) -> Iterator[None]:
        """OSError as SourceError."""
        try:
            yield
        except OSError as error:
            raise SourceError(
                f"{doing} {error.filename or self._path}: {error.strerror or error}",
                expected="a log file, in a folder, that this process may read",
            ) from error


def path_of(url: str) -> Path:
    """The path of a file URL. Raises UsageError.

    >>> path_of("file:///var/log/nginx/access.log")
    PosixPath('/var/log/nginx/access.log')
    """
    # The bytes that a path has, be they UTF-8 or not.
    path = Path(unquote(url.removeprefix("file://").removeprefix("localhost"), errors="surrogateescape"))
    if not path.is_absolute():
        raise UsageError(
            f"source URL {url!r} has no absolute path",
            expected="file:///path/to/access.log, with three slashes",
            mend=f"set source.url to {path.resolve().as_uri()}",
        )
    if path.suffix in COMPRESSED:
        raise UsageError(
            f"{path} is compressed, and cannot be tailed",
            expected="a log file that grows",
            mend=f"zcat -f '{path}' | oddlog ship - (or unpack it first)",
        )
    if path.exists() and not path.is_file():
        raise UsageError(f"{path} is no regular file", expected="a log file")
    return path
