"""Small documents by id, locks with an expiry, and versions of documents by id, in Elasticsearch. Events are
`elastic.py`'s."""

from __future__ import annotations

import contextlib
import datetime as dt
import time
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

import orjson
import polars as pl

from oddlog.connectors.documents import VERSION, epoch_ms
from oddlog.connectors.elastic_bulk import version_text
from oddlog.connectors.elastic_connection import ElasticConnection, ElasticError
from oddlog.connectors.elastic_read import PointInTime

_GETS = 1_000
_GOT = {"_index": pl.String, "_id": pl.String, "_seq_no": pl.Int64, "_primary_term": pl.Int64}
_PAGE = 500  # documents of a collection are small, but a chunk of a snapshot may have a megabyte


def put(connection: ElasticConnection, index: str, id: str, document: Mapping[str, Any]) -> None:
    """Write a document, replacing one of the same id."""
    body = {key: value for key, value in document.items() if key != "_id"}
    connection.json("PUT", _path(index, id), body)


def get(connection: ElasticConnection, index: str, id: str) -> dict[str, Any] | None:
    """A document, or None; what was written last, refreshed or not."""
    found = _get(connection, index, id)
    return dict(found["_source"]) if found else None


def every(connection: ElasticConnection, index: str, since: dt.datetime | None = None) -> list[dict[str, Any]]:
    """Every document (of `since` or later), each with its `_id`, sorted by it; what was written last included."""
    times = {"gte": epoch_ms(since), "format": "epoch_millis"} if since is not None else None
    query = {"query": {"range": {"@timestamp": times}}} if times else {}
    with _tolerating(404):
        connection.json("POST", f"/{index}/_refresh")
    documents: list[dict[str, Any]] = []
    with PointInTime(connection, index) as moment:
        after: list[Any] | None = None
        while True:
            body: dict[str, Any] = {"size": _PAGE, "sort": ["_shard_doc"], "track_total_hits": False, **query}
            hits = orjson.loads(moment.search(body | ({"search_after": after} if after else {})))["hits"]["hits"]
            documents.extend({**hit["_source"], "_id": hit["_id"]} for hit in hits)
            if len(hits) < _PAGE:
                return sorted(documents, key=lambda document: document["_id"])
            after = hits[-1]["sort"]


def delete(connection: ElasticConnection, index: str, id: str) -> None:
    """Remove a document; harmless when it is not there."""
    with _tolerating(404):
        connection.json("DELETE", _path(index, id))


def with_versions(connection: ElasticConnection, keys: pl.DataFrame) -> pl.DataFrame:
    """The rows of `keys` (`_index`, `_id`, ...) whose document exists, without `_index`, with its version now.

    A get by id sees what was written last, refreshed or not; a search would be seconds behind."""
    found = [_versions(connection, part) for part in keys.iter_slices(_GETS)]
    known = pl.concat(found) if found else pl.DataFrame(schema=_GOT)
    keys = keys.join(known, on=["_index", "_id"], how="inner", maintain_order="left")
    version = version_text(pl.col("_index"), pl.col("_seq_no"), pl.col("_primary_term"))
    return keys.with_columns(version.alias(VERSION)).drop("_index", "_seq_no", "_primary_term")


def acquire(connection: ElasticConnection, index: str, name: str, holder: str, ttl_seconds: float) -> str | None:
    """Take a lock, or prolong one's own; None when taken, else the name of who holds it.

    Creation decides between two that come first; `if_seq_no` between two that take over an expired one. Expiry
    compares the clocks of the hosts that contend: let it be long against what they differ."""
    while True:
        now = time.time()
        lock = {"holder": holder, "expires_ms": int((now + ttl_seconds) * 1000)}
        with _tolerating(409):
            connection.json("PUT", _path(index, name), lock, params={"op_type": "create"})
            return None
        held = _get(connection, index, name)
        if held is None:  # given back between the two requests
            continue
        if held["_source"]["holder"] != holder and held["_source"]["expires_ms"] > now * 1000:
            return str(held["_source"]["holder"])
        with _tolerating(409):
            connection.json("PUT", _path(index, name), lock, params=_guard(held))
            return None


def release(connection: ElasticConnection, index: str, name: str, holder: str) -> None:
    """Give a lock back; harmless when it is no longer ours."""
    held = _get(connection, index, name)
    if held and held["_source"]["holder"] == holder:
        with _tolerating(404, 409):
            connection.json("DELETE", _path(index, name), params=_guard(held))


def _versions(connection: ElasticConnection, keys: pl.DataFrame) -> pl.DataFrame:
    body = {"docs": [{"_index": index, "_id": id} for index, id in keys.select("_index", "_id").iter_rows()]}
    params = {"_source": "false", "filter_path": ",".join(f"docs.{name}" for name in [*_GOT, "found"])}
    docs = connection.json("POST", "/_mget", body, params=params).get("docs", [])
    return pl.DataFrame([doc for doc in docs if doc.get("found")], schema=_GOT)


def _get(connection: ElasticConnection, index: str, id: str) -> dict[str, Any] | None:
    with _tolerating(404):
        return connection.json("GET", _path(index, id))
    return None


def _guard(found: Mapping[str, Any]) -> dict[str, Any]:
    """The write happens only if the document is still as it was found."""
    return {"if_seq_no": found["_seq_no"], "if_primary_term": found["_primary_term"]}


def _path(index: str, id: str) -> str:
    return f"/{index}/_doc/{quote(id, safe='')}"


@contextlib.contextmanager
def _tolerating(*statuses: int) -> Iterator[None]:
    try:
        yield
    except ElasticError as error:
        if error.status not in statuses:
            raise
