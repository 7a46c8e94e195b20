"""Raw records to event columns: `parse` fills the columns, dates the events, and names what fits no format.

Telling formats apart is in `formats.py`, reading a line in `line.py`, times in `dates.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from oddlog.events.dates import to_time
from oddlog.events.document import Fields, Surroundings
from oddlog.events.formats import Arounds, Sorted, shorten, tell_apart
from oddlog.events.line import EXPECTED, read_lines, split_requests, valid_ips
from oddlog.events.record import Records
from oddlog.events.schema import DEAD_SCHEMA, EVENT_ID, EVENT_SCHEMA, TIMESTAMP

EARLIEST_MS = 631_152_000_000  # 1990-01-01: there was no web
LATEST_MS = 253_402_300_799_999  # the end of 9999, the last year that everyone after us can write
AHEAD_MS = 86_400_000  # a day: time zones written wrong are within it

_ABSENT = "-"


@dataclass(slots=True)
class Parsed:
    """A parsed batch. Every record is one row of exactly one of the two, each in the records' order."""

    events: pl.DataFrame
    """EVENT_SCHEMA."""
    dead: pl.DataFrame
    """DEAD_SCHEMA; kinds: `empty`, `bad_json`, `no_format`, `bad_date`."""


def parse(records: Records) -> Parsed:
    """Events and dead letters of a batch. No record makes it raise.

    An event's time is the line's own, with its zone; where that is unusable the envelope's `@timestamp`; else
    the broker's timestamp; never the clock. A time before 1990, or over a day after the broker's timestamp
    (where that is known), makes a dead letter.

    >>> from oddlog.events.logfile import records_from_lines
    >>> line = b'192.0.2.1 - - [17/May/2015:10:05:03 +0200] "GET /a?b=1 HTTP/1.1" 404 12 "-" "curl/8"'
    >>> parsed = parse(records_from_lines([line, b"what?"]))
    >>> parsed.events.select("@timestamp", "source.ip", "url.path", "url.query").row(0)
    (datetime.datetime(2015, 5, 17, 8, 5, 3, ...), '192.0.2.1', '/a', 'b=1')
    >>> parsed.dead["kind"].to_list()
    ['no_format']
    """
    found = tell_apart(records.value)
    positions = _positions(records)
    events = _events(found, positions)
    events, misdated = _refuse_dates(events)
    found.dead.update(misdated)
    return Parsed(events.select(list(EVENT_SCHEMA)), _dead(found.dead, records.value, positions))


def _positions(records: Records) -> pl.DataFrame:
    frame = pl.DataFrame(
        {
            "row": pl.int_range(len(records), dtype=pl.UInt32, eager=True),
            "oddlog.position.epoch": pl.Series(records.epoch, dtype=pl.String),
            "oddlog.position.topic": pl.Series(records.topic, dtype=pl.String),
            "oddlog.position.partition": pl.Series(records.partition, dtype=pl.Int32),
            "oddlog.position.offset": pl.Series(records.offset, dtype=pl.Int64),
            "broker": pl.Series(records.timestamp_ms, dtype=pl.Int64),
        }
    )
    return frame.with_columns(EVENT_ID)


def _events(found: Sorted, positions: pl.DataFrame) -> pl.DataFrame:
    """Every record that fits a format, in order; the columns `broker` and `row` beside EVENT_SCHEMA."""
    lines = _from_lines(found)
    read = pl.concat([lines, _from_fields(found)]).sort("row") if found.fields else lines
    whole = read.height == positions.height
    placed = positions if whole else positions[read["row"]]
    addresses, given = valid_ips(read["address"]), read["ip"]
    if given.null_count() < read.height:
        given = valid_ips(given)
        addresses = given.zip_with(given.is_not_null(), addresses)
    target = read["target"].str.splitn("?", 2).struct.unnest()
    return pl.DataFrame(
        {
            **placed.to_dict(),
            "@timestamp": _times(read, placed["broker"]),
            "source.address": read["address"],
            "source.ip": addresses,
            "user.name": read["user"],
            "http.request.method": read["method"],
            "url.original": read["target"],
            "url.path": target["field_0"].fill_null(""),
            "url.query": target["field_1"],
            "http.version": read["version"],
            "http.response.status_code": read["status"].cast(pl.Int32, strict=False),
            "http.response.body.bytes": read["bytes"].cast(pl.Int64, strict=False),
            "http.request.referrer": _null_if_absent(read["referrer"]),
            "user_agent.original": _null_if_absent(read["agent"]),
            "host.name": read["host"],
            "log.file.path": read["path"],
            "labels.truth": read["truth"],
            "event.original": read["original"],
        }
    )


def _from_lines(found: Sorted) -> pl.DataFrame:
    texts = pl.Series("original", found.lines, dtype=pl.String)
    frame = read_lines(texts).with_columns(
        pl.Series("row", found.line_rows, dtype=pl.UInt32),
        texts,
        pl.lit(None, dtype=pl.String).alias("ip"),
        *_around_columns(found.line_around),
    )
    missed = frame["address"].is_null()
    if not missed.any():
        return frame
    for row, text in frame.filter(missed).select("row", "original").iter_rows():
        found.dead[row] = ("no_format", f"found {shorten(text)!r}; expected {EXPECTED}")
    return frame.filter(~missed)


def _from_fields(found: Sorted) -> pl.DataFrame:
    columns = zip(Fields._fields, zip(*found.fields, strict=True), strict=True)
    frame = pl.DataFrame({name: pl.Series(values, dtype=pl.String) for name, values in columns})
    parts = split_requests(frame["request"])
    none = pl.lit(None, dtype=pl.String)
    return frame.select(
        "address",
        "user",
        "time",
        pl.coalesce("method", parts["method"], pl.lit("")),
        pl.coalesce("target", parts["target"], pl.lit("")),
        pl.coalesce("version", parts["version"], none),
        "status",
        "bytes",
        "referrer",
        "agent",
        pl.Series("row", found.field_rows, dtype=pl.UInt32),
        "original",
        "ip",
        *_around_columns(found.field_around),
    )


def _around_columns(around: Arounds) -> list[pl.Series]:
    return [pl.Series(name, getattr(around, name), dtype=pl.String) for name in Surroundings._fields]


def _times(read: pl.DataFrame, broker: pl.Series) -> pl.Series:
    """The line's own time, else the envelope's, else the broker's where it has one."""
    times = to_time(read["time"])
    if times.null_count() and read["stamp"].null_count() < read.height:
        times = times.zip_with(times.is_not_null(), to_time(read["stamp"]))
    if times.null_count():
        times = times.zip_with(times.is_not_null(), broker.cast(TIMESTAMP))
    return times


def _refuse_dates(events: pl.DataFrame) -> tuple[pl.DataFrame, dict[int, tuple[str, str]]]:
    moment, broker = events["@timestamp"].cast(pl.Int64), events["broker"]
    known = (broker >= EARLIEST_MS) & (broker <= LATEST_MS)
    early, late = moment < EARLIEST_MS, moment > LATEST_MS
    ahead = known & (moment - AHEAD_MS > broker)
    bad = early | late | ahead
    if not bad.any():
        return events, {}
    shown = events.filter(bad).select("row", moment.filter(bad).alias("ms"), "broker", "event.original")
    reasons = {
        row: (
            "bad_date",
            f"found an event at {_say(ms)}, the broker's time is {_say(stamp)}: {shorten(text)!r}; "
            "expected a time from 1990 on and at most a day after the broker's timestamp",
        )
        for row, ms, stamp, text in shown.iter_rows()
    }
    return events.filter(~bad), reasons


def _say(milliseconds: int) -> str:
    if not 0 <= milliseconds <= LATEST_MS:
        return f"{milliseconds} ms since 1970"
    return str(pl.select(pl.lit(milliseconds).cast(TIMESTAMP).dt.to_string("%Y-%m-%dT%H:%M:%SZ")).item())


def _dead(dead: dict[int, tuple[str, str]], values: Sequence[bytes | None], positions: pl.DataFrame) -> pl.DataFrame:
    if not dead:
        return pl.DataFrame(schema=DEAD_SCHEMA)
    rows = sorted(dead)
    placed = positions[rows]
    return pl.DataFrame(
        {
            **placed.to_dict(),
            # a record without a timestamp (-1) is a letter of 1970: later stages want one
            "@timestamp": placed["broker"].clip(0, LATEST_MS).cast(TIMESTAMP),
            "reason": pl.Series([dead[row][1] for row in rows], dtype=pl.String),
            "kind": pl.Series([dead[row][0] for row in rows], dtype=pl.String),
            "original": pl.Series([values[row] or b"" for row in rows], dtype=pl.Binary),
        }
    ).select(list(DEAD_SCHEMA))


def _null_if_absent(column: pl.Series) -> pl.Series:
    return pl.select(pl.when(~column.is_in(["", _ABSENT])).then(column)).to_series()
