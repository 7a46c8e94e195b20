"""Where the values lie in small Arrow IPC streams, which are alike from the schema to the batch's header and differ in
nothing but values: what pyarrow has checked or written once is read and written again without it. What columns mean,
and every stream that was not seen before, is for wire.py.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

SMALL_ROWS = 64
"""Rows up to which streams are remembered: pyarrow's own time per message is most of what one row takes."""

HEAD_BYTES = 16_384
"""Longest beginning of a request that is remembered: some 130 columns."""

KEPT = 64
"""Requests' beginnings that are remembered."""

END_OF_STREAM = b"\xff\xff\xff\xff\x00\x00\x00\x00"
"""What Arrow's own writer ends a stream with."""

_CONTINUES = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class _Layout:
    """Of a request: bytes of the batch's data, and for each value of [rows, columns] its place in them, in floats."""

    size: int
    places: npt.NDArray[np.intp]


_KNOWN: dict[tuple[bytes, tuple[str, ...]], _Layout] = {}


def known_matrix(body: bytes, names: Sequence[str], *, max_rows: int) -> npt.NDArray[np.float32] | None:
    """The matrix [n, len(names)] of a request whose beginning was remembered; None for any other."""
    begin = _data_begin(body)
    layout = _KNOWN.get((body[:begin], tuple(names))) if begin else None
    if layout is None or len(layout.places) > max_rows:
        return None
    end = begin + layout.size
    if len(body) != end + len(END_OF_STREAM) or not body.endswith(END_OF_STREAM):
        return None
    values: npt.NDArray[np.float32] = np.frombuffer(body, np.float32, layout.size // 4, begin)[layout.places]
    return values


def remember(body: bytes, names: Sequence[str], order: Sequence[int], matrix: npt.NDArray[np.float32]) -> None:
    """Remember a request that was read and checked, where it is small, of one batch, and without nulls.

    `order`: the places of `names` among its columns, all of them float32; `matrix` [n, len(names)]: what it holds."""
    begin = _data_begin(body)
    size = len(body) - begin - len(END_OF_STREAM)
    if not 0 < begin <= HEAD_BYTES or len(matrix) > SMALL_ROWS or size % 4 or not body.endswith(END_OF_STREAM):
        return
    (schema,) = struct.unpack_from("<i", body, 4)
    header = body[16 + schema : begin]
    if batch_header(header) != (len(matrix), False) or _data_bytes(header) != size:
        return
    found = buffers(header)
    # A column has two: which values there are, absent where all are, and the values. What is absent, the header says.
    if len(found) != 2 * len(order) or any(length for _, length in found[::2]):
        return
    if any(length < 4 * len(matrix) for _, length in found[1::2]):
        return
    begins = np.array([found[2 * place + 1][0] for place in order], dtype=np.intp)
    places = begins // 4 + np.arange(len(matrix), dtype=np.intp)[:, None]
    if (begins % 4).any() or begins.min() < 0 or places.max() >= size // 4:
        return
    again = np.frombuffer(body, np.float32, size // 4, begin)[places]
    if again.tobytes() != np.ascontiguousarray(matrix).tobytes():
        return
    if len(_KNOWN) >= KEPT:
        _KNOWN.clear()
    _KNOWN[body[:begin], tuple(names)] = _Layout(size, places.astype(np.intp))


def _data_begin(stream: bytes) -> int:
    """Where the data of a stream's second message begin, by the lengths of the first and of its header; 0 where these
    lead nowhere."""
    if len(stream) < 16:
        return 0
    mark, schema = struct.unpack_from("<Ii", stream, 0)
    if mark != _CONTINUES or not 0 < schema <= len(stream) - 16:
        return 0
    mark, header = struct.unpack_from("<Ii", stream, 8 + schema)
    begin: int = 16 + schema + header
    return begin if mark == _CONTINUES and header > 0 and begin < len(stream) else 0


def value_places(stream: bytes, numbers: Sequence[int]) -> tuple[int, ...]:
    """Where in a stream of a schema and a batch the buffers of these numbers begin; negative ones count from the last.

    Raises struct.error or IndexError for another stream."""
    begin = _data_begin(stream)
    (schema,) = struct.unpack_from("<i", stream, 4)
    found = buffers(stream[16 + schema : begin])
    return tuple(begin + found[number][0] for number in numbers)


def batch_header(metadata: bytes) -> tuple[int, bool]:
    """Rows of a RecordBatch message and whether its buffers are compressed, without reading its data.

    pyarrow tells neither before it has unpacked the batch. Offsets as in Arrow's Message.fbs: Message.header is
    field 2; RecordBatch.length is field 0, RecordBatch.compression field 3. Raises struct.error.
    """
    batch = _batch(metadata)
    length = _field(metadata, batch, 0)
    rows = struct.unpack_from("<q", metadata, length)[0] if length else 0
    return rows, bool(_field(metadata, batch, 3))


def buffers(metadata: bytes) -> list[tuple[int, int]]:
    """Offset and length of each buffer of a RecordBatch message in its data: RecordBatch.buffers, field 2, a vector of
    two 64-bit numbers each. Raises struct.error."""
    field = _field(metadata, _batch(metadata), 2)
    if not field:
        return []
    vector = field + struct.unpack_from("<I", metadata, field)[0]
    (count,) = struct.unpack_from("<I", metadata, vector)
    flat = struct.unpack_from(f"<{2 * count}q", metadata, vector + 4)
    return list(zip(flat[::2], flat[1::2], strict=True))


def _data_bytes(metadata: bytes) -> int:
    """Bytes of data that a message says follow it: Message.bodyLength, field 3. Raises struct.error."""
    (message,) = struct.unpack_from("<I", metadata, 0)
    field = _field(metadata, message, 3)
    length: int = struct.unpack_from("<q", metadata, field)[0] if field else 0
    return length


def _batch(metadata: bytes) -> int:
    """Where the RecordBatch table of a message begins."""
    (message,) = struct.unpack_from("<I", metadata, 0)
    header = _field(metadata, message, 2)
    place: int = header + struct.unpack_from("<I", metadata, header)[0]
    return place


def _field(data: bytes, table: int, number: int) -> int:
    """Where a flatbuffer table holds a field; 0 where it has it not."""
    vtable = table - struct.unpack_from("<i", data, table)[0]
    entry = 4 + 2 * number
    if vtable < 0 or entry + 2 > struct.unpack_from("<H", data, vtable)[0]:
        return 0
    (offset,) = struct.unpack_from("<H", data, vtable + entry)
    return table + offset if offset else 0
