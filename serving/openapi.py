"""What GET /docs.json says about the routes: bodies, answers, examples. The routes themselves are in api.py."""

from __future__ import annotations

from typing import Any

from fastapi import Response

from serving.wire import ARROW

_STRING: dict[str, Any] = {"type": "string"}
_NUMBER: dict[str, Any] = {"type": "number"}
_BINARY: dict[str, Any] = {"type": "string", "format": "binary"}

_PROBLEM: dict[str, Any] = {
    "type": "object",
    "required": ["found", "expected", "mend"],
    "properties": {
        "found": {"type": "string", "description": "What was wrong."},
        "expected": {"type": "string", "description": "What it should have been."},
        "mend": {"type": "string", "description": "What to do about it."},
    },
}

_MODEL: dict[str, Any] = {
    "type": "object",
    "description": "Which model said so; `champion` is the version that is champion now.",
    "properties": {
        "model_name": _STRING,
        "model_version": _STRING,
        "baseline_digest": _STRING,
        "threshold": _NUMBER,
        "threshold_version": _STRING,
        "champion": _STRING,
    },
}

_REASONS: dict[str, Any] = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {
            "feature": _STRING,
            "value": {"type": "number", "nullable": True},
            "typical": _NUMBER,
            "share": _NUMBER,
            "text": _STRING,
        },
    },
}

_EXAMPLE_LINE = '203.0.113.9 - - [10/Oct/2025:13:55:36 +0000] "GET /wp-login.php HTTP/1.1" 404 162 "-" "curl/8.5"'


def _problems(*statuses: int) -> dict[int, dict[str, Any]]:
    meanings = {
        400: "The body is not what its content type says.",
        404: "No such version is held; the answer names those that are.",
        413: "Too many rows, or too large a body.",
        415: "A content type or encoding that this route does not read.",
        422: "Well-formed, but not a matrix of this model; the answer names what differs.",
        503: "No warm model: the answer says what is missing and the command that mends it.",
    }
    return {
        status: {"description": meanings[status], "content": {"application/json": {"schema": _PROBLEM}}}
        for status in statuses
    }


def _answers(description: str, content: dict[str, Any], *problems: int) -> dict[str, Any]:
    """What FastAPI's add_api_route takes: the documented answers, and no parsing of our own responses."""
    return {
        "response_class": Response,
        "responses": {200: {"description": description, "content": content}, **_problems(*problems)},
    }


def _object(**properties: Any) -> dict[str, Any]:
    return {"application/json": {"schema": {"type": "object", "properties": properties}}}


SCORE: dict[str, Any] = {
    **_answers(
        "Scores, in the format of the request.",
        {
            ARROW: {"schema": _BINARY},
            **_object(
                model=_MODEL,
                score={"type": "array", "items": _NUMBER, "description": "Higher = more anomalous."},
                severity={"type": "array", "items": _NUMBER, "description": "log10 N of rarer than one in N."},
                is_anomaly={"type": "array", "items": {"type": "boolean"}},
                reasons={"type": "array", "items": _REASONS, "description": "Empty but for anomalies."},
            ),
        },
        400, 404, 413, 415, 422, 503,
    ),
    "tags": ["Score"],
    "openapi_extra": {
        "requestBody": {
            "required": True,
            "description": "One column a feature (GET /v1/schema), found by name, in any order. NaN, in JSON null, "
            "stands for the typical value. Arrow: float32 columns, uncompressed; answers carry `score`, `severity`, "
            "`is_anomaly`, `reasons`, and in the schema's metadata what `model` is in JSON.",
            "content": {
                ARROW: {"schema": _BINARY},
                "application/json": {
                    "schema": {
                        "type": "object",
                        "required": ["columns", "rows"],
                        "additionalProperties": False,
                        "properties": {
                            "columns": {"type": "array", "items": _STRING},
                            "rows": {
                                "type": "array",
                                "items": {"type": "array", "items": {"type": "number", "nullable": True}},
                            },
                            "version": {"type": "string", "nullable": True, "description": "null: the champion."},
                        },
                    }
                },
            },
        }
    },
}  # fmt: skip

LINES: dict[str, Any] = {
    **_answers(
        "One answer a line, in order.",
        _object(
            model=_MODEL,
            lines={
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {
                        "line": {"type": "integer", "description": "From 1."},
                        "status": {"type": "string", "enum": ["scored", "unparseable"]},
                        "client": _STRING,
                        "request": _STRING,
                        "score": _NUMBER,
                        "severity": _NUMBER,
                        "is_anomaly": {"type": "boolean"},
                        "reasons": _REASONS,
                        "kind": _STRING,
                        "reason": _STRING,
                    },
                },
            },
        ),
        400, 404, 413, 415, 422, 503,
    ),
    "tags": ["Score"],
    "openapi_extra": {
        "requestBody": {
            "required": True,
            "description": "Access log lines (combined, common, Filebeat's or Logstash's JSON), one a line. What a "
            "client did is known from these lines alone: a stream's history is not used.",
            "content": {
                "text/plain": {"schema": _STRING, "example": _EXAMPLE_LINE},
                "application/json": {
                    "schema": {
                        "type": "object",
                        "required": ["lines"],
                        "additionalProperties": False,
                        "properties": {
                            "lines": {"type": "array", "items": _STRING},
                            "version": {"type": "string", "nullable": True, "description": "null: the champion."},
                        },
                    },
                    "example": {"lines": [_EXAMPLE_LINE]},
                },
            },
        }
    },
}  # fmt: skip

_LIST: dict[str, Any] = {"type": "array", "items": {"type": "object"}}

MODELS: dict[str, Any] = {
    **_answers(
        "What is held, and the state of the registry; 200 with `champion: null` while there is no model.",
        _object(
            name=_STRING,
            champion={"type": "object", "nullable": True},
            previous={"type": "object", "nullable": True},
            challenger={"type": "object", "nullable": True},
            held={"type": "array", "items": _STRING},
            refused=_LIST,
            registry={"type": "object"},
            detail=_STRING,
        ),
    ),
    "tags": ["Models"],
}

BASELINE: dict[str, Any] = {
    **_answers("The baseline's tables.", {ARROW: {"schema": _BINARY}}, 404, 503),
    "tags": ["Models"],
}

CARD: dict[str, Any] = {
    **_answers("The card.", {"application/json": {"schema": {"type": "object"}}}, 404, 503),
    "tags": ["Models"],
}

SCHEMA: dict[str, Any] = {
    **_answers("The features, in the order of the model's columns.", _object(digest=_STRING, features=_LIST)),
    "tags": ["Models"],
}
