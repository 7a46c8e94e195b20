"""`oddlog ship`: what Filebeat does, for places without it. Envelopes and targets: `oddlog/connectors/shipping.py`."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.console import Config, Json, emit_json, err, out, settings_from, verb
from oddlog.errors import UsageError
from oddlog.events.record import Partition, Records
from oddlog.settings import without_credentials

if TYPE_CHECKING:
    from oddlog.settings import SourceSettings

FOLLOW_GROUP = "oddlog-ship"
"""The name under which the place in a followed file is remembered."""


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("ship")(ship)


@verb
def ship(
    file: Annotated[str, typer.Argument(metavar="FILE|-", help="A log (plain or .gz), or - for standard input.")],
    to: Annotated[
        str | None,
        typer.Option("--to", help="kafka://... or file:///... Default: setting source.url.", show_default=False),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what is appended; the place is remembered.")
    ] = False,
    from_start: Annotated[
        bool, typer.Option("--from-start", help="With --follow: forget the place, and begin at the start.")
    ] = False,
    partitions: Annotated[
        int | None, typer.Option("--partitions", min=1, help="Of a topic that is made. Default: 4.", show_default=False)
    ] = None,
    rate: Annotated[
        float | None, typer.Option("--rate", min=0.001, help="Lines per second.", show_default=False)
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option("--labels", help="A label a line. Default: FILE.labels, if it is there.", show_default=False),
    ] = None,
    config: Config = None,
    json: Json = False,
) -> None:
    """Send log lines to Kafka in Filebeat's JSON envelope; a client's lines stay in one partition, in order."""
    settings = settings_from(config).source
    target = to or settings.url
    if from_start and not follow:
        raise UsageError("--from-start is given without --follow", expected="a file is read from its start anyway")
    stop = threading.Event()
    with _until_signalled(stop), _progress() as progress:
        if follow:
            if labels is not None or file == "-":
                raise UsageError(
                    "--follow goes with neither --labels nor standard input",
                    expected="a file that grows; standard input is read to its end without --follow",
                )
            count = _follow(Path(file), target, settings, partitions, rate, from_start, stop, progress)
        else:
            count = _ship_once(file, target, settings, partitions, rate, labels, stop, progress)
    if json:
        emit_json({"shipped": count, "to": without_credentials(target), "stopped": stop.is_set()})
    else:
        out.print(f"shipped {count:,} lines to {without_credentials(target)}", highlight=False, soft_wrap=True)


def _ship_once(
    file: str,
    target: str,
    settings: SourceSettings,
    partitions: int | None,
    rate: float | None,
    labels: Path | None,
    stop: threading.Event,
    progress: Callable[[int], None],
) -> int:
    from oddlog.connectors.shipping import ship as send

    if file == "-":
        lines, path = _standard_input(stop), "-"
    else:
        if not Path(file).is_file():
            raise UsageError(f"no file {file}", expected="a log file, or - for standard input")
        lines, path = _lines(Path(file)), str(Path(file).absolute())
        beside = Path(f"{file}.labels")
        labels = labels or (beside if beside.is_file() else None)
    truths = None
    if labels is not None:
        if not labels.is_file():
            raise UsageError(f"no file {labels}", expected="a file with one label for every line")
        try:
            truths = labels.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{labels} cannot be read: {error}", expected="one label a line, UTF-8") from None
        if file != "-" and (count := sum(1 for _ in _lines(Path(file)))) != len(truths):
            raise UsageError(
                f"{labels} has {len(truths)} labels for the {count} lines of {file}",
                expected="one label for every line",
                mend=f"correct {labels}, or name another with --labels",
            )
    return send(
        lines, target, labels=truths, path=path, rate=rate, settings=settings, partitions=partitions,
        stop=stop, progress=progress,
    )  # fmt: skip


def _follow(
    file: Path,
    target: str,
    settings: SourceSettings,
    partitions: int | None,
    rate: float | None,
    from_start: bool,
    stop: threading.Event,
    progress: Callable[[int], None],
) -> int:
    """Tail a file; its place is remembered after the target has acknowledged, so that nothing is left out."""
    from oddlog.connectors.by_url import open_source
    from oddlog.connectors.file_place import forget
    from oddlog.connectors.shipping import open_target, ship_to

    path = file.absolute()
    shipped = 0
    with open_target(target, settings, partitions=partitions) as sink:
        if from_start:
            forget(settings.state_dir, FOLLOW_GROUP, path)
        source = open_source(settings.model_copy(update={"url": path.as_uri(), "group": FOLLOW_GROUP}))
        try:
            while not stop.is_set():
                poll = source.poll(PER_POLL, 0.5)
                for partition in poll.assigned:
                    source.start(partition)
                lines = [value or b"" for value in poll.records.value]
                numbers = ship_to(
                    sink, lines, labels=None, path=str(path), offsets=poll.records.offset,
                    rate=rate, stop=stop,
                )  # fmt: skip
                sent = max(numbers, default=0)
                sink.flush()
                source.commit(_sent_up_to(poll.records, sent))
                shipped += sent
                progress(shipped)
        finally:
            source.close()
    return shipped


PER_POLL = 1_000


def _sent_up_to(records: Records, sent: int) -> dict[Partition, int]:
    """The place to remember after the first `sent` records: a stop within a batch sends no line again."""
    if sent == len(records):
        return dict(records.next_offset)
    places: dict[Partition, int] = {}
    for row in range(sent + 1):  # the first that was not sent too: its beginning is where we go on
        partition = Partition(records.epoch[row], records.topic[row], records.partition[row])
        places[partition] = records.offset[row] if row == sent else records.next_offset[partition]
    return places


def _lines(path: Path) -> Iterator[bytes]:
    import gzip
    import zlib

    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            yield from file
    except (OSError, EOFError, zlib.error) as error:
        raise UsageError(
            f"{path} cannot be read to its end: {error}", expected="a whole log file, plain or .gz"
        ) from None


def _standard_input(stop: threading.Event) -> Iterator[bytes]:
    """Lines of standard input, until its end or until told to stop; a read that waits would not hear of it."""
    import os
    import select

    handle = sys.stdin.fileno()
    rest = b""
    while not stop.is_set():
        if not select.select([handle], [], [], 0.2)[0]:
            continue
        block = os.read(handle, 1 << 18)
        if not block:
            break
        *whole, rest = (rest + block).split(b"\n")
        yield from whole
    if rest:
        yield rest


@contextmanager
def _until_signalled(stop: threading.Event) -> Iterator[None]:
    """SIGINT and SIGTERM end the shipping at the next line, with everything flushed; a second one ends it hard."""

    def told(number: int, frame: object) -> None:
        if stop.is_set():
            signal.default_int_handler(number, None)
        stop.set()

    before = {number: signal.signal(number, told) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _progress() -> Iterator[Callable[[int], None]]:
    """A running count on a terminal; nothing where standard error is none."""
    if not err.is_terminal:
        yield lambda count: None
        return
    with err.status("connecting") as status:
        yield lambda count: status.update(f"{count:,} lines")
