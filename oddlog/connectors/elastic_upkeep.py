"""What is done to whole indices of an Elasticsearch: deleting days, and telling whether templates and mappings are
as `setup` makes them. Reading and writing documents is `elastic.py`'s.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator, Mapping
from typing import Any

from oddlog.connectors.elastic_connection import ElasticConnection, ElasticError
from oddlog.connectors.elastic_template import DEAD, EVENTS

_SHOWN = 3  # fields of one index that a sentence names


def template_digest(connection: ElasticConnection, name: str) -> str | None:
    """The digest in the template of that name, "" in one that oddlog did not write; None where there is none."""
    try:
        found = connection.json("GET", f"/_index_template/{name}")
    except ElasticError as error:
        if error.status == 404:
            return None
        raise
    meta = found["index_templates"][0]["index_template"].get("_meta") or {}
    return str(meta.get("digest", ""))


def delete_before(
    connection: ElasticConnection, prefix: str, day: dt.date, *, dry_run: bool
) -> dict[dt.date, int | None]:
    """Delete, one by one and by name, the indices of days before `day`; how many events each had."""
    found: dict[dt.date, int | None] = {}
    for one, (index, is_open) in sorted(_days(connection, prefix).items()):
        if one >= day:
            continue
        found[one] = _count(connection, index) if is_open else None
        if not dry_run:
            try:
                connection.json("DELETE", f"/{index}")
            except ElasticError as error:
                if error.status != 404:  # somebody else was quicker
                    raise
    return found


def setup_problems(connection: ElasticConnection, prefix: str, expected: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Templates that are missing or not as `expected`, and fields of existing indices with another type."""
    problems = []
    for name, template in expected.items():
        digest = template_digest(connection, name)
        if digest is None:
            problems.append(f"there is no index template {name}")
        elif digest != template["_meta"]["digest"]:
            problems.append(f"the index template {name} is of another version of oddlog")
    for name in (f"{prefix}-{EVENTS}", f"{prefix}-{DEAD}"):
        (pattern,) = expected[name]["index_patterns"]
        types = dict(_types(expected[name]["template"]["mappings"]["properties"]))
        answer = connection.json("GET", f"/{pattern}/_mapping", params={"ignore_unavailable": "true"})
        for index, mapping in sorted(answer.items()):
            there = dict(_types(mapping["mappings"].get("properties", {})))
            wrong = [
                f"{field} as {there[field]} (expected {type})"
                for field, type in types.items()
                if field in there and there[field] != type
            ]
            if wrong:
                more = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
                problems.append(f"the index {index} has {', '.join(wrong[:_SHOWN])}{more}")
    return problems


def _days(connection: ElasticConnection, prefix: str) -> dict[dt.date, tuple[str, bool]]:
    """The index of every day, and whether it is open. What is called otherwise is not ours, and left alone."""
    name = re.compile(rf"{re.escape(prefix)}-{EVENTS}-(\d{{4}})\.(\d\d)\.(\d\d)")
    params = {"expand_wildcards": "open,closed"}
    days: dict[dt.date, tuple[str, bool]] = {}
    for found in connection.json("GET", f"/_resolve/index/{prefix}-{EVENTS}-*", params=params).get("indices", ()):
        if match := name.fullmatch(found["name"]):
            try:
                day = dt.date(*map(int, match.groups()))
            except ValueError:  # no day of any calendar
                continue
            days[day] = (found["name"], "closed" not in found["attributes"])
    return days


def _count(connection: ElasticConnection, index: str) -> int | None:
    try:
        body = {"size": 0, "track_total_hits": True}
        return int(connection.json("POST", f"/{index}/_search", body)["hits"]["total"]["value"])
    except ElasticError as error:
        if error.status == 404:
            return None
        raise


def _types(properties: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every leaf field and its type."""
    for name, mapping in properties.items():
        if "properties" in mapping:
            yield from _types(mapping["properties"], f"{prefix}{name}.")
        elif "type" in mapping and mapping["type"] != "object":
            yield prefix + name, str(mapping["type"])
