"""The HTTP routes, as an ASGI application that the BentoML service mounts. What a request means is decided here; who is
let in, in door.py; how bodies are read and coded, in body.py, wire.py and wire_json.py; what scores, in backend.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import anyio.to_thread
import numpy as np
import numpy.typing as npt
import orjson
from fastapi import FastAPI, Request, Response, Security
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException

from oddlog.errors import ScorerError
from oddlog.features.declaration import FEATURES, feature_digest
from oddlog.scoring.local import score_with
from oddlog.scoring.scorer import Scores
from oddlog.scoring.shelf import Held
from serving import openapi
from serving.backend import Backend
from serving.body import read_body
from serving.door import Door, backend_of, refused
from serving.lines import score_lines, split_lines
from serving.reasons import with_reasons
from serving.refusal import Refusal
from serving.wire import ARROW, decode_matrix, encode_scores, provenance, refuse_infinities, too_many_rows
from serving.wire_json import decode_lines, decode_request, encode_scores_json

JSON, TEXT = "application/json", "text/plain"

INLINE_BYTES = 16_384
"""Bodies up to this size (some 250 rows, about a millisecond) are scored on the event loop: below that a thread costs
more than it frees."""

R = TypeVar("R")
Matrix = npt.NDArray[np.float32]


def make_app(*, keyed: bool = False) -> FastAPI:
    """The application; `app.state.backend` is set by the service before the first request.

    `keyed`: the OpenAPI page says that a key is asked for. Whether one is, the backend's settings say."""
    app = FastAPI(title="oddlog", version="1", openapi_url=None, docs_url=None, redoc_url=None)
    app.add_middleware(Door)
    app.add_exception_handler(Refusal, _refused)
    app.add_exception_handler(ScorerError, _not_scored)
    app.add_exception_handler(HTTPException, _http_error)
    bearer = HTTPBearer(auto_error=False, description="ODDLOG_SERVE__API_KEY of the service.")
    key = [Security(bearer)] if keyed else []
    routes: tuple[tuple[str, str, Callable[..., Any], dict[str, Any]], ...] = (
        ("POST", "/v1/score", score, openapi.SCORE),
        ("POST", "/v1/score/lines", score_raw_lines, openapi.SCORE_LINES),
        ("POST", "/v1/explain", explain, openapi.EXPLAIN),
        ("POST", "/v1/explain/lines", explain_raw_lines, openapi.EXPLAIN_LINES),
        ("GET", "/v1/models", models, openapi.MODELS),
        ("GET", "/v1/models/{version}/baseline", baseline, openapi.BASELINE),
        ("GET", "/v1/models/{version}/card", card, openapi.CARD),
        ("GET", "/v1/schema", schema, openapi.SCHEMA),
    )
    for method, path, endpoint, documented in routes:
        app.add_api_route(path, endpoint, methods=[method], dependencies=key, **documented)
    return app


async def score(request: Request) -> Response:
    """Score a matrix: Arrow IPC stream in, Arrow IPC stream out; or JSON in, JSON out."""
    return await _answer_matrix(request, reasons_for_all=False)


async def explain(request: Request) -> Response:
    """Score a matrix and say why, for every row: the features that carried its score, anomaly or not."""
    return await _answer_matrix(request, reasons_for_all=True)


async def score_raw_lines(request: Request) -> Response:
    """Score raw log lines, for people: one answer a line, those that cannot be read included."""
    return await _answer_lines(request, reasons_for_all=False)


async def explain_raw_lines(request: Request) -> Response:
    """Score raw log lines and say why, for every line: the features that carried its score, anomaly or not."""
    return await _answer_lines(request, reasons_for_all=True)


async def models(request: Request) -> Response:
    """Champion, previous and challenger, what else is held, what was refused and why, and the registry's state."""
    backend = backend_of(request.scope)
    _only_known(request)
    if backend.shelf.champion() is None:
        await backend.look_again()
    return _json(backend.models())


async def baseline(request: Request) -> Response:
    """The frozen tables that a version's features are computed with: Arrow IPC, its digest as ETag."""
    held = await _held(request)
    tag = f'"{held.model.card.baseline_digest}"'
    headers = {"etag": tag, "cache-control": "no-cache"}
    if tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(held.model.baseline_bytes, media_type=ARROW, headers=headers)


async def card(request: Request) -> Response:
    """The card of a version: everything about it that is neither graph nor table."""
    held = await _held(request)
    return Response(held.model.card.model_dump_json(), media_type=JSON)


async def schema(request: Request) -> Response:
    """The features that a matrix has columns for, what each means, and the digest of that contract."""
    _only_known(request)
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


async def _answer_matrix(request: Request, *, reasons_for_all: bool) -> Response:
    backend = backend_of(request.scope)
    media = _media_type(request, (ARROW, JSON))
    version = _asked_version(request)
    body = await read_body(request, backend.settings)
    max_rows = backend.settings.max_rows
    matrix_of: Callable[[Sequence[str]], Matrix] = partial(decode_matrix, body, max_rows=max_rows)
    encode: Callable[[Scores], bytes] = encode_scores
    if media == JSON:
        asked = await _run(partial(decode_request, body, max_rows=max_rows), len(body))
        matrix_of, encode, version = asked.matrix, encode_scores_json, _one_version(version, asked.version)
    held, champion = await backend.choose(version)

    def answer() -> tuple[Scores, bytes]:
        names = held.model.card.feature_names
        matrix = matrix_of(names)
        refuse_infinities(matrix, names)
        if reasons_for_all:
            _few_enough(len(matrix), backend)
        scores = score_with(held, champion, backend.shelf.name, matrix, names)
        if reasons_for_all:
            scores = with_reasons(scores, held, matrix)
        return scores, encode(scores)

    scores, content = await _run(answer, len(body))
    _count(backend, scores, explained=reasons_for_all)
    return Response(content, media_type=media)


async def _answer_lines(request: Request, *, reasons_for_all: bool) -> Response:
    backend = backend_of(request.scope)
    media = _media_type(request, (TEXT, JSON))
    version = _asked_version(request)
    body = await read_body(request, backend.settings)
    max_rows = backend.settings.max_rows
    if media == JSON:
        lines, named = await _run(partial(decode_lines, body, max_rows=max_rows), len(body))
        version = _one_version(version, named)
    else:
        lines = await _run(partial(split_lines, body), len(body))
    if len(lines) > max_rows:
        raise too_many_rows(len(lines), max_rows)
    if reasons_for_all:
        _few_enough(len(lines), backend)
    held, champion = await backend.choose(version)
    answer = partial(score_lines, lines, held, champion, backend.shelf.name, reasons_for_all=reasons_for_all)
    # Parsing and features cost milliseconds even for one line: never on the event loop.
    scores, answers = await anyio.to_thread.run_sync(answer)
    _count(backend, scores, explained=reasons_for_all)
    return _json({"model": provenance(scores), "lines": answers})


def _few_enough(rows: int, backend: Backend) -> None:
    """Raise Refusal where more rows are to be explained than the service does at once."""
    most = backend.settings.explain_rows
    if rows > most:
        raise Refusal(
            413,
            f"{rows:,} rows to explain in one request",
            expected=f"at most {most:,}",
            mend="ask for the rows that matter (/v1/score explains anomalies), or raise ODDLOG_SERVE__EXPLAIN_ROWS",
        )


def _count(backend: Backend, scores: Scores, *, explained: bool) -> None:
    if explained:
        backend.metrics.explained(scores)
    else:
        backend.metrics.scored(scores)


async def _held(request: Request) -> Held:
    _only_known(request)
    held, _ = await backend_of(request.scope).choose(request.path_params["version"])
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


def _only_known(request: Request, *known: str) -> None:
    """Raise Refusal for a parameter that nobody reads: one that is misspelt would be left out without a word."""
    unknown = sorted({name for name in request.query_params if name not in known})
    if unknown:
        raise Refusal(
            422,
            f"unknown parameter(s) of the query: {', '.join(repr(name[:80]) for name in unknown[:10])}",
            expected=", ".join(known) or "none",
            mend="leave them out",
        )


def _asked_version(request: Request) -> str | None:
    if not request.scope["query_string"]:
        return None
    _only_known(request, "version")
    given = request.query_params.getlist("version")
    if len(given) > 1:
        raise Refusal(422, "the parameter version is given twice", expected="one version", mend="leave one out")
    return given[0] if given else None


def _one_version(in_query: str | None, in_body: str | None) -> str | None:
    if in_query is not None and in_body is not None and in_query != in_body:
        raise Refusal(
            409,
            f"version {in_body[:80]!r} in the body and {in_query[:80]!r} in the query",
            expected="one version",
            mend="leave one out",
        )
    return in_query if in_body is None else in_body


def _json(document: Any) -> Response:
    return Response(orjson.dumps(document), media_type=JSON)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return refused(request.scope, error)


async def _not_scored(request: Request, error: Exception) -> Response:
    """A ScorerError below the routes is about the request: its columns or its version."""
    assert isinstance(error, ScorerError)
    found = Refusal(422, error.found, expected=error.expected or "", mend=error.mend or "GET /v1/schema")
    return refused(request.scope, found)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    refusal = Refusal(
        error.status_code,
        f"{request.method} {request.url.path[:200]}: {error.detail}",
        expected="one of the paths and methods that GET /docs.json lists",
        mend="GET /docs.json",
        headers=dict(error.headers or {}),
    )
    return refused(request.scope, refusal)
