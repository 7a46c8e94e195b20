"""Alerts that people expect, hushed: the patterns of now for who scores, and the alerts that are stored already.

What a mark is about is oddlog/connectors/marks.py's. Scores are not touched: a hushed event keeps score, severity,
channel and reasons, has the mark's id as `anomaly.hushed`, and is no anomaly.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import polars as pl

from oddlog.connectors.marks import PATTERN_COLUMNS, Hushes, Mark, list_marks
from oddlog.connectors.store import EventQuery, Store
from oddlog.errors import OddlogError
from oddlog.events.schema import ANOMALY_SCHEMA

log = logging.getLogger(__name__)

_PASSES = 5
"""Attempts at documents that somebody else updates at the same time."""


class HushFollower:
    """The store's expected patterns, looked at every `seconds` in a thread of its own: no batch asks the store.

    `now` may be read from any thread; while the store is away it is what was seen last. What was scored in the seconds
    before a mark was seen, or that it is gone, is judged again at the look after that, when it has been stored.
    """

    def __init__(self, store: Store, seconds: float) -> None:
        self.now = Hushes([])
        self._store = store
        self._seconds = seconds
        self._changed: list[Mark] = []
        """Patterns that the last look found new, or gone."""
        self._stop = threading.Event()
        self._away = False
        self._thread = threading.Thread(target=self._run, name="marks", daemon=True)

    def look(self) -> None:
        """Take what the store has now. Raises StoreError."""
        found = Hushes(list_marks(self._store))
        if found != self.now:
            log.info("%d marked patterns are expected, and raise no alert", len(found.marks))
            self._changed.extend(set(found.marks) ^ set(self.now.marks))
            self.now = found

    def follow(self) -> None:
        """Look, and judge again what may have been stored since by marks that changed before. Raises StoreError."""
        before = list(self._changed)
        self.look()
        for mark in before:
            self._judge(mark)
            self._changed.remove(mark)

    def start(self) -> None:
        """Begin to follow. Call `look` first, so that no batch goes without."""
        self._changed.clear()
        self._thread.start()

    def close(self) -> None:
        """End; a look that is under way is not waited for."""
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.wait(self._seconds):
            try:
                self.follow()
                self._away = False
            except Exception as error:  # a thread that died would follow no mark, and nobody would know
                if not self._away:
                    told = error.found if isinstance(error, OddlogError) else repr(error)
                    log.warning("marks cannot be read now, those that are known stay in force: %s", told)
                self._away = True

    def _judge(self, mark: Mark) -> None:
        if mark in self.now.marks:
            changed = hush_stored(self._store, mark)
        else:
            changed = unhush_stored(self._store, mark, self.now)
        if changed:
            log.info("%d events that were stored as mark %s changed are judged by it now", changed, mark.id)


def hush_stored(store: Store, mark: Mark, *, alive: Callable[[], None] = lambda: None) -> int:
    """Make the stored alerts of an expected pattern none; how many events were changed. Raises StoreError."""
    hushes = Hushes([mark])
    if not hushes:
        return 0
    clients = None if mark.client is None else (mark.client,)
    query = EventQuery(since=mark.since, until=mark.until, clients=clients, only_anomalies=True)
    return _judge_again(store, query, hushes, alive)


def unhush_stored(store: Store, mark: Mark, left: Hushes, *, alive: Callable[[], None] = lambda: None) -> int:
    """Make alerts again of what a mark that is gone hushed, but for what `left` hushes; how many events were changed.

    Raises StoreError."""
    return _judge_again(store, EventQuery(hushed_by=mark.id), left, alive)


def _judge_again(store: Store, query: EventQuery, hushes: Hushes, alive: Callable[[], None]) -> int:
    """Set `anomaly.is_anomaly` and `anomaly.hushed` of the anomalies of a query as `hushes` has them."""
    changed = 0
    for _ in range(_PASSES):
        store.refresh()
        missed = 0
        columns = ["_id", *PATTERN_COLUMNS, "anomaly.hushed"]
        for events in store.read_events(query, columns=columns, with_version=True):
            ids = hushes.ids(events, pl.repeat(value=True, n=events.height, dtype=pl.Boolean, eager=True))
            due = events.with_columns(ids.alias("told")).filter(pl.col("told").ne_missing(pl.col("anomaly.hushed")))
            if due.height:
                updates = due.select(
                    "_id", "@timestamp", "_version", pl.col("told").is_null().alias("anomaly.is_anomaly"),
                    pl.col("told").alias("anomaly.hushed").cast(ANOMALY_SCHEMA["anomaly.hushed"]),
                )  # fmt: skip
                updated = store.update_events(updates)
                changed, missed = changed + updated, missed + due.height - updated
            alive()
        if not missed:
            break
    return changed
