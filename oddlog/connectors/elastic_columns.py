"""Events as columns, out of Elasticsearch's doc values: whether, what is asked, what comes. `elastic_read.py` asks.

A document is kept compressed with its neighbours, and has to be unpacked, cut to the fields that are wanted, and sent;
doc values lie by field. They hold what a mapping made of a document, which is the same for every one that oddlog wrote.
What they lack is told, so that those documents are read whole: text that is too long to be indexed (`_ignored`), and a
list for one value, which a document of another hand may have.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import polars as pl

from oddlog.connectors.documents import is_feature
from oddlog.connectors.elastic_connection import ElasticConnection
from oddlog.connectors.elastic_hits import Page

_KINDS: dict[type[pl.DataType], frozenset[str]] = {
    pl.String: frozenset({"keyword"}),
    pl.Int32: frozenset({"long", "integer"}),
    pl.Int64: frozenset({"long", "integer"}),
    pl.Float32: frozenset({"float", "double"}),
    pl.Float64: frozenset({"double"}),
    pl.Boolean: frozenset({"boolean"}),
    pl.Datetime: frozenset({"date"}),
}
"""Elasticsearch's types whose doc values give a column back as it was written."""

_UNMAPPED = "unmapped"
_NAME = "kept in documents alone"
_TOLD = b'"matched_queries":['
"""Within a text its quotes would have a backslash before them."""


class NotByColumn(Exception):
    """A hit has more than doc values tell."""


def have_doc_values(connection: ElasticConnection, index: str, schema: Mapping[str, pl.DataType]) -> bool:
    """Whether all of some indices keep all columns of `schema` as doc values of the right type."""
    if "_id" in schema or any(type(dtype) not in _KINDS for dtype in schema.values()):
        return False
    params = {
        "fields": ",".join(schema),
        "include_unmapped": "true",
        "ignore_unavailable": "true",
        "filter_path": "fields.*.*.aggregatable",
    }
    found = connection.json("GET", f"/{index}/_field_caps", params=params).get("fields", {})
    return all(_has_doc_values(name, dtype, found.get(name, {})) for name, dtype in schema.items())


def _has_doc_values(name: str, dtype: pl.DataType, kinds: Mapping[str, Mapping[str, Any]]) -> bool:
    # Any feature gets a field, so that where there is none, no document has it; other fields are made by no document.
    there = [kind for kind in kinds if not (kind == _UNMAPPED and is_feature(name))]
    fit = all(kind in _KINDS[type(dtype)] and kinds[kind].get("aggregatable") for kind in there)
    return fit and (bool(there) or is_feature(name))


def by_column(query: Mapping[str, Any], columns: Iterable[str], times: Iterable[str]) -> dict[str, Any]:
    """The parts of a search that ask for the doc values of some fields; `times` among them as milliseconds."""
    names, dated = list(columns), set(times)
    unread = {"terms": {"_ignored": names, "_name": _NAME}}
    return {
        "query": {"bool": {"filter": [query], "should": [unread]}},
        "_source": False,
        "stored_fields": "_none_",
        "docvalue_fields": [{"field": name, "format": "epoch_millis"} if name in dated else name for name in names],
    }


def times_of(schema: Mapping[str, pl.DataType]) -> list[str]:
    """The columns that are dates."""
    return [name for name, dtype in schema.items() if isinstance(dtype, pl.Datetime)]


def read_columns(
    answer: bytes, schema: Mapping[str, pl.DataType], known: Mapping[str, Any], sorted_by: str
) -> Page | None:
    """The hits of an answer, sorted by integers, in columns of `schema`; None where there is none.

    `known` columns were not asked for, but are the same in every hit; nor was `sorted_by`, which is the first of what a
    hit was sorted by. Raises NotByColumn."""
    if _TOLD in answer:
        raise NotByColumn
    asked = {
        name: pl.List(_as_json(dtype)) for name, dtype in schema.items() if name not in known and name != sorted_by
    }
    hit = pl.Struct({"sort": pl.List(pl.Int64), **({"fields": pl.Struct(asked)} if asked else {})})
    try:
        whole = (
            pl.Series([answer], dtype=pl.Binary)
            .cast(pl.String)
            .str.json_decode(pl.Struct({"hits": pl.Struct({"hits": pl.List(hit)})}))
        )
    except pl.exceptions.ComputeError:  # a number that its column cannot hold
        raise NotByColumn from None
    hits = whole.struct.field("hits").struct.field("hits").explode(empty_as_null=False)
    if hits.is_empty():
        return None
    order = hits.struct.field("sort")
    frame = pl.DataFrame({sorted_by: order.list.first()})
    if asked:
        lists = hits.struct.field("fields").struct.unnest()
        if any(lists.select((pl.all().list.len() > 1).any()).row(0)):
            raise NotByColumn
        frame = frame.hstack(lists.select(_value(name, schema[name]) for name in asked))
    frame = frame.with_columns(pl.lit(value).alias(name) for name, value in known.items())
    return Page(frame.select(pl.col(name).cast(dtype) for name, dtype in schema.items()), order[-1].to_list())


def _value(name: str, dtype: pl.DataType) -> pl.Expr:
    value = pl.col(name).list.first()
    return value.cast(pl.Int64).cast(dtype) if isinstance(dtype, pl.Datetime) else value


def _as_json(dtype: pl.DataType) -> pl.DataType:
    return pl.String() if isinstance(dtype, pl.Datetime) else dtype
