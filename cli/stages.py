"""What a long verb is doing right now: a spinner on standard error once it takes more than two seconds."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cli.console import err
from cli.logs import logs_are_json
from training.progress import Underway

log = logging.getLogger(__name__)

PATIENCE = 2.0  # seconds that a person waits without wondering
LINE_EVERY = 10.0  # seconds between two lines about one stage, where lines are all there is


@contextmanager
def stages(*, quiet: bool = False) -> Iterator[Callable[[str], None]]:
    """Gives a function that takes the name of each stage as it begins.

    In a terminal the present stage is shown with a spinner, and finished ones with their seconds. Where standard
    error is no terminal a line is written for each stage (a log line, where logs are JSON); with `quiet`, nothing.
    How far a stage is (`Underway`) stands behind its name, or on an indented line of its own now and then.
    """
    if quiet:
        yield lambda _: None
        return
    if logs_are_json():
        yield _now_and_then(log.info)
        return
    if not err.is_terminal:
        yield _now_and_then(lambda text: err.print(text, highlight=False, markup=False, soft_wrap=True))
        return
    status = err.status("")
    patience = threading.Timer(PATIENCE, status.start)
    patience.daemon = True
    present: list[tuple[str, float]] = []

    def finish() -> None:
        if present:
            name, began = present.pop()
            if (spent := time.monotonic() - began) >= 1.0:
                err.print(f"[green]✓[/] {name} [dim]{spent:.1f} s[/]", highlight=False)

    def begin(name: str) -> None:
        if isinstance(name, Underway):
            status.update(f"{present[0][0]}: {name}" if present else name)
            return
        finish()
        present.append((name, time.monotonic()))
        status.update(name)

    patience.start()
    try:
        yield begin
        finish()
    finally:
        patience.cancel()
        status.stop()


def _now_and_then(write: Callable[[str], None]) -> Callable[[str], None]:
    """Writes every stage, and at most every LINE_EVERY seconds how far it is."""
    written = time.monotonic()

    def tell(text: str) -> None:
        nonlocal written
        now = time.monotonic()
        if not isinstance(text, Underway):
            written = now
            write(text)
        elif now - written >= LINE_EVERY:
            written = now
            write(f"  {text}")

    return tell


@contextmanager
def shares(*, quiet: bool = False) -> Iterator[Callable[[str, float | None], None]]:
    """Gives a function that takes what is being done and the share of it that is done (None: not known).

    In a terminal a bar is shown once it takes longer than PATIENCE; elsewhere nothing is.
    """
    if quiet or not err.is_terminal:
        yield lambda _what, _share: None
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    progress = Progress(
        TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn(),
        console=err, transient=True,
    )  # fmt: skip
    task = progress.add_task("", total=None)
    patience = threading.Timer(PATIENCE, progress.start)
    patience.daemon = True
    present = ""

    def tell(what: str, share: float | None) -> None:
        nonlocal present
        if what != present:
            present = what
            progress.reset(task, description=what, total=None if share is None else 1.0)
        progress.update(task, completed=share or 0.0, total=None if share is None else 1.0)

    patience.start()
    try:
        yield tell
    finally:
        patience.cancel()
        progress.stop()
