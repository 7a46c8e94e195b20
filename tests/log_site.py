"""A log file, what a server and logrotate do to it, and a FileSource that reads it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from oddlog.connectors.files import FileSource
from oddlog.settings import SourceSettings


class LogSite:
    """A log file in a folder, and one consumer of it that remembers every line it has read by its position."""

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

    def close(self) -> None:
        """Let go of the file."""
        self.source.close()
