"""How a feature matrix and its scores travel as Arrow IPC streams; both ends are here. JSON is in `wire_json.py`.

Request: one float32 column a feature, found by name, in any order; NaN or null means "typical".
Answer: `score` float32, `severity` float64, `is_anomaly` bool, `reasons` list<struct> (empty but for anomalies),
and in the schema's metadata which model said so (`METADATA`). Of a model with a second channel also `novelty_score`
float32, `novelty_severity` float64, `novelty_is_anomaly` bool, and its threshold in the metadata (`NOVELTY_THRESHOLD`).
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from oddlog.errors import ScorerError
from oddlog.scoring.scorer import NoveltyScores, Reason, Scores
from serving.refusal import Refusal, columns_that_differ
from serving.wire_layout import END_OF_STREAM, SMALL_ROWS, batch_header, known_matrix, remember, value_places

ARROW = "application/vnd.apache.arrow.stream"
"""Media type of an Arrow IPC stream."""

SCHEMA_BYTES = 262_144
"""Largest schema that is read: some 3,000 columns, named one by one in a refusal."""

CHECKED_SCHEMAS = 16
"""Schemas of requests that are remembered."""

_CHECKED: dict[tuple[bytes, tuple[str, ...]], tuple[Any, list[int]]] = {}

METADATA = ("model_name", "model_version", "baseline_digest", "threshold", "threshold_version", "champion")
"""Keys of an answer's schema metadata; `champion` is the version that is champion now, "" for none."""

NOVELTY_THRESHOLD = "novelty_threshold"
"""Key of an answer's schema metadata where the model has a second channel."""

_REASONS = pa.list_(
    pa.struct(
        [
            ("feature", pa.string()),
            ("value", pa.float64()),
            ("typical", pa.float64()),
            ("share", pa.float64()),
            ("text", pa.string()),
        ]
    )
)

_SCORES = (
    pa.field("score", pa.float32()),
    pa.field("severity", pa.float64()),
    pa.field("is_anomaly", pa.bool_()),
    pa.field("reasons", _REASONS),
)
_NOVELTY = (
    pa.field("novelty_score", pa.float32()),
    pa.field("novelty_severity", pa.float64()),
    pa.field("novelty_is_anomaly", pa.bool_()),
)

_WRITE_FLOATS = "pyarrow: pa.record_batch({name: pa.array(column, pa.float32()) for ...})"


def encode_matrix(features: npt.NDArray[np.float32], names: Sequence[str]) -> bytes:
    """The request of a float32 matrix [n, len(names)].

    >>> matrix = np.array([[1.0, np.nan]], dtype=np.float32)
    >>> decode_matrix(encode_matrix(matrix, ["a", "b"]), ["b", "a"], max_rows=10)
    array([[nan,  1.]], dtype=float32)
    """
    columns = [pa.array(column) for column in np.ascontiguousarray(features.T, dtype=np.float32)]
    batch = pa.RecordBatch.from_arrays(columns, names=list(names))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue())


def decode_matrix(body: bytes, names: Sequence[str], *, max_rows: int) -> npt.NDArray[np.float32]:
    """The matrix [n, len(names)] of a request, its columns in the order of `names`. Raises Refusal.

    Schema and row counts are read before any data is, so that no request makes this process allocate more than
    it was sent.
    """
    if (known := known_matrix(body, names, max_rows=max_rows)) is not None:
        return known
    order: list[int] = []
    try:
        matrices = list(_read(body, list(names), max_rows, order))
        if len(matrices) == 1:
            remember(body, names, order, matrices[0])
    except (
        pa.ArrowInvalid,
        pa.ArrowNotImplementedError,
        pa.ArrowSerializationError,
        OSError,
        EOFError,
    ) as error:
        raise _not_arrow(f"the body is no whole Arrow IPC stream: {_first_line(error)}") from None
    except (struct.error, IndexError, UnicodeDecodeError, pa.ArrowException) as error:
        raise _not_arrow(f"the body is a damaged Arrow IPC stream: {_first_line(error)}") from None
    if not matrices:
        return np.empty((0, len(names)), dtype=np.float32)
    return matrices[0] if len(matrices) == 1 else np.concatenate(matrices)


def _read(body: bytes, names: list[str], max_rows: int, order: list[int]) -> Iterator[npt.NDArray[np.float32]]:
    """The matrices of the batches; `order` becomes the places of `names` among the columns."""
    messages = pa.ipc.MessageReader.open_stream(pa.py_buffer(body))
    try:
        first = messages.read_next_message()
    except StopIteration:
        raise _not_arrow("the body is empty") from None
    if first.type != "schema":
        raise _not_arrow(f"the stream begins with a {first.type}")
    if first.metadata.size > SCHEMA_BYTES:  # reading a million columns takes seconds
        raise Refusal(
            422,
            f"a schema of {first.metadata.size:,} bytes",
            expected=f"one float32 column each of {', '.join(names)}",
            mend="GET /v1/schema lists the features and what they mean",
        )
    schema, order[:] = _checked_schema(first, names)
    in_order = order == sorted(order)
    rows = 0
    for message in messages:
        if message.type != "record batch":
            raise _not_arrow(f"the stream holds a {message.type}")
        length, compressed = batch_header(bytes(message.metadata))
        if compressed:
            raise Refusal(
                422,
                "the record batches are compressed",
                expected="uncompressed Arrow: random floats do not shrink, and nobody has to unpack a bomb",
                mend="pyarrow: write with IpcWriteOptions(compression=None), which is the default",
            )
        rows += length
        if length < 0 or rows > max_rows:
            raise too_many_rows(rows, max_rows)
        batch = pa.ipc.read_record_batch(message, schema)
        batch.validate()
        if batch.num_rows:
            matrix = batch.to_tensor(null_to_nan=True, row_major=True).to_numpy()
            yield matrix if in_order else matrix[:, order]


def _checked_schema(first: Any, names: list[str]) -> tuple[Any, list[int]]:
    """The schema of a stream's first message, and the places of `names` in it. Raises Refusal.

    Clients send the same schema again and again: what was checked is remembered by its bytes."""
    known = bytes(first.metadata), tuple(names)
    if (found := _CHECKED.get(known)) is not None:
        return found
    schema = pa.ipc.read_schema(first)
    if (differ := columns_that_differ(schema.names, names)) is not None:
        raise Refusal(
            422,
            f"the columns are not the model's: {differ}",
            expected=f"one float32 column each of {', '.join(names)}",
            mend="GET /v1/schema lists the features and what they mean",
        )
    wrong = [f"{field.name} is {field.type}" for field in schema if field.type != pa.float32()]
    if wrong:
        raise Refusal(422, f"column types: {', '.join(wrong)}", expected="float32 in every column", mend=_WRITE_FLOATS)
    order = [schema.get_field_index(name) for name in names]
    if len(_CHECKED) >= CHECKED_SCHEMAS:
        _CHECKED.clear()
    _CHECKED[known] = found = schema, order
    return found


def too_many_rows(found: int, max_rows: int) -> Refusal:
    """413 for a request with more rows than the service takes."""
    return Refusal(
        413,
        f"{found:,} rows in one request",
        expected=f"at most {max_rows:,}",
        mend="send several requests, or raise ODDLOG_SERVE__MAX_ROWS of the service",
    )


def refuse_infinities(matrix: npt.NDArray[np.float32], names: Sequence[str]) -> None:
    """Raise Refusal where a value is infinite: NaN has a meaning here (typical), infinity has none."""
    infinite = np.isinf(matrix)
    if infinite.any():
        row, column = (int(place) for place in np.argwhere(infinite)[0])
        raise Refusal(
            422,
            f"{int(infinite.sum()):,} infinite value(s), the first in row {row}, column {names[column]}",
            expected="finite float32 values (largest 3.4e38), or NaN (JSON: null) for the typical value",
            mend="send NaN where a value is not known",
        )


def _not_arrow(found: str) -> Refusal:
    return Refusal(
        400,
        found,
        expected=f"an Arrow IPC stream ({ARROW}) with one float32 column a feature",
        mend="pyarrow: pa.ipc.new_stream(sink, batch.schema), and send what was written until the writer's close",
    )


def _first_line(error: BaseException) -> str:
    return str(error).split("\n", 1)[0][:200]


def encode_scores(scores: Scores) -> bytes:
    """The answer to a request, as an Arrow IPC stream."""
    said = {key: str(value) for key, value in provenance(scores).items()}
    verdicts: list[tuple[npt.NDArray[Any], ...]] = [(scores.score, scores.severity, scores.is_anomaly)]
    if (novelty := scores.novelty) is not None:
        said[NOVELTY_THRESHOLD] = str(novelty.threshold)
        verdicts.append((novelty.score, novelty.severity, novelty.is_anomaly))
    rows = len(scores.score)
    if scores.reasons or rows > SMALL_ROWS:
        return _whole(tuple(said.items()), verdicts, scores.reasons)
    plain, places = _plain(tuple(said.items()), rows)
    answer = bytearray(plain)
    values = (part for verdict in verdicts for part in _as_arrow_holds(*verdict))
    for place, part in zip(places, values, strict=True):
        answer[place : place + len(part)] = part
    return bytes(answer)


def _as_arrow_holds(
    score: npt.NDArray[Any], severity: npt.NDArray[Any], is_anomaly: npt.NDArray[Any]
) -> tuple[bytes, bytes, bytes]:
    return (
        score.astype(np.float32, copy=False).tobytes(),
        severity.astype(np.float64, copy=False).tobytes(),
        np.packbits(is_anomaly, bitorder="little").tobytes(),
    )


def _whole(
    said: tuple[tuple[str, str], ...],
    verdicts: Sequence[tuple[npt.NDArray[Any], ...]],
    reasons: dict[int, list[Reason]],
) -> bytes:
    """The answer, written by pyarrow."""
    counts = np.zeros(len(verdicts[0][0]) + 1, dtype=np.int32)
    for row, some in reasons.items():
        counts[row + 1] = len(some)
    flat = [reason for row in sorted(reasons) for reason in reasons[row]]
    types = (pa.float32(), pa.float64(), pa.bool_())
    channels = [[pa.array(*pair) for pair in zip(verdict, types, strict=True)] for verdict in verdicts]
    told = pa.ListArray.from_arrays(
        pa.array(np.cumsum(counts, dtype=np.int32)), pa.array(flat, _REASONS.value_type), type=_REASONS
    )
    schema, head = _answer_schema(said)
    columns = [*channels[0], told, *(column for channel in channels[1:] for column in channel)]
    body: bytes = pa.RecordBatch.from_arrays(columns, schema=schema).serialize().to_pybytes()
    joined: bytes = head + body + END_OF_STREAM
    return joined


@functools.lru_cache(maxsize=256)
def _plain(said: tuple[tuple[str, str], ...], rows: int) -> tuple[bytes, tuple[int, ...]]:
    """An answer of so many rows without reasons, all zeros, and where the values of each verdict begin in it."""
    channels = 1 + (NOVELTY_THRESHOLD in dict(said))
    zeros = (np.zeros(rows, np.float32), np.zeros(rows, np.float64), np.zeros(rows, np.bool_))
    answer = _whole(said, [zeros] * channels, {})
    # Two buffers a column, absent nulls and values; those of `reasons` stand between the channels.
    return answer, value_places(answer, (1, 3, 5, -5, -3, -1)[: 3 * channels])


@functools.lru_cache(maxsize=64)
def _answer_schema(said: tuple[tuple[str, str], ...]) -> tuple[Any, bytes]:
    """The schema of the answers that say this, and the message that a stream begins with: alike for every answer of a
    version, a threshold and a champion."""
    metadata = dict(said)
    fields = [*_SCORES, *(_NOVELTY if NOVELTY_THRESHOLD in metadata else ())]
    schema = pa.schema(fields, metadata)
    return schema, schema.serialize().to_pybytes()


def provenance(scores: Scores) -> dict[str, Any]:
    """Which model, under which threshold, said so: the keys of METADATA."""
    return {key: getattr(scores, key) for key in METADATA}


def decode_scores(body: bytes) -> Scores:
    """The answer, read. Raises ScorerError where it is no answer of this service."""
    try:
        table = pa.ipc.open_stream(pa.py_buffer(body)).read_all()
        said = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
        reasons = _reasons(table.column("reasons"))
        return Scores(
            model_name=said["model_name"],
            model_version=said["model_version"],
            baseline_digest=said["baseline_digest"],
            threshold=float(said["threshold"]),
            threshold_version=said["threshold_version"],
            champion=said["champion"],
            score=table.column("score").to_numpy().astype(np.float32, copy=False),
            severity=table.column("severity").to_numpy().astype(np.float64, copy=False),
            is_anomaly=table.column("is_anomaly").to_numpy().astype(np.bool_, copy=False),
            reasons=reasons,
            novelty=_novelty(table, said),
        )
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise ScorerError(
            f"the scorer's answer is not one of oddlog's: {type(error).__name__}: {_first_line(error)}",
            expected=f"an Arrow IPC stream with the metadata {', '.join(METADATA)}",
            mend="see that ODDLOG_SCORER__URL is a `bentoml serve` of this version",
        ) from error


def _novelty(table: Any, said: dict[str, str]) -> NoveltyScores | None:
    """The second channel's part; None where the model has none, or the service is of a version without it."""
    if NOVELTY_THRESHOLD not in said:
        return None
    return NoveltyScores(
        threshold=float(said[NOVELTY_THRESHOLD]),
        score=table.column("novelty_score").to_numpy().astype(np.float32, copy=False),
        severity=table.column("novelty_severity").to_numpy().astype(np.float64, copy=False),
        is_anomaly=table.column("novelty_is_anomaly").to_numpy().astype(np.bool_, copy=False),
    )


def _reasons(column: Any) -> dict[int, list[Reason]]:
    """Reasons by row, of the few rows that have some: a Python list for each of the others is slow to make."""
    found: dict[int, list[Reason]] = {}
    start = 0
    for chunk in column.chunks:
        offsets = chunk.offsets.to_numpy()
        flat = chunk.values.to_pylist()
        for row in np.flatnonzero(np.diff(offsets)):
            found[start + int(row)] = flat[offsets[row] : offsets[row + 1]]
        start += len(chunk)
    return found
