"""What was found in a log, in words for people: the sentences that terminal and page share. No layout."""

from __future__ import annotations

from oddlog.events.printable import printable
from training.filescore import ReadLog, ScoredLog
from training.findings import Findings, OddClient, OddEvent

URL_LENGTH = 160


def headline(scored: ScoredLog, findings: Findings) -> str:
    """What was read: events, clients, period."""
    return (
        f"{printable(scored.log.name)}: {counted(findings.events, 'request')} of "
        f"{counted(findings.clients, 'client')}, {findings.since:%Y-%m-%d %H:%M} to {findings.until:%Y-%m-%d %H:%M} UTC"
    )


def unread(log: ReadLog) -> str:
    """Lines that were no events, and the first of them."""
    assert log.first_unread is not None
    number, found = log.first_unread
    found = found.split("; expected ")[0]
    verb = "fits" if log.unread == 1 else "fit"
    return f"{counted(log.unread, 'line')} {verb} no log format; line {number:,}: {printable(found, most=300)}"


def judged_by(scored: ScoredLog, findings: Findings) -> str:
    """The model, and how much it finds odd at its threshold."""
    by = f"{scored.algorithm}, fitted on the file itself" if scored.model is None else printable(scored.model)
    return (
        f"judged by {by}, for {scored.threshold.budget_per_day:g} alerts a day: "
        f"{counted(findings.anomalies, 'odd request')}, {counted(findings.alerts, 'alert')} (client and hour), "
        f"{counted(findings.groups, 'group')} of like clients"
    )


def share_odd(client: OddClient) -> str:
    """How many of a client's requests are odd, and in how many hours.

    The period is that of its odd requests.
    """
    if not client.anomalies:
        return f"none of its {counted(client.requests, 'request')} reaches the threshold"
    many = f"{client.anomalies:,} of its {counted(client.requests, 'request')}"
    if client.anomalies == client.requests:
        many = f"all its {client.requests:,} requests" if client.requests > 1 else "its one request"
    verb = "is" if client.anomalies == 1 else "are"
    return f"{many} {verb} odd, in {counted(client.alerts, 'hour')} from {client.since:%Y-%m-%d %H:%M}"


def alike(client: OddClient) -> str:
    """The clients that ask for the same; empty where there are none."""
    if not client.alike:
        return ""
    names = ", ".join(printable(name, most=60) for name in client.alike_clients[:3])
    more = ", ..." if client.alike > 3 else ""
    return f"; alike: {counted(client.alike, 'more client')} ({names}{more})"


def request_of(event: OddEvent) -> str:
    """A request and its answer on one line."""
    answer = "" if event.status is None else f" -> {event.status}"
    return f"{printable(event.method or '(no HTTP)', most=20)} {printable(event.url, most=URL_LENGTH)}{answer}"


def counted(number: int, noun: str) -> str:
    """A number with its noun.

    >>> counted(1, "client"), counted(1200, "client")
    ('1 client', '1,200 clients')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
