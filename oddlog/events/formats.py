"""Tells apart what records are, by content: log lines, envelopes around them, parsed events, misfits.

Reading a line is in `line.py`, the fields of a document in `document.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import orjson

from oddlog.events.document import NOWHERE, Fields, Surroundings, fields, holds_fields, surroundings

NESTED = 3  # envelopes in envelopes that are opened: a line that is JSON, in JSON
SHOWN, SHOWN_END = 160, 50  # characters of a misfit that its reason shows, and how many of them from its end

_SPACE = " \t\r\n\f\v\ufeff"  # a byte order mark counts as nothing

Around = tuple[str | None, str | None, str | None, str | None]
"""The values of Surroundings; a bare tuple is made in a third of the time."""


@dataclass(slots=True)
class Sorted:
    """Records told apart, each with its row in the batch: lines, events that came parsed, misfits."""

    line_rows: list[int] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    line_around: list[Around] = field(default_factory=list)
    field_rows: list[int] = field(default_factory=list)
    fields: list[Fields] = field(default_factory=list)
    field_around: list[Around] = field(default_factory=list)
    dead: dict[int, tuple[str, str]] = field(default_factory=dict)
    """Row to (kind, reason)."""


class _File(msgspec.Struct, gc=False):
    path: str | None = None


class _Log(msgspec.Struct, gc=False):
    file: _File | None = None
    dotted: str | None = msgspec.field(default=None, name="file.path")


class _Host(msgspec.Struct, gc=False):
    name: str | None = None


class _Labels(msgspec.Struct, gc=False):
    truth: str | None = None


Mark = msgspec.Raw | msgspec.UnsetType


class _Plain(msgspec.Struct, gc=False):
    """A Filebeat envelope around a line, nested, with nothing parsed: nearly every one is so.

    Decoding only what is read takes half the time. One that has other types, or any of the marks below its
    five fields, goes the general way (`document.py`), which gives the same for these.
    """

    message: str
    stamp: str | None = msgspec.field(default=None, name="@timestamp")
    log: _Log | None = None
    host: _Host | None = None
    labels: _Labels | None = None
    source: Mark = msgspec.UNSET
    client: Mark = msgspec.UNSET
    json: Mark = msgspec.UNSET
    remote_addr: Mark = msgspec.UNSET
    remote_ip: Mark = msgspec.UNSET
    clientip: Mark = msgspec.UNSET
    source_address: Mark = msgspec.field(default=msgspec.UNSET, name="source.address")
    source_ip: Mark = msgspec.field(default=msgspec.UNSET, name="source.ip")
    client_address: Mark = msgspec.field(default=msgspec.UNSET, name="client.address")
    client_ip: Mark = msgspec.field(default=msgspec.UNSET, name="client.ip")
    host_name: Mark = msgspec.field(default=msgspec.UNSET, name="host.name")
    log_file_path: Mark = msgspec.field(default=msgspec.UNSET, name="log.file.path")
    log_file: Mark = msgspec.field(default=msgspec.UNSET, name="log.file")
    labels_truth: Mark = msgspec.field(default=msgspec.UNSET, name="labels.truth")


_MARKS = slice(5, None)
_UNMARKED = msgspec.structs.astuple(_Plain(""))[_MARKS]


def tell_apart(values: Sequence[bytes | None]) -> Sorted:
    """Sort the records of a batch. No record makes it raise."""
    found = Sorted()
    add_row, add_line, add_around = found.line_rows.append, found.lines.append, found.line_around.append
    decode, astuple = msgspec.json.Decoder(_Plain).decode, msgspec.structs.astuple
    for row, value in enumerate(values):
        if value is None:
            found.dead[row] = ("empty", "found a record without a value; expected a log line or JSON")
            continue
        if value[:1] == b"{":
            try:
                plain = decode(value)
            except (msgspec.MsgspecError, UnicodeError, RecursionError):
                _open_value(found, row, value)
                continue
            text = plain.message.strip(_SPACE)
            if text[:1] in {"", "{"} or astuple(plain)[_MARKS] != _UNMARKED:
                _open_value(found, row, value)
                continue
            log, host, labels = plain.log, plain.host, plain.labels
            add_row(row)
            add_line(text)
            add_around(
                (
                    plain.stamp,
                    None if host is None else host.name,
                    None if log is None else log.dotted if log.file is None else log.file.path,
                    None if labels is None else labels.truth,
                )
            )
            continue
        try:
            text = value.decode()
        except UnicodeDecodeError:  # access logs may hold any byte that a client sent
            text = value.decode(errors="replace")
        text = text.strip(_SPACE)
        if not text:
            found.dead[row] = ("empty", "found nothing but white space; expected a log line or JSON")
        elif text[0] == "{":
            _open_value(found, row, value)
        else:
            add_row(row)
            add_line(text)
            add_around(NOWHERE)
    return found


def shorten(text: str) -> str:
    """A text for a reason: whole, or its beginning and its end (where a line cut off differs)."""
    if len(text) <= SHOWN:
        return text
    return f"{text[: SHOWN - SHOWN_END]} … {text[-SHOWN_END:]} ({len(text)} characters)"


def _open_value(found: Sorted, row: int, value: bytes) -> None:
    """JSON of any kind; bytes that are no UTF-8 are replaced."""
    text = value.decode(errors="replace").strip(_SPACE)
    document = _load(found, row, text, "broken JSON")
    if document is not None:
        _open(found, row, document, text)


def _load(found: Sorted, row: int, text: str, what: str) -> dict[str, Any] | None:
    """The object that a text starting with `{` is, else None and a misfit."""
    try:
        document: dict[str, Any] = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        reason = f"found {what} ({error}): {shorten(text)}; expected one JSON object"
        found.dead[row] = ("bad_json", reason)
        return None
    return document


def _open(found: Sorted, row: int, document: Mapping[str, Any], original: str) -> None:
    """Take the line or the parsed event out of a JSON object."""
    around = surroundings(document)
    for _ in range(NESTED):
        event = fields(document) if holds_fields(document) else None
        if event is not None:
            found.field_rows.append(row)
            found.fields.append(event if event.original is not None else event._replace(original=original))
            found.field_around.append(around)
            return
        message = document.get("message")
        if message.__class__ is str:
            text = message.strip(_SPACE)
            if not text:
                found.dead[row] = (
                    "empty",
                    "found an envelope with an empty message; expected a log line in it",
                )
                return
            if text[0] != "{":
                found.line_rows.append(row)
                found.lines.append(text)
                found.line_around.append(around)
                return
            message = _load(found, row, text, "broken JSON in `message`")
            if message is None:
                return
        if message.__class__ is not dict:
            break
        document = message
        inner = surroundings(document)
        around = Surroundings(*(b if a is None else a for a, b in zip(inner, around, strict=True)))
    keys = ", ".join(sorted(document)[:12])
    found.dead[row] = (
        "no_format",
        f"found JSON that is no log event, with the keys {shorten(keys) or '(none)'}; expected `message` "
        "with a log line, or ECS fields with source.ip and http.* or url.*",
    )
