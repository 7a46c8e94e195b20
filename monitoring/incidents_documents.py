"""Incidents as documents of the store's collection "incidents", there and back, and as others get them. Their words are
`incidents_words.py`'s.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from monitoring.documents import iso
from monitoring.incidents import HourPart, Incident
from monitoring.incidents_words import title
from oddlog.scoring.explanation import rarer_than

OURS = ("told", "hours", "key")
"""Fields that only the loop reads."""


def to_document(one: Incident, *, quiet: dt.timedelta) -> dict[str, Any]:
    """The document of an incident. `@timestamp` is when it began."""
    return {
        "@timestamp": iso(one.first_seen),
        "id": one.id,
        "kind": one.kind,
        "status": one.status,
        "title": title(one),
        "first_seen": iso(one.first_seen),
        "last_seen": iso(one.last_seen),
        "updated_at": None if one.updated_at is None else iso(one.updated_at),
        "closed_at": iso(one.last_seen + quiet) if one.status == "closed" else None,
        "merged_into": one.merged_into,
        "client": one.key if one.kind == "client" else None,
        "clients": one.clients,
        "client_count": one.client_count,
        "paths": one.paths,
        "path_count": one.path_count,
        "alerts": one.alerts,
        "events": one.events,
        "severity": round(one.severity, 4),
        "rarity": rarer_than(one.severity),
        "reasons": one.reasons,
        "example": one.example,
        "told": one.told,
        "key": one.key,
        "hours": [
            {**asdict(part), "hour": iso(hour), "first": iso(part.first), "last": iso(part.last)}
            for hour, part in one.hours.items()
        ],
    }


def from_document(document: Mapping[str, Any]) -> Incident:
    """The incident of a document. Raises KeyError, ValueError for what `to_document` did not make."""
    hours = {}
    for part in document["hours"]:
        times = {name: _time(part[name]) for name in ("first", "last")}
        hours[_time(part["hour"])] = HourPart(**{k: v for k, v in {**part, **times}.items() if k != "hour"})
    return Incident(
        id=document["id"],
        kind=document["kind"],
        key=document["key"],
        status=document["status"],
        hours=hours,
        first_seen=_time(document["first_seen"]),
        last_seen=_time(document["last_seen"]),
        merged_into=document["merged_into"],
        example=document["example"],
        reasons=document["reasons"],
        told=document["told"],
        updated_at=None if document["updated_at"] is None else _time(document["updated_at"]),
    )


def without_ours(document: Mapping[str, Any]) -> dict[str, Any]:
    """What others get of a document."""
    return {name: value for name, value in document.items() if name not in OURS and name != "_id"}


def _time(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text)
