"""What the senders of docs/senders.md put into a record, as they write it, byte for byte. The parser's own cases are
in test_parse.py and test_parse_json.py.
"""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import pytest

from oddlog.events.logfile import records_from_lines
from oddlog.events.parse import parse

BROKER_MS = 1_772_449_260_000  # 2026-03-02T11:01:00Z
WHEN = dt.datetime(2026, 3, 2, 11, 0, tzinfo=dt.UTC)
DATE = "[02/Mar/2026:12:00:00 +0100]"


def event(value: bytes) -> dict[str, Any]:
    parsed = parse(records_from_lines([value], timestamp_ms=BROKER_MS))
    assert parsed.dead.height == 0, parsed.dead["reason"][0]
    return parsed.events.row(0, named=True)


def request(found: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(
        found[name]
        for name in (
            "source.address", "http.request.method", "url.original", "http.version", "http.response.status_code",
            "http.response.body.bytes", "user_agent.original",
        )
    )  # fmt: skip


LINES = [
    (f'192.0.2.7 - - {DATE} "GET /a HTTP/1.1" 200 5', ("192.0.2.7", "GET", "/a", "1.1", 200, 5, None)),
    (f'2001:db8::7 - - {DATE} "GET / HTTP/2.0" 200 5 "-" "a"', ("2001:db8::7", "GET", "/", "2.0", 200, 5, "a")),
    (
        f'192.0.2.7 - - {DATE} "GET /a HTTP/1.1" 200 5 "-" "curl/8" 0.004 0.003 .',
        ("192.0.2.7", "GET", "/a", "1.1", 200, 5, "curl/8"),
    ),
    (
        rf'192.0.2.7 - - {DATE} "GET /say \"hi\" HTTP/1.1" 404 5 "-" "\"quoted\" agent"',
        ("192.0.2.7", "GET", r"/say \"hi\"", "1.1", 404, 5, r"\"quoted\" agent"),
    ),
    # nginx writes a quote as \x22 where Apache writes \".
    (
        rf'192.0.2.7 - - {DATE} "GET /say\x22hi HTTP/1.1" 404 5 "-" "\x22"',
        ("192.0.2.7", "GET", r"/say\x22hi", "1.1", 404, 5, r"\x22"),
    ),
    (f'192.0.2.7 - - {DATE} "-" 408 0 "-" "-"', ("192.0.2.7", "", "-", None, 408, 0, None)),
    (
        rf'192.0.2.7 - - {DATE} "\x16\x03\x01\x02\x00\x01\xFC" 400 150 "-" "-"',
        ("192.0.2.7", "", r"\x16\x03\x01\x02\x00\x01\xFC", None, 400, 150, None),
    ),
]


@pytest.mark.parametrize(("line", "expected"), LINES)
def test_a_line_is_the_same_event_in_every_envelope(line: str, expected: tuple[Any, ...]) -> None:
    rsyslog = (
        '{"@timestamp":"2026-03-02T11:00:30.250+00:00", "message":'
        + json.dumps(line).replace("/", "\\/")  # rsyslog escapes slashes
        + ', "log.file.path":"\\/var\\/log\\/nginx\\/access.log", "host.name":"web1"}'
    )
    filebeat = {
        "@timestamp": "2026-03-02T11:00:30.250Z",
        "@metadata": {"beat": "filebeat", "type": "_doc", "version": "8.19.4"},
        "log": {"offset": 4711, "file": {"path": "/var/log/nginx/access.log", "inode": "1", "device_id": "2"}},
        "message": line,
        "input": {"type": "filestream"},
        "ecs": {"version": "8.0.0"},
        "host": {"name": "web1"},
        "agent": {"type": "filebeat", "version": "8.19.4", "name": "web1", "id": "x", "ephemeral_id": "y"},
        "dissect": {"client": line.split(" ", maxsplit=1)[0]},
    }
    logstash = {
        "@timestamp": "2026-03-02T11:00:30.250Z",
        "@version": "1",
        "message": line,
        "event": {"original": line},
        "host": {"name": "web1"},
        "log": {"file": {"path": "/var/log/nginx/access.log"}},
        "type": "access",
    }
    raw = event(line.encode())
    assert request(raw) == expected
    assert raw["@timestamp"] == WHEN
    for value in (rsyslog.encode(), json.dumps(filebeat).encode(), json.dumps(logstash, ensure_ascii=False).encode()):
        found = event(value)
        assert request(found) == expected
        assert found["event.original"] == line
        assert (found["@timestamp"], found["host.name"]) == (WHEN, "web1")
        assert found["log.file.path"] == "/var/log/nginx/access.log"


def nginx_json(**changed: str) -> bytes:
    """A line of the log_format of docs/senders.md: numbers that nginx may leave empty are quoted."""
    fields = {
        "time_iso8601": "2026-03-02T12:00:00+01:00",
        "remote_addr": "2001:db8::7",
        "remote_user": "",
        "request": r"GET /caf\u00E9?q=\"a b\" HTTP/2.0",
        "status": "200",
        "body_bytes_sent": "612",
        "http_referer": "",
        "http_user_agent": r"say \"hi\" \\ \t",
    } | changed
    return ("{" + ",".join(f'"{name}":"{value}"' for name, value in fields.items()) + "}").encode()


def test_nginx_writes_json_itself() -> None:
    found = event(nginx_json())
    assert request(found) == ("2001:db8::7", "GET", '/caf\xe9?q="a b"', "2.0", 200, 612, 'say "hi" \\ \t')
    assert found["source.ip"] == "2001:db8::7"
    assert (found["user.name"], found["http.request.referrer"]) == (None, None)
    assert found["url.query"] == 'q="a b"'
    assert found["@timestamp"] == WHEN


@pytest.mark.parametrize(
    ("written", "target"),
    [("", ""), (r"\u0016\u0003\u0001\u0002", "\x16\x03\x01\x02"), ("-", "-"), ("SSH-2.0-Go", "SSH-2.0-Go")],
)
def test_nginx_json_without_a_sound_request_is_an_event(written: str, target: str) -> None:
    found = event(nginx_json(request=written, status="400"))
    assert (found["http.request.method"], found["url.original"], found["http.version"]) == ("", target, None)


def test_nginx_json_with_bytes_that_are_no_utf8() -> None:
    # escape=json lets bytes above 0x7f through as they came.
    found = event(nginx_json(http_user_agent="BYTES").replace(b"BYTES", b"\xff\xfe"))
    assert found["user_agent.original"] == "\ufffd\ufffd"


def test_logstash_that_parsed_the_line_itself() -> None:
    """COMBINEDAPACHELOG with ecs_compatibility v8, as in deploy/logstash."""
    document = {
        "@timestamp": "2026-03-02T11:00:00.000Z",
        "@version": "1",
        "message": LINES[0][0],
        "event": {"original": LINES[0][0]},
        "source": {"address": "192.0.2.7"},
        "http": {
            "version": "1.1",
            "request": {"method": "GET"},
            "response": {"status_code": 200, "body": {"bytes": 5}},
        },
        "url": {"original": "/a"},
        "user_agent": {"original": "curl/8"},
    }
    found = event(json.dumps(document).encode())
    assert request(found) == ("192.0.2.7", "GET", "/a", "1.1", 200, 5, "curl/8")
    assert found["@timestamp"] == WHEN
