"""JSON records through `parse`: envelopes around lines, events that came parsed, misfits."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import pytest

from oddlog.events.envelope import client_key, envelope
from oddlog.events.logfile import records_from_lines
from oddlog.events.parse import parse

LINE = '192.0.2.7 - bob [17/May/2015:10:05:03 +0000] "GET /a?b HTTP/1.1" 200 12 "-" "agent/1"'
SHIPPED = dt.datetime(2015, 5, 17, 10, 6, tzinfo=dt.UTC)
BROKER_MS = 1_431_860_000_000


def event(document: Any) -> dict[str, Any]:
    value = document if isinstance(document, bytes) else json.dumps(document).encode()
    parsed = parse(records_from_lines([value], timestamp_ms=BROKER_MS))
    assert parsed.dead.height == 0, parsed.dead["reason"][0]
    return parsed.events.row(0, named=True)


def dead(value: bytes) -> dict[str, Any]:
    parsed = parse(records_from_lines([value], timestamp_ms=BROKER_MS))
    assert parsed.events.height == 0
    return parsed.dead.row(0, named=True)


def subset(found: dict[str, Any], *names: str) -> tuple[Any, ...]:
    return tuple(found[name] for name in names)


def test_the_envelope_that_ship_makes_is_read_back() -> None:
    found = event(
        envelope(LINE.encode() + b"\n", at=SHIPPED, path="/var/log/a.log", offset=9, host="web1", truth="benign")
    )
    assert subset(found, "host.name", "log.file.path", "labels.truth") == ("web1", "/var/log/a.log", "benign")
    assert found["event.original"] == LINE
    assert found["@timestamp"] == dt.datetime(2015, 5, 17, 10, 5, 3, tzinfo=dt.UTC)
    assert found["url.query"] == "b"


def test_envelopes_replace_bytes_that_are_no_utf8() -> None:
    value = envelope(LINE.replace("/a", "/\xe9").encode("latin-1"), at=SHIPPED)
    assert event(value)["url.path"] == "/\ufffd"


@pytest.mark.parametrize(
    "around",
    [
        {"host": {"name": "web1"}, "log": {"file": {"path": "/l"}}, "labels": {"truth": "t"}},
        {"host.name": "web1", "log.file.path": "/l", "labels.truth": "t"},
        {"host": {"name": "web1", "ip": ["10.0.0.1"]}, "log": {"file.path": "/l"}, "labels": {"truth": "t", "n": 1}},
        {"host": "web1", "log": {"file": {"path": "/l"}, "offset": 1}, "labels": {"truth": "t"}, "source": "/l"},
        {"host": {"name": "web1"}, "log": {"file": {"path": "/l"}}, "labels": {"truth": "t"}, "client": {}},
    ],
)
def test_what_surrounds_a_line_is_read_nested_or_dotted(around: dict[str, Any]) -> None:
    found = event({"@timestamp": "2015-05-17T10:06:00.000Z", "message": LINE, **around})
    assert subset(found, "host.name", "log.file.path", "labels.truth") == ("web1", "/l", "t")
    assert found["source.ip"] == "192.0.2.7"


def test_surroundings_of_other_types_are_left_out() -> None:
    found = event({"message": LINE, "host": 5, "log": [], "labels": {"truth": {"a": 1}}, "@timestamp": {}})
    assert subset(found, "host.name", "log.file.path", "labels.truth") == (None, None, None)


def test_a_line_without_a_date_takes_the_envelopes() -> None:
    message = LINE.replace("17/May/2015:10:05:03 +0000", "yesterday")
    found = event({"@timestamp": "2015-05-17T12:06:00.25+02:00", "message": message})
    assert found["@timestamp"] == dt.datetime(2015, 5, 17, 10, 6, 0, 250_000, tzinfo=dt.UTC)
    found = event({"message": message})
    assert found["@timestamp"] == dt.datetime.fromtimestamp(BROKER_MS / 1000, dt.UTC)


ECS = {
    "@timestamp": "2015-05-17T10:05:03.000Z",
    "source": {"ip": "192.0.2.7"},
    "user": {"name": "bob"},
    "http": {
        "version": "1.1",
        "request": {"method": "GET", "referrer": "-"},
        "response": {"status_code": 200, "body": {"bytes": 12}},
    },
    "url": {"original": "/a?b"},
    "user_agent": {"original": "agent/1"},
    "event": {"original": LINE},
}
DOTTED = {
    "@timestamp": "2015-05-17T10:05:03Z",
    "source.address": "192.0.2.7",
    "user.name": "bob",
    "http.version": "1.1",
    "http.request.method": "GET",
    "http": {"response.status_code": "200", "response": {"body.bytes": 12.0}},
    "url": {"path": "/a", "query": "b"},
    "user_agent.original": "agent/1",
    "message": LINE,
}
NGINX = {
    "time_iso8601": "2015-05-17T10:05:03+00:00",
    "remote_addr": "192.0.2.7",
    "remote_user": "bob",
    "request": "GET /a?b HTTP/1.1",
    "status": 200,
    "body_bytes_sent": "12",
    "http_referer": "",
    "http_user_agent": "agent/1",
}
LOGSTASH_OF_OLD = {
    "@timestamp": "2015-05-17T10:05:03.000Z",
    "clientip": "192.0.2.7",
    "auth": "bob",
    "verb": "GET",
    "request": "/a?b",
    "httpversion": "1.1",
    "response": "200",
    "bytes": "12",
    "referrer": "-",
    "agent": "agent/1",
    "message": LINE,
}


@pytest.mark.parametrize(
    "document",
    [
        ECS,
        DOTTED,
        NGINX,
        LOGSTASH_OF_OLD,
        {"@timestamp": "2015-05-17T10:06:00Z", "message": json.dumps(NGINX)},
        {"@timestamp": "2015-05-17T10:06:00Z", "json": NGINX},
        {"@timestamp": "2015-05-17T10:06:00Z", "message": NGINX},
        {"message": json.dumps({"message": LINE})},
        {**ECS, "source": {"ip": ["192.0.2.7", "10.0.0.1"]}},
        {**NGINX, "request_method": "GET", "request_uri": "/a?b", "server_protocol": "HTTP/1.1"},
        {**ECS, "source": {}, "client": {"address": "192.0.2.7"}},
    ],
)
def test_every_family_of_parsed_fields_gives_the_same_event(document: dict[str, Any]) -> None:
    expected = event(LINE.encode())
    found = event(document)
    for ours in (found, expected):
        ours.pop("event.original")
    assert found == expected


def test_what_came_parsed_and_has_no_original_keeps_its_json() -> None:
    assert json.loads(event(NGINX)["event.original"]) == NGINX


def test_an_event_that_came_parsed_needs_no_url() -> None:
    found = event({"source.ip": "2001:db8::1", "http.response.status_code": 408})
    assert subset(found, "http.request.method", "url.original", "url.path") == ("", "", "")
    assert subset(found, "source.address", "source.ip") == ("2001:db8::1", "2001:db8::1")


def test_address_and_ip_may_differ() -> None:
    found = event({**ECS, "source": {"address": "host.example", "ip": "192.0.2.7"}})
    assert subset(found, "source.address", "source.ip") == ("host.example", "192.0.2.7")
    assert event({**ECS, "source": {"ip": "nonsense"}})["source.ip"] is None


@pytest.mark.parametrize("stamp", [1431857103000, "1431857103000", 1431857103, "1431857103.000"])
def test_numbers_are_times(stamp: Any) -> None:
    found = event({"msec": stamp, "remote_addr": "192.0.2.7", "status": 200})
    assert found["@timestamp"] == dt.datetime(2015, 5, 17, 10, 5, 3, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (b'{"message": "cut', "bad_json"),
        (b"{}}", "bad_json"),
        (b"{" * 5000, "bad_json"),
        (b'{"a":' * 5000 + b"1" + b"}" * 5000, "bad_json"),
        (b'{"message": "{\\"a\\": "}', "bad_json"),
        (b'{"message": "\\ud800"}', "bad_json"),
        (b"{}", "no_format"),
        (b'{"level": "info", "msg": "started"}', "no_format"),
        (b'{"message": 5}', "no_format"),
        (b'{"message": "free text"}', "no_format"),
        (b'{"message": "{}"}', "no_format"),
        (b'{"source": {"ip": "192.0.2.7"}}', "no_format"),
        (b'{"message": ""}', "empty"),
        (b'{"message": " \\n"}', "empty"),
        (b"[1, 2]", "no_format"),
        (b'"text"', "no_format"),
        (b"5", "no_format"),
    ],
)
def test_misfits_are_dead_letters_of_a_kind(value: bytes, kind: str) -> None:
    letter = dead(value)
    assert letter["kind"] == kind
    assert "found" in letter["reason"]
    assert "expected" in letter["reason"]
    assert letter["original"] == value
    assert len(letter["reason"]) < 700


def test_json_with_bytes_that_are_no_utf8_is_read() -> None:
    value = json.dumps({"message": LINE, "note": "NOTE"}).encode().replace(b"agent/1", b"agent/\xff")
    assert event(value)["user_agent.original"] == "agent/\ufffd"


def test_leading_space_and_marks_before_json_do_not_matter() -> None:
    assert event(b"\xef\xbb\xbf \n" + json.dumps({"message": LINE}).encode())["event.original"] == LINE


@pytest.mark.parametrize(("line", "key"), [(LINE.encode(), b"192.0.2.7"), (b"", None), (b"  ", None), (b"one", b"one")])
def test_the_key_is_the_first_field(line: bytes, key: bytes | None) -> None:
    assert client_key(line) == key
