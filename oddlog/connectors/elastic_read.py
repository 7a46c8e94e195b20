"""Reading events and dead letters out of Elasticsearch: a point in time, pages after one another, hits to frames.

Pages of a position-ordered read run partition by partition: with one numeric sort field Elasticsearch skips what
stands before a page, with four it would sort all documents anew for each.
"""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import orjson
import polars as pl
import tenacity

from oddlog.connectors.documents import VERSION, features_of, flattened, nested_schema, time_of
from oddlog.connectors.elastic_bulk import version_text
from oddlog.connectors.elastic_connection import ElasticConnection
from oddlog.connectors.elastic_query import query_dsl
from oddlog.connectors.store import EventQuery
from oddlog.errors import StoreError, StoreUnavailable
from oddlog.events.schema import POSITION_ORDER

_KEEP_ALIVE = "5m"  # from one page to the next, whatever the reader does between them
_FIRST_ROWS = 1_000  # until a page has shown how long documents are
_MOST_ROWS = 10_000  # index.max_result_window
_PAGE_BYTES = 32_000_000

Sort = list[dict[str, Any]]


class PointInTime:
    """One consistent state of some indices; a context manager, since Elasticsearch keeps it until it is closed."""

    def __init__(self, connection: ElasticConnection, index: str) -> None:
        self._connection = connection
        self._index = index
        self._id = ""

    def __enter__(self) -> PointInTime:
        # Only what was never made is ignored; an index that cannot be read now fails the opening.
        params = {"keep_alive": _KEEP_ALIVE, "ignore_unavailable": "true"}
        self._id = self._connection.json("POST", f"/{self._index}/_pit", params=params)["id"]
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(StoreError):  # it ends by itself; an error here must not hide the reader's
            self._connection.json("DELETE", "/_pit", {"id": self._id})

    @tenacity.retry(
        retry=tenacity.retry_if_exception_type(StoreUnavailable),
        stop=tenacity.stop_after_attempt(4),
        wait=tenacity.wait_random_exponential(multiplier=0.2, max=5),
        reraise=True,
    )
    def search(self, body: Mapping[str, Any]) -> bytes:
        """The answer to one search, of all shards or of none.

        Sent again a few times while Elasticsearch is busy: a long read should not end by one full queue."""
        return self._connection.request(
            "POST",
            "/_search",
            orjson.dumps({**body, "pit": {"id": self._id, "keep_alive": _KEEP_ALIVE}}),
            params={"allow_partial_search_results": "false"},
        )

    def partitions(self, query: EventQuery) -> list[tuple[str, str, int]]:
        """The distinct (epoch, topic, partition) of events that fit, sorted."""
        names = POSITION_ORDER[:3]
        composite: dict[str, Any] = {
            "size": 1_000,
            "sources": [{name: {"terms": {"field": name}}} for name in names],
        }
        found: list[tuple[str, str, int]] = []
        while True:
            body = {"size": 0, "query": query_dsl(query), "aggs": {"all": {"composite": composite}}}
            answer = orjson.loads(self.search({**body, "track_total_hits": False}))
            page = answer.get("aggregations", {}).get("all", {})  # no aggregations where there is no index
            for bucket in page.get("buckets", ()):
                epoch, topic, partition = (bucket["key"][name] for name in names)
                found.append((epoch, topic, int(partition)))
            if "after_key" not in page:
                return sorted(found)
            composite["after"] = page["after_key"]

    def time_range(self, query: EventQuery) -> tuple[dt.datetime, dt.datetime] | None:
        """First and last `@timestamp` of events that fit; None where none does."""
        ends = {end: {end: {"field": "@timestamp"}} for end in ("min", "max")}
        body = {"size": 0, "query": query_dsl(query), "aggs": ends, "track_total_hits": False}
        found = orjson.loads(self.search(body)).get("aggregations", {})  # none where there is no index
        first, last = (found.get(end, {}).get("value") for end in ends)
        return None if first is None else (time_of(int(first)), time_of(int(last)))

    def pages(
        self,
        query: Mapping[str, Any],
        sort: Sort,
        schema: Mapping[str, pl.DataType],
        batch_rows: int,
        *,
        with_version: bool = False,
        limit: int | None = None,
        first_rows: int | None = None,
    ) -> Iterator[pl.DataFrame]:
        """Frames of the columns of `schema`, at most `batch_rows` long, in the order of `sort`.

        `first_rows`: length of the first page, from which the next ones' follows by their bytes."""
        fields = [name for name in schema if name != "_id"]
        most = min(batch_rows, _MOST_ROWS)
        rows, left = min(most, first_rows or _FIRST_ROWS), limit
        after: list[Any] | None = None
        while left is None or left > 0:
            size = rows if left is None else min(rows, left)
            body: dict[str, Any] = {
                "size": size,
                "query": query,
                "sort": sort,
                "_source": fields or False,
                "track_total_hits": False,
                "seq_no_primary_term": with_version,
            }
            if after is not None:
                body["search_after"] = after
            hits = _hits(self.search(body), schema)
            if hits.is_empty():
                return
            frame = hits.select(_columns(schema, with_version=with_version))
            yield frame
            left = None if left is None else left - frame.height
            if frame.height < size:
                return
            after = _after(hits["sort"][-1], sort)
            rows = max(1, min(most, int(_PAGE_BYTES * frame.height / max(frame.estimated_size(), 1))))


def events_in_order(
    moment: PointInTime, query: EventQuery, order: Literal["any", "position", "time"]
) -> Iterator[tuple[dict[str, Any], Sort]]:
    """The searches, one after another, that give the events of a query in an order."""
    if order == "any":
        yield query_dsl(query), [_UNSORTED]
    elif order == "time":
        yield query_dsl(query), BY_TIME
    else:
        for position in moment.partitions(query):
            only = dict(zip(POSITION_ORDER[:3], position, strict=True))
            yield query_dsl(query, only), [_by(POSITION_ORDER[3]), _UNSORTED]


def stored_features(connection: ElasticConnection, index: str) -> list[str]:
    """The feature columns that documents of some indices have, sorted by name."""
    wanted = {"fields": "features.*", "filter_path": "fields.*.*.type", "ignore_unavailable": "true"}
    return sorted(features_of(connection.json("GET", f"/{index}/_field_caps", params=wanted).get("fields", ())))


def _by(name: str, order: str = "asc") -> dict[str, Any]:
    return {name: {"order": order, "unmapped_type": _SORT_TYPES[name]}}


_SORT_TYPES = {
    "@timestamp": "date",
    **dict.fromkeys(POSITION_ORDER[:2], "keyword"),
    **dict.fromkeys(POSITION_ORDER[2:], "long"),
}
_UNSORTED: dict[str, Any] = {"_shard_doc": {"order": "asc"}}
BY_TIME: Sort = [*(_by(name) for name in ("@timestamp", *POSITION_ORDER)), _UNSORTED]
NEWEST_FIRST: Sort = [*(_by(name, "desc") for name in ("@timestamp", *POSITION_ORDER)), _UNSORTED]


def _hits(answer: bytes, schema: Mapping[str, pl.DataType]) -> pl.DataFrame:
    """The hits of an answer; `_source` with the types of `schema`, times and bytes still as text."""
    source = nested_schema({name: _as_json(dtype) for name, dtype in schema.items() if name != "_id"})
    hit = pl.Struct(
        {
            "_index": pl.String(),
            "_id": pl.String(),
            "_seq_no": pl.Int64(),
            "_primary_term": pl.Int64(),
            "sort": pl.List(pl.String()),  # of several types; text stands for each
            **({"_source": source} if source.fields else {}),
        }
    )
    try:
        whole = (
            pl.Series([answer], dtype=pl.Binary)
            .cast(pl.String)
            .str.json_decode(pl.Struct({"hits": pl.Struct({"hits": pl.List(hit)})}))
        )
        return whole.struct.field("hits").struct.field("hits").explode(empty_as_null=False).struct.unnest()
    except pl.exceptions.ComputeError:
        # A document that another hand wrote: a number where text is meant, a list for one value. Row by row,
        # what does not fit its column becomes null there.
        hits = orjson.loads(answer)["hits"]["hits"]
        for found in hits:
            found["sort"] = [None if value is None else str(value) for value in found["sort"]]
        return pl.DataFrame(hits, schema=hit.to_schema(), strict=False)


def _columns(schema: Mapping[str, pl.DataType], *, with_version: bool) -> list[pl.Expr]:
    columns = []
    for name, dtype in schema.items():
        column = pl.col("_id") if name == "_id" else flattened(pl.col("_source"), name)
        if isinstance(dtype, pl.Datetime):
            # Ours are ISO; a number is milliseconds, as everywhere in Elasticsearch.
            iso = column.str.to_datetime("%+", time_unit="ms", time_zone="UTC", strict=False)
            column = pl.coalesce(iso, column.cast(pl.Int64, strict=False).cast(dtype))
        elif isinstance(dtype, pl.Binary):
            column = column.str.decode("base64")
        columns.append(column.alias(name))
    if with_version:
        columns.append(version_text(pl.col("_index"), pl.col("_seq_no"), pl.col("_primary_term")).alias(VERSION))
    return columns


def _after(last: pl.Series, sort: Sort) -> list[Any]:
    """The sort values of the last hit, in their own types again."""
    names = [name for field in sort for name in field]
    return [
        value if value is None or _SORT_TYPES.get(name) == "keyword" else int(value)
        for name, value in zip(names, last, strict=True)
    ]


def _as_json(dtype: pl.DataType) -> pl.DataType:
    return pl.String() if isinstance(dtype, pl.Datetime | pl.Binary) else dtype
