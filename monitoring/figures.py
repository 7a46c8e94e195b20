"""What a period was like beside its distributions: counts and shares, of a batch or expected of it. No judging."""

from __future__ import annotations

from dataclasses import dataclass

from oddlog.connectors.store import STATUS_CLASSES


@dataclass(frozen=True, slots=True)
class Figures:
    """Of a period. Shares are of its events, unless they say otherwise; None where they are not known."""

    events: float
    worth: float
    """Clients that the events are worth: (sum of n)^2 / sum of n^2 over clients with n events each (Kish). What one
    client does, it does alike: this many are independent."""
    alert_rate: float | None
    """Share of the client-hours that alert."""
    statuses: dict[str, float]
    """By class, "1xx" to "5xx"."""
    unseen_paths: float | None
    """Events whose path template the baseline does not have."""
    new_clients: float | None
    """Events of clients that were not there in the day before their hour."""
    busiest: float | None
    """Share of the client with most; expected: the most that one has had in an hour."""


def share(part: float, whole: float) -> float | None:
    """`part` / `whole`; None where there is no whole."""
    return part / whole if whole else None


def status_shares(counts: dict[str, float], events: float) -> dict[str, float]:
    """By class; empty where there are no events."""
    return {name: counts.get(name, 0.0) / events for name in STATUS_CLASSES} if events else {}
