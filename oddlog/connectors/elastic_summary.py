"""Counts over events of Elasticsearch: one search of aggregations, and its answer as the port has it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
import polars as pl

from oddlog.connectors.elastic_connection import ElasticConnection
from oddlog.connectors.elastic_query import dead_dsl, query_dsl
from oddlog.connectors.elastic_read import PointInTime
from oddlog.connectors.store import STATUS_CLASSES, DeadQuery, EventQuery, EventSummary
from oddlog.events.schema import TIMESTAMP

_CLIENT = "source.address"
_PRECISION = 40_000
"""Clients up to which Elasticsearch counts nearly exactly: its own upper limit, some 640 kB a count."""
_HOUR_PRECISION = 4_000
"""The same for each hour."""
_PAGE = 10_000


def summarise(connection: ElasticConnection, index: str, query: EventQuery) -> EventSummary:
    """One search; nothing is read but its answer."""
    in_hour = {"cardinality": {"field": _CLIENT, "precision_threshold": _HOUR_PRECISION}}
    odd = {"filter": {"term": {"anomaly.is_anomaly": True}}, "aggs": {"clients": in_hour}}
    ranges = [{"key": name, "from": 100 * n, "to": 100 * n + 100} for n, name in enumerate(STATUS_CLASSES, 1)]
    hours = {"date_histogram": {"field": "@timestamp", "fixed_interval": "1h", "min_doc_count": 1}}
    aggregations = {
        "pending": {"filter": {"term": {"anomaly.status": "pending"}}},
        "statuses": {"range": {"field": "http.response.status_code", "ranges": ranges}},
        "clients": {"cardinality": {"field": _CLIENT, "precision_threshold": _PRECISION}},
        "busiest": {"terms": {"field": _CLIENT, "size": 1}},
        "scored": {
            "filter": {"term": {"anomaly.status": "scored"}},
            "aggs": {"hours": {**hours, "aggs": {"clients": in_hour, "odd": odd}}},
        },
    }
    body = {"size": 0, "query": query_dsl(query), "aggs": aggregations, "track_total_hits": True}
    with PointInTime(connection, index) as moment:
        answer = orjson.loads(moment.search(body))
    found: Mapping[str, Any] = answer.get("aggregations") or {}  # none where there is no index
    if not found:
        return EventSummary(0, 0, dict.fromkeys(STATUS_CLASSES, 0), 0, 0, 0, 0)
    buckets = found["scored"]["hours"]["buckets"]
    return EventSummary(
        events=answer["hits"]["total"]["value"],
        pending=found["pending"]["doc_count"],
        statuses={bucket["key"]: bucket["doc_count"] for bucket in found["statuses"]["buckets"]},
        clients=found["clients"]["value"],
        busiest=max((bucket["doc_count"] for bucket in found["busiest"]["buckets"]), default=0),
        client_hours=sum(bucket["clients"]["value"] for bucket in buckets),
        alerts=sum(bucket["odd"]["clients"]["value"] for bucket in buckets),
    )


def client_hours(connection: ElasticConnection, index: str, query: EventQuery) -> pl.DataFrame:
    """The distinct (client, hour) of events that fit, page by page."""
    hour = {"date_histogram": {"field": "@timestamp", "fixed_interval": "1h"}}
    composite: dict[str, Any] = {"size": _PAGE, "sources": [{"client": {"terms": {"field": _CLIENT}}}, {"hour": hour}]}
    rows: list[tuple[str, int]] = []
    with PointInTime(connection, index) as moment:
        while True:
            body = {"size": 0, "query": query_dsl(query), "aggs": {"all": {"composite": composite}}}
            answer = orjson.loads(moment.search({**body, "track_total_hits": False}))
            page = answer.get("aggregations", {}).get("all", {})
            rows.extend((bucket["key"]["client"], bucket["key"]["hour"]) for bucket in page.get("buckets", ()))
            if "after_key" not in page:
                break
            composite["after"] = page["after_key"]
    frame = pl.DataFrame(rows, schema={"client": pl.String, "hour": pl.Int64}, orient="row")
    return frame.with_columns(pl.col("hour").cast(TIMESTAMP))


def dead_kinds(connection: ElasticConnection, index: str, query: DeadQuery) -> dict[str, int]:
    """How many dead letters that fit there are of each kind."""
    body = {"size": 0, "query": dead_dsl(query), "aggs": {"kinds": {"terms": {"field": "kind", "size": 1_000}}}}
    with PointInTime(connection, index) as moment:
        found = orjson.loads(moment.search({**body, "track_total_hits": False})).get("aggregations", {})
    return {bucket["key"]: bucket["doc_count"] for bucket in found.get("kinds", {}).get("buckets", ())}
