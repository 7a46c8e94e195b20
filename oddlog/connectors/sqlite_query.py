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
    for bound, sign in ((query.since, ">="), (query.until, "<")):
        if bound is not None:
            terms.append(f'"@timestamp" {sign} ?')
            parameters.append(epoch_ms(bound))
    return (f" WHERE {' AND '.join(terms)}" if terms else ""), parameters


def where(query: EventQuery) -> tuple[str, list[Any]]:
    """The clause, empty or beginning with a space, and the values of its placeholders."""
    terms: list[str] = []
    parameters: list[Any] = []

    def add(term: str, *values: Any) -> None:
        terms.append(term)
        parameters.extend(values)

    if query.status is not None:
        # Spelt out, not bound: only so can SQLite see that the partial index covers the question.
        add(f"\"anomaly.status\" = '{'pending' if query.status == 'pending' else 'scored'}'")
    if query.only_anomalies:
        add('"anomaly.is_anomaly" = 1')
    for term, value in (
        ('"@timestamp" >= ?', None if query.since is None else epoch_ms(query.since)),
        ('"@timestamp" < ?', None if query.until is None else epoch_ms(query.until)),
        ('"oddlog.position.epoch" = ?', query.epoch),
        ('"oddlog.position.topic" = ?', query.topic),
        ('"oddlog.position.partition" = ?', query.partition),
        ('"oddlog.position.offset" >= ?', query.from_offset),
        ('"anomaly.severity" >= ?', query.min_severity),
        ('"anomaly.model.version" = ?', query.model_version),
        ('"anomaly.baseline" = ?', query.baseline),
        ('"anomaly.hushed" = ?', query.hushed_by),
    ):
        if value is not None:
            add(term, value)
    if query.ids is not None:
        add("_id IN (SELECT value FROM json_each(?))", orjson.dumps(list(query.ids)))
    if query.clients is not None:
        add('"source.address" IN (SELECT value FROM json_each(?))', orjson.dumps(list(query.clients)))
    if query.share is not None:
        # Knuth's multiplicative hash of the offset, by which neighbours fall far apart; 2^61 is the most it makes.
        add('(("oddlog.position.offset" & 1073741823) * 2654435761 & 4294967295) < ?', int(query.share * 2**32))
    return (f" WHERE {' AND '.join(terms)}" if terms else ""), parameters
