"""The loop of drift checks: every batch once, in order, missed ones caught up, one instance at a time. No judging.

What was done is told by the store: the document of a batch, written last, and where the loop stands ("runs",
`monitor-<model>-<length>`). A monitor that died between the two finds the batch's document and goes on behind it.
"""

from __future__ import annotations

import datetime as dt
import logging
import os
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from monitoring.documents import check_id, iso
from monitoring.drift import DriftResult, check_drift
from monitoring.expected import Against
from monitoring.period import batch_length, last_whole
from monitoring.prune import prune
from monitoring.reference import Reference, fetch_reference
from oddlog.connectors.registry import CHAMPION, Registry
from oddlog.connectors.store import Store
from oddlog.errors import OutsideError
from oddlog.settings import Settings

log = logging.getLogger(__name__)


class Observer(Protocol):
    """Who is told what the loop does."""

    def checked(self, result: DriftResult) -> None:
        """A batch was judged."""

    def failed(self) -> None:
        """A check could not be made now."""

    def stands(self, behind: dt.timedelta, *, leading: bool) -> None:
        """How long ago the batch ended that comes next; whether this instance is the one at work."""


class _Nobody:
    def checked(self, result: DriftResult) -> None:
        pass

    def failed(self) -> None:
        pass

    def stands(self, behind: dt.timedelta, *, leading: bool) -> None:
        pass


@dataclass(slots=True)
class Done:
    """What a round did."""

    checked: int = 0
    drifted: int = 0
    skipped: int = 0
    """Batches that had their document already, or ended too long ago."""
    waiting_for: str = ""
    """Why nothing could be done: another instance's name, or that there is no champion."""


class Monitor:
    """Checks batches of one length, `every`, in order. `run` until `stop`; `catch_up` once."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        registry: Registry,
        *,
        every: str,
        against: Against = "reference",
        observe: Observer | None = None,
        now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
    ) -> None:
        self._settings, self._store, self._registry = settings, store, registry
        self._length, self._against = batch_length(every), against
        self._key = f"monitor-{settings.registry.model}-{every}" + ("" if against == "reference" else f"-{against}")
        self._holder = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self._observe: Observer = observe or _Nobody()
        self._now = now
        self._stop = threading.Event()
        self._reference: Reference | None = None

    def stop(self) -> None:
        """Ask `run` to end after the check that it is at."""
        self._stop.set()

    def run(self) -> None:
        """Catch up, wait, and so on until `stop`. What fails outside is told and tried again; other errors end it."""
        told = ""
        while not self._stop.is_set():
            try:
                done = self.catch_up()
                if done.waiting_for and done.waiting_for != told:
                    log.info("waiting: %s", done.waiting_for)
                told = done.waiting_for
                pause = self._settings.monitor.poll_seconds if told else self._until_next()
            except OutsideError as error:
                log.warning("the check is tried again: %s", error.found)
                self._observe.failed()
                pause = self._settings.monitor.poll_seconds
            self._stop.wait(pause)

    def catch_up(self) -> Done:
        """Check every batch that has ended and was not checked yet, oldest first. Raises OutsideError."""
        done = Done()
        with self._lock() as other:
            self._observe.stands(dt.timedelta(), leading=other is None)
            if other is not None:
                done.waiting_for = self._held_by(other)
                return done
            champion = self._registry.by_alias(CHAMPION)
            if champion is None:
                done.waiting_for = "no model is champion yet (oddlog train && oddlog promote)"
                return done
            for since, until in self._due(done):
                if (taken := self._prolong()) is not None:  # a check that outlasted the lock: another goes on
                    self._observe.stands(self._now() - until, leading=False)
                    done.waiting_for = self._held_by(taken)
                    break
                self._observe.stands(self._now() - until, leading=True)
                self._check(since, until, done)
                self._store.put_document("runs", self._key, {"until": iso(until)})
                if self._stop.is_set():
                    break
            if done.checked:
                prune(self._settings, self._now())
        return done

    def _check(self, since: dt.datetime, until: dt.datetime, done: Done) -> None:
        reference = self._of_champion()
        id = check_id(reference, since, until, self._against)
        if self._store.get_document("drift", id) is not None:  # made by hand, or before a crash
            done.skipped += 1
            return
        result = check_drift(
            self._settings, self._store, self._registry, since=since, until=until, against=self._against,
            reference=reference,
        )  # fmt: skip
        done.checked += 1
        done.drifted += result.drifted
        level = logging.WARNING if result.drifted else logging.INFO
        extra = {"check": result.id, "drifted": result.drifted, "report": str(result.report)}
        log.log(level, "%s to %s: %s", iso(since), iso(until), result.verdict, extra=extra)
        self._observe.checked(result)

    def _of_champion(self) -> Reference:
        """The champion's reference, fetched anew where another version is champion now."""
        champion = self._registry.by_alias(CHAMPION)
        held = self._reference
        if held is None or champion is None or held.version.version != champion.version:
            held = self._reference = fetch_reference(self._registry)
        return held

    def _due(self, done: Done) -> Iterator[tuple[dt.datetime, dt.datetime]]:
        """The batches to check, oldest first: those since the last one; at the first start the last whole one."""
        options = self._settings.monitor
        _, newest = last_whole(self._length, self._now() - dt.timedelta(seconds=options.delay_seconds))
        stand = self._store.get_document("runs", self._key)
        until = newest if stand is None else dt.datetime.fromisoformat(str(stand["until"])) + self._length
        oldest = self._now() - dt.timedelta(days=options.catch_up_days)
        if until < oldest and until < newest:
            skipped = min(-(-(oldest - until) // self._length), (newest - until) // self._length)
            log.warning("%d batches ended more than %g days ago: passed over", skipped, options.catch_up_days)
            done.skipped += skipped
            until += skipped * self._length
        while until <= newest:
            yield until - self._length, until
            until += self._length

    def _until_next(self) -> float:
        """Seconds until the next batch is due; looked at again at least every `poll_seconds`."""
        delay = dt.timedelta(seconds=self._settings.monitor.delay_seconds)
        _, newest = last_whole(self._length, self._now() - delay)
        left = (newest + self._length + delay - self._now()) / dt.timedelta(seconds=1)
        return max(0.1, min(left, self._settings.monitor.poll_seconds))

    def _prolong(self) -> str | None:
        """Take the lock, or hold it for longer; None where it is ours, else who has it."""
        return self._store.acquire_lock(self._key, self._holder, self._settings.monitor.lock_seconds)

    def _held_by(self, other: str) -> str:
        return f"{other} holds the lock {self._key!r}"

    @contextmanager
    def _lock(self) -> Iterator[str | None]:
        """Gives who else holds the lock; None where it is ours until the end of the `with`."""
        other = self._prolong()
        try:
            yield other
        finally:
            if other is None:
                self._store.release_lock(self._key, self._holder)
