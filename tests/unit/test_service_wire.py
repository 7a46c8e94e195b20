"""Coding and decoding of matrices and scores: nothing a client sends ends in anything but scores or a refusal."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from oddlog.errors import ScorerError
from oddlog.scoring.scorer import NoveltyScores, Reason, Scores
from serving.refusal import Refusal, columns_that_differ
from serving.wire import (
    NOVELTY_THRESHOLD,
    _whole,
    decode_matrix,
    decode_scores,
    encode_matrix,
    encode_scores,
    provenance,
    refuse_infinities,
)
from serving.wire_json import decode_lines, decode_request, encode_scores_json
from serving.wire_layout import SMALL_ROWS, known_matrix

NAMES = ["a", "b", "c"]


def stream(batches: list[pa.RecordBatch], compression: str | None = None) -> bytes:
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_stream(sink, batches[0].schema, options=options) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return bytes(sink.getvalue())


def floats(rows: int = 2, **columns: Any) -> pa.RecordBatch:
    made = {name: pa.array(np.arange(rows), pa.float32()) for name in NAMES}
    return pa.record_batch({**made, **columns})


matrices = st.integers(0, 20).flatmap(lambda rows: st_numpy.arrays(np.float32, (rows, 3), elements=st.floats(width=32)))


@given(matrices, st.permutations(NAMES))
def test_a_matrix_arrives_as_it_was_sent_in_the_order_asked_for(
    matrix: npt.NDArray[np.float32], order: list[str]
) -> None:
    found = decode_matrix(encode_matrix(matrix, NAMES), order, max_rows=20)
    np.testing.assert_array_equal(found, matrix[:, [NAMES.index(name) for name in order]])
    assert found.dtype == np.float32


def test_batches_are_joined_and_null_means_typical() -> None:
    batch = floats(a=pa.array([None, 1.0], pa.float32()))
    found = decode_matrix(stream([batch, batch]), NAMES, max_rows=4)
    np.testing.assert_array_equal(found[:, 0], np.array([np.nan, 1, np.nan, 1], np.float32))


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (b"", 400, "empty"),
        (b"not arrow at all", 400, "no whole Arrow IPC stream"),
        (stream([floats()])[:-40], 400, "no whole Arrow IPC stream"),
        (stream([pa.record_batch({"a": pa.array([1.0], pa.float32())})]), 422, "missing: b, c"),
        (stream([floats(x=pa.array([1.0, 2.0], pa.float32()))]), 422, "not a feature: x"),
        (stream([floats(a=pa.array([1.0, 2.0], pa.float64()))]), 422, "a is double"),
        (stream([floats(b=pa.array(["x", "y"]))]), 422, "b is string"),
        (stream([floats(b=pa.array(["x", "y"]).dictionary_encode())]), 422, "b is dictionary"),
        (stream([floats(rows=3), floats(rows=3)]), 413, "6 rows"),
        (stream([floats(rows=100_000)], "zstd"), 422, "compressed"),
        (stream([floats(rows=5)], "lz4"), 422, "compressed"),
    ],
)
def test_what_is_no_matrix_is_refused_by_name(body: bytes, status: int, says: str) -> None:
    with pytest.raises(Refusal, match=says) as caught:
        decode_matrix(body, NAMES, max_rows=5)
    assert caught.value.status == status
    assert all(caught.value.body().values())


@settings(max_examples=20, deadline=None)
@given(st.data(), st.integers(1, 70), st.permutations(NAMES))
def test_a_request_like_one_before_is_read_as_arrow_reads_it(data: st.DataObject, rows: int, order: list[str]) -> None:
    """A beginning that was remembered is followed by other values, other nulls, and other ends."""
    elements = st.floats(width=32) | st.none()
    columns: list[list[Any]] = [data.draw(st.lists(elements, min_size=rows, max_size=rows)) for _ in NAMES]
    others: list[list[list[Any]]] = [[[1.0] * rows] * 3, [[float(column)] * rows for column in range(3)]]
    for of in (columns, *others, columns):
        batch = pa.record_batch([pa.array(column, pa.float32()) for column in of], names=NAMES)
        body = stream([batch])
        asked = [np.array(of[NAMES.index(name)], np.float32) for name in order]
        np.testing.assert_array_equal(decode_matrix(body, order, max_rows=70), np.stack(asked, axis=1))
        twice = decode_matrix(stream([batch, batch]), order, max_rows=140)
        np.testing.assert_array_equal(twice, np.tile(np.stack(asked, axis=1), (2, 1)))
        for wrong in (body[:-9] + body[-8:], body[:-8] + b"\xff" * 8, body[: -8 - 4 * rows]):
            with pytest.raises(Refusal) as caught:
                decode_matrix(wrong, order, max_rows=70)
            assert caught.value.status == 400
        with pytest.raises(Refusal) as caught:
            decode_matrix(body, order, max_rows=rows - 1)
        assert caught.value.status == 413


def test_what_is_remembered_is_small_whole_and_without_nulls() -> None:
    for rows, remembered in ((1, True), (SMALL_ROWS, True), (SMALL_ROWS + 1, False)):
        body = encode_matrix(np.full((rows, 3), rows, np.float32), NAMES)
        decode_matrix(body, NAMES, max_rows=100)
        assert (known_matrix(body, NAMES, max_rows=100) is not None) is remembered
    null = stream([floats(a=pa.array([None, 1.0], pa.float32()))])
    decode_matrix(null, NAMES, max_rows=100)
    assert known_matrix(null, NAMES, max_rows=100) is None
    for batches in ([floats(0), floats()], [floats(), floats(0)], [floats(), floats()]):
        body = stream(batches)
        assert len(decode_matrix(body, NAMES, max_rows=100)) == sum(batch.num_rows for batch in batches)
        assert known_matrix(body, NAMES, max_rows=100) is None
    body = encode_matrix(np.ones((1, 3), np.float32), NAMES)
    for other in (b"", body[:20], body[:-8], body + b"x", body.replace(b"a", b"d")):
        assert known_matrix(other, NAMES, max_rows=100) is None
    assert known_matrix(body, ["x", "y", "z"], max_rows=100) is None


@pytest.mark.parametrize("rows", [0, 1, 7, 8, 9, SMALL_ROWS, SMALL_ROWS + 1])
@pytest.mark.parametrize("second", [True, False])
def test_an_answer_without_reasons_is_arrows_own_to_the_byte(rows: int, second: bool) -> None:
    for seed in range(3):
        rng = np.random.default_rng(seed)
        values = rng.random(rows).astype(np.float32), rng.random(rows), rng.random(rows) < 0.5
        novelty = NoveltyScores(0.5 + seed, *(values[0] * 2, values[1] + 1, ~values[2])) if second else None
        scores = Scores("oddlog", str(seed), "digest", 0.6, "1", "1", *values, novelty=novelty)
        channels: list[tuple[Any, ...]] = (
            [values, (novelty.score, novelty.severity, novelty.is_anomaly)] if novelty else [values]
        )
        said = {key: str(value) for key, value in provenance(scores).items()}
        said |= {NOVELTY_THRESHOLD: str(novelty.threshold)} if novelty else {}
        assert encode_scores(scores) == _whole(tuple(said.items()), channels, {})
        again = decode_scores(encode_scores(scores))
        np.testing.assert_array_equal(again.is_anomaly, values[2])
        np.testing.assert_array_equal(again.severity, values[1])


def test_a_schema_that_was_checked_is_checked_again_for_other_features() -> None:
    body = stream([floats()])
    for _ in range(2):
        assert decode_matrix(body, NAMES, max_rows=5).shape == (2, 3)
        np.testing.assert_array_equal(
            decode_matrix(body, ["c", "a", "b"], max_rows=5), decode_matrix(body, NAMES, max_rows=5)[:, [2, 0, 1]]
        )
        with pytest.raises(Refusal, match="missing: d"):
            decode_matrix(body, [*NAMES, "d"], max_rows=5)


def test_columns_given_twice_are_refused() -> None:
    twice = pa.RecordBatch.from_arrays([pa.array([1.0], pa.float32())] * 4, names=["a", "b", "c", "c"])
    with pytest.raises(Refusal, match="given twice: c"):
        decode_matrix(stream([twice]), NAMES, max_rows=5)


@given(st.data())
def test_a_damaged_stream_is_a_matrix_or_a_refusal(data: st.DataObject) -> None:
    body = bytearray(stream([floats(rows=4), floats(rows=1)]))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(body) - 1))
        body[place : place + 4] = data.draw(
            st.sampled_from([b"\0\0\0\0", b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\1\0\0\0"])
            | st.binary(min_size=1, max_size=4)
        )
    cut = data.draw(st.integers(0, len(body)) | st.just(len(body)))
    try:
        outcome: Any = decode_matrix(bytes(body[:cut]), NAMES, max_rows=50)
    except Refusal as refusal:
        outcome = refusal
    if isinstance(outcome, Refusal):
        assert outcome.status in {400, 413, 422}
        assert all(len(text) < 2_000 for text in outcome.body().values())
    else:
        assert outcome.shape[1] == 3
        assert len(outcome) <= 50


def test_a_million_columns_are_refused_in_a_few_words() -> None:
    names = [f"column {i}" for i in range(1_000_000)]
    text = columns_that_differ(names, NAMES)
    assert text is not None
    assert "and 999,980 more" in text
    assert len(text) < 1_000


def test_infinities_are_refused_by_row_and_column() -> None:
    matrix = np.zeros((3, 3), np.float32)
    refuse_infinities(np.full((2, 3), np.nan, np.float32), NAMES)
    matrix[1, 2] = -np.inf
    with pytest.raises(Refusal, match=r"1 infinite value.*row 1, column c"):
        refuse_infinities(matrix, NAMES)


def test_json_is_read_by_name_with_null_as_typical() -> None:
    body = orjson.dumps({"columns": ["c", "a", "b"], "rows": [[3, 1, None], [6.5, 4, 5]], "version": "7"})
    request = decode_request(body, max_rows=2)
    assert request.version == "7"
    np.testing.assert_array_equal(request.matrix(NAMES), np.array([[1, np.nan, 3], [4, 5, 6.5]], dtype=np.float32))
    empty = decode_request(b'{"columns": ["a", "b", "c"], "rows": []}', max_rows=2)
    assert empty.matrix(NAMES).shape == (0, 3)


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (b"", 400, "not JSON"),
        (b'{"columns": ["a"], "rows": [[NaN]]}', 400, "not JSON"),
        (b"[" * 100_000, 400, "not JSON"),
        (b"[]", 422, "the body is a list"),
        (b'{"rows": []}', 422, "columns is no list"),
        (b'{"columns": [1], "rows": []}', 422, "columns is no list"),
        (b'{"columns": ["a"], "rows": 7}', 422, "rows is no list"),
        (b'{"columns": ["a"], "rows": [[1], [1, 2]]}', 422, "row 1 has 2 values"),
        (b'{"columns": ["a"], "rows": [1]}', 422, "row 0 is a number"),
        (b'{"columns": ["a"], "rows": [[1], ["2"]]}', 422, "row 1 holds a text"),
        (b'{"columns": ["a"], "rows": [[true]]}', 422, "row 0 holds a boolean"),
        (b'{"columns": ["a"], "rows": [[[]]]}', 422, "row 0 holds a list"),
        (b'{"columns": [], "rows": [[], [], []]}', 413, "3 rows"),
        (b'{"columns": ["a"], "rows": [], "version": 3}', 422, "version is a number"),
        (b'{"columns": ["a"], "rows": [], "verison": "3"}', 422, r"unknown key\(s\): verison"),
    ],
)
def test_what_is_no_json_matrix_is_refused(body: bytes, status: int, says: str) -> None:
    with pytest.raises(Refusal, match=says) as caught:
        decode_request(body, max_rows=2)
    assert caught.value.status == status


def test_json_columns_and_large_numbers_are_checked() -> None:
    with pytest.raises(Refusal, match="missing: b"):
        decode_request(b'{"columns": ["a", "c"], "rows": []}', max_rows=2).matrix(NAMES)
    large = decode_request(b'{"columns": ["a", "b", "c"], "rows": [[1e39, 1, 1]]}', max_rows=2).matrix(NAMES)
    with pytest.raises(Refusal, match="column a"):
        refuse_infinities(large, NAMES)


def test_lines_come_as_a_list_of_texts() -> None:
    assert decode_lines(b'{"lines": ["x", ""]}', max_rows=2) == ([b"x", b""], None)
    for body, says in [
        (b'{"lines": "x"}', "no list of texts"),
        (b'{"lines": [1]}', "no list of texts"),
        (b'{"lines": [], "of": 1}', "unknown key"),
        (b'{"lines": ["", "", ""]}', "3 rows"),
    ]:
        with pytest.raises(Refusal, match=says):
            decode_lines(body, max_rows=2)


def some_scores(rows: int = 4, *, novelty: bool = True) -> Scores:
    reason = Reason(feature="a", value=1.5, typical=0.25, share=0.75, text="a: much; typical little")
    return Scores(
        model_name="oddlog",
        model_version="3",
        baseline_digest="d" * 64,
        threshold=0.1,
        threshold_version="2",
        champion="4",
        score=np.linspace(0, 1, rows, dtype=np.float32),
        severity=np.linspace(0, 5, rows),
        is_anomaly=np.arange(rows) % 2 == 1,
        reasons={row: [reason] * row for row in range(1, rows, 2)},
        novelty=NoveltyScores(
            2.5, np.linspace(3, 0, rows, dtype=np.float32), np.linspace(4, 0, rows), np.arange(rows) < 1
        )
        if novelty
        else None,
    )


@pytest.mark.parametrize("novelty", [True, False])
@pytest.mark.parametrize("rows", [0, 1, 4])
def test_scores_arrive_as_they_were_sent(rows: int, novelty: bool) -> None:
    sent = some_scores(rows, novelty=novelty)
    found = decode_scores(encode_scores(sent))
    assert (found.novelty is None) == (sent.novelty is None)
    if found.novelty is not None and sent.novelty is not None:
        assert found.novelty.threshold == sent.novelty.threshold
        for name in ("score", "severity", "is_anomaly"):
            np.testing.assert_array_equal(getattr(found.novelty, name), getattr(sent.novelty, name))
            assert getattr(found.novelty, name).dtype == getattr(sent.novelty, name).dtype
    for name in ("score", "severity", "is_anomaly"):
        np.testing.assert_array_equal(getattr(found, name), getattr(sent, name))
        assert getattr(found, name).dtype == getattr(sent, name).dtype
    assert found.reasons == sent.reasons
    said = ("model_name", "model_version", "baseline_digest", "threshold", "threshold_version", "champion")
    assert [getattr(found, name) for name in said] == [getattr(sent, name) for name in said]


def test_scores_as_json_say_the_same() -> None:
    document = orjson.loads(encode_scores_json(some_scores()))
    assert document["model"]["model_version"] == "3"
    assert document["model"]["champion"] == "4"
    assert document["is_anomaly"] == [False, True, False, True]
    assert [len(reasons) for reasons in document["reasons"]] == [0, 1, 0, 3]
    assert document["novelty"]["threshold"] == 2.5
    assert document["novelty"]["is_anomaly"] == [True, False, False, False]
    assert document["novelty"]["score"][0] == 3.0
    assert orjson.loads(encode_scores_json(some_scores(novelty=False)))["novelty"] is None


@pytest.mark.parametrize("body", [b"", b"<html>", stream([floats()])])
def test_a_strangers_answer_is_an_error(body: bytes) -> None:
    with pytest.raises(ScorerError, match="not one of oddlog's"):
        decode_scores(body)
