"""The HTTP routes, as an ASGI application that the BentoML service mounts. What a request means is decided here;
how it is coded is in wire.py and wire_json.py, what it is scored with in backend.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Any, TypeVar

import anyio.to_thread
import numpy as np
import numpy.typing as npt
import orjson
from fastapi import FastAPI, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from oddlog.errors import ScorerError
from oddlog.features.declaration import FEATURES, feature_digest
from oddlog.scoring.local import score_with
from oddlog.scoring.scorer import Scores
from oddlog.scoring.shelf import Held
from serving import openapi
from serving.backend import Backend
from serving.lines import score_lines, split_lines
from serving.refusal import Refusal
from serving.wire import ARROW, decode_matrix, encode_scores, provenance, refuse_infinities, too_many_rows
from serving.wire_json import decode_lines, decode_request, encode_scores_json

JSON, TEXT = "application/json", "text/plain"

INLINE_BYTES = 16_384
"""Bodies up to this size (some 250 rows, about a millisecond) are scored on the event loop: below that a thread costs
more than it frees."""

Version = Annotated[str | None, Query(description="Model version; none: the champion.", examples=["3"])]
HeldVersion = Annotated[str, Path(description="A version that is held; GET /v1/models lists them.")]

R = TypeVar("R")
Matrix = npt.NDArray[np.float32]


def make_app() -> FastAPI:
    """The application; `app.state.backend` is set by the service before the first request."""
    app = FastAPI(title="oddlog", version="1", openapi_url=None, docs_url=None, redoc_url=None)
    app.add_exception_handler(Refusal, _refused)
    app.add_exception_handler(ScorerError, _not_scored)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_api_route("/v1/score", score, methods=["POST"], **openapi.SCORE)
    app.add_api_route("/v1/score/lines", score_raw_lines, methods=["POST"], **openapi.LINES)
    app.add_api_route("/v1/models", models, methods=["GET"], **openapi.MODELS)
    app.add_api_route("/v1/models/{version}/baseline", baseline, methods=["GET"], **openapi.BASELINE)
    app.add_api_route("/v1/models/{version}/card", card, methods=["GET"], **openapi.CARD)
    app.add_api_route("/v1/schema", schema, methods=["GET"], **openapi.SCHEMA)
    return app


async def score(request: Request, version: Version = None) -> Response:
    """Score a matrix: Arrow IPC stream in, Arrow IPC stream out; or JSON in, JSON out."""
    backend = _backend(request)
    media = _media_type(request, (ARROW, JSON))
    body = await _body(request, backend.settings.max_bytes)
    max_rows = backend.settings.max_rows
    matrix_of: Callable[[Sequence[str]], Matrix] = partial(decode_matrix, body, max_rows=max_rows)
    encode: Callable[[Scores], bytes] = encode_scores
    if media == JSON:
        asked = await _run(partial(decode_request, body, max_rows=max_rows), len(body))
        matrix_of, encode, version = asked.matrix, encode_scores_json, asked.version or version
    held, champion = await backend.choose(version)

    def answer() -> tuple[Scores, bytes]:
        names = held.model.card.feature_names
        matrix = matrix_of(names)
        refuse_infinities(matrix, names)
        scores = score_with(held, champion, backend.shelf.name, matrix, names)
        return scores, encode(scores)

    scores, content = await _run(answer, len(body))
    backend.metrics.scored(scores)
    return Response(content, media_type=media)


async def score_raw_lines(request: Request, version: Version = None) -> Response:
    """Score raw log lines, for people: one answer a line, those that cannot be read included."""
    backend = _backend(request)
    media = _media_type(request, (TEXT, JSON))
    body = await _body(request, backend.settings.max_bytes)
    max_rows = backend.settings.max_rows
    if media == JSON:
        lines, named = await _run(partial(decode_lines, body, max_rows=max_rows), len(body))
    else:
        lines, named = await _run(partial(split_lines, body), len(body)), None
    if len(lines) > max_rows:
        raise too_many_rows(len(lines), max_rows)
    held, champion = await backend.choose(named or version)
    # Parsing and features cost milliseconds even for one line: never on the event loop.
    scores, answers = await anyio.to_thread.run_sync(score_lines, lines, held, champion, backend.shelf.name)
    backend.metrics.scored(scores)
    return _json({"model": provenance(scores), "lines": answers})


async def models(request: Request) -> Response:
    """Champion, previous and challenger, what else is held, what was refused and why, and the registry's state."""
    backend = _backend(request)
    if backend.shelf.champion() is None:
        await backend.look_again()
    return _json(backend.models())


async def baseline(request: Request, version: HeldVersion) -> Response:
    """The frozen tables that a version's features are computed with: Arrow IPC, its digest as ETag."""
    held = await _held(request, version)
    tag = f'"{held.model.card.baseline_digest}"'
    headers = {"etag": tag, "cache-control": "no-cache"}
    if tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(held.model.baseline_bytes, media_type=ARROW, headers=headers)


async def card(request: Request, version: HeldVersion) -> Response:
    """The card of a version: everything about it that is neither graph nor table."""
    held = await _held(request, version)
    return Response(held.model.card.model_dump_json(), media_type=JSON)


async def schema(request: Request) -> Response:
    """The features that a matrix has columns for, what each means, and the digest of that contract."""
    features = [
        {
            "name": feature.name,
            "type": "float32",
            "meaning": feature.meaning,
            "formula": feature.formula,
            "direction": feature.direction,
            "unit": feature.unit,
        }
        for feature in FEATURES
    ]
    return _json({"digest": feature_digest(), "features": features})


def _backend(request: Request) -> Backend:
    backend = request.app.state.backend
    assert isinstance(backend, Backend)
    return backend


async def _held(request: Request, version: str) -> Held:
    held, _ = await _backend(request).choose(version)
    return held


async def _run(function: Callable[[], R], size: int) -> R:
    return function() if size <= INLINE_BYTES else await anyio.to_thread.run_sync(function)


def _media_type(request: Request, known: tuple[str, ...]) -> str:
    found = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if found in known:
        return found
    raise Refusal(
        415,
        f"content type {found[:100]!r}" if found else "no content type",
        expected=" or ".join(known),
        mend=f"curl -H 'content-type: {known[-1]}' ...",
    )


async def _body(request: Request, most: int) -> bytes:
    """The whole body. Raises Refusal: 413 where it is larger than `most`, 415 where it is compressed."""
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in {"", "identity"}:
        raise Refusal(
            415,
            f"content encoding {encoding[:40]!r}",
            expected="a body as it is: nobody here has to unpack a bomb",
            mend="send it without Content-Encoding",
        )
    too_large = Refusal(
        413,
        f"a body of more than {most:,} bytes",
        expected=f"at most {most:,} bytes",
        mend="send several requests, or raise ODDLOG_SERVE__MAX_BYTES of the service",
    )
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > most and "expect" in request.headers:
        raise too_large
    chunks: list[bytes] = []
    size = 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size <= most:
                chunks.append(chunk)
            else:
                chunks.clear()  # read on for a while: an answer before the end of the body gets lost on the way
                if size > 4 * most:
                    raise too_large
    except ClientDisconnect:
        raise Refusal(
            400,
            "the client went away in the middle of the body",
            expected="a whole body",
            mend="send it again",
        ) from None
    if size > most:
        raise too_large
    return b"".join(chunks)


def _json(document: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(document), status, headers, JSON)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    _backend(request).metrics.request_refused(error.status)
    return _json(error.body(), error.status, error.headers)


async def _not_scored(request: Request, error: Exception) -> Response:
    """A ScorerError below the routes is about the request: its columns or its version."""
    assert isinstance(error, ScorerError)
    found = Refusal(422, error.found, expected=error.expected or "", mend=error.mend or "GET /v1/schema")
    return await _refused(request, found)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    expected = "one of the paths and methods that GET /docs.json lists"
    refusal = Refusal(
        error.status_code,
        f"{request.method} {request.url.path[:200]}: {error.detail}",
        expected=expected,
        mend="GET /docs.json",
        headers=dict(error.headers or {}),
    )
    return await _refused(request, refusal)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first.get("loc", ()))
    found = f"{where}: {first.get('msg', 'invalid')}"
    return await _refused(request, Refusal(422, found, expected="as GET /docs.json says", mend="GET /docs.json"))
