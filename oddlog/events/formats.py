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
_NO_LINE = frozenset({"", "{"})  # beginnings of what is no log line: nothing, or JSON

RUN = 256
"""Records that are taken together for nearly certain envelopes; where one is none, they are looked at one by one."""


@dataclass(slots=True)
class Arounds:
    """Surroundings by column, a row for each line."""

    stamp: list[str | None] = field(default_factory=list)
    host: list[str | None] = field(default_factory=list)
    path: list[str | None] = field(default_factory=list)
    truth: list[str | None] = field(default_factory=list)

    def add(self, around: Surroundings) -> None:
        """One more row."""
        self.stamp.append(around.stamp)
        self.host.append(around.host)
        self.path.append(around.path)
        self.truth.append(around.truth)


@dataclass(slots=True)
class Sorted:
    """Records told apart, each with its row in the batch: lines, events that came parsed, misfits."""

    line_rows: list[int] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    line_around: Arounds = field(default_factory=Arounds)
    field_rows: list[int] = field(default_factory=list)
    fields: list[Fields] = field(default_factory=list)
    field_around: Arounds = field(default_factory=Arounds)
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


class _Plain(msgspec.Struct, gc=False):
    """A Filebeat envelope around a line, nested, with nothing parsed: nearly every one is so.

    Decoding only what is read takes half the time. One that has other types, or a value for any of the marks below
    its five fields, does not decode as this and goes the general way (`document.py`), which gives the same for these.
    """

    message: str
    stamp: str | None = msgspec.field(default=None, name="@timestamp")
    log: _Log | None = None
    host: _Host | None = None
    labels: _Labels | None = None
    source: None = None
    client: None = None
    json: None = None
    remote_addr: None = None
    remote_ip: None = None
    clientip: None = None
    source_address: None = msgspec.field(default=None, name="source.address")
    source_ip: None = msgspec.field(default=None, name="source.ip")
    client_address: None = msgspec.field(default=None, name="client.address")
    client_ip: None = msgspec.field(default=None, name="client.ip")
    host_name: None = msgspec.field(default=None, name="host.name")
    log_file_path: None = msgspec.field(default=None, name="log.file.path")
    log_file: None = msgspec.field(default=None, name="log.file")
    labels_truth: None = msgspec.field(default=None, name="labels.truth")


_decode_plain = msgspec.json.Decoder(_Plain).decode


def tell_apart(values: Sequence[bytes | None]) -> Sorted:
    """Sort the records of a batch. No record makes it raise."""
    found = Sorted()
    for first in range(0, len(values), RUN):
        run = values[first : first + RUN]
        if not _take_plain(found, first, run):
            for row, value in enumerate(run, first):
                _take(found, row, value)
    return found


def _take_plain(found: Sorted, first: int, values: Sequence[bytes | None]) -> bool:
    """Take records that are all plain envelopes around a line; else take none of them and say so."""
    try:
        plains = list(map(_decode_plain, values))  # type: ignore[arg-type]
    except (msgspec.MsgspecError, UnicodeError, RecursionError, TypeError):
        return False
    lines = [plain.message.strip(_SPACE) for plain in plains]
    if not _NO_LINE.isdisjoint({line[:1] for line in lines}):
        return False
    found.line_rows.extend(range(first, first + len(lines)))
    found.lines += lines
    around = found.line_around
    around.stamp += [plain.stamp for plain in plains]
    around.host += [None if (host := plain.host) is None else host.name for plain in plains]
    around.path += [
        None if (log := plain.log) is None else log.dotted if log.file is None else log.file.path for plain in plains
    ]
    around.truth += [None if (labels := plain.labels) is None else labels.truth for plain in plains]
    return True


def _take(found: Sorted, row: int, value: bytes | None) -> None:
    if value is None:
        found.dead[row] = ("empty", "found a record without a value; expected a log line or JSON")
        return
    if value[:1] == b"{":
        _open_value(found, row, value)
        return
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
        _take_line(found, row, text, NOWHERE)


def _take_line(found: Sorted, row: int, line: str, around: Surroundings) -> None:
    found.line_rows.append(row)
    found.lines.append(line)
    found.line_around.add(around)


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
            found.field_around.add(around)
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
                _take_line(found, row, text, around)
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
