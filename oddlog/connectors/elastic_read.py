"""Reading events and dead letters out of Elasticsearch: a point in time, pages in an order. `elastic_hits.py` decodes.

A position-ordered read goes partition by partition, by ranges of offsets: those do not wait for each other as pages
after one another do, so that some are searched for and decoded while the caller has the ones before.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Literal

import orjson
import polars as pl
import tenacity

from oddlog.connectors.documents import features_of, time_of
from oddlog.connectors.elastic_columns import NotByColumn, by_column, read_columns, times_of
from oddlog.connectors.elastic_connection import ElasticConnection
from oddlog.connectors.elastic_hits import Page, read_page
from oddlog.connectors.elastic_query import query_dsl
from oddlog.connectors.store import EventQuery
from oddlog.errors import StoreError, StoreUnavailable
from oddlog.events.schema import POSITION_ORDER

_KEEP_ALIVE = "5m"  # from one page to the next, whatever the reader does between them
_FIRST_ROWS = 1_000  # until a page has shown how long documents are
_MOST_ROWS = 10_000  # index.max_result_window
_PAGE_BYTES = 16_000_000
_AHEAD = 3
"""Pages that are searched for at a time, where they need not follow each other: as many are in memory."""
_WHOLE_FROM = 8
"""Fields from which on whole documents are asked for."""
_PIT_ID = re.compile(rb'\{"pit_id":"([^"]+)"')  # may be another one after every search; an answer begins with it

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
        answer = self._connection.request(
            "POST",
            "/_search",
            orjson.dumps({**body, "pit": {"id": self._id, "keep_alive": _KEEP_ALIVE}}),
            params={"allow_partial_search_results": "false"},
        )
        if found := _PIT_ID.match(answer):
            self._id = found[1].decode()
        return answer

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
        known: Mapping[str, Any] | None = None,
    ) -> Iterator[pl.DataFrame]:
        """Frames of the columns of `schema`, at most `batch_rows` long, in the order of `sort`.

        `first_rows`: length of the first page, from which the next ones' follows by their bytes. `known`: columns are
        read from doc values; these of them need not, for they are the same in all that fits."""
        most = min(batch_rows, _MOST_ROWS)
        rows = min(most, first_rows or _FIRST_ROWS)
        wanted = _Wanted(query, sort, schema, with_version, known)
        if limit is None and sort == BY_OFFSET:
            yield from self._ranges(wanted, rows, most)
        else:
            yield from self._following(wanted, rows, most, limit)

    def _following(
        self, wanted: _Wanted, rows: int, most: int, limit: int | None = None, after: Sequence[Any] | None = None
    ) -> Iterator[pl.DataFrame]:
        """Pages one after another, from `rows` long to `most`."""
        left = limit
        while left is None or left > 0:
            size = rows if left is None else min(rows, left)
            page, length = self._page(wanted, size, after)
            if page is None:
                return
            yield page.frame
            left = None if left is None else left - page.frame.height
            if page.frame.height < size:
                return
            after, rows = page.last, _rows_of(length, page, most)

    def _ranges(self, wanted: _Wanted, rows: int, most: int) -> Iterator[pl.DataFrame]:
        """Pages of ranges of offsets, in order, some of them searched for ahead."""
        low, high, count = self._offsets(wanted.query)
        if not count:
            return
        start: int | None = low
        known = False
        pool = ThreadPoolExecutor(_AHEAD, thread_name_prefix="elastic-read")
        due: deque[tuple[_Wanted, int, Future[tuple[Page | None, int]]]] = deque()
        try:
            while start is not None or due:
                while start is not None and len(due) < (_AHEAD if known else 1):
                    # Somewhat fewer rows than fit: offsets are not spread evenly. What does not fit follows.
                    stop: int | None = start + max(1, int(0.9 * rows * (high - low + 1) / count))
                    if stop is not None and stop > high:
                        stop = None
                    part = wanted.between(None if start == low else start, stop)
                    due.append((part, rows, pool.submit(self._page, part, rows, None)))
                    start = stop
                part, size, future = due.popleft()
                page, length = future.result()
                known = True
                if page is None:
                    continue
                rows = _rows_of(length, page, most)
                yield page.frame
                if page.frame.height == size:
                    yield from self._following(part, rows, most, after=page.last)
        finally:
            pool.shutdown(cancel_futures=True)

    def _offsets(self, query: Mapping[str, Any]) -> tuple[int, int, int]:
        """First and last offset of what fits, and how much does."""
        ends = {end: {end: {"field": POSITION_ORDER[3]}} for end in ("min", "max", "value_count")}
        found = orjson.loads(self.search({"size": 0, "query": query, "aggs": ends, "track_total_hits": False}))
        values = {end: answer["value"] for end, answer in found.get("aggregations", {}).items()}
        if not values.get("value_count"):
            return 0, 0, 0
        return int(values["min"]), int(values["max"]), int(values["value_count"])

    def _page(self, wanted: _Wanted, size: int, after: Sequence[Any] | None) -> tuple[Page | None, int]:
        """The hits of one search, None where there is none; and the bytes of its answer."""
        fields = [name for name in wanted.schema if name != "_id"]
        body: dict[str, Any] = {"size": size, "query": wanted.query, "sort": wanted.sort, "track_total_hits": False}
        if after is not None:
            body["search_after"] = after
        if wanted.known is not None:
            # Known are all but what pages are sorted by, which every hit tells without being asked.
            asked = [name for name in fields if name not in wanted.known and name != POSITION_ORDER[3]]
            answer = self.search({**body, **by_column(wanted.query, asked, times_of(wanted.schema))})
            with contextlib.suppress(NotByColumn):
                return read_columns(answer, wanted.schema, wanted.known, POSITION_ORDER[3]), len(answer)
        # Picking fields out of a document costs Elasticsearch more than to send all of it.
        body["_source"] = True if len(fields) >= _WHOLE_FROM else fields or False
        answer = self.search({**body, "seq_no_primary_term": wanted.with_version})
        return read_page(answer, wanted.schema, with_version=wanted.with_version), len(answer)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What every page of a read has in common."""

    query: Mapping[str, Any]
    sort: Sort
    schema: Mapping[str, pl.DataType]
    with_version: bool
    known: Mapping[str, Any] | None
    """None: documents are read; else doc values, of all columns but these."""

    def between(self, start: int | None, stop: int | None) -> _Wanted:
        """The same for offsets from `start` to before `stop`."""
        bounds = {name: bound for name, bound in (("gte", start), ("lt", stop)) if bound is not None}
        if not bounds:
            return self
        inside = {"range": {POSITION_ORDER[3]: bounds}}
        return replace(self, query={"bool": {"filter": [self.query, inside]}})


def _rows_of(length: int, page: Page, most: int) -> int:
    """How many rows fit into a page, by the bytes of one before."""
    return max(1, min(most, int(_PAGE_BYTES * page.frame.height / max(length, 1))))


def events_in_order(
    moment: PointInTime, query: EventQuery, order: Literal["any", "position", "time"]
) -> Iterator[tuple[dict[str, Any], Sort, dict[str, Any]]]:
    """The searches, one after another, that give the events of a query in an order, and what is equal in all hits."""
    if order == "any":
        yield query_dsl(query), [_UNSORTED], {}
    elif order == "time":
        yield query_dsl(query), BY_TIME, {}
    else:
        for position in moment.partitions(query):
            only = dict(zip(POSITION_ORDER[:3], position, strict=True))
            yield query_dsl(query, only), BY_OFFSET, only


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
BY_OFFSET: Sort = [_by(POSITION_ORDER[3]), _UNSORTED]
"""Within a partition."""
NEWEST_FIRST: Sort = [*(_by(name, "desc") for name in ("@timestamp", *POSITION_ORDER)), _UNSORTED]
