"""A log as a stream of records, in batches: plain, gzip or zstd, from a file or a pipe. Parsing is in `parse.py`.

`logfile.py` reads small files whole; `oddlog/connectors/files.py` tails growing ones.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Iterator
from typing import IO, Any, BinaryIO

from oddlog.errors import UsageError
from oddlog.events.logfile import records_from_lines
from oddlog.events.record import Records

BATCH_BYTES = 8 << 20
"""How much of the log, unpacked, is held at a time: some 40,000 lines."""
LONGEST_LINE = 1 << 20
"""Bytes of a line that count: no server writes longer ones, and a file without line ends must not fill the memory."""

_MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
_UTF16 = b"\xff\xfe"
"""UTF-16's mark: what PowerShell's `>` writes."""


def records_of(
    source: BinaryIO, *, name: str, batch_bytes: int = BATCH_BYTES, read: Callable[[int], None] | None = None
) -> Iterator[Records]:
    """Records of a log in order, one a line: offset = the line's number from 0, partition ("file", "log", 0).

    Compression is told by the content, not by the name. `read` is called with the bytes of `source` (as packed) that
    were read in all. An unfinished last line counts. Raises UsageError where the content cannot be unpacked; `name` is
    what errors call it.
    """
    counted = _Counted(source, read)
    lines_before = 0
    for lines in _lines(_unpacked(counted, name), name, batch_bytes):
        records = records_from_lines(lines)
        records.offset = list(range(lines_before, lines_before + len(lines)))
        lines_before += len(lines)
        for partition in records.next_offset:
            records.next_offset[partition] = lines_before
        yield records


class _Counted(io.RawIOBase):
    """A readable that tells how much of it was read, and gives its first bytes back once."""

    def __init__(self, source: BinaryIO, tell: Callable[[int], None] | None) -> None:
        self._source = source
        self._tell = tell
        self._total = 0
        self.head = source.read(4) or b""
        self._pending = self.head

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._pending:
            data, self._pending = self._pending[: len(buffer)], self._pending[len(buffer) :]
        else:
            data = self._source.read(len(buffer))
        buffer[: len(data)] = data
        self._total += len(data)
        if self._tell is not None:
            self._tell(self._total)
        return len(data)


def _unpacked(counted: _Counted, name: str) -> IO[bytes]:
    kind = next((kind for magic, kind in _MAGIC.items() if counted.head.startswith(magic)), None)
    if kind is None:
        if counted.head.startswith(_UTF16):
            raise UsageError(
                f"{name} is UTF-16 text", expected="a log as servers write it: one event a line, UTF-8 or Latin-1"
            )
        return io.BufferedReader(counted, buffer_size=1 << 20)
    if kind == "gzip":
        import gzip

        return io.BufferedReader(gzip.GzipFile(fileobj=io.BufferedReader(counted, buffer_size=1 << 20)))
    import pyarrow as pa

    unpacked: IO[bytes] = pa.CompressedInputStream(pa.PythonFile(io.BufferedReader(counted), mode="r"), "zstd")
    return unpacked


def _lines(source: IO[bytes], name: str, batch_bytes: int) -> Iterator[list[bytes]]:
    """Lines without their ends, a batch at a time; `\\r` before the end is dropped."""
    rest = b""
    while True:
        try:
            block = source.read(batch_bytes)
        except (OSError, EOFError, zlib.error) as error:
            raise UsageError(
                f"{name} cannot be unpacked: {error}",
                expected="a whole file: plain, gzip or zstd",
                mend="copy it again, or unpack what is left of it: zcat FILE | oddlog score -",
            ) from None
        if not block:
            break
        lines = (rest + block).split(b"\n")
        rest = lines.pop()[:LONGEST_LINE]
        if lines:
            yield _trimmed(lines)
    if rest:
        yield _trimmed([rest])


def _trimmed(lines: list[bytes]) -> list[bytes]:
    return [(line[:-1] if line.endswith(b"\r") else line)[:LONGEST_LINE] for line in lines]
