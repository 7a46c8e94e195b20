"""The JSON envelope that Filebeat puts around a line, as `oddlog ship` sends it. `formats.py` opens it."""

from __future__ import annotations

import datetime as dt

import orjson


def envelope(
    line: bytes | str,
    *,
    at: dt.datetime,
    path: str | None = None,
    offset: int | None = None,
    host: str | None = None,
    truth: str | None = None,
) -> bytes:
    """One line in Filebeat's envelope. Bytes that are no UTF-8, in `path` too, are replaced, as Filebeat does.

    `at` is the time of reading (with zone), `offset` where the line begins in the file `path`, in bytes,
    `truth` a label for evaluation.

    >>> envelope(b"a line", at=dt.datetime(2024, 5, 1, tzinfo=dt.timezone.utc))
    b'{"@timestamp":"2024-05-01T00:00:00.000Z","message":"a line","agent":...}'
    """
    text = line.decode(errors="replace") if isinstance(line, bytes) else line
    moment = at.astimezone(dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    document: dict[str, object] = {"@timestamp": moment, "message": text.rstrip("\r\n")}
    log: dict[str, object] = {}
    if path is not None:
        # A name of bytes that are no UTF-8, as Python has it, is no text that JSON can hold.
        log["file"] = {"path": path.encode(errors="surrogateescape").decode(errors="replace")}
    if offset is not None:
        log["offset"] = offset
    if log:
        document["log"] = log
    if host is not None:
        document["host"] = {"name": host}
    document["agent"] = {"type": "filebeat"}
    document["ecs"] = {"version": "8.0.0"}
    if truth is not None:
        document["labels"] = {"truth": truth}
    return orjson.dumps(document)


def client_key(line: bytes) -> bytes | None:
    """The Kafka key of a line: its client's address (the first field); so a client stays in one partition.

    >>> client_key(b'192.0.2.1 - - [17/May/2015:10:05:03 +0000] "GET / HTTP/1.1" 200 1')
    b'192.0.2.1'
    """
    first = line.split(None, 1)[:1]
    return first[0] if first else None
