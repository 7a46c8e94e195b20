"""What GET /docs.json says about the routes: bodies, answers, examples. The routes themselves are in api.py."""

from __future__ import annotations

from typing import Any

from fastapi import Response

from oddlog.features.declaration import FEATURE_NAMES
from serving.wire import ARROW

_STRING: dict[str, Any] = {"type": "string"}
_NUMBER: dict[str, Any] = {"type": "number"}
_BOOLEAN: dict[str, Any] = {"type": "boolean"}
_BINARY: dict[str, Any] = {"type": "string", "format": "binary"}
_MAYBE_STRING: dict[str, Any] = {"type": "string", "nullable": True}
_LARGEST = 3.4028234e38
"""Of float32."""

_REQUEST_ID: dict[str, Any] = {
    "x-request-id": {
        "description": "The id of the request in the service's log: the one that was sent, else a new one.",
        "schema": _STRING,
    }
}


def _object(**properties: Any) -> dict[str, Any]:
    """An object that has every one of these."""
    return {"type": "object", "required": list(properties), "properties": properties}


def _json(schema: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"application/json": {"schema": schema, **more}}


_PROBLEM = _object(
    found={"type": "string", "description": "What was wrong."},
    expected={"type": "string", "description": "What it should have been."},
    mend={"type": "string", "description": "What to do about it."},
)

_MODEL: dict[str, Any] = {
    **_object(
        model_name=_STRING,
        model_version=_STRING,
        baseline_digest=_STRING,
        threshold=_NUMBER,
        threshold_version=_STRING,
        champion=_STRING,
    ),
    "description": "Which model said so; `champion` is the version that is champion now.",
}

_REASONS: dict[str, Any] = {
    "type": "array",
    "items": _object(
        feature=_STRING,
        value={"type": "number", "nullable": True, "description": "null: not known, taken as typical."},
        typical=_NUMBER,
        share={"type": "number", "description": "Its part of what spoke for an anomaly, 0 to 1."},
        text=_STRING,
    ),
}

_NOVELTY: dict[str, Any] = {
    "allOf": [
        _object(
            threshold=_NUMBER,
            score={"type": "array", "items": _NUMBER, "description": "Higher = odder in itself, whoever sends it."},
            severity={"type": "array", "items": _NUMBER},
            is_anomaly={"type": "array", "items": _BOOLEAN},
        )
    ],
    "nullable": True,
    "description": "The second channel's; null for a model that has none.",
}

_EXAMPLE_LINE = '203.0.113.9 - - [10/Oct/2025:13:55:36 +0000] "GET /wp-login.php HTTP/1.1" 404 162 "-" "curl/8.5"'

_MEANINGS = {
    400: "The body is not what its content type says.",
    401: "The service asks for a key, and this is none of its keys.",
    404: "No such version is held; the answer names those that are.",
    408: "The body took too long to arrive.",
    409: "One version in the query, another in the body.",
    413: "Too many rows, or too large a body.",
    415: "A content type or encoding that this route does not read.",
    422: "Well-formed, but not what this route takes; the answer names what differs.",
    429: "This worker has as many requests under way as it takes.",
    503: "No warm model: the answer says what is missing and the command that mends it.",
}


def _answers(description: str, content: dict[str, Any], *problems: int) -> dict[str, Any]:
    """What FastAPI's add_api_route takes: the documented answers, and no parsing of our own responses."""
    statuses = sorted({401, 422, 429, *problems})
    return {
        "response_class": Response,
        "responses": {
            200: {"description": description, "content": content, "headers": _REQUEST_ID},
            **{
                status: {"description": _MEANINGS[status], "content": _json(_PROBLEM), "headers": _REQUEST_ID}
                for status in statuses
            },
        },
    }


_VERSION_ASKED: dict[str, Any] = {
    "name": "version",
    "in": "query",
    "required": False,
    "description": "A version that is held (GET /v1/models); none: the champion.",
    "schema": _STRING,
}
_VERSION_HELD: dict[str, Any] = {
    "name": "version",
    "in": "path",
    "required": True,
    "description": "A version that is held; GET /v1/models lists them.",
    "schema": {"type": "string", "minLength": 1},
    "example": "1",
}
_VERSION_IN_BODY = {**_MAYBE_STRING, "description": "null: the champion."}

_MATRIX = {
    "type": "object",
    "required": ["columns", "rows"],
    "additionalProperties": False,
    "properties": {
        "columns": {
            "type": "array",
            "description": "Every feature once, in any order.",
            "items": {"type": "string", "enum": list(FEATURE_NAMES)},
            "uniqueItems": True,
            "minItems": len(FEATURE_NAMES),
            "maxItems": len(FEATURE_NAMES),
        },
        "rows": {
            "type": "array",
            "items": {
                "type": "array",
                "minItems": len(FEATURE_NAMES),
                "maxItems": len(FEATURE_NAMES),
                "items": {"type": "number", "nullable": True, "minimum": -_LARGEST, "maximum": _LARGEST},
            },
        },
        "version": _VERSION_IN_BODY,
    },
}
_EXAMPLE_MATRIX = {
    "columns": list(FEATURE_NAMES),
    "rows": [[None] * len(FEATURE_NAMES), [0.96 if name == "client_error_1h" else None for name in FEATURE_NAMES]],
}


def _matrix(description: str, reasons: str) -> dict[str, Any]:
    """A route that takes a feature matrix."""
    column = {"type": "array", "items": _NUMBER}
    answer = _object(
        model=_MODEL,
        score={**column, "description": "Higher = more anomalous."},
        severity={**column, "description": "log10 N of rarer than one in N."},
        is_anomaly={"type": "array", "items": _BOOLEAN},
        reasons={"type": "array", "items": _REASONS, "description": reasons},
        novelty=_NOVELTY,
    )
    return {
        **_answers(description, {ARROW: {"schema": _BINARY}, **_json(answer)}, 400, 404, 408, 409, 413, 415, 503),
        "tags": ["Score"],
        "openapi_extra": {
            "parameters": [_VERSION_ASKED],
            "requestBody": {
                "required": True,
                "description": "One column a feature (GET /v1/schema), found by name, in any order. NaN, in JSON null, "
                "stands for the typical value. Arrow: float32 columns, uncompressed; answers carry `score`, "
                "`severity`, `is_anomaly`, `reasons`, and in the schema's metadata what `model` is in JSON.",
                "content": {**_json(_MATRIX, example=_EXAMPLE_MATRIX), ARROW: {"schema": _BINARY}},
            },
        },
    }


def _lines(description: str) -> dict[str, Any]:
    """A route that takes raw log lines."""
    scored = _object(
        line={"type": "integer", "description": "From 1."},
        status={"type": "string", "enum": ["scored"]},
        client=_STRING,
        request=_STRING,
        score=_NUMBER,
        severity=_NUMBER,
        is_anomaly=_BOOLEAN,
        reasons=_REASONS,
    )
    unparseable = _object(
        line={"type": "integer", "description": "From 1."},
        status={"type": "string", "enum": ["unparseable"]},
        kind=_STRING,
        reason=_STRING,
    )
    answer = _object(model=_MODEL, lines={"type": "array", "items": {"oneOf": [scored, unparseable]}})
    body = {
        "type": "object",
        "required": ["lines"],
        "additionalProperties": False,
        "properties": {"lines": {"type": "array", "items": _STRING}, "version": _VERSION_IN_BODY},
    }
    return {
        **_answers(description, _json(answer), 400, 404, 408, 409, 413, 415, 503),
        "tags": ["Score"],
        "openapi_extra": {
            "parameters": [_VERSION_ASKED],
            "requestBody": {
                "required": True,
                "description": "Access log lines (combined, common, Filebeat's or Logstash's JSON), one a line. What a "
                "client did is known from these lines alone: a stream's history is not used.",
                "content": {
                    "text/plain": {"schema": _STRING, "example": _EXAMPLE_LINE},
                    **_json(body, example={"lines": [_EXAMPLE_LINE]}),
                },
            },
        },
    }


SCORE = _matrix("Scores, in the format of the request.", "Empty but for anomalies.")
EXPLAIN = _matrix(
    "Scores with reasons, in the format of the request.", "Of every row; empty where nothing spoke for it."
)
SCORE_LINES = _lines("One answer a line, in order; reasons for anomalies.")
EXPLAIN_LINES = _lines("One answer a line, in order; reasons for every line.")

_HELD = {
    "allOf": [
        _object(
            version=_STRING,
            algorithm=_STRING,
            threshold={"type": "object"},
            baseline_digest=_STRING,
            feature_digest=_STRING,
            model_digest=_STRING,
            fitted_on={"type": "object"},
            oddlog_version=_STRING,
            created_at=_STRING,
        )
    ],
    "nullable": True,
}

MODELS: dict[str, Any] = {
    **_answers(
        "What is held, and the state of the registry; 200 with `champion: null` while there is no model.",
        _json(
            _object(
                name=_STRING,
                champion=_HELD,
                previous=_HELD,
                challenger=_HELD,
                held={"type": "array", "items": _STRING},
                refused={
                    "type": "array",
                    "description": "Versions that have a role, and failed their check.",
                    "items": _object(
                        version=_STRING,
                        role=_STRING,
                        found=_STRING,
                        expected=_MAYBE_STRING,
                        mend=_MAYBE_STRING,
                        at=_STRING,
                    ),
                },
                registry=_object(
                    reachable={"type": "boolean", "nullable": True, "description": "null: not asked yet."},
                    error=_MAYBE_STRING,
                    looked_at=_MAYBE_STRING,
                    roles={"type": "object", "additionalProperties": _STRING},
                    serving_from_cache=_BOOLEAN,
                ),
                detail={"type": "string", "description": "The same in a sentence."},
            )
        ),
    ),
    "tags": ["Models"],
}


def _of_a_version(description: str, content: dict[str, Any]) -> dict[str, Any]:
    """A route whose path names a version."""
    found = _answers(description, content, 404, 503)
    # A line end in the path matches no route: BentoML itself says so then, in its own words.
    found["responses"][404]["content"]["text/plain"] = {"schema": _STRING}
    return {**found, "tags": ["Models"], "openapi_extra": {"parameters": [_VERSION_HELD]}}


BASELINE = _of_a_version("The baseline's tables.", {ARROW: {"schema": _BINARY}})

CARD = _of_a_version("The card.", _json({"type": "object"}))

SCHEMA: dict[str, Any] = {
    **_answers(
        "The features, in the order of the model's columns.",
        _json(
            _object(
                digest=_STRING,
                features={
                    "type": "array",
                    "items": _object(
                        name=_STRING, type=_STRING, meaning=_STRING, formula=_STRING,
                        direction={"type": "integer"}, unit=_STRING,
                    ),
                },
            )
        ),
    ),
    "tags": ["Models"],
}  # fmt: skip
