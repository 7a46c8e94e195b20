"""Frames to rows of the SQLite store and back, column by column. The tables are in `sqlite_tables.py`."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson
import polars as pl


def feature_set_number(connection: sqlite3.Connection, names: Sequence[str]) -> int:
    """The number of a list of feature columns, added where new; inside the caller's write transaction."""
    key = orjson.dumps(list(names)).decode()
    found = connection.execute("SELECT id FROM feature_sets WHERE names = ?", (key,)).fetchone()
    if found is None:
        found = connection.execute("INSERT INTO feature_sets (names) VALUES (?) RETURNING id", (key,)).fetchone()
    return int(found[0])


def feature_sets(connection: sqlite3.Connection) -> dict[int, tuple[str, ...]]:
    """Every list of feature columns that rows of the store have, by its number."""
    return {
        int(number): tuple(orjson.loads(names))
        for number, names in connection.execute("SELECT id, names FROM feature_sets ORDER BY id")
    }


def to_rows(frame: pl.DataFrame) -> list[tuple[Any, ...]]:
    """A frame without features as row tuples: timestamps in milliseconds, reasons as JSON text."""
    converted = []
    for name, dtype in frame.schema.items():
        if isinstance(dtype, pl.Datetime):
            converted.append(pl.col(name).dt.epoch("ms"))
        elif isinstance(dtype, pl.List):
            # As a struct's only field, since lists alone have no encoder; the wrapping is cut off again.
            wrapped = pl.struct(pl.col(name).alias("r")).struct.json_encode()
            converted.append(pl.when(pl.col(name).is_not_null()).then(wrapped.str.slice(5).str.head(-1)).alias(name))
        else:
            converted.append(pl.col(name))
    return frame.select(converted).rows()


def feature_blobs(features: pl.DataFrame) -> list[bytes | None]:
    """One blob of little-endian float32 a row, in column order; NaN where null; None where all are null."""
    matrix = features.cast(pl.Float32).fill_null(float("nan")).to_numpy(order="c").astype("<f4", copy=False)
    matrix = np.ascontiguousarray(matrix)
    blobs: list[bytes | None] = matrix.view(f"V{4 * features.width}").ravel().tolist()
    for row in np.flatnonzero(np.isnan(matrix).all(axis=1)):
        blobs[row] = None
    return blobs


def features_frame(
    sets: Sequence[int | None],
    blobs: Sequence[bytes | None],
    names: Mapping[int, tuple[str, ...]],
    wanted: Sequence[str],
) -> pl.DataFrame:
    """The wanted feature columns (Float32, null where missing) of rows read from the table."""
    height = len(blobs)
    out = np.full((len(wanted), height), np.nan, dtype=np.float32)
    number = np.array([0 if value is None else value for value in sets], dtype=np.int64)
    for one in np.unique(number[number > 0]) if height else ():
        rows = np.flatnonzero(number == one)
        columns = names[int(one)]
        joined = b"".join(blobs[row] or b"" for row in rows.tolist())
        matrix = np.frombuffer(joined, dtype="<f4").reshape(len(rows), len(columns))
        for place, name in enumerate(wanted):
            if name in columns:
                out[place, rows] = matrix[:, columns.index(name)]
    return pl.DataFrame(
        [pl.Series(name, out[place], nan_to_null=True) for place, name in enumerate(wanted)],
        schema=dict.fromkeys(wanted, pl.Float32),
    )


def from_rows(
    rows: Sequence[tuple[Any, ...]], columns: Sequence[str], schema: Mapping[str, pl.DataType]
) -> dict[str, pl.Series]:
    """Row tuples as one typed series for every column of `schema` that is in `columns`."""
    by_name = dict(zip(columns, zip(*rows, strict=True) if rows else [()] * len(columns), strict=True))
    return {name: _series(name, by_name[name], dtype) for name, dtype in schema.items() if name in by_name}


def _series(name: str, values: Sequence[Any], dtype: pl.DataType) -> pl.Series:
    if isinstance(dtype, pl.Datetime):
        return pl.Series(name, values, dtype=pl.Int64).cast(dtype)
    if isinstance(dtype, pl.Boolean):
        return pl.Series(name, values, dtype=pl.Int8).cast(dtype)
    if isinstance(dtype, pl.List):
        return pl.Series(name, values, dtype=pl.String).str.json_decode(dtype)
    return pl.Series(name, values, dtype=dtype)
