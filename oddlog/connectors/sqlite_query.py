"""What an EventQuery or a DeadQuery means to SQLite: a WHERE clause and an ORDER BY. Running them is `sqlite.py`'s."""

from __future__ import annotations

from typing import Any

import orjson

from oddlog.connectors.documents import epoch_ms
from oddlog.connectors.sqlite_tables import quoted
from oddlog.connectors.store import DeadQuery, EventQuery
from oddlog.events.schema import POSITION_ORDER

ORDER_BY = {
    "any": "",
    "position": f" ORDER BY {quoted(POSITION_ORDER)}",
    "time": f" ORDER BY {quoted(['@timestamp', *POSITION_ORDER])}",
}

NEWEST_FIRST = " ORDER BY " + ", ".join(f'"{name}" DESC' for name in ("@timestamp", *POSITION_ORDER))


def where_dead(query: DeadQuery) -> tuple[str, list[Any]]:
    """The clause for dead letters, and the values of its placeholders.

    >>> where_dead(DeadQuery(kind="empty"))
    (' WHERE kind = ?', ['empty'])
    """
    terms: list[str] = []
    parameters: list[Any] = []
    if query.kind is not None:
        terms.append("kind = ?")
        parameters.append(query.kind)
    if query.ids is not None:
        terms.append("_id IN (SELECT value FROM json_each(?))")
        parameters.append(orjson.dumps(list(query.ids)))
    return (f" WHERE {' AND '.join(terms)}" if terms else ""), parameters


def where(query: EventQuery) -> tuple[str, list[Any]]:
    """The clause, empty or beginning with a space, and the values of its placeholders."""
    terms: list[str] = []
    parameters: list[Any] = []

    def add(term: str, *values: Any) -> None:
        terms.append(term)
        parameters.extend(values)

    if query.since is not None:
        add('"@timestamp" >= ?', epoch_ms(query.since))
    if query.until is not None:
        add('"@timestamp" < ?', epoch_ms(query.until))
    if query.status is not None:
        # Spelt out, not bound: only so can SQLite see that the partial index covers the question.
        add(f"\"anomaly.status\" = '{'pending' if query.status == 'pending' else 'scored'}'")
    if query.epoch is not None:
        add('"oddlog.position.epoch" = ?', query.epoch)
    if query.topic is not None:
        add('"oddlog.position.topic" = ?', query.topic)
    if query.partition is not None:
        add('"oddlog.position.partition" = ?', query.partition)
    if query.from_offset is not None:
        add('"oddlog.position.offset" >= ?', query.from_offset)
    if query.min_severity is not None:
        add('"anomaly.severity" >= ?', query.min_severity)
    if query.only_anomalies:
        add('"anomaly.is_anomaly" = 1')
    if query.model_version is not None:
        add('"anomaly.model.version" = ?', query.model_version)
    if query.baseline is not None:
        add('"anomaly.baseline" = ?', query.baseline)
    if query.ids is not None:
        add("_id IN (SELECT value FROM json_each(?))", orjson.dumps(list(query.ids)))
    return (f" WHERE {' AND '.join(terms)}" if terms else ""), parameters
