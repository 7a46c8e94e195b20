"""Incidents in words: a title, and the lines that a person is told. Log text in them is made safe to show.

An incident is given as its document (`incidents_documents.py`), but for its title, which is part of that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from monitoring.incidents import Incident
from oddlog.events.printable import printable

NAME_LENGTH, PATH_LENGTH, URL_LENGTH = 60, 80, 160
NAMED = 5
"""Most clients or paths named."""


def title(one: Incident) -> str:
    """An incident in a line."""
    if not one.hours:
        became = f"merged into {one.merged_into}" if one.merged_into else "withdrawn"
        return f"{became}: {printable(one.key, NAME_LENGTH)}"
    who = printable(one.key, NAME_LENGTH) if one.kind == "client" else count(one.client_count, "client") + " alike"
    return f"{who}: {count(one.events, 'odd request')} for {_paths(one.paths, one.path_count)}"


def count(number: int, noun: str) -> str:
    """A number of things.

    >>> count(1, "client"), count(1200, "odd request")
    ('1 client', '1,200 odd requests')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def lines(document: Mapping[str, Any]) -> list[str]:
    """What is known of an incident, a fact a line, the title not among them."""
    told = [
        f"severity {document['severity']:.1f}: its oddest request is {document['rarity']}",
        f"from {_moment(document['first_seen'])} to {_moment(document['last_seen'])} UTC, "
        f"{count(document['alerts'], 'alert')} (client-hours), {document['status']}",
    ]
    if example := document["example"]:
        request = f"{printable(example['method'] or '(no HTTP)', 20)} {printable(example['url'], URL_LENGTH)}"
        answer = "" if example["status"] is None else f" -> {example['status']}"
        told.append(f"oddest request: {printable(example['client'], NAME_LENGTH)} {request}{answer}")
    told.extend(f"why: {why(reason)}" for reason in document["reasons"])
    if document["kind"] == "pattern":
        told.append("clients: " + _some(document["clients"], document["client_count"], NAME_LENGTH))
    if document["path_count"] > 1:
        told.append("paths: " + _some(document["paths"], document["path_count"], PATH_LENGTH))
    return told


def why(reason: Mapping[str, Any]) -> str:
    """A reason's sentence without the feature's name before it."""
    return printable(str(reason["text"]).removeprefix(f"{reason['feature']}: "))


def _moment(text: str) -> str:
    """A time of a document, for people: without fractions of a second."""
    return text[:19].replace("T", " ")


def _paths(paths: Sequence[str], number: int) -> str:
    if number == 1 and paths:
        return printable(paths[0], PATH_LENGTH)
    return count(number, "path")


def _some(names: Sequence[str], number: int, length: int) -> str:
    shown = ", ".join(printable(name, length) for name in names[:NAMED])
    more = number - min(len(names), NAMED)
    return shown + (f" and {more:,} more" if more > 0 else "")
