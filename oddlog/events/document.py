"""What a JSON object tells: what an envelope says about its line (Filebeat), and the event in fields that
came parsed (ECS of Logstash and Elastic Agent, nginx with `escape=json`, Logstash's names of old).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

CLIENT = (
    "source.address",
    "source.ip",
    "client.address",
    "client.ip",
    "remote_addr",
    "remote_ip",
    "clientip",
)
CLIENT_IP = ("source.ip", "client.ip")
METHOD = ("http.request.method", "request_method", "verb")
TARGET = ("url.original", "request_uri")
STATUS = ("http.response.status_code", "status", "status_code", "response")
SIZE = ("http.response.body.bytes", "body_bytes_sent", "bytes_sent", "bytes")
REFERRER = ("http.request.referrer", "http_referer", "referrer", "referer")
AGENT = ("user_agent.original", "http_user_agent", "agent", "user_agent")
VERSION = ("http.version", "httpversion", "server_protocol")
USER = ("user.name", "remote_user", "auth")
OWN_TIME = ("time_iso8601", "time_local", "msec", "timestamp")
ORIGINAL = ("event.original", "message")

_MARKS = frozenset({*CLIENT, "source", "client", "json"})
"""A document with none of these keys has no parsed client: it is an envelope, or no log event."""

_ROOTS = ("source", "client", "http", "url", "user", "event")  # `user` begins `user_agent` too
_DEPTH = 5


class Surroundings(NamedTuple):
    """What an envelope tells about the line in it; each text or None."""

    stamp: str | None = None
    host: str | None = None
    path: str | None = None
    truth: str | None = None


NOWHERE = Surroundings()
"""Around a raw line is nothing."""


class Fields(NamedTuple):
    """An event that came parsed; texts as they came. `request`: the request line, where only it is known."""

    address: str
    ip: str | None
    user: str | None
    request: str | None
    method: str | None
    target: str | None
    version: str | None
    status: str | None
    bytes: str | None
    referrer: str | None
    agent: str | None
    time: str | None
    original: str | None


def holds_fields(document: Mapping[str, Any]) -> bool:
    """Whether the document may hold a parsed event: cheap, never wrong with False."""
    return not _MARKS.isdisjoint(document)


def surroundings(document: Mapping[str, Any]) -> Surroundings:
    """Time, host, file and label of a Filebeat envelope, nested or dotted."""
    log = document.get("log")
    file = log.get("file") if log.__class__ is dict else None
    if file.__class__ is dict:
        path = file.get("path")
    elif log.__class__ is dict:
        path = log.get("file.path")
    else:
        path = document.get("log.file.path")
    return Surroundings(
        _scalar(document.get("@timestamp")),
        _text(_child(document, "host", "name")),
        _text(path),
        _text(_child(document, "labels", "truth")),
    )


def fields(document: Mapping[str, Any]) -> Fields | None:
    """The parsed event in a document; None where it has no client, or nothing of a request."""
    inner = document.get("json")  # Filebeat's json.* options without keys_under_root
    flat = _flatten(inner if inner.__class__ is dict else document)
    address = _pick(flat, CLIENT)
    if address is None:
        return None
    request = _text(flat.get("request"))
    method, target = _pick(flat, METHOD), _pick(flat, TARGET)
    if target is None:
        target = _target_of_parts(flat)
    if target is None and "verb" in flat:  # Logstash's names of old: verb, request (the target), httpversion
        target = request
    whole = request if target is None or method is None else None
    status = _number(flat, STATUS)
    if whole is None and target is None and method is None and status is None:
        return None
    version = _pick(flat, VERSION)
    return Fields(
        address=address,
        ip=_pick(flat, CLIENT_IP),
        user=_pick(flat, USER),
        request=whole,
        method=method,
        target=target,
        version=version.removeprefix("HTTP/") if version else None,
        status=status,
        bytes=_number(flat, SIZE),
        referrer=_pick(flat, REFERRER),
        agent=_pick(flat, AGENT),
        time=_pick(flat, OWN_TIME),
        original=_pick(flat, ORIGINAL),
    )


def _child(document: Mapping[str, Any], root: str, leaf: str) -> Any:
    parent = document.get(root)
    if parent.__class__ is dict:
        return parent.get(leaf)
    return document.get(f"{root}.{leaf}") if parent is None else parent


def _flatten(document: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted names to values, for the roots that are read; no deeper than those go."""
    flat = dict(document)
    for root in [key for key, value in document.items() if value.__class__ is dict and key.startswith(_ROOTS)]:
        _descend(flat, root, flat.pop(root), _DEPTH)
    return flat


def _descend(flat: dict[str, Any], name: str, value: Mapping[str, Any], depth: int) -> None:
    for key, child in value.items():
        below = f"{name}.{key}"
        if child.__class__ is not dict:
            flat[below] = child
        elif depth:
            _descend(flat, below, child, depth - 1)


def _target_of_parts(flat: Mapping[str, Any]) -> str | None:
    path, query = _pick(flat, ("url.path", "uri")), _pick(flat, ("url.query", "args", "query_string"))
    if path is None:
        return _pick(flat, ("url.full",))
    return f"{path}?{query.removeprefix('?')}" if query else path


def _pick(flat: Mapping[str, Any], names: tuple[str, ...]) -> str | None:
    for name in names:
        value = flat.get(name)
        if value is None:
            continue
        text = value if value.__class__ is str else _scalar(value)
        if text and text != "-":
            return text
    return None


def _number(flat: Mapping[str, Any], names: tuple[str, ...]) -> str | None:
    for name in names:
        value = flat.get(name)
        if value.__class__ is float and value.is_integer():
            value = int(value)
        if value.__class__ is int or (value.__class__ is str and value.isdecimal()):
            return str(value)
    return None


def _scalar(value: Any) -> str | None:
    """Text of a text or number; of a list (Elasticsearch's arrays) its first; None for the rest."""
    if value.__class__ is list and value:
        value = value[0]
    if value.__class__ is str:
        return str(value)
    return repr(value) if value.__class__ in {int, float} else None


def _text(value: Any) -> str | None:
    return value if value.__class__ is str else None
