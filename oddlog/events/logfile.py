"""Whole log files as records, for the demo, benchmarks and tests. `oddlog/connectors/files.py` tails growing ones."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Sequence
from pathlib import Path

import orjson

from oddlog.errors import UsageError
from oddlog.events.record import Partition, Records

NO_TIMESTAMP = -1
"""Kafka's own mark for a record without a timestamp."""


def read_log(path: Path) -> list[bytes]:
    """The lines of a log file, plain or `.gz`, without their line ends. Raises UsageError where it cannot be read."""
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise UsageError(f"{path} cannot be read: {error}", expected="a whole log file, plain or .gz") from None
    lines = content.split(b"\n")
    return lines[:-1] if not lines[-1] else lines


def records_from_lines(
    lines: Sequence[bytes],
    *,
    epoch: str = "file",
    topic: str = "log",
    labels: Sequence[str | None] | None = None,
    timestamp_ms: int = NO_TIMESTAMP,
) -> Records:
    """Records of partition 0, one a line, in order, with the line's number (from 0) as offset.

    `labels`, one a line, become `labels.truth`, by an envelope around the line that says nothing else.
    Raises ValueError when their number differs from the lines'.

    >>> records_from_lines([b"a", b"b"]).offset
    [0, 1]
    """
    values: list[bytes | None]
    if labels is None:
        values = list(lines)
    else:
        values = [
            orjson.dumps({"message": line.decode(errors="replace"), "labels": {"truth": label}})
            for line, label in zip(lines, labels, strict=True)
        ]
    count = len(values)
    return Records(
        value=values,
        epoch=[epoch] * count,
        topic=[topic] * count,
        partition=[0] * count,
        offset=list(range(count)),
        timestamp_ms=[timestamp_ms] * count,
        next_offset={Partition(epoch, topic, 0): count} if count else {},
    )
