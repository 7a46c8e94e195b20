"""What a message says: as JSON for programs, as lines for people, escaped as Slack wants it. Sending is not here."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from monitoring.incidents_documents import without_ours
from monitoring.incidents_words import count, lines

LISTED = 20
"""Most incidents that a digest names beside its first."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message. `id` is the same whenever the same is told again, so that receivers can drop what came twice."""

    id: str
    event: str
    """`incident.opened`, `incident.digest`, `incident.closed` or `test`."""
    subject: str
    """One line, safe to show."""
    body: list[str]
    """Further lines, safe to show."""
    document: Mapping[str, Any]
    """The same for programs."""
    key: str
    """Id of the incident that it is about; of several, of the first."""

    @property
    def text(self) -> str:
        """All lines."""
        return "\n".join([self.subject, *self.body])


def opening(incident: Mapping[str, Any]) -> Message:
    """An incident, found."""
    return _of_one(incident, "opened")


def closing(incident: Mapping[str, Any]) -> Message:
    """An incident, ended: closed, merged or withdrawn, as its status says."""
    return _of_one(incident, "closed")


def digest(incidents: Sequence[Mapping[str, Any]]) -> Message:
    """Several incidents, the oddest first: that one whole, the others by title, and how many more there are."""
    first, *others = incidents
    named = others[:LISTED]
    body = [*lines(first), "", f"and {len(others):,} more:"]
    body.extend(f"- {one['title']} (severity {one['severity']:.1f}, {one['id']})" for one in named)
    if unnamed := len(others) - len(named):
        body.append(f"- and {unnamed:,} that are not named here: oddlog incidents list")
    id = "digest-" + hashlib.sha256("\n".join(str(one["id"]) for one in incidents).encode()).hexdigest()[:16]
    beside = [{name: one[name] for name in ("id", "title", "severity", "first_seen", "last_seen")} for one in named]
    return Message(
        id=id,
        event="incident.digest",
        subject=f"{first['title']}, and {count(len(others), 'more incident')}",
        body=body,
        document={
            "event": "incident.digest", "id": id, "incident": without_ours(first),
            "more": len(others), "others": beside,
        },
        key=str(first["id"]),
    )  # fmt: skip


def trial() -> Message:
    """A message that says nothing, to try receivers."""
    subject = "oddlog: a test message; nothing has happened"
    return Message("test", "test", subject, [], {"event": "test", "id": "test"}, "test")


def as_json(message: Message) -> dict[str, Any]:
    """What a webhook and a topic get."""
    return {**message.document, "text": message.text}


def as_slack(message: Message) -> dict[str, Any]:
    """What a Slack webhook gets: text, with the three characters escaped that Slack reads as its own.

    >>> as_slack(Message("1", "test", "<!channel> & co", ["x"], {}, "1"))
    {'text': '*&lt;!channel&gt; &amp; co*\\nx'}
    """
    return {"text": "\n".join([f"*{_escaped(message.subject)}*", *(_escaped(line) for line in message.body)])}


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _of_one(incident: Mapping[str, Any], what: str) -> Message:
    id = f"{incident['id']}-{what}"
    return Message(
        id=id,
        event=f"incident.{what}",
        subject=str(incident["title"]),
        body=[*lines(incident), f"more: oddlog incidents show {incident['id']}"],
        document={"event": f"incident.{what}", "id": id, "incident": without_ours(incident)},
        key=str(incident["id"]),
    )
