"""Who has to be told of which incident, and when: once each, no more than so many an hour, again after a failure.

What waits and what was told stands in the incident's document (`told`, by receiver), so that a restart tells nothing
twice. It is written right after the receiver has taken a message: who dies between the two tells that one again, with
the same id. How a message gets out is `notify_receivers.py`'s; what it says `notify_message.py`'s.
"""

from __future__ import annotations

import datetime as dt
import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import tenacity

from monitoring.documents import iso
from monitoring.incidents import Incident
from monitoring.notify_message import Message, closing, digest, opening
from oddlog.errors import NotifyError, ReceiverUnavailable
from oddlog.settings import NotifySettings

log = logging.getLogger(__name__)

HOUR = dt.timedelta(hours=1)
FIRST_PAUSE, LONGEST_PAUSE = dt.timedelta(minutes=1), dt.timedelta(minutes=15)
"""Between a receiver's failure and the next try: doubled each time."""

CLOSING = ".closed"
"""After a receiver's name, under `told`: that the incident was closed."""


class Receiver(Protocol):
    """Where messages go."""

    name: str
    for_programs: bool
    """Gets every incident, found and closed, without limit and digest."""

    def send(self, message: Message) -> None:
        """Hand a message over. Raises NotifyError, or ReceiverUnavailable where another try may do."""

    def close(self) -> None:
        """Close connections."""


class Observer(Protocol):
    """Who is told what became of messages."""

    def sent(self, receiver: str, incidents: int) -> None:
        """A message went out, and told of so many."""

    def failed(self, receiver: str) -> None:
        """A message could not be handed over, after all tries."""

    def waiting(self, receiver: str, incidents: int) -> None:
        """So many are not told yet."""


@dataclass(slots=True)
class _Pause:
    until: dt.datetime
    length: dt.timedelta


Documents = Callable[[Incident], dict[str, Any]]
Keep = Callable[[Sequence[Incident]], None]
"""Writes incidents' documents. Raises StoreError."""


class Notifier:
    """Tells receivers of incidents. Nothing that a receiver does is raised."""

    def __init__(self, settings: NotifySettings, receivers: Sequence[Receiver], observe: Observer) -> None:
        self._settings, self._receivers, self._observe = settings, receivers, observe
        self._paused: dict[str, _Pause] = {}
        self.stopping = threading.Event()
        """Set: between two tries nothing is waited for any more."""

    def enqueue(self, one: Incident, now: dt.datetime) -> None:
        """Note, under `told`, that the receivers there are wait for a new incident; none for one that is long over."""
        too_old = now - one.last_seen > self._settings.oldest_hours * HOUR
        for receiver in self._receivers:
            one.told.setdefault(receiver.name, {"as": "too old", "at": iso(now)} if too_old else {"as": "waiting"})

    def note_end(self, one: Incident) -> None:
        """Note that programs, which know of an incident, wait to hear that it has ended; or that it goes on."""
        for receiver in self._receivers:
            name = receiver.name + CLOSING
            if receiver.for_programs and one.told.get(receiver.name, {}).get("as") == "message":
                if one.status == "open":
                    one.told.pop(name, None)
                else:
                    one.told.setdefault(name, {"as": "waiting"})

    def deliver(
        self,
        incidents: Iterable[Incident],
        now: dt.datetime,
        *,
        documents: Documents,
        keep: Keep,
        go_on: Callable[[], bool],
    ) -> int:
        """Tell whoever waits, as far as limits and pauses allow; how many messages went out.

        `keep` is called with the incidents of a message right after that went out; `go_on` is asked before each.
        Raises what `keep` raises: while what was told cannot be noted, no more is."""
        everything = list(incidents)
        sent = 0
        for receiver in self._receivers:
            for message, told, slot in self._due(receiver, everything, now, documents):
                if not go_on() or not self._hand_over(receiver, message, now):
                    break
                sent += 1
                kind = "message" if len(told) == 1 else "digest"
                for one in told:
                    one.told[slot] = {"as": kind, "at": iso(now), "message": message.id}
                    self.note_end(one)  # it may have ended before anybody could be told that it began
                keep(told)
                self._observe.sent(receiver.name, len(told))
            self._observe.waiting(receiver.name, sum(1 for _ in self._waiting(receiver, everything)))
        return sent

    def close(self) -> None:
        """Close the receivers' connections."""
        for receiver in self._receivers:
            receiver.close()

    def _waiting(self, receiver: Receiver, incidents: Iterable[Incident]) -> list[Incident]:
        """The incidents that a receiver is still to be told of, the oddest first."""
        least = 0.0 if receiver.for_programs else self._settings.min_severity
        found = [
            one
            for one in incidents
            if one.hours and one.severity >= least and one.told.get(receiver.name, {}).get("as") == "waiting"
        ]
        return sorted(found, key=lambda one: (-one.severity, one.first_seen, one.id))

    def _due(
        self, receiver: Receiver, incidents: list[Incident], now: dt.datetime, documents: Documents
    ) -> Iterable[tuple[Message, list[Incident], str]]:
        """Messages that may go out now, whom each tells of, and under which name of `told` that is noted."""
        pause = self._paused.get(receiver.name)
        if pause is not None and now < pause.until:
            return
        waiting = self._waiting(receiver, incidents)
        if receiver.for_programs:
            for one in waiting:
                yield opening(documents(one)), [one], receiver.name
            slot = receiver.name + CLOSING
            for one in incidents:
                if one.told.get(slot, {}).get("as") == "waiting" and one.status != "open":
                    yield closing(documents(one)), [one], slot
            return
        left = allowance(_sent_at(receiver.name, incidents), now, self._settings.most_per_hour)
        if left < 1:
            return
        # The last one that is allowed tells of all that are left, so that nothing waits in silence.
        alone = waiting if len(waiting) <= left else waiting[: left - 1]
        for one in alone:
            yield opening(documents(one)), [one], receiver.name
        if rest := waiting[len(alone) :]:
            yield digest([documents(one) for one in rest]), rest, receiver.name

    def _hand_over(self, receiver: Receiver, message: Message, now: dt.datetime) -> bool:
        """Whether the receiver took it. Where not, it is left alone for a while."""
        tries = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(self._settings.attempts) | tenacity.stop_when_event_set(self.stopping),
            wait=tenacity.wait_random_exponential(multiplier=0.5, max=5.0),
            retry=tenacity.retry_if_exception(lambda e: isinstance(e, ReceiverUnavailable) and not e.wait_seconds),
            sleep=tenacity.sleep_using_event(self.stopping),
            reraise=True,
        )
        try:
            tries(receiver.send, message)
        except NotifyError as error:
            self._pause(receiver.name, now, error)
            return False
        except Exception as error:  # a receiver is never a reason to stop; no text: there may be secrets in it
            self._pause(receiver.name, now, NotifyError(f"{receiver.name} failed: {type(error).__name__}"))
            return False
        self._paused.pop(receiver.name, None)
        return True

    def _pause(self, name: str, now: dt.datetime, error: NotifyError) -> None:
        before = self._paused.get(name)
        length = FIRST_PAUSE if before is None else min(2 * before.length, LONGEST_PAUSE)
        asked = error.wait_seconds if isinstance(error, ReceiverUnavailable) else 0.0  # of any size: another's word
        pause = max(length, dt.timedelta(seconds=min(asked, HOUR.total_seconds())))
        self._paused[name] = _Pause(now + pause, length)
        log.warning("%s; tried again after %s", error.found, iso(self._paused[name].until), extra={"receiver": name})
        self._observe.failed(name)


def allowance(sent: Iterable[dt.datetime], now: dt.datetime, most_per_hour: int) -> int:
    """How many messages may go out now: a bucket of `most_per_hour` tokens that fills evenly within an hour.

    >>> noon = dt.datetime(2024, 3, 1, 12, tzinfo=dt.UTC)
    >>> allowance([], noon, 10), allowance([noon] * 10, noon, 10), allowance([noon] * 10, noon + HOUR / 5, 10)
    (10, 0, 2)
    """
    tokens, before = float(most_per_hour), None
    for moment in [*sorted(time for time in sent if time <= now), now]:
        if before is not None:
            tokens = min(most_per_hour, tokens + (moment - before) / HOUR * most_per_hour)
        tokens -= 1
        before = moment
    return max(0, int(tokens + 1 + 1e-9))


def _sent_at(name: str, incidents: Iterable[Incident]) -> list[dt.datetime]:
    """When messages went to a receiver; a digest counts once."""
    messages = {
        entry["message"]: dt.datetime.fromisoformat(entry["at"])
        for entry in (one.told.get(name, {}) for one in incidents)
        if "message" in entry
    }
    return list(messages.values())
