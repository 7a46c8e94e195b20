"""What an EventQuery or a DeadQuery means to Elasticsearch: a query in its DSL. Running it is `elastic_read.py`'s."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

from oddlog.connectors.documents import epoch_ms
from oddlog.connectors.store import DeadQuery, EventQuery


def query_dsl(query: EventQuery, also: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The query; `also` are further terms, by field.

    >>> query_dsl(EventQuery(status="pending"))
    {'bool': {'filter': [{'term': {'anomaly.status': 'pending'}}]}}
    """
    filters = _between(query.since, query.until)
    terms: dict[str, Any] = {
        "anomaly.status": query.status,
        "oddlog.position.epoch": query.epoch,
        "oddlog.position.topic": query.topic,
        "oddlog.position.partition": query.partition,
        "anomaly.model.version": query.model_version,
        "anomaly.baseline": query.baseline,
        "anomaly.is_anomaly": True if query.only_anomalies else None,
        "anomaly.hushed": query.hushed_by,
        **(also or {}),
    }
    filters.extend({"term": {name: value}} for name, value in terms.items() if value is not None)
    if query.from_offset is not None:
        filters.append({"range": {"oddlog.position.offset": {"gte": query.from_offset}}})
    if query.min_severity is not None:
        filters.append({"range": {"anomaly.severity": {"gte": query.min_severity}}})
    if query.ids is not None:
        filters.append({"ids": {"values": list(query.ids)}})
    if query.clients is not None:
        filters.append({"terms": {"source.address": list(query.clients)}})
    if query.share is not None:
        filters.append(_chosen(query.share))
    return {"bool": {"filter": filters}} if filters else {"match_all": {}}


def _chosen(share: float) -> dict[str, Any]:
    """A hash of the offset, evenly in [0, 1), decides: what Elasticsearch can do without scripts."""
    hashed = {"seed": 0, "field": "oddlog.position.offset"}
    return {"function_score": {"random_score": hashed, "boost_mode": "replace", "min_score": 1 - share}}


def dead_dsl(query: DeadQuery) -> dict[str, Any]:
    """The query for dead letters.

    >>> dead_dsl(DeadQuery(kind="empty"))
    {'bool': {'filter': [{'term': {'kind': 'empty'}}]}}
    """
    filters = _between(query.since, query.until)
    if query.kind is not None:
        filters.append({"term": {"kind": query.kind}})
    if query.ids is not None:
        filters.append({"ids": {"values": list(query.ids)}})
    return {"bool": {"filter": filters}} if filters else {"match_all": {}}


def _between(since: dt.datetime | None, until: dt.datetime | None) -> list[dict[str, Any]]:
    times: dict[str, Any] = {}
    if since is not None:
        times["gte"] = epoch_ms(since)
    if until is not None:
        times["lt"] = epoch_ms(until)
    return [{"range": {"@timestamp": {**times, "format": "epoch_millis"}}}] if times else []
