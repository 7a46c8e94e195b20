"""What every speed program does around its measuring: tell how far it is, and end what it started when asked to end."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from types import FrameType


def told_by_the_clock() -> Callable[[str], None]:
    """Prints a text to standard error, behind the seconds since this call."""
    begun = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - begun:7.1f} s  {text}", file=sys.stderr, flush=True)

    return say


def end_when_asked() -> None:
    """Have SIGTERM leave through every `finally`, so that what was started is ended."""

    def end(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, end)
