"""Flat event frames and the documents that stores keep: columns chosen, checked, nested and flattened.

Knows no store: what Elasticsearch or SQLite need beyond that is in their own files.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence

import polars as pl

from oddlog.events.schema import ANOMALY_SCHEMA, BESIDE_SCHEMA, DEAD_SCHEMA, EVENT_SCHEMA, FEATURE_PREFIX

DTypes = Mapping[str, pl.DataType | type[pl.DataType]]

STORED_SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {**EVENT_SCHEMA, **ANOMALY_SCHEMA, **BESIDE_SCHEMA}
"""Every column that a stored event can have but the features."""

VERSION = "_version"
"""Opaque text: which state of the document was read. Only the store that wrote it can read it."""

ALL_FEATURES = f"{FEATURE_PREFIX}*"
"""Entry of `columns` that stands for every feature the store holds."""

MAX_ID_BYTES = 512
"""Elasticsearch's limit: one longer `_id` fails the whole bulk that carries it."""

_YEARS_MS = (-62_135_596_800_000, 253_402_300_799_999)


def is_feature(column: str) -> bool:
    """Whether a column holds a feature's value.

    >>> is_feature("features.client_errors_1h"), is_feature("url.path")
    (True, False)
    """
    return column.startswith(FEATURE_PREFIX) and column != ALL_FEATURES


def features_of(columns: Iterable[str]) -> list[str]:
    """The feature columns among `columns`, in their order."""
    return [column for column in columns if is_feature(column)]


def check_columns(frame: pl.DataFrame, required: Iterable[str], known: Iterable[str]) -> None:
    """Refuse a frame that lacks a required column, or brings one that no document has. Raises ValueError."""
    allowed = {*known}
    missing = [column for column in required if column not in frame.columns]
    unknown = [column for column in frame.columns if column not in allowed and not is_feature(column)]
    if missing or unknown:
        parts = [f"lacks {', '.join(missing)}"] * bool(missing) + [f"brings {', '.join(unknown)}"] * bool(unknown)
        raise ValueError(f"the frame {' and '.join(parts)}; events have {', '.join(sorted(allowed))}, features.*")


def read_schema(columns: Sequence[str] | None, stored_features: Iterable[str]) -> dict[str, pl.DataType]:
    """Names and types of the columns that a read returns, in order. Raises ValueError for an unknown name.

    `stored_features`: the feature columns that the store holds, for the entry `features.*`. No `columns`: those
    of the event and its verdict.

    >>> read_schema(["_id", "features.*"], ["features.a"])
    {'_id': String, 'features.a': Float32}
    """
    if columns is None:
        return _instances({**EVENT_SCHEMA, **ANOMALY_SCHEMA})
    chosen: dict[str, pl.DataType | type[pl.DataType]] = {}
    for column in columns:
        if column == ALL_FEATURES:
            chosen.update((feature, pl.Float32) for feature in stored_features)
        elif is_feature(column):
            chosen[column] = pl.Float32
        elif column in STORED_SCHEMA:
            chosen[column] = STORED_SCHEMA[column]
        else:
            raise ValueError(f"events have no column {column!r}; they have {', '.join(STORED_SCHEMA)}, features.<name>")
    return _instances(chosen)


def dead_schema(columns: Sequence[str] | None) -> dict[str, pl.DataType]:
    """Names and types of the columns of dead letters to read, in order. Raises ValueError for an unknown name.

    >>> dead_schema(["kind"])
    {'kind': String}
    """
    if unknown := [column for column in columns or () if column not in DEAD_SCHEMA]:
        raise ValueError(f"dead letters have no column {unknown[0]!r}; they have {', '.join(DEAD_SCHEMA)}")
    return _instances({column: DEAD_SCHEMA[column] for column in columns or DEAD_SCHEMA})


def unstorable(frame: pl.DataFrame) -> dict[int, str]:
    """Rows that no store takes, with the reason: `_id` empty or over 512 bytes, `@timestamp` of no year 1 to 9999."""
    length = pl.col("_id").str.len_bytes().fill_null(0)
    dated = pl.col("@timestamp").to_physical().is_between(*_YEARS_MS).fill_null(value=False)
    wrong = frame.select(length=length, dated=dated).with_row_index("row")
    return {
        row: f"its _id has {length} bytes; expected 1 to {MAX_ID_BYTES}"
        if dated
        else "it has no @timestamp of a year from 1 to 9999, so no day to be kept under"
        for row, length, dated in wrong.filter(
            ~pl.col("dated") | ~pl.col("length").is_between(1, MAX_ID_BYTES)
        ).iter_rows()
    }


def without(frame: pl.DataFrame, rows: Iterable[int]) -> tuple[pl.DataFrame, list[int]]:
    """A frame without some rows, and the row numbers that the remaining ones had."""
    dropped = set(rows)
    kept = [row for row in range(frame.height) if row not in dropped]
    return (frame[kept] if dropped else frame), kept


def epoch_ms(moment: dt.datetime) -> int:
    """Milliseconds since 1970, rounded up, so that half-open bounds stay exact; a naive time is taken as UTC.

    >>> epoch_ms(dt.datetime(1970, 1, 1, 0, 0, 1))
    1000
    """
    aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=dt.UTC)
    since_1970 = aware - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    return -(-since_1970 // dt.timedelta(milliseconds=1))


def time_of(milliseconds: int) -> dt.datetime:
    """The time, in UTC, of so many milliseconds since 1970.

    >>> time_of(-1)
    datetime.datetime(1969, 12, 31, 23, 59, 59, 999000, tzinfo=datetime.timezone.utc)
    """
    return dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(milliseconds=milliseconds)


def is_since(document: Mapping[str, object], since: dt.datetime) -> bool:
    """Whether a small document's `@timestamp` is there, and that time or later; a naive time is taken as UTC.

    >>> is_since({"@timestamp": "1970-01-01T01:00:00+01:00"}, time_of(0)), is_since({}, time_of(0))
    (True, False)
    """
    try:
        time = dt.datetime.fromisoformat(str(document.get("@timestamp")))
    except ValueError:
        return False
    return epoch_ms(time) >= epoch_ms(since)


def nested(columns: Iterable[str], prefix: str = "") -> list[pl.Expr]:
    """Expressions that make nested documents of flat columns: one a top-level field, structs within.

    >>> frame = pl.DataFrame({"url.path": ["/"], "url.query": ["q=1"], "@timestamp": [0]})
    >>> frame.select(nested(frame.columns)).to_dicts()
    [{'url': {'path': '/', 'query': 'q=1'}, '@timestamp': 0}]
    """
    return [
        pl.col(prefix + name).alias(name) if below is None else pl.struct(nested(below, f"{prefix}{name}.")).alias(name)
        for name, below in _tree(columns).items()
    ]


def nested_schema(schema: Mapping[str, pl.DataType]) -> pl.Struct:
    """The type of a nested document with these flat columns."""

    def struct(columns: Iterable[str], prefix: str) -> pl.Struct:
        return pl.Struct(
            {
                name: schema[prefix + name] if below is None else struct(below, f"{prefix}{name}.")
                for name, below in _tree(columns).items()
            }
        )

    return struct(schema, "")


def flattened(document: pl.Expr, column: str) -> pl.Expr:
    """A flat column out of a nested document; null where any level is missing."""
    for part in column.split("."):
        document = document.struct.field(part)
    return document.alias(column)


def _tree(columns: Iterable[str]) -> dict[str, list[str] | None]:
    """First parts of dotted names, each with what follows it; None for a leaf."""
    tree: dict[str, list[str] | None] = {}
    for column in columns:
        first, dot, rest = column.partition(".")
        below = tree.setdefault(first, [] if dot else None)
        if (below is None) == bool(dot):
            raise ValueError(f"{first!r} is a field and an object at once")
        if below is not None:
            below.append(rest)
    return tree


def _instances(schema: DTypes) -> dict[str, pl.DataType]:
    return {name: dtype() if isinstance(dtype, type) else dtype for name, dtype in schema.items()}
