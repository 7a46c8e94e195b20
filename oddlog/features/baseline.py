"""The baseline: what was normal in the fitted period, as frozen tables; bytes and digest. Not its fitting.

Every count has a row for each kind of unit: behaviours, and raw user agents where there were enough of them.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import polars as pl

from oddlog.errors import ArtifactError

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

STATUS_CLASSES = 10

_FORMAT = b"1"

_FEW = 8_192
"""Up to so many keys a dictionary is faster than a join, which looks at the whole table each time."""


@dataclass(frozen=True, eq=False)
class KeyTable:
    """In how many distinct units a key occurred: `keys` sorted and distinct, `counts` int64 [kinds, keys]."""

    keys: pl.Series
    counts: Ints

    def codes(self, keys: pl.Series) -> Ints:
        """Number of each key, int64 [n]; `len(self.keys)`, the padding's, where the key is unknown."""
        if keys.dtype.is_integer():
            return self._integer_codes(keys.to_numpy())
        if len(keys) <= _FEW:
            place, unknown = self._places.get, len(self.keys)
            return np.array([place(key, unknown) for key in keys.to_list()], dtype=np.int64)
        found = keys.to_frame("key").join(self._numbered, on="key", how="left", maintain_order="left")
        codes: Ints = found["code"].fill_null(len(self.keys)).to_numpy()
        return codes

    def _integer_codes(self, keys: Ints) -> Ints:
        known = self.keys.to_numpy()
        place = np.searchsorted(known, keys)
        found = np.append(known, 0)[place] == keys
        return np.where(found & (place < len(known)), place, len(known)).astype(np.int64)

    @cached_property
    def _places(self) -> dict[str, int]:
        return {key: code for code, key in enumerate(self.keys.to_list())}

    @cached_property
    def _numbered(self) -> pl.DataFrame:
        return pl.DataFrame({"key": self.keys, "code": np.arange(len(self.keys), dtype=np.int64)})

    @cached_property
    def padded(self) -> Ints:
        """Counts [kinds, keys + 1] with zeros for the unknown key at the end."""
        return padded(self.counts)


@dataclass(frozen=True, eq=False)
class PairTable:
    """In how many distinct units a path occurred with a method or status.

    `keys` int64, sorted: path code * `width` + code of the other; `counts` int64 [kinds, pairs].
    """

    keys: Ints
    counts: Ints
    width: int

    def count(self, path: Ints, other: Ints) -> Ints:
        """Counts [kinds, n] of pairs of codes; 0 where the pair is unknown."""
        if not len(self.keys):
            return np.zeros((self.counts.shape[0], len(path)), dtype=np.int64)
        key = np.where(other < self.width, path * self.width + other, -1)
        place = np.minimum(np.searchsorted(self.keys, key), len(self.keys) - 1)
        return np.where(self.keys[place] == key, self.counts[:, place], 0)


def padded(table: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A table [kinds, keys] with a column of zeros at its end, where unknown keys point to."""
    return np.concatenate([table, np.zeros((table.shape[0], 1), dtype=table.dtype)], axis=1)


@dataclass(frozen=True, eq=False)
class Baseline:
    """What was normal in the fitted period. Immutable; part of the model artifact; named by its digest."""

    units: Ints
    """Distinct units of each kind [kinds]."""
    token: KeyTable
    section: KeyTable
    subsection: KeyTable
    path: KeyTable
    method: KeyTable
    status: KeyTable
    path_method: PairTable
    path_status: PairTable
    company_total: Floats
    """Sum over units of f(u, path) [kinds, paths]."""
    company_units: Ints
    """Units that f(u, path) exists for [kinds, paths]."""
    bucket_total: Floats
    """Sum over units of their mean f in a bucket (level, status class) [kinds, levels * STATUS_CLASSES]."""
    bucket_units: Ints
    """Units with requests in a bucket, same shape."""
    general: Floats
    """Mean over units of their share of failed requests [kinds]."""
    client_prior: Floats
    """Mean over fitted clients of their own means [signals]."""

    @property
    def entries(self) -> int:
        """Keys and pairs held: what a baseline's size is counted in."""
        tables = (self.token, self.section, self.subsection, self.path, self.method, self.status)
        return sum(len(t.keys) for t in tables) + len(self.path_method.keys) + len(self.path_status.keys)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the content of the tables: the same on every machine and library version."""
        sha = hashlib.sha256(_FORMAT)
        for name, column in self._columns().items():
            if isinstance(column, pl.Series):
                shape = f"{len(column)}"
                content = b"".join(len(k).to_bytes(4, "little") + k for k in map(str.encode, column.to_list()))
            else:
                shape = f"{column.shape}"
                content = np.ascontiguousarray(column, dtype=column.dtype.newbyteorder("<")).tobytes()
            sha.update(f"|{name}:{shape}:".encode() + content)
        return sha.hexdigest()

    def _columns(self) -> dict[str, pl.Series | npt.NDArray[Any]]:
        """Every table by name, strings as a Series, numbers as an array, in the order of the fields."""
        columns: dict[str, pl.Series | npt.NDArray[Any]] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, KeyTable | PairTable):
                keys = value.keys
                if isinstance(keys, pl.Series) and keys.dtype != pl.String:
                    keys = keys.to_numpy()
                columns[f"{field.name}.keys"] = keys
                columns[f"{field.name}.counts"] = value.counts
                if isinstance(value, PairTable):
                    columns[f"{field.name}.width"] = np.array([value.width], dtype=np.int64)
            else:
                columns[field.name] = value
        return columns

    def to_arrow(self) -> bytes:
        """One Arrow IPC stream of one row, a list column for every table; same tables, same bytes."""
        import pyarrow as pa

        arrays, names = [], []
        for name, column in self._columns().items():
            if isinstance(column, pl.Series):
                flat = pa.array(column.to_list(), type=pa.string())
            else:
                flat = pa.array(column.ravel())
            arrays.append(pa.LargeListArray.from_arrays(pa.array([0, len(flat)], type=pa.int64()), flat))
            names.append(name)
        table = pa.Table.from_arrays(arrays, names=names).replace_schema_metadata(
            {"oddlog.baseline.format": _FORMAT, "oddlog.baseline.digest": self.digest}
        )
        sink = io.BytesIO()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        return sink.getvalue()

    @classmethod
    def from_arrow(cls, data: bytes) -> Self:
        """The baseline of `to_arrow`. ArtifactError where it is none, or its content fails its digest."""
        import pyarrow as pa

        try:
            table = pa.ipc.open_stream(data).read_all()
        except (pa.ArrowInvalid, OSError) as error:
            raise ArtifactError(
                f"the baseline is no Arrow stream: {error}", expected="bytes of Baseline.to_arrow"
            ) from error
        metadata = table.schema.metadata or {}
        if metadata.get(b"oddlog.baseline.format") != _FORMAT:
            raise ArtifactError(
                f"baseline of format {metadata.get(b'oddlog.baseline.format')!r}",
                expected=f"format {_FORMAT!r}",
            )
        try:
            baseline = cls._of({name: table[name].combine_chunks()[0].values for name in table.column_names})
        except (KeyError, ValueError, IndexError) as error:
            raise ArtifactError(f"the baseline's tables do not fit together: {error}") from error
        if baseline.digest != metadata.get(b"oddlog.baseline.digest", b"").decode():
            raise ArtifactError("the baseline's content does not match its digest", mend="oddlog train")
        return baseline

    @classmethod
    def _of(cls, columns: dict[str, Any]) -> Self:
        def numbers(name: str) -> npt.NDArray[Any]:
            array: npt.NDArray[Any] = columns[name].to_numpy(zero_copy_only=False)
            return array

        kinds = len(columns["units"])

        def rows(name: str) -> npt.NDArray[Any]:
            return numbers(name).reshape(kinds, -1)

        def keyed(name: str) -> KeyTable:
            return KeyTable(
                pl.Series("key", columns[f"{name}.keys"].to_pylist(), dtype=pl.String), rows(f"{name}.counts")
            )

        def paired(name: str) -> PairTable:
            return PairTable(numbers(f"{name}.keys"), rows(f"{name}.counts"), int(numbers(f"{name}.width")[0]))

        return cls(
            units=numbers("units"),
            token=keyed("token"),
            section=keyed("section"),
            subsection=keyed("subsection"),
            path=keyed("path"),
            method=keyed("method"),
            status=KeyTable(pl.Series("key", numbers("status.keys"), dtype=pl.Int64), rows("status.counts")),
            path_method=paired("path_method"),
            path_status=paired("path_status"),
            company_total=rows("company_total"),
            company_units=rows("company_units"),
            bucket_total=rows("bucket_total"),
            bucket_units=rows("bucket_units"),
            general=numbers("general"),
            client_prior=numbers("client_prior"),
        )
