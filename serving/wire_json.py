"""How a feature matrix and its scores travel as JSON, for people and small programs. Arrow is in `wire.py`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from oddlog.scoring.scorer import Scores
from serving.refusal import Refusal, columns_that_differ
from serving.wire import provenance, too_many_rows

_EXPECTED = '{"columns": [feature names], "rows": [[number or null, ...], ...], "version": model version or null}'


@dataclass(frozen=True, slots=True)
class MatrixRequest:
    """A JSON request, checked in form; its columns are not yet compared with a model's."""

    columns: list[str]
    rows: list[list[float | None]]
    version: str | None

    def matrix(self, names: Sequence[str]) -> npt.NDArray[np.float32]:
        """float32 [n, len(names)], columns in the order of `names`, null as NaN. Raises Refusal."""
        if (differ := columns_that_differ(self.columns, names)) is not None:
            raise Refusal(
                422,
                f"the columns are not the model's: {differ}",
                expected=", ".join(names),
                mend="GET /v1/schema lists the features and what they mean",
            )
        if not self.rows:
            return np.empty((0, len(names)), dtype=np.float32)
        with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused as that
            matrix = np.array(self.rows, dtype=np.float64).astype(np.float32)
        order = [self.columns.index(name) for name in names]
        return np.ascontiguousarray(matrix[:, order])


def decode_request(body: bytes, *, max_rows: int) -> MatrixRequest:
    """The request in a JSON body. Raises Refusal."""
    document = load_object(body, _EXPECTED)
    _only_keys(document, {"columns", "rows", "version"}, _EXPECTED)
    columns, rows, version = document.get("columns"), document.get("rows"), document.get("version")
    if not isinstance(columns, list) or not all(isinstance(name, str) for name in columns):
        raise _wrong("columns", "is no list of names", _EXPECTED)
    if not isinstance(rows, list):
        raise _wrong("rows", "is no list of rows", _EXPECTED)
    if len(rows) > max_rows:
        raise too_many_rows(len(rows), max_rows)
    for number, row in enumerate(rows):
        if not isinstance(row, list) or len(row) != len(columns):
            what = f"has {len(row)} values" if isinstance(row, list) else f"is {_kind(row)}"
            raise _wrong(f"row {number}", f"{what}, with {len(columns)} columns", _EXPECTED)
    strange = set(map(type, chain.from_iterable(rows))) - {int, float, type(None)}
    if strange:
        number = next(i for i, row in enumerate(rows) if strange & set(map(type, row)))
        value = next(value for value in rows[number] if type(value) in strange)
        raise _wrong(f"row {number}", f"holds {_kind(value)}", _EXPECTED)
    return MatrixRequest(columns, rows, check_version(version))


def check_version(version: Any) -> str | None:
    """A version as given in JSON: text, or null for the champion. Raises Refusal."""
    if version is None or isinstance(version, str):
        return version
    raise _wrong("version", f"is {_kind(version)}", 'text, as in "3", or null for the champion')


def decode_lines(body: bytes, *, max_rows: int) -> tuple[list[bytes], str | None]:
    """Log lines and model version of a JSON body `{"lines": [...], "version": null}`. Raises Refusal."""
    expected = '{"lines": ["a log line", ...], "version": model version or null}'
    document = load_object(body, expected)
    _only_keys(document, {"lines", "version"}, expected)
    lines = document.get("lines")
    if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
        raise _wrong("lines", "is no list of texts", expected)
    if len(lines) > max_rows:
        raise too_many_rows(len(lines), max_rows)
    return [line.encode() for line in lines], check_version(document.get("version"))


def load_object(body: bytes, expected: str) -> dict[str, Any]:
    """A JSON object. Raises Refusal."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Refusal(
            400,
            f"the body is not JSON: {error}"[:300],
            expected=expected,
            mend="NaN and Infinity are no JSON: write null for a value that is not known",
        ) from None
    if not isinstance(document, dict):
        raise Refusal(422, f"the body is {_kind(document)}", expected=expected, mend="send one JSON object")
    return document


def encode_scores_json(scores: Scores) -> bytes:
    """The answer: `model` (who said so), one list a column, and `novelty`, the second channel's, or null."""
    rows = range(len(scores.score))
    novelty = scores.novelty
    return orjson.dumps(
        {
            "model": provenance(scores),
            "score": scores.score,
            "severity": scores.severity,
            "is_anomaly": scores.is_anomaly,
            "reasons": [scores.reasons.get(row, []) for row in rows],
            "novelty": None
            if novelty is None
            else {
                "threshold": novelty.threshold,
                "score": novelty.score,
                "severity": novelty.severity,
                "is_anomaly": novelty.is_anomaly,
            },
        },
        option=orjson.OPT_SERIALIZE_NUMPY,
    )


def _only_keys(document: dict[str, Any], known: set[str], expected: str) -> None:
    if extra := sorted(set(document) - known):
        shown = ", ".join(name[:80] for name in extra[:10])
        raise Refusal(422, f"unknown key(s): {shown}", expected=expected, mend="leave them out")


def _wrong(what: str, found: str, expected: str) -> Refusal:
    return Refusal(422, f"{what} {found}", expected=expected, mend="GET /docs.json describes the body")


def _kind(value: Any) -> str:
    """A value in words that JSON has.

    >>> _kind(True), _kind(None), _kind("x")
    ('a boolean', 'null', 'a text')
    """
    names = {bool: "a boolean", str: "a text", list: "a list", dict: "an object", type(None): "null"}
    return names.get(type(value), "a number")
