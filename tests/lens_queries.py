"""What Kibana asks Elasticsearch for a Lens panel, as far as oddlog's dashboard needs it."""

from __future__ import annotations

import re
from typing import Any

Json = dict[str, Any]


def search_of(attributes: Json) -> Json:
    """The body of the search for a Lens panel of one layer: buckets inside of buckets, metrics innermost."""
    ((_, layer),) = attributes["state"]["datasourceStates"]["formBased"]["layers"].items()
    columns: dict[str, Json] = layer["columns"]
    metrics = {
        name: asked for name in layer["columnOrder"] if (asked := _metric(columns[name])) is not None
    }  # a count needs no aggregation: every bucket has one
    inner: Json = metrics
    for name in reversed([name for name in layer["columnOrder"] if columns[name]["isBucketed"]]):
        bucket = _bucket(columns[name], columns, metrics)
        inner = {name: {**bucket, **({"aggs": inner} if inner else {})}}
    return {"size": 0, "query": query_of(attributes["state"]["query"]["query"]), "aggs": inner}


def query_of(kql: str) -> Json:
    """The query for KQL of conditions, `and` and `or`: the same in Lucene's syntax.

    >>> query_of('a.b >= 4 and c: "x"')
    {'query_string': {'query': 'a.b:>=4 AND c:"x"'}}
    """
    if not kql:
        return {"match_all": {}}
    text = re.sub(r"\s*(>=|<=|>|<)\s*", r":\1", kql)
    text = re.sub(r":\s+", ":", text)
    return {"query_string": {"query": re.sub(r"\b(and|or|not)\b", lambda found: found[0].upper(), text)}}


def _metric(column: Json) -> Json | None:
    if column["isBucketed"]:
        return None
    operations = {"unique_count": "cardinality", "max": "max", "average": "avg", "sum": "sum"}
    asked: Json | None = None
    if column["operationType"] != "count":
        asked = {operations[column["operationType"]]: {"field": column["sourceField"]}}
    if "filter" in column:
        inside = {"aggs": {"inside": asked}} if asked else {}
        return {"filter": query_of(column["filter"]["query"]), **inside}
    return asked


def _bucket(column: Json, columns: dict[str, Json], metrics: Json) -> Json:
    match column["operationType"]:
        case "date_histogram":
            # Kibana chooses a width for `auto` itself, by the period looked at.
            interval = column["params"]["interval"]
            return {
                "date_histogram": {
                    "field": column["sourceField"],
                    "fixed_interval": "1h" if interval == "auto" else interval,
                    "min_doc_count": 1,
                }
            }
        case "filters":
            cases = column["params"]["filters"]
            return {"filters": {"filters": {case["label"]: query_of(case["input"]["query"]) for case in cases}}}
        case "terms":
            by = column["params"]["orderBy"]["columnId"]
            order = by if by in metrics and "filter" not in columns[by] else "_count"
            return {
                "terms": {
                    "field": column["sourceField"],
                    "size": column["params"]["size"],
                    "order": {order: column["params"]["orderDirection"]},
                }
            }
    raise ValueError(f"no query is known for {column['operationType']}")
