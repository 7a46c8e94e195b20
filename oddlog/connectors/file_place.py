"""Where a group stands in a log file: its generations, how each is recognised, what is committed. Kept as JSON on
disk. Finding the files is in `file_rotation.py`, reading them in `files.py`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

from oddlog.errors import SourceError, UsageError

PREFIX_BYTES = 1024
"""A file is recognised by so many of its first bytes, or fewer while it is shorter."""
RECENT_BYTES = 256
"""And by so many bytes before the committed offset: files may begin alike."""
KEPT = 100
"""Generations that are remembered."""

Key = tuple[int, int]
"""Device and inode."""


def digest(data: bytes) -> str:
    """Fingerprint of some bytes."""
    return hashlib.sha256(data).hexdigest()


@dataclass(slots=True)
class Generation:
    """One life of the file, from its creation (or truncation) to the next.

    `name` never changes: its number, and the fingerprint of the file's first line, so that the same file read
    anew by a group without memory gets the same name. `prefix_*` grows with the file until PREFIX_BYTES.
    """

    name: str
    device: int
    inode: int
    prefix_length: int
    prefix_digest: str
    committed: int | None = None
    recent_digest: str = ""
    """Of the bytes before `committed`."""
    seen: int = 0
    """How far whole lines went when that was committed."""
    mtime_ns: int = 0
    """Modification time of the file then."""
    end: int | None = None
    """Where it ended when the next one was begun."""
    done: bool = False
    """Read and committed to its end."""

    def begins(self, fd: int) -> bool:
        """Whether an open file begins as this generation does."""
        return digest(os.pread(fd, self.prefix_length, 0)) == self.prefix_digest

    def fits(self, fd: int, read: int | None = None, recent_digest: str | None = None) -> bool:
        """Whether an open file is this generation by all we know, and holds what was committed, or read up to
        `read` with these bytes before it."""
        offset = (self.committed or 0) if read is None else read
        if os.fstat(fd).st_size < offset or not self.begins(fd):
            return False
        return offset == 0 or digest(recent(fd, offset)) == (recent_digest or self.recent_digest)

    def learn(self, fd: int, read: int) -> None:
        """Recognise it by more of its first bytes, of which `read` are known to be its own."""
        if self.prefix_length < PREFIX_BYTES and read > self.prefix_length:
            prefix = os.pread(fd, min(PREFIX_BYTES, read), 0)
            self.prefix_length, self.prefix_digest = len(prefix), digest(prefix)


def topic_of(path: Path) -> str:
    """What a file's events have for a topic: its name, of which bytes that are no UTF-8 are replaced."""
    return os.fsencode(path.name).decode(errors="replace")


def recent(fd: int, offset: int) -> bytes:
    """The RECENT_BYTES before an offset."""
    begin = max(0, offset - RECENT_BYTES)
    return os.pread(fd, offset - begin, begin)


class Place:
    """The memory of one group on one path. One process at a time: a lock that ends with the process sees to it."""

    def __init__(self, folder: Path, group: str, path: Path) -> None:
        """Open or begin it. Raises SourceError when another process holds it, UsageError when it is unreadable."""
        self.generations: list[Generation] = []
        self.last_number = 0
        self._group, self._path = group, path
        self.file = _file(folder, group, path)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.file.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise UsageError(
                f"the folder for places cannot be used: {error}",
                expected="a folder that can be written",
                mend="set ODDLOG_SOURCE__STATE_DIR",
            ) from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._load()
        except BlockingIOError:
            os.close(self._lock)
            raise SourceError(
                f"{path} is being read by another process of the group {group!r}",
                expected="one reader of a file in a group: two would write its events twice",
                mend="stop the other one, or set source.group to another name",
            ) from None
        except BaseException:
            os.close(self._lock)
            raise

    def begin(self, fd: int, first_line: bytes) -> Generation:
        """A new generation for an open file; remembered before anything of it is handed out."""
        self.last_number += 1
        status, prefix = os.fstat(fd), first_line[:PREFIX_BYTES]
        generation = Generation(
            name=f"g{self.last_number:08d}-{digest(prefix)[:8]}",
            device=status.st_dev,
            inode=status.st_ino,
            prefix_length=len(prefix),
            prefix_digest=digest(prefix),
            seen=status.st_size,
            mtime_ns=status.st_mtime_ns,
        )
        self.generations = [*self.generations, generation][-KEPT:]
        self.save()
        return generation

    def by_name(self, name: str) -> Generation | None:
        """A remembered generation."""
        return next((generation for generation in self.generations if generation.name == name), None)

    def save(self) -> None:
        """Write beside, sync, rename. Raises SourceError.

        The folder is not synced: a rename that a power failure undoes leaves an earlier place, from which lines
        are read again under the same positions."""
        document = {
            "group": self._group,
            "path": str(self._path),
            "last_number": self.last_number,
            "generations": [dataclasses.asdict(generation) for generation in self.generations],
        }
        beside = self.file.with_suffix(".new")
        try:
            with open(beside, "wb") as file:
                file.write(json.dumps(document, indent=1).encode())
                file.flush()
                os.fsync(file.fileno())
            beside.replace(self.file)
        except OSError as error:
            raise SourceError(
                f"the place in {self._path} cannot be remembered: {error}",
                expected=f"{self.file.parent} writable, with space",
            ) from None

    def close(self) -> None:
        """Let another process have it."""
        with contextlib.suppress(OSError):
            os.close(self._lock)

    def _load(self) -> None:
        self.generations, self.last_number = _read(self.file, self._path)


def forget(folder: Path, group: str, path: Path) -> None:
    """Begin at the file's start the next time. Raises SourceError while another process reads it, UsageError."""
    place = Place(folder, group, path)
    try:
        place.file.unlink(missing_ok=True)
    finally:
        place.close()


def remembered(folder: Path, group: str, path: Path) -> list[Generation]:
    """What a group remembers of a path, while another process may hold the place. Raises UsageError."""
    return _read(_file(folder, group, path), path)[0]


def _file(folder: Path, group: str, path: Path) -> Path:
    key = digest(group.encode() + b"\0" + os.fsencode(path))[:16]
    return folder / f"{path.name}-{key}.json"


def _read(file: Path, path: Path) -> tuple[list[Generation], int]:
    """Generations and the last number. Raises UsageError."""
    try:
        document = json.loads(file.read_bytes())
        return [Generation(**each) for each in document["generations"]], int(document["last_number"])
    except FileNotFoundError:
        return [], 0
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"the place in {path} cannot be read from {file}: {error!r}",
            expected="the JSON that was written there",
            mend=f"restore it; or remove it, and the file is read from its beginning: rm '{file}'",
        ) from None
