"""Log lines through `parse`: formats, fields, times, dead letters. JSON is in test_parse_json.py."""

from __future__ import annotations

import datetime as dt
from typing import Any

import polars as pl
import pytest

from oddlog.events.logfile import records_from_lines
from oddlog.events.parse import parse
from oddlog.events.record import Records, event_id
from oddlog.events.schema import DEAD_SCHEMA, EVENT_SCHEMA

DATE = "[17/May/2015:10:05:03 +0000]"
BROKER_MS = 1_431_860_000_000  # 2015-05-17T10:53:20Z


def event(line: str | bytes, timestamp_ms: int = BROKER_MS) -> dict[str, Any]:
    value = line.encode() if isinstance(line, str) else line
    parsed = parse(records_from_lines([value], timestamp_ms=timestamp_ms))
    assert parsed.dead.height == 0, parsed.dead["reason"][0]
    return parsed.events.row(0, named=True)


def dead(value: bytes | None, timestamp_ms: int = BROKER_MS) -> dict[str, Any]:
    records = Records([value], ["e1"], ["logs"], [3], [7], [timestamp_ms])
    parsed = parse(records)
    assert parsed.events.height == 0
    return parsed.dead.row(0, named=True)


def test_a_combined_line_fills_every_field() -> None:
    line = (
        '192.0.2.7 - frank [17/May/2015:12:05:03 +0200] "POST /a/b.php?x=1?y HTTP/1.1" 404 1234 '
        '"http://www.example.com/start" "Mozilla/5.0 (X11)"'
    )
    assert event(line) == {
        "_id": "file-log-0-0",
        "@timestamp": dt.datetime(2015, 5, 17, 10, 5, 3, tzinfo=dt.UTC),
        "source.address": "192.0.2.7",
        "source.ip": "192.0.2.7",
        "user.name": "frank",
        "http.request.method": "POST",
        "url.original": "/a/b.php?x=1?y",
        "url.path": "/a/b.php",
        "url.query": "x=1?y",
        "http.version": "1.1",
        "http.response.status_code": 404,
        "http.response.body.bytes": 1234,
        "http.request.referrer": "http://www.example.com/start",
        "user_agent.original": "Mozilla/5.0 (X11)",
        "host.name": None,
        "log.file.path": None,
        "labels.truth": None,
        "event.original": line,
        "oddlog.position.epoch": "file",
        "oddlog.position.topic": "log",
        "oddlog.position.partition": 0,
        "oddlog.position.offset": 0,
    }


def test_a_common_line_has_neither_referrer_nor_agent() -> None:
    found = event(f'192.0.2.7 - - {DATE} "GET / HTTP/1.0" 304 -')
    assert found["http.response.body.bytes"] is None
    assert found["user.name"] is None
    assert found["user_agent.original"] is None
    assert found["http.request.referrer"] is None
    assert found["url.query"] is None


@pytest.mark.parametrize("rest", [' "-"', " 0.123", ' "-" 0.123 0.120 .', ' rt=0.1 uct="0.0" urt="0.1"', " "])
def test_fields_after_the_agent_are_let_through(rest: str) -> None:
    found = event(f'192.0.2.7 - - {DATE} "GET /x HTTP/2.0" 200 5 "-" "agent/1"{rest}')
    assert found["user_agent.original"] == "agent/1"
    assert found["http.version"] == "2.0"


def test_unquoted_fields_after_a_common_line_are_let_through() -> None:
    assert event(f'192.0.2.7 - - {DATE} "GET /x HTTP/1.1" 200 5 0.004 12')["url.path"] == "/x"


@pytest.mark.parametrize(
    ("request_line", "method", "target", "version"),
    [
        ("GET /a b/c.html HTTP/1.1", "GET", "/a b/c.html", "1.1"),
        ("GET / HTTP/2", "GET", "/", "2"),
        ("GET /old", "GET", "/old", None),
        ("M-SEARCH * HTTP/1.1", "M-SEARCH", "*", "1.1"),
        ("get / HTTP/1.1", "get", "/", "1.1"),
        ("CONNECT example.com:443 HTTP/1.1", "CONNECT", "example.com:443", "1.1"),
        (r"GET /?q=\"quoted\" HTTP/1.1", "GET", r"/?q=\"quoted\"", "1.1"),
        ("GET /a HTTP/1.1 HTTP/1.1", "GET", "/a HTTP/1.1", "1.1"),
        (r"\x16\x03\x01\x02", "", r"\x16\x03\x01\x02", None),
        ("\x16\x03\x01", "", "\x16\x03\x01", None),
        ("SSH-2.0-Go", "", "SSH-2.0-Go", None),
        ("USER anonymous", "", "USER anonymous", None),
        ("-", "", "-", None),
        ("", "", "", None),
    ],
)
def test_requests_are_split_and_garbage_is_an_event(
    request_line: str, method: str, target: str, version: str | None
) -> None:
    found = event(f'192.0.2.7 - - {DATE} "{request_line}" 400 0 "-" "-"')
    assert (found["http.request.method"], found["url.original"], found["http.version"]) == (
        method,
        target,
        version,
    )
    assert found["url.path"] == target.split("?", maxsplit=1)[0]
    assert found["http.request.referrer"] is None


@pytest.mark.parametrize(
    ("head", "address", "ip", "user"),
    [
        ("2001:db8::1 - -", "2001:db8::1", "2001:db8::1", None),
        ("::1 - -", "::1", "::1", None),
        ("[2001:db8::1] - -", "2001:db8::1", "2001:db8::1", None),
        ("[2001:db8::1]:4711 - -", "2001:db8::1", "2001:db8::1", None),
        ("fe80::1%eth0 - -", "fe80::1%eth0", None, None),
        ("host.example.com - -", "host.example.com", None, None),
        ("999.1.1.1 - -", "999.1.1.1", None, None),
        ("192.0.2.7:4711 - bob", "192.0.2.7", "192.0.2.7", "bob"),
        ("www.example.com:443 192.0.2.7 - bob", "192.0.2.7", "192.0.2.7", "bob"),
        ("www.example.com:443 2001:db8::1 - -", "2001:db8::1", "2001:db8::1", None),
        ("203.0.113.9, 10.0.0.1 - bob", "203.0.113.9", "203.0.113.9", "bob"),
        ("203.0.113.9, 10.0.0.1, 10.0.0.2 - -", "203.0.113.9", "203.0.113.9", None),
        ("192.0.2.7 - a name with spaces", "192.0.2.7", "192.0.2.7", "a name with spaces"),
        ("- - -", "-", None, None),
        ("unix: - -", "unix:", None, None),
    ],
)
def test_the_client_and_the_user(head: str, address: str, ip: str | None, user: str | None) -> None:
    found = event(f'{head} {DATE} "GET / HTTP/1.1" 200 1 "-" "a"')
    assert (found["source.address"], found["source.ip"], found["user.name"]) == (address, ip, user)


def test_escaped_quotes_stay_in_their_field() -> None:
    found = event(rf'192.0.2.7 - - {DATE} "GET / HTTP/1.1" 200 1 "re\"f" "O:21:\"JDatabase\\":3:{{}} \"" "-"')
    assert found["http.request.referrer"] == r"re\"f"
    assert found["user_agent.original"] == r'O:21:\"JDatabase\\":3:{} \"'


def test_a_server_that_escapes_no_quotes_is_understood() -> None:
    found = event(f'192.0.2.7 - - {DATE} "GET /"x" HTTP/1.1" 200 1 "-" "say "hi" \\" "-" 0.1')
    assert found["url.original"] == '/"x"'
    assert found["user_agent.original"] == 'say "hi" \\'


def test_a_line_cut_off_in_its_last_field_is_a_dead_letter() -> None:
    line = f'192.0.2.7 - - {DATE} "GET / HTTP/1.1" 200 235 "-" "Mozilla/5.0 (compatible; Googlebot'
    letter = dead(line.encode())
    assert letter["kind"] == "no_format"
    assert "Googlebot" in letter["reason"]
    assert "expected CLIENT IDENT USER" in letter["reason"]
    assert letter["original"] == line.encode()
    assert letter["_id"] == event_id("e1", "logs", 3, 7)
    assert letter["@timestamp"] == dt.datetime.fromtimestamp(BROKER_MS / 1000, dt.UTC)
    assert letter["oddlog.position.offset"] == 7


def test_two_lines_in_one_record_are_not_half_lost() -> None:
    line = f'192.0.2.7 - - {DATE} "GET / HTTP/1.1" 200 1 "-" "a"'
    assert dead(f"{line}\n{line}".encode())["kind"] == "no_format"


@pytest.mark.parametrize("value", [None, b"", b" \t ", b"\r\n", b"\xef\xbb\xbf"])
def test_nothing_is_a_dead_letter(value: bytes | None) -> None:
    letter = dead(value)
    assert letter["kind"] == "empty"
    assert letter["original"] == (value or b"")


def test_line_ends_and_byte_order_marks_are_no_content() -> None:
    line = f'192.0.2.7 - - {DATE} "GET / HTTP/1.1" 200 1 "-" "a"'
    assert event(b"\xef\xbb\xbf" + line.encode() + b"\r\n")["event.original"] == line


def test_bytes_that_are_no_utf8_are_replaced_where_the_line_fits() -> None:
    found = event(f'192.0.2.7 - - {DATE} "GET /caf'.encode() + b'\xe9 HTTP/1.1" 200 1 "-" "\xff\xfe"')
    assert found["url.original"] == "/caf\ufffd"
    assert found["user_agent.original"] == "\ufffd\ufffd"
    assert "\ufffd" in found["event.original"]


def test_a_line_without_a_date_takes_the_brokers() -> None:
    found = event('192.0.2.7 - - [-] "GET / HTTP/1.1" 200 1')
    assert found["@timestamp"] == dt.datetime.fromtimestamp(BROKER_MS / 1000, dt.UTC)


@pytest.mark.parametrize(
    ("date", "broker_ms"),
    [
        ("18/May/2015:10:53:21 +0000", BROKER_MS),  # a day and a second ahead
        ("17/May/2099:10:05:03 +0000", BROKER_MS),
        ("31/Dec/1989:23:59:59 +0000", BROKER_MS),
        ("-", -1),  # no time anywhere
        ("-", 2**62),
    ],
)
def test_impossible_dates_are_dead_letters(date: str, broker_ms: int) -> None:
    letter = dead(f'192.0.2.7 - - [{date}] "GET / HTTP/1.1" 200 1'.encode(), broker_ms)
    assert letter["kind"] == "bad_date"
    assert "expected a time from 1990" in letter["reason"]


@pytest.mark.parametrize(
    ("date", "broker_ms", "expected"),
    [
        ("18/May/2015:10:53:20 +0000", BROKER_MS, "2015-05-18T10:53:20"),  # a day ahead: a zone written wrong
        ("01/Jan/1990:00:00:00 +0000", BROKER_MS, "1990-01-01T00:00:00"),
        ("17/May/2099:10:05:03 +0000", -1, "2099-05-17T10:05:03"),  # nothing to compare it with
        ("17/May/2015:10:05:03.250 -0130", BROKER_MS, "2015-05-17T11:35:03.250"),
        ("2015-05-17T10:05:03+02:00", BROKER_MS, "2015-05-17T08:05:03"),
    ],
)
def test_possible_dates(date: str, broker_ms: int, expected: str) -> None:
    found = event(f'192.0.2.7 - - [{date}] "GET / HTTP/1.1" 200 1', broker_ms)
    assert found["@timestamp"] == dt.datetime.fromisoformat(expected).replace(tzinfo=dt.UTC)


def test_numbers_that_fit_no_column_are_null() -> None:
    found = event(f'192.0.2.7 - - {DATE} "GET / HTTP/1.1" - 99999999999999999999')
    assert found["http.response.status_code"] is None
    assert found["http.response.body.bytes"] is None


def test_a_very_large_line_is_an_event_and_a_very_large_misfit_a_short_reason() -> None:
    big = "a" * 10_000_000
    assert event(f'192.0.2.7 - - {DATE} "GET /?{big} HTTP/1.1" 414 1 "-" "-"')["url.query"] == big
    letter = dead(f'192.0.2.7 - - {DATE} "GET /?{big}'.encode())
    assert letter["kind"] == "no_format"
    assert len(letter["reason"]) < 500


def test_a_mixed_batch_keeps_order_and_positions() -> None:
    line = f'192.0.2.7 - - {DATE} "GET /%d HTTP/1.1" 200 1'
    values = [b"what", (line % 1).encode(), None, (line % 3).encode(), b"{", (line % 5).encode()]
    records = Records(values, ["e1"] * 6, ["t"] * 6, [0, 1] * 3, [10, 20, 11, 21, 12, 22], [BROKER_MS] * 6)
    parsed = parse(records)
    assert parsed.events["url.path"].to_list() == ["/1", "/3", "/5"]
    assert parsed.events["_id"].to_list() == ["e1-t-1-20", "e1-t-1-21", "e1-t-1-22"]
    assert parsed.dead["_id"].to_list() == ["e1-t-0-10", "e1-t-0-11", "e1-t-0-12"]
    assert parsed.dead["kind"].to_list() == ["no_format", "empty", "bad_json"]


def test_an_empty_batch_has_the_schemas() -> None:
    parsed = parse(Records())
    assert parsed.events.schema == pl.Schema(EVENT_SCHEMA)
    assert parsed.dead.schema == pl.Schema(DEAD_SCHEMA)
    assert parsed.events.height == parsed.dead.height == 0
