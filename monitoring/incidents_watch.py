"""The loop of incidents: read alerts, group them, write what changed, tell who has to be told. One instance at a time.

A round can be repeated at any point: hours are counted anew, ids follow from what an incident is, and a document is
written before anybody is told of it.
"""

from __future__ import annotations

import datetime as dt
import logging
import os
import socket
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from monitoring.documents import iso
from monitoring.incidents import Incident, regroup
from monitoring.incidents_alerts import HOUR, AlertReader, hour_of, read_examples
from monitoring.incidents_documents import from_document, to_document
from monitoring.notify import Notifier
from oddlog.connectors.store import Store
from oddlog.errors import OutsideError, StoreUnavailable
from oddlog.settings import IncidentSettings

log = logging.getLogger(__name__)

NAME = "incidents"
"""Of the lock, and of the document in "runs" that tells how far the loop has come."""


HOLD_EVERY = 200
"""Documents for which the lock is prolonged once: an attack may make thousands at once. Before the first, too, since
reading may have taken long, and what another has noted meanwhile must not be written over."""


class Observer(Protocol):
    """Who is told what the loop does."""

    def round_done(self, done: Done, incidents: Iterable[Incident], now: dt.datetime) -> None:
        """A round was made; these incidents are known."""

    def round_failed(self) -> None:
        """A round could not be made now."""

    def leads(self, *, leading: bool) -> None:
        """Whether this instance is the one at work."""


@dataclass(slots=True)
class Done:
    """What a round did."""

    found: int = 0
    """Incidents that are new."""
    changed: int = 0
    """Incidents whose document was written, new ones among them."""
    closed: int = 0
    told: int = 0
    """Messages that went out."""
    open: int = 0
    """Incidents that last."""
    waiting_for: str = ""
    """Why nothing could be done: another instance's name."""


class Watch:
    """Makes rounds until `stop`; or one."""

    def __init__(
        self,
        settings: IncidentSettings,
        store: Store,
        notifier: Notifier,
        observe: Observer,
        *,
        now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
    ) -> None:
        self._settings, self._store, self._notifier, self._observe = settings, store, notifier, observe
        self._quiet = dt.timedelta(minutes=settings.quiet_minutes)
        self._holder = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self._now = now
        self._alerts = AlertReader(store)
        self._known: dict[str, Incident] = {}
        self._unwritten: set[str] = set()
        """Of these, those whose document may be another: its write failed, and is made again before anything else, so
        that who was told is not told again."""
        self._stop = notifier.stopping
        self._lock_seconds = settings.lock_seconds

    def stop(self) -> None:
        """Ask `run` to end after the round that it is at; a receiver that does not answer is not tried again."""
        self._stop.set()

    def run(self, every: dt.timedelta) -> None:
        """A round, a pause of `every`, and so on. What fails outside is told and tried again; other errors end it."""
        self._lock_seconds = max(self._settings.lock_seconds, 3 * every.total_seconds())
        told = ""
        try:
            while not self._stop.is_set():
                try:
                    done = self.round()
                    if done.waiting_for and done.waiting_for != told:
                        log.info("waiting: %s", done.waiting_for)
                    told = done.waiting_for
                except OutsideError as error:
                    log.warning("the round is made again: %s", error.found)
                    self._observe.round_failed()
                self._stop.wait(every.total_seconds())
        finally:
            self.leave()

    def leave(self) -> None:
        """Give the lock back, so that another need not wait for its end."""
        try:
            self._store.release_lock(NAME, self._holder)
        except OutsideError as error:
            log.warning("the lock ends by itself: %s", error.found)

    def round(self, since: dt.datetime | None = None) -> Done:
        """Look at events since the last round, and `lookback_hours` before; or since a time. Raises OutsideError.

        The lock is held until `leave`: between two rounds nobody else changes what is in memory here."""
        other = self._prolong()
        self._observe.leads(leading=other is None)
        if other is not None:
            return Done(waiting_for=f"{other} holds the lock {NAME!r}")
        now = self._now()
        before = self._store.get_document("runs", NAME)
        if before is None or before["holder"] != self._holder:  # nobody's rounds, or somebody else's, came before
            self._known, self._unwritten = _load(self._store), set()
        self._write(now)
        return self._round(now, hour_of(since or self._begin(before, now)))

    def _round(self, now: dt.datetime, since: dt.datetime) -> Done:
        alerts = self._alerts.read(since, now)
        changed = regroup(
            self._known, alerts, since=since, now=now, quiet=self._quiet, pattern_clients=self._settings.pattern_clients
        )
        self._illustrate(changed.values())
        done = Done()
        for id, one in changed.items():
            if id not in self._known:
                self._notifier.enqueue(one, now)
                done.found += 1
                log.info("incident %s: %s", id, to_document(one, quiet=self._quiet)["title"])
            self._notifier.note_end(one)
            before = self._known.get(id)
            done.closed += one.status != "open" and (before is None or before.status == "open")
        self._keep(list(changed.values()), now)
        done.changed = len(changed)
        self._store.put_document("runs", NAME, {"until": iso(now), "holder": self._holder})
        done.told = self._notifier.deliver(
            self._known.values(),
            now,
            documents=lambda one: to_document(one, quiet=self._quiet),
            keep=lambda told: self._keep(told, now),
            go_on=lambda: not self._stop.is_set() and self._prolong() is None,
        )
        self._prune(now)
        done.open = sum(one.status == "open" for one in self._known.values())
        self._observe.round_done(done, self._known.values(), now)
        return done

    def _begin(self, before: dict[str, object] | None, now: dt.datetime) -> dt.datetime:
        """From when on events are looked at."""
        last = now if before is None else min(now, dt.datetime.fromisoformat(str(before["until"])))
        earliest = now - dt.timedelta(days=self._settings.catch_up_days)
        return max(last - self._settings.lookback_hours * HOUR, earliest)

    def _illustrate(self, incidents: Iterable[Incident]) -> None:
        """Give each its oddest event, where that is another than before."""
        lacking = {one.top: one for one in incidents if one.top and (one.example or {}).get("id") != one.top}
        for id, (example, reasons) in read_examples(self._store, [id for id in lacking if id]).items():
            lacking[id].example, lacking[id].reasons = example, reasons

    def _keep(self, incidents: Sequence[Incident], now: dt.datetime) -> None:
        """Know them, and write their documents."""
        self._known.update((one.id, one) for one in incidents)
        self._unwritten.update(one.id for one in incidents)
        self._write(now)

    def _write(self, now: dt.datetime) -> None:
        for number, id in enumerate(sorted(self._unwritten)):
            if number % HOLD_EVERY == 0 and (other := self._prolong()) is not None:
                raise StoreUnavailable(f"{other} took the lock {NAME!r} over during a round")
            one = self._known[id]
            one.updated_at = now
            self._store.put_document("incidents", id, to_document(one, quiet=self._quiet))
            self._unwritten.discard(id)

    def _prune(self, now: dt.datetime) -> None:
        """Delete what ended, and was written last, long ago: what `--since` finds of last year stays for a while."""
        if self._settings.keep_days is None:
            return
        oldest = now - dt.timedelta(days=self._settings.keep_days)
        ended = [one for one in self._known.values() if one.status != "open"]
        for id in [one.id for one in ended if one.updated_at is None or one.updated_at < oldest]:
            self._store.delete_document("incidents", id)
            del self._known[id]

    def _prolong(self) -> str | None:
        """Take the lock, or hold it for longer; None where it is ours, else who has it."""
        return self._store.acquire_lock(NAME, self._holder, self._lock_seconds)


def _load(store: Store) -> dict[str, Incident]:
    return {document["_id"]: from_document(document) for document in store.list_documents("incidents")}
