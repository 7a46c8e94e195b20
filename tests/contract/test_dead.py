"""Replay of dead letters, as properties, on SQLite and on a real Elasticsearch: what parses now is written under its
own position, and nothing else changes."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

import polars as pl
import pytest

from oddlog.connectors.store import DeadQuery, EventQuery, Store, WriteOutcome
from oddlog.errors import StoreUnavailable, UsageError
from oddlog.events.parse import Parsed, parse
from oddlog.events.record import Records
from oddlog.events.schema import DEAD_SCHEMA, POSITION_ORDER
from serving import dead
from serving.documents import pending_events
from tests.store_frames import acknowledged

LINE = '192.0.2.{n} - - [17/May/2015:10:05:{n:02d} +0000] "GET /page/{n} HTTP/1.1" 200 12 "-" "curl/8"'
BROKER = dt.datetime(2015, 5, 17, 11, tzinfo=dt.UTC)
REFUSED = {3, 7}
"""Offsets whose lines the parser of that day did not know."""


def records() -> Records:
    values: list[bytes | None] = [LINE.format(n=n).encode() for n in range(10)]
    values += [b"", None, b"no line of any log", b"\xff\xfe\x00"]
    n = len(values)
    return Records(
        value=values,
        epoch=["e1"] * n,
        topic=["logs.raw"] * n,
        partition=[2] * n,
        offset=list(range(n)),
        timestamp_ms=[int(BROKER.timestamp() * 1000) + row for row in range(n)],
    )


def stricter(records: Records) -> Parsed:
    """The parser, before it knew the lines of some offsets."""
    parsed = parse(records)
    known = ~pl.col("oddlog.position.offset").is_in(list(REFUSED))
    rows = [row for row, offset in enumerate(records.offset) if offset in REFUSED]
    refused = pl.DataFrame(
        {
            "_id": [f"e1-logs.raw-2-{records.offset[row]}" for row in rows],
            "@timestamp": [BROKER + dt.timedelta(milliseconds=records.offset[row]) for row in rows],
            "reason": [f"found {records.value[row]!r}; expected something else" for row in rows],
            "kind": ["no_format"] * len(rows),
            "original": [records.value[row] for row in rows],
            "oddlog.position.epoch": ["e1"] * len(rows),
            "oddlog.position.topic": ["logs.raw"] * len(rows),
            "oddlog.position.partition": [2] * len(rows),
            "oddlog.position.offset": [records.offset[row] for row in rows],
        },
        schema=DEAD_SCHEMA,
    )
    return Parsed(parsed.events.filter(known), pl.concat([parsed.dead, refused]))


def consume(store: Store, parser: object = stricter) -> None:
    """What a consumer without a model writes."""
    parsed = parser(records())  # type: ignore[operator]
    for outcome in (store.write_events(pending_events(parsed.events, None, None)), store.write_dead(parsed.dead)):
        acknowledged(outcome)
    store.refresh()


def everything(store: Store) -> tuple[pl.DataFrame, pl.DataFrame]:
    """All events with their versions, and all dead letters."""
    events = pl.concat(store.read_events(EventQuery(), order="position", with_version=True))
    return events, store.read_dead()


def test_a_fixed_parser_writes_the_missing_documents_and_nothing_else(store: Store) -> None:
    consume(store)
    events, letters = everything(store)
    assert events.height == 8
    result = dead.replay(store, DeadQuery())
    now, left = everything(store)
    assert (result.read, result.parsed, result.written, result.removed, result.refused) == (6, 2, 2, 2, 0)
    assert result.still_dead == {"empty": 2, "no_format": 2}
    new = now.join(events, on="_id", how="anti")
    assert new["oddlog.position.offset"].to_list() == sorted(REFUSED)
    assert now.join(new, on="_id", how="anti").equals(events)
    assert left.equals(letters.filter(~pl.col("oddlog.position.offset").is_in(list(REFUSED))))
    # as if the parser had known them at once
    fresh = pending_events(parse(records()).events, None, None)
    assert now.select(fresh.columns).equals(fresh)
    assert new["@timestamp"].to_list() == [dt.datetime(2015, 5, 17, 10, 5, n, tzinfo=dt.UTC) for n in sorted(REFUSED)]


def test_a_second_replay_changes_nothing(store: Store) -> None:
    consume(store)
    dead.replay(store, DeadQuery())
    before = everything(store)
    result = dead.replay(store, DeadQuery())
    assert (result.parsed, result.written, result.removed) == (0, 0, 0)
    assert all(one.equals(other) for one, other in zip(before, everything(store), strict=True))


def test_a_dry_run_tells_and_changes_nothing(store: Store) -> None:
    consume(store)
    before = everything(store)
    result = dead.replay(store, DeadQuery(), dry_run=True)
    assert (result.read, result.parsed, result.written, result.removed) == (6, 2, 2, 0)
    assert all(one.equals(other) for one, other in zip(before, everything(store), strict=True))


def test_only_what_was_asked_for_is_replayed(store: Store) -> None:
    consume(store)
    assert dead.replay(store, DeadQuery(kind="empty")).read == 2
    assert dead.replay(store, DeadQuery(ids=("e1-logs.raw-2-7",))).written == 1
    _, left = everything(store)
    assert 3 in left["oddlog.position.offset"]
    assert 7 not in left["oddlog.position.offset"]


class Dies(Exception):
    """The process ends here."""


class Dying:
    """A store whose process dies between the event's acknowledgement and the dead letter's removal."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    def delete_dead(self, ids: Sequence[str]) -> int:
        raise Dies


def test_a_crash_between_write_and_removal_leaves_both_and_the_next_replay_clears_up(store: Store) -> None:
    consume(store)
    with pytest.raises(Dies):
        dead.replay(Dying(store), DeadQuery())  # type: ignore[arg-type]
    store.refresh()
    events, letters = everything(store)
    assert (events.height, letters.height) == (10, 6)
    # scored meanwhile: that must survive
    changes = events.filter(pl.col("oddlog.position.offset") == 3).select("_id", "@timestamp", "_version")
    store.update_events(changes.with_columns(pl.lit(0.5).alias("anomaly.score")))
    store.refresh()
    before, _ = everything(store)
    result = dead.replay(store, DeadQuery())
    after, left = everything(store)
    assert (result.written, result.there_already, result.removed) == (0, 2, 2)
    assert after.equals(before)
    assert left.height == 4


def test_an_event_that_stands_under_another_day_is_not_written_twice(store: Store) -> None:
    consume(store)
    fresh = parse(records()).events.filter(pl.col("oddlog.position.offset") == 3)
    elsewhere = fresh.with_columns(pl.col("@timestamp") - dt.timedelta(days=1))
    store.write_events(pending_events(elsewhere, None, None))
    result = dead.replay(store, DeadQuery())
    assert (result.written, result.there_already) == (1, 1)
    assert store.count_events(EventQuery(ids=("e1-logs.raw-2-3",))) == 1


class Choosy:
    """A store that is busy for some writes, and refuses one document for good."""

    def __init__(self, store: Store, busy: int) -> None:
        self._store, self._busy = store, busy

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    def write_events(self, events: pl.DataFrame) -> WriteOutcome:
        if self._busy:
            self._busy -= 1
            return WriteOutcome(retry=dict.fromkeys(range(events.height), "429 busy"))
        bad = [row for row, offset in enumerate(events["oddlog.position.offset"]) if offset == 3]
        good = [row for row in range(events.height) if row not in bad]
        outcome = self._store.write_events(events[good])
        acknowledged(outcome)
        return WriteOutcome(rejected=dict.fromkeys(bad, "mapping conflict"))


def test_what_the_store_refuses_stays_dead_and_what_it_delays_is_sent_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda seconds: None)
    consume(store)
    result = dead.replay(Choosy(store, busy=2), DeadQuery())  # type: ignore[arg-type]
    assert (result.written, result.refused, result.removed, result.reasons) == (1, 1, 1, ["mapping conflict"])
    _, left = everything(store)
    assert 3 in left["oddlog.position.offset"]
    with pytest.raises(StoreUnavailable, match="429 busy"):
        dead.replay(Choosy(store, busy=99), DeadQuery())  # type: ignore[arg-type]
    assert everything(store)[1].equals(left)


def test_letters_are_counted_by_kind_and_reason_and_shown(store: Store) -> None:
    assert dead.groups(store, DeadQuery()) == []
    assert dead.newest(store, DeadQuery(), 5).is_empty()
    consume(store)
    found = {(group.kind, group.reason): group.count for group in dead.groups(store, DeadQuery())}
    assert found["no_format", "expected something else"] == 2
    assert sum(found.values()) == 6
    newest = dead.newest(store, DeadQuery(), 3)
    assert newest["_id"].to_list() == [f"e1-logs.raw-2-{offset}" for offset in (13, 12, 11)]
    letter = dead.show(store, "e1-logs.raw-2-3")
    assert letter.event is not None
    assert letter.event["url.path"] == "/page/3"
    assert [letter.row[name] for name in POSITION_ORDER] == ["e1", "logs.raw", 2, 3]
    assert not letter.stored
    still = dead.show(store, "e1-logs.raw-2-12")
    assert (still.event, still.kind_now) == (None, "no_format")
    with pytest.raises(UsageError, match="never"):
        dead.show(store, "never")
