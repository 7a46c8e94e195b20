"""What an EventQuery or a DeadQuery means to Elasticsearch: a query in its DSL. Running it is `elastic_read.py`'s."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from oddlog.connectors.documents import epoch_ms
from oddlog.connectors.store import DeadQuery, EventQuery


def query_dsl(query: EventQuery, also: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The query; `also` are further terms, by field.

    >>> query_dsl(EventQuery(status="pending"))
    {'bool': {'filter': [{'term': {'anomaly.status': 'pending'}}]}}
    """
    filters: list[dict[str, Any]] = []
    times = {}
    if query.since is not None:
        times["gte"] = epoch_ms(query.since)
    if query.until is not None:
        times["lt"] = epoch_ms(query.until)
    if times:
        filters.append({"range": {"@timestamp": {**times, "format": "epoch_millis"}}})
    terms: dict[str, Any] = {
        "anomaly.status": query.status,
        "oddlog.position.epoch": query.epoch,
        "oddlog.position.topic": query.topic,
        "oddlog.position.partition": query.partition,
        "anomaly.model.version": query.model_version,
        "anomaly.baseline": query.baseline,
        "anomaly.is_anomaly": True if query.only_anomalies else None,
        **(also or {}),
    }
    filters.extend({"term": {name: value}} for name, value in terms.items() if value is not None)
    if query.from_offset is not None:
        filters.append({"range": {"oddlog.position.offset": {"gte": query.from_offset}}})
    if query.min_severity is not None:
        filters.append({"range": {"anomaly.severity": {"gte": query.min_severity}}})
    if query.ids is not None:
        filters.append({"ids": {"values": list(query.ids)}})
    return {"bool": {"filter": filters}} if filters else {"match_all": {}}


def dead_dsl(query: DeadQuery) -> dict[str, Any]:
    """The query for dead letters.

    >>> dead_dsl(DeadQuery(kind="empty"))
    {'bool': {'filter': [{'term': {'kind': 'empty'}}]}}
    """
    filters: list[dict[str, Any]] = []
    if query.kind is not None:
        filters.append({"term": {"kind": query.kind}})
    if query.ids is not None:
        filters.append({"ids": {"values": list(query.ids)}})
    return {"bool": {"filter": filters}} if filters else {"match_all": {}}
