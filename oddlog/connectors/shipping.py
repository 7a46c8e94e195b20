"""Log lines into Kafka, or into a file, in Filebeat's JSON envelope. Where the lines come from is in `cli/ship.py`."""

from __future__ import annotations

import contextlib
import datetime as dt
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Protocol
from urllib.parse import unquote, urlsplit

from oddlog.errors import SourceError, UsageError
from oddlog.events.envelope import client_key, envelope
from oddlog.settings import SourceSettings, without_credentials

PROGRESS_LINES = 1_000


class Target(Protocol):
    """Where envelopes go; a context manager that flushes when it is left without an error."""

    def send(self, key: bytes | None, value: bytes) -> None:
        """Hand over one envelope under the client's address. Raises SourceError."""

    def flush(self) -> int:
        """Wait until all of it is kept; how many envelopes were, since the start. Raises SourceError."""

    def __enter__(self) -> Target: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def open_target(to: str, settings: SourceSettings, *, partitions: int | None = None) -> Target:
    """The target that a URL names: `kafka://host:port/topic` or `file:///path`.

    A missing topic is made with `partitions`. Raises UsageError for another scheme, SourceError.
    """
    try:
        parts = urlsplit(to)
    except ValueError:  # brackets that are no IPv6 address
        parts = urlsplit("")
    if parts.scheme == "kafka":
        from oddlog.connectors.kafka_producer import KafkaWriter

        return KafkaWriter(settings, to, partitions=partitions)
    if parts.scheme == "file":
        return FileTarget(Path(unquote(parts.path)))
    raise UsageError(
        f"cannot ship to {without_credentials(to)!r}",
        expected="kafka://broker:9092/logs.raw or file:///path/to/envelopes.json",
    )


class FileTarget:
    """Envelopes appended to a file, one a line; for a pipeline without Kafka."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._kept = self._sent = 0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file: BinaryIO = path.open("ab")
            if _ends_inside_a_line(path):
                self._file.write(b"\n")
        except OSError as error:
            raise SourceError(f"{path} cannot be written: {error}", mend="choose another --to") from error

    def send(self, key: bytes | None, value: bytes) -> None:
        """Append one envelope."""
        try:
            self._file.write(value + b"\n")
        except OSError as error:
            raise SourceError(f"{self.path}: {error}", mend="make room, or choose another --to") from error
        self._sent += 1

    def flush(self) -> int:
        """Hand what is buffered to the operating system."""
        try:
            self._file.flush()
        except OSError as error:
            raise SourceError(f"{self.path}: {error}", mend="make room, or choose another --to") from error
        self._kept = self._sent
        return self._kept

    def __enter__(self) -> FileTarget:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.flush()
        finally:
            with contextlib.suppress(OSError):  # what is not flushed has failed with an error of its own
                self._file.close()


def _ends_inside_a_line(path: Path) -> bool:
    size = path.stat().st_size
    if size == 0:
        return False
    with path.open("rb") as file:
        file.seek(size - 1)
        return file.read(1) != b"\n"


def ship(
    lines: Iterable[bytes],
    to: str,
    *,
    labels: Iterable[str] | None,
    path: str,
    rate: float | None = None,
    settings: SourceSettings | None = None,
    partitions: int | None = None,
    stop: threading.Event | None = None,
    progress: Callable[[int], None] | None = None,
) -> int:
    """Send lines (with or without their line ends) to the URL `to`; how many are acknowledged there.

    `labels`, where given, has one label a line (`labels.truth`; an empty one is none). `path` is the file that
    the lines are said to come from. `rate` is in lines per second. `stop` ends between two lines, with all that
    was sent flushed. `progress` is called with the number of lines sent, every thousand lines. Connection and
    credentials are those of `settings`. Raises UsageError when there are fewer or more labels than lines,
    SourceError.
    """
    with open_target(to, settings or SourceSettings(), partitions=partitions) as target:
        for sent in ship_to(target, lines, labels=labels, path=path, rate=rate, stop=stop):
            if progress is not None and sent % PROGRESS_LINES == 0:
                progress(sent)
        acknowledged = target.flush()
    if progress is not None:
        progress(acknowledged)
    return acknowledged


def ship_to(
    target: Target,
    lines: Iterable[bytes],
    *,
    labels: Iterable[str] | None,
    path: str,
    offsets: Iterable[int] | None = None,
    rate: float | None = None,
    stop: threading.Event | None = None,
) -> Iterator[int]:
    """Send lines one by one to an open target, and give the number sent after each. Flushing is the caller's.

    `offsets` says where each line begins in the file, in bytes; without it they are counted from 0."""
    stop = stop or threading.Event()
    host = socket.gethostname()
    truths = iter(labels) if labels is not None else None
    places = iter(offsets) if offsets is not None else None
    offset, sent, begun = 0, 0, time.monotonic()
    for line in lines:
        if stop.is_set():
            return
        truth = next(truths, None) if truths is not None else None
        if truths is not None and truth is None:
            raise UsageError(f"there are {sent} labels and more lines", expected="one label for every line")
        if places is not None:
            offset = next(places)
        at = dt.datetime.now(dt.UTC)
        value = envelope(line, at=at, path=path, offset=offset, host=host, truth=truth or None)
        target.send(client_key(line), value)
        offset += len(line) if line.endswith(b"\n") else len(line) + 1
        sent += 1
        yield sent
        if rate is not None:
            ahead = begun + sent / rate - time.monotonic()
            # Many short sleeps would be late in sum: the clock of the whole run sets the pace.
            if ahead > 0.005:
                if ahead > 0.2:
                    target.flush()  # a slow trickle is seen at once, not when a buffer is full
                stop.wait(ahead)
    if truths is not None and next(truths, None) is not None:
        raise UsageError(f"there are more labels than the {sent} lines", expected="one label for every line")
