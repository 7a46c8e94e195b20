"""Waiting for a store or a source that is away: asked again while the source is kept alive, and told without noise.

What is asked is the consumer's (`enrich.py`); batches that wait are the writer's (`batch_writer.py`).
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from oddlog.connectors.source import Source
from oddlog.errors import SourceEpochError, SourceError, StoreUnavailable
from serving.batch_writer import Stopped
from serving.consumer_metrics import ConsumerObserver

log = logging.getLogger(__name__)

T = TypeVar("T")

PAUSE_SECONDS = 0.5
"""Between two questions."""

SOURCE_SECONDS = 600.0
"""How long a source that answers no question about committed positions is asked again."""

TELL_SECONDS = 60.0
"""How often the same reason for waiting is logged again."""


class Patience:
    """Asks until there is an answer. One a consumer, used by its own thread."""

    def __init__(self, source: Source, stop: threading.Event, observe: ConsumerObserver) -> None:
        self._source = source
        self._stop = stop
        self._observe = observe
        self._told = ""
        self._told_at = float("-inf")

    def __call__(self, ask: Callable[[], T]) -> T:
        """The answer of store or source, waited for while one is away; raises Stopped when asked to stop meanwhile.

        The store says by type that it is away; the source does not, so that it is waited for SOURCE_SECONDS."""
        begun = time.monotonic()
        while True:
            try:
                return ask()
            except SourceEpochError:
                raise
            except (StoreUnavailable, SourceError) as error:
                if isinstance(error, SourceError) and time.monotonic() - begun > SOURCE_SECONDS:
                    raise
                self._tell(error.found)
                if self._stop.wait(PAUSE_SECONDS):
                    raise Stopped from None
                self._source.keep_alive()

    def _tell(self, reason: str) -> None:
        self._observe.waiting(reason)
        # Two errors that differ in an object's address alone are the same news.
        news = re.sub(r"0x[0-9a-f]+", "", reason)
        if news != self._told or time.monotonic() - self._told_at >= TELL_SECONDS:
            log.warning("waiting: %s", reason)
            self._told, self._told_at = news, time.monotonic()
