"""What a long verb is doing right now: a spinner on standard error once it takes more than two seconds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cli.console import err

PATIENCE = 2.0  # seconds that a person waits without wondering


@contextmanager
def stages(*, quiet: bool = False) -> Iterator[Callable[[str], None]]:
    """Gives a function that takes the name of each stage as it begins.

    In a terminal the present stage is shown with a spinner, and finished ones with their seconds. Where standard
    error is no terminal a line is written for each stage; with `quiet`, nothing.
    """
    if quiet:
        yield lambda _: None
        return
    if not err.is_terminal:
        yield lambda name: err.print(name, highlight=False, markup=False)
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
