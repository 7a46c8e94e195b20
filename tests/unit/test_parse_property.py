"""Whatever bytes come, every record is exactly one event or one dead letter, and order is kept."""

from __future__ import annotations

import json
from typing import Any

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from oddlog.events.document import surroundings
from oddlog.events.formats import tell_apart
from oddlog.events.parse import parse
from oddlog.events.record import Records
from oddlog.events.schema import DEAD_SCHEMA, EVENT_SCHEMA, URL_PATH

QUOTED = st.text(st.characters(codec="utf-8"), max_size=30)
WORD = st.text(st.characters(codec="utf-8", exclude_characters=" "), min_size=1, max_size=12)
DATES = st.sampled_from(["17/May/2015:10:05:03 +0000", "31/Feb/2015:99:00:00 +9999", "", "-", "9/Oct/99999:1:1:1 +0"])
LINES = st.builds(
    '{} {} {} [{}] "{}" {} {} "{}" "{}"{}'.format,
    WORD, WORD, WORD, DATES, QUOTED, st.integers(-1, 99999), st.one_of(st.just("-"), st.integers()),
    QUOTED, QUOTED, QUOTED,
)  # fmt: skip

NAMES = st.sampled_from(
    [
        "message", "@timestamp", "source", "source.ip", "ip", "address", "client", "remote_addr", "http", "request",
        "response", "status_code", "status", "body", "bytes", "url", "original", "path", "query", "log", "file",
        "file.path", "host", "name", "labels", "truth", "json", "verb", "user_agent", "event", "user", "msec",
    ]
)  # fmt: skip
LEAVES = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), QUOTED, LINES)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.one_of(NAMES, WORD), inner, max_size=6)),
    max_leaves=12,
)
DOCUMENTS = st.dictionaries(st.one_of(NAMES, WORD), VALUES, max_size=8)
NESTED = st.builds(lambda inner, outer: {**outer, "message": json.dumps(inner)}, DOCUMENTS, DOCUMENTS)
JSON = st.one_of(DOCUMENTS, NESTED).map(lambda document: json.dumps(document).encode())
CUT = st.builds(lambda value, share: value[: int(len(value) * share)], JSON, st.floats(0, 1))
RECORD = st.one_of(st.none(), st.binary(max_size=60), LINES.map(str.encode), JSON, CUT)
STAMPS = st.one_of(st.just(1_431_860_000_000), st.integers(-(2**63), 2**63 - 1))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(RECORD, STAMPS), max_size=12))
def test_every_record_is_one_event_or_one_dead_letter_in_order(batch: list[tuple[bytes | None, int]]) -> None:
    count = len(batch)
    parsed = parse(
        Records(
            [value for value, _ in batch],
            ["e1"] * count,
            ["t"] * count,
            [0] * count,
            list(range(count)),
            [stamp for _, stamp in batch],
        )
    )
    assert parsed.events.schema == pl.Schema(EVENT_SCHEMA)
    assert parsed.dead.schema == pl.Schema(DEAD_SCHEMA)
    good = parsed.events["oddlog.position.offset"].to_list()
    bad = parsed.dead["oddlog.position.offset"].to_list()
    assert good == sorted(good)
    assert bad == sorted(bad)
    assert sorted(good + bad) == list(range(count))
    assert parsed.dead["original"].to_list() == [batch[row][0] or b"" for row in bad]
    for name in ("_id", "@timestamp", "source.address", "http.request.method", "url.original", "url.path"):
        assert parsed.events[name].null_count() == 0, name
    assert parsed.events.select(URL_PATH)["url.path"].equals(parsed.events["url.path"])
    years = parsed.events["@timestamp"].dt.year()
    assert years.is_between(1990, 9999).all()


TEXT = st.one_of(st.none(), QUOTED)


def _enveloped(line: str) -> bytes:
    return json.dumps({"message": line, "@timestamp": "2026-03-02T10:00:00.000Z", "host": {"name": "a"}}).encode()


@settings(max_examples=100, deadline=None)
@given(LINES, TEXT, TEXT, TEXT, TEXT, st.dictionaries(WORD, VALUES, max_size=3))
def test_the_fast_way_through_an_envelope_reads_what_the_general_way_reads(
    line: str, stamp: str | None, host: str | None, path: str | None, truth: str | None, more: dict[str, Any]
) -> None:
    document = {
        **more,
        "message": line,
        "@timestamp": stamp,
        "host": {"name": host},
        "log": {"file": {"path": path}},
        "labels": {"truth": truth},
    }
    found = tell_apart([json.dumps(document).encode()])
    if found.lines:
        around = found.line_around
        assert [*zip(around.stamp, around.host, around.path, around.truth, strict=True)] == [surroundings(document)]
        assert found.lines[0] in line


@settings(max_examples=50, deadline=None)
@given(st.lists(st.one_of(LINES.map(str.encode), LINES.map(_enveloped), st.just(b'{"message": "cut')), max_size=12))
def test_records_taken_together_are_read_as_one_by_one(values: list[bytes]) -> None:
    whole = tell_apart(values)
    alone = [tell_apart([value]) for value in values]
    assert whole.lines == [line for one in alone for line in one.lines]
    assert whole.line_rows == [row for row, one in enumerate(alone) if one.lines]
    assert whole.line_around.stamp == [stamp for one in alone for stamp in one.line_around.stamp]
    assert whole.dead == {row: one.dead[0] for row, one in enumerate(alone) if one.dead}
