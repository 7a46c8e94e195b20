"""A log as a stream: packed or not, cut anywhere into batches, whole or broken."""

from __future__ import annotations

import gzip
import io

import pyarrow as pa
import pytest

from oddlog.errors import UsageError
from oddlog.events.logstream import LONGEST_LINE, records_of

TEXT = b"one\ntwo\r\n\nfour \xff\nfive without an end"
LINES = [b"one", b"two", b"", b"four \xff", b"five without an end"]


def packed(data: bytes, how: str) -> bytes:
    if how == "zstd":
        return bytes(pa.compress(data, "zstd", asbytes=True))
    return gzip.compress(data) if how == "gzip" else data


def read(data: bytes, **options: int) -> list[tuple[int, bytes | None]]:
    found = []
    for records in records_of(io.BytesIO(data), name="x", **options):  # type: ignore[arg-type]
        found += list(zip(records.offset, records.value, strict=True))
    return found


@pytest.mark.parametrize("how", ["plain", "gzip", "zstd"])
@pytest.mark.parametrize("batch_bytes", [1, 2, 7, 1 << 20])
def test_lines_and_numbers_do_not_depend_on_batches(how: str, batch_bytes: int) -> None:
    assert read(packed(TEXT, how), batch_bytes=batch_bytes) == list(enumerate(LINES))


def test_gzip_of_several_members_as_rotation_makes_them() -> None:
    assert read(gzip.compress(b"a\n") + gzip.compress(b"b\n")) == [(0, b"a"), (1, b"b")]


@pytest.mark.parametrize("data", [b"", gzip.compress(b"", mtime=0)], ids=["plain", "packed"])
def test_nothing(data: bytes) -> None:
    assert read(data) == []


@pytest.mark.parametrize("short", [b"a", b"\x1f", b"a\n"])
def test_shorter_than_a_magic_number(short: bytes) -> None:
    assert read(short) == [(0, short.rstrip())]


@pytest.mark.parametrize("how", ["gzip", "zstd"])
def test_half_a_packed_file_is_an_error_that_names_it(how: str) -> None:
    whole = packed(b"".join(b"line %d\n" % n for n in range(10_000)), how)
    with pytest.raises(UsageError, match=r"x cannot be unpacked"):
        read(whole[: len(whole) // 2])


def test_what_only_begins_like_gzip() -> None:
    with pytest.raises(UsageError, match="cannot be unpacked"):
        read(b"\x1f\x8bthis is no gzip at all")


def test_utf_16_is_named() -> None:
    with pytest.raises(UsageError, match="UTF-16"):
        read("GET /".encode("utf-16"))


def test_progress_counts_the_packed_bytes() -> None:
    whole, told = packed(b"line\n" * 100_000, "gzip"), []
    for _ in records_of(io.BytesIO(whole), name="x", read=told.append):
        pass
    assert told == sorted(told)
    assert told[-1] == len(whole)


def test_a_file_without_line_ends_does_not_fill_the_memory() -> None:
    ((_, line),) = read(b"a" * (5 << 20), batch_bytes=1 << 20)
    assert line is not None
    assert len(line) == 1 << 20


@pytest.mark.parametrize("batch_bytes", [100_000, 1 << 20, 1 << 23])
def test_of_a_very_long_line_the_same_beginning_counts_wherever_batches_end(batch_bytes: int) -> None:
    long = b"".join(b"%07d;" % number for number in range(400_000))
    found = read(b"one\n" + long + b"\nthree\n", batch_bytes=batch_bytes)
    assert found == [(0, b"one"), (1, long[:LONGEST_LINE]), (2, b"three")]
