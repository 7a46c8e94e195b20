"""The index templates: how Elasticsearch types what oddlog writes. One for events, one for dead letters, one
for the drift documents and one for the marks that dashboards read, one for the small documents that only oddlog reads.

No template names data streams. A lifecycle policy is named where days are to be deleted by one, which is
`elastic_lifecycle.py`'s to know; it never rolls over, for an event's index is that of its day.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import orjson
import polars as pl

from oddlog.connectors.documents import STORED_SCHEMA
from oddlog.events.schema import DEAD_SCHEMA

EVENTS, DEAD = "events", "dead"
DOCUMENTS = ("state", "locks", "runs")

_IGNORE_ABOVE = 8_191
"""Characters: at four bytes each just under Lucene's 32,766, past which a keyword fails its document."""

_KEYWORD = {"type": "keyword", "ignore_above": _IGNORE_ABOVE}
_KEPT = {"type": "keyword", "index": False, "doc_values": False}
"""In `_source` alone: of any length, neither searched nor aggregated."""

_BY_DTYPE: dict[pl.DataType, dict[str, Any]] = {
    pl.String(): _KEYWORD,
    pl.Boolean(): {"type": "boolean"},
    pl.Int32(): {"type": "integer"},
    pl.Int64(): {"type": "long"},
    pl.Float64(): {"type": "double"},
    pl.Datetime("ms", "UTC"): {"type": "date"},
    pl.Binary(): {"type": "binary"},
}

_BY_NAME: dict[str, dict[str, Any]] = {
    "source.ip": {"type": "ip", "ignore_malformed": True},
    "http.response.status_code": {"type": "long"},  # ECS says long
    "event.original": _KEPT,
    "anomaly.reasons": {
        "type": "object",
        "dynamic": False,
        "properties": {
            "feature": _KEYWORD,
            "value": {"type": "double"},
            "typical": {"type": "double"},
            "share": {"type": "double"},
            "text": _KEPT,
        },
    },
}


def templates(prefix: str, policy: str | None = None) -> dict[str, dict[str, Any]]:
    """Every composable index template, by its name; `_meta.digest` tells whether one in place is the same.

    `policy`: the lifecycle policy of event indices, whose age counts from the day in their name.

    >>> sorted(templates("oddlog"))
    ['oddlog-dead', 'oddlog-documents', 'oddlog-drift', 'oddlog-events', 'oddlog-incidents', 'oddlog-marks']
    """
    lifecycle = {"lifecycle": {"name": policy, "parse_origination_date": True}} if policy else {}
    return {
        f"{prefix}-{EVENTS}": _template([f"{prefix}-{EVENTS}-*"], _events(), {"refresh_interval": "5s", **lifecycle}),
        f"{prefix}-{DEAD}": _template([f"{prefix}-{DEAD}"], _dead()),
        f"{prefix}-drift": _template([f"{prefix}-drift"], _drift()),
        f"{prefix}-incidents": _template([f"{prefix}-incidents"], _incidents()),
        f"{prefix}-documents": _template(
            [f"{prefix}-{name}" for name in DOCUMENTS],
            {"dynamic": False, "properties": {"@timestamp": {"type": "date"}}},
        ),
        # After the one above, whose pattern it was before: two templates for one index are refused.
        f"{prefix}-marks": _template([f"{prefix}-marks"], _marks()),
    }


def _events() -> dict[str, Any]:
    fields: dict[str, dict[str, Any]] = {
        name: _field(name, dtype) for name, dtype in STORED_SCHEMA.items() if name != "_id"
    }
    properties = _nested(fields)
    properties["features"] = {"type": "object", "dynamic": True}
    return {
        "dynamic": False,
        "date_detection": False,
        # Features are aggregated and read back, never searched: doc values without an index.
        "dynamic_templates": [{"features": {"path_match": "features.*", "mapping": {"type": "float", "index": False}}}],
        "properties": properties,
    }


def _dead() -> dict[str, Any]:
    fields = {name: _field(name, dtype) for name, dtype in DEAD_SCHEMA.items() if name != "_id"}
    return {"dynamic": False, "properties": _nested({**fields, "reason": {"type": "text"}})}


def _drift() -> dict[str, Any]:
    """Every field by name, so that dashboards can rely on them: monitoring/documents.py writes them."""
    keyword, number, count = _KEYWORD, {"type": "double"}, {"type": "long"}
    date, flag = {"type": "date"}, {"type": "boolean"}
    fields: dict[str, dict[str, Any]] = {
        "@timestamp": date, "checked_at": date, "check": keyword, "id": keyword, "kind": keyword, "against": keyword,
        "drifted": flag, "verdict": keyword, "by": keyword, "method": keyword, "share": number, "max_share": number,
        "model.name": keyword, "model.version": keyword, "model.algorithm": keyword, "model.baseline": keyword,
        "batch.since": date, "batch.until": date, "batch.events": count, "batch.scored": count,
        "batch.compared": count, "batch.clients": count, "batch.worth": number,
        "reference.since": date, "reference.until": date, "reference.worth": number,
        "name": keyword, "group": keyword, "unit": keyword, "value": number, "expected": number, "effect": number,
        "limit": number, "missing": number, "note": _KEPT, "sentence": keyword, "cautions": _KEPT,
        "dead.kind": keyword, "dead.count": count, "report": _KEPT, "run_id": keyword,
    }  # fmt: skip
    return {"dynamic": False, "date_detection": False, "properties": _nested(fields)}


def _marks() -> dict[str, Any]:
    """Every field by name: oddlog/connectors/marks.py writes them."""
    dates = {name: {"type": "date"} for name in ("@timestamp", "at", "time", "since", "until")}
    texts = dict.fromkeys(("verdict", "by", "event", "client", "path", "path_prefix"), _KEYWORD)
    return {
        "dynamic": False,
        "date_detection": False,
        "properties": {**dates, **texts, "note": {"type": "text"}},
    }


def _incidents() -> dict[str, Any]:
    """Every field by name: monitoring/incidents_documents.py writes them. What only the loop reads is not mapped."""
    keyword, number, count, date = _KEYWORD, {"type": "double"}, {"type": "long"}, {"type": "date"}
    fields: dict[str, dict[str, Any]] = {
        "@timestamp": date, "id": keyword, "kind": keyword, "status": keyword, "title": keyword, "merged_into": keyword,
        "first_seen": date, "last_seen": date, "updated_at": date, "closed_at": date,
        "client": keyword, "clients": keyword, "client_count": count, "paths": keyword, "path_count": count,
        "alerts": count, "events": count, "severity": number, "rarity": keyword,
        "reasons.feature": keyword, "reasons.value": number, "reasons.typical": number, "reasons.share": number,
        "reasons.text": _KEPT,
        "example.id": keyword, "example.time": date, "example.client": keyword, "example.method": keyword,
        "example.url": keyword, "example.status": count,
    }  # fmt: skip
    kept = {name: {"type": "object", "enabled": False} for name in ("told", "hours")}
    return {"dynamic": False, "date_detection": False, "properties": {**_nested(fields), **kept}}


def _template(
    patterns: list[str], mappings: Mapping[str, Any], more: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    settings = {"number_of_shards": 1, "auto_expand_replicas": "0-1", **(more or {})}
    template = {
        "index_patterns": patterns,
        "priority": 200,
        "template": {"settings": {"index": settings}, "mappings": mappings},
    }
    digest = hashlib.sha256(orjson.dumps(template, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]
    return {**template, "_meta": {"written_by": "oddlog", "digest": digest}}


def _field(name: str, dtype: pl.DataType | type[pl.DataType]) -> dict[str, Any]:
    return _BY_NAME.get(name) or _BY_DTYPE[dtype() if isinstance(dtype, type) else dtype]


def _nested(fields: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Dotted names as the nested `properties` of a mapping."""
    properties: dict[str, Any] = {}
    for name, mapping in fields.items():
        *parents, leaf = name.split(".")
        level = properties
        for parent in parents:
            level = level.setdefault(parent, {"properties": {}})["properties"]
        level[leaf] = mapping
    return properties
