"""Incidents and notifications as Prometheus metrics: an observer of `incidents_watch.py` and of `notify.py`."""

from __future__ import annotations

import datetime as dt
from collections import Counter as Count
from collections.abc import Iterable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge

from monitoring.incidents import Incident
from monitoring.incidents_watch import Done


class IncidentGauges:
    """What the port of a watch tells. `receivers`: the names of those that may be told."""

    def __init__(self, receivers: Sequence[str] = ()) -> None:
        self.registry = CollectorRegistry()

        def gauge(name: str, text: str, labels: Sequence[str] = ()) -> Gauge:
            return Gauge(name, text, labels, registry=self.registry)

        def counter(name: str, text: str, labels: Sequence[str] = ()) -> Counter:
            return Counter(name, text, labels, registry=self.registry)

        self._open = gauge("oddlog_incidents_open", "Incidents that last.", ["kind"])
        self._found = counter("oddlog_incidents_found", "Incidents found.")
        self._closed = counter("oddlog_incidents_closed", "Incidents closed, merged or withdrawn.")
        self._rounds = counter("oddlog_incidents_rounds", "Rounds of the loop.", ["outcome"])
        self._last = gauge("oddlog_incidents_last_round_seconds", "When the last round was made, Unix time.")
        self._leading = gauge("oddlog_incidents_leading", "1 where this instance is the one at work.")
        self._messages = counter(
            "oddlog_notifications", "Messages, a digest being one; failed: after all tries.", ["receiver", "outcome"]
        )
        self._told = counter("oddlog_notified_incidents", "Incidents that messages told of.", ["receiver"])
        self._waiting = gauge("oddlog_notifications_waiting", "Incidents not told yet.", ["receiver"])
        for kind in ("client", "pattern"):
            self._open.labels(kind)
        for outcome in ("done", "failed"):
            self._rounds.labels(outcome)
        for receiver in receivers:
            self._waiting.labels(receiver)
            self._told.labels(receiver)
            for outcome in ("sent", "failed"):
                self._messages.labels(receiver, outcome)

    def round_done(self, done: Done, incidents: Iterable[Incident], now: dt.datetime) -> None:
        """A round was made."""
        kinds = Count(one.kind for one in incidents if one.status == "open")
        for kind in ("client", "pattern"):
            self._open.labels(kind).set(kinds[kind])
        self._found.inc(done.found)
        self._closed.inc(done.closed)
        self._rounds.labels("done").inc()
        self._last.set(now.timestamp())

    def round_failed(self) -> None:
        """A round could not be made now."""
        self._rounds.labels("failed").inc()

    def leads(self, *, leading: bool) -> None:
        """Whether this instance is the one at work."""
        self._leading.set(leading)

    def sent(self, receiver: str, incidents: int) -> None:
        """A message went out, and told of so many."""
        self._messages.labels(receiver, "sent").inc()
        self._told.labels(receiver).inc(incidents)

    def failed(self, receiver: str) -> None:
        """A message could not be handed over, after all tries."""
        self._messages.labels(receiver, "failed").inc()

    def waiting(self, receiver: str, incidents: int) -> None:
        """So many are not told yet."""
        self._waiting.labels(receiver).set(incidents)
