"""Flat event frames and the documents that stores keep: columns chosen, checked, nested and flattened.

Knows no store: what Elasticsearch or SQLite need beyond that is in their own files.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence

import polars as pl

from oddlog.events.schema import ANOMALY_SCHEMA, EVENT_SCHEMA, FEATURE_PREFIX

DTypes = Mapping[str, pl.DataType | type[pl.DataType]]

STORED_SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {**EVENT_SCHEMA, **ANOMALY_SCHEMA}
"""Every column of a stored event but the features; reading gives them in this order."""

VERSION = "_version"
"""Opaque text: which state of the document was read. Only the store that wrote it can read it."""

ALL_FEATURES = f"{FEATURE_PREFIX}*"
"""Entry of `columns` that stands for every feature the store holds."""

MAX_ID_BYTES = 512
"""Elasticsearch's limit: one longer `_id` fails the whole bulk that carries it."""


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
        parts = [f"lacks {', '.join(missing)}"] * bool(missing) + [f"brings {', '.join(unknown)}"] * bool(
            unknown
        )
        raise ValueError(
            f"the frame {' and '.join(parts)}; events have {', '.join(sorted(allowed))}, features.*"
        )


def read_schema(columns: Sequence[str] | None, stored_features: Iterable[str]) -> dict[str, pl.DataType]:
    """Names and types of the columns that a read returns, in order. Raises ValueError for an unknown name.

    `stored_features`: the feature columns that the store holds, for the entry `features.*`.

    >>> read_schema(["_id", "features.*"], ["features.a"])
    {'_id': String, 'features.a': Float32}
    """
    if columns is None:
        return _instances(STORED_SCHEMA)
    chosen: dict[str, pl.DataType | type[pl.DataType]] = {}
    for column in columns:
        if column == ALL_FEATURES:
            chosen.update((feature, pl.Float32) for feature in stored_features)
        elif is_feature(column):
            chosen[column] = pl.Float32
        elif column in STORED_SCHEMA:
            chosen[column] = STORED_SCHEMA[column]
        else:
            raise ValueError(
                f"events have no column {column!r}; they have {', '.join(STORED_SCHEMA)}, features.<name>"
            )
    return _instances(chosen)


def rejected_ids(ids: pl.Series) -> dict[int, str]:
    """Rows whose `_id` no store takes, with the reason: over 512 bytes, empty, or null."""
    lengths = ids.str.len_bytes().fill_null(0)
    bad = ((lengths > MAX_ID_BYTES) | (lengths == 0)).arg_true().to_list()
    return {row: f"its _id has {lengths[row]} bytes; expected 1 to {MAX_ID_BYTES}" for row in bad}


def epoch_ms(moment: dt.datetime) -> int:
    """Milliseconds since 1970, rounded up, so that half-open bounds stay exact; a naive time is taken as UTC.

    >>> epoch_ms(dt.datetime(1970, 1, 1, 0, 0, 1))
    1000
    """
    aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=dt.UTC)
    since_1970 = aware - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    return -(-since_1970 // dt.timedelta(milliseconds=1))


def _instances(schema: DTypes) -> dict[str, pl.DataType]:
    return {name: dtype() if isinstance(dtype, type) else dtype for name, dtype in schema.items()}
