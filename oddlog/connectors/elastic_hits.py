"""Hits of an answer of Elasticsearch as a frame. Asking for them is in `elastic_read.py`.

Nearly every document is one that oddlog wrote: those are decoded straight into typed columns. An answer with any other
goes the general way, which gives the same for ours and takes what fits its column of the rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import attrgetter
from typing import Any

import msgspec
import orjson
import polars as pl

from oddlog.connectors.documents import VERSION, flattened, nested_schema
from oddlog.connectors.elastic_bulk import version_text

_KINDS: dict[pl.DataType, type] = {
    pl.String(): str,
    pl.Int32(): int,
    pl.Int64(): int,
    pl.Float32(): float,
    pl.Float64(): float,
    pl.Boolean(): bool,
}
"""Python's type of a value, by the column's type as JSON has it (`_as_json`)."""

_BESIDE: dict[str, pl.DataType] = {"_index": pl.String(), "_seq_no": pl.Int64(), "_primary_term": pl.Int64()}


@dataclass(frozen=True, slots=True)
class Page:
    """The hits of one answer."""

    frame: pl.DataFrame
    """The columns of the schema, and `_version` where it was asked for."""
    last: Sequence[Any]
    """Sort values of the last hit: what `search_after` takes."""


def read_page(answer: bytes, schema: Mapping[str, pl.DataType], *, with_version: bool) -> Page | None:
    """The hits of an answer in columns of `schema`; None where there is none."""
    found = _typed(answer, schema, with_version=with_version)
    if found is None:
        found = _general(answer, schema, with_version=with_version)
    flat, last = found
    if flat.is_empty():
        return None
    return Page(flat.select(_columns(schema, with_version=with_version)), orjson.loads(last))


def _typed(
    answer: bytes, schema: Mapping[str, pl.DataType], *, with_version: bool
) -> tuple[pl.DataFrame, bytes] | None:
    """Flat columns as JSON has them, and the last hit's sort values; None where a document has other types."""
    flat = {name: _as_json(dtype) for name, dtype in schema.items()}
    if any(dtype not in _KINDS for dtype in flat.values()):
        return None
    decoder, paths = _decoder(tuple(flat.items()), with_version)
    try:
        hits = decoder.decode(answer).hits.hits
        columns = {
            name: pl.Series(name, list(map(attrgetter(path), hits)), dtype=flat.get(name) or _BESIDE[name])
            for name, path in paths.items()
        }
    except (msgspec.MsgspecError, UnicodeError, OverflowError, TypeError, pl.exceptions.PolarsError):
        return None
    return pl.DataFrame(columns), bytes(hits[-1].sort) if hits else b"[]"


@lru_cache(maxsize=64)
def _decoder(
    flat: tuple[tuple[str, pl.DataType], ...], with_version: bool
) -> tuple[msgspec.json.Decoder[Any], dict[str, str]]:
    """A decoder of answers, and where each column's values are in a hit."""
    paths: dict[str, str] = {}
    fields: list[tuple[str, Any, Any]] = [("sort", msgspec.Raw, msgspec.Raw(b"[]"))]
    beside = [name for name, _ in flat if name == "_id"] + list(_BESIDE) * with_version
    for name in beside:
        kind = str if name == "_id" else _KINDS[_BESIDE[name]]
        fields.append((paths.setdefault(name, f"own{name}"), kind, msgspec.field(name=name)))
    source = nested_schema({name: dtype for name, dtype in flat if name != "_id"})
    if source.fields:
        level = _level(source, dict(flat), "source", "", paths)
        fields.append(("source", level, msgspec.field(default=level(), name="_source")))
    hit = msgspec.defstruct("Hit", fields, gc=False, frozen=True, kw_only=True)
    hits = msgspec.defstruct("Hits", [("hits", list[hit])], gc=False)  # type: ignore[valid-type]
    return msgspec.json.Decoder(msgspec.defstruct("Answer", [("hits", hits)], gc=False)), paths


def _level(
    struct: pl.Struct, flat: Mapping[str, pl.DataType], path: str, prefix: str, paths: dict[str, str]
) -> type[msgspec.Struct]:
    """A type for an object with these fields, any of which may be missing; adds where each leaf is to `paths`."""
    fields: list[tuple[str, Any, Any]] = []
    for number, field in enumerate(struct.fields):
        own = f"f{number}"  # a field's name may be none in Python
        if isinstance(field.dtype, pl.Struct):
            below = _level(field.dtype, flat, f"{path}.{own}", f"{prefix}{field.name}.", paths)
            fields.append((own, below, msgspec.field(default=below(), name=field.name)))
        else:
            paths[prefix + field.name] = f"{path}.{own}"
            kind: Any = _KINDS[flat[prefix + field.name]]
            fields.append((own, kind | None, msgspec.field(default=None, name=field.name)))
    return msgspec.defstruct("Level", fields, gc=False, frozen=True, kw_only=True)


class _Sorted(msgspec.Struct, gc=False):
    sort: msgspec.Raw


class _SortedHits(msgspec.Struct, gc=False):
    hits: list[_Sorted]


class _SortedAnswer(msgspec.Struct, gc=False):
    hits: _SortedHits


_sorted = msgspec.json.Decoder(_SortedAnswer)


def _general(answer: bytes, schema: Mapping[str, pl.DataType], *, with_version: bool) -> tuple[pl.DataFrame, bytes]:
    """The same for columns of any type, and whatever the documents hold."""
    source = nested_schema({name: _as_json(dtype) for name, dtype in schema.items() if name != "_id"})
    hit = pl.Struct({"_id": pl.String(), **_BESIDE, **({"_source": source} if source.fields else {})})
    try:
        whole = (
            pl.Series([answer], dtype=pl.Binary)
            .cast(pl.String)
            .str.json_decode(pl.Struct({"hits": pl.Struct({"hits": pl.List(hit)})}))
        )
        hits = whole.struct.field("hits").struct.field("hits").explode(empty_as_null=False).struct.unnest()
    except pl.exceptions.ComputeError:
        # A document that another hand wrote: a number where text is meant, a list for one value. Row by row,
        # what does not fit its column becomes null there.
        hits = pl.DataFrame(orjson.loads(answer)["hits"]["hits"], schema=hit.to_schema(), strict=False)
    columns = [pl.col("_id") if name == "_id" else flattened(pl.col("_source"), name) for name in schema]
    beside = [pl.col(name) for name in _BESIDE] if with_version else []
    last = _sorted.decode(answer).hits.hits
    return hits.select(*columns, *beside), bytes(last[-1].sort) if last else b"[]"


def _columns(schema: Mapping[str, pl.DataType], *, with_version: bool) -> list[pl.Expr]:
    columns = []
    for name, dtype in schema.items():
        column = pl.col(name)
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


def _as_json(dtype: pl.DataType) -> pl.DataType:
    return pl.String() if isinstance(dtype, pl.Datetime | pl.Binary) else dtype
