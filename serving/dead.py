"""Dead letters seen and replayed: what lies there, what the parser says to it now, and the events that were missing.

A replay gives the original bytes to the parser under their original position and broker's time. What parses now is
written as a pending event, created and never overwritten; its dead letter goes after the store has acknowledged
the event, so a crash in between leaves both, which the next replay clears up.
"""

from __future__ import annotations

import datetime as dt
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import polars as pl
import tenacity

from oddlog.connectors.store import DeadQuery, EventQuery, Store
from oddlog.errors import StoreUnavailable, UsageError
from oddlog.events.parse import Parsed, parse
from oddlog.events.record import Records
from oddlog.events.schema import POSITION_ORDER
from serving.documents import pending_events

ATTEMPTS = 6
"""How often a store that cannot take events now is asked, before the replay ends."""


@dataclass(frozen=True, slots=True)
class DeadGroup:
    """Dead letters of one kind whose reasons say the same, apart from what was found."""

    kind: str
    reason: str
    count: int
    oldest: dt.datetime
    newest: dt.datetime


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One dead letter, and what the parser says to its bytes now."""

    row: dict[str, object]
    """DEAD_SCHEMA."""
    event: dict[str, object] | None
    """EVENT_SCHEMA, where it parses now."""
    kind_now: str | None
    reason_now: str | None
    stored: bool
    """Whether the store has an event of this position already."""


@dataclass(slots=True)
class ReplayResult:
    """What a replay did, or with `dry_run` would do, in dead letters."""

    dry_run: bool
    read: int = 0
    parsed: int = 0
    """Are events now."""
    written: int = 0
    """Of these: the store had no event of that position."""
    there_already: int = 0
    refused: int = 0
    """Parsed, but the store refuses the document for good: the dead letter stays."""
    removed: int = 0
    still_dead: dict[str, int] = field(default_factory=dict)
    """Not parsed now either, by the kind that the parser gives now."""
    reasons: list[str] = field(default_factory=list)
    """Of some that the store refused."""


def groups(store: Store, query: DeadQuery) -> list[DeadGroup]:
    """Dead letters by kind and reason, the most frequent first. Reads every one, without its bytes."""
    counted: Counter[tuple[str, str]] = Counter()
    ends: dict[tuple[str, str], tuple[dt.datetime, dt.datetime]] = {}
    for frame in store.iterate_dead(query, columns=["@timestamp", "kind", "reason"], batch_rows=10_000):
        for moment, kind, reason in frame.iter_rows():
            key = (kind, reason_shape(reason or ""))
            counted[key] += 1
            first, last = ends.get(key, (moment, moment))
            ends[key] = min(first, moment), max(last, moment)
    return [DeadGroup(*key, count, *ends[key]) for key, count in counted.most_common()]


def newest(store: Store, query: DeadQuery, rows: int) -> pl.DataFrame:
    """The newest dead letters that fit, without their bytes."""
    columns = ["_id", "@timestamp", "kind", "reason"]
    found: list[pl.DataFrame] = []
    left = rows
    for frame in store.iterate_dead(query, columns=columns, newest_first=True, batch_rows=max(1, min(rows, 1_000))):
        found.append(frame.head(left))
        left -= frame.height
        if left <= 0:
            break
    return pl.concat(found) if found else pl.DataFrame(schema=columns)


def show(store: Store, id: str) -> DeadLetter:
    """One dead letter by its id. Raises UsageError where there is none."""
    for frame in store.iterate_dead(DeadQuery(ids=(id,))):
        parsed = parse(records_of(frame))
        dead = parsed.dead.row(0, named=True) if parsed.dead.height else {}
        return DeadLetter(
            row=frame.row(0, named=True),
            event=parsed.events.row(0, named=True) if parsed.events.height else None,
            kind_now=dead.get("kind"),
            reason_now=dead.get("reason"),
            stored=store.count_events(EventQuery(ids=(id,))) > 0,
        )
    raise UsageError(f"there is no dead letter {id!r}", expected="an id from the list", mend="oddlog dead list")


def replay(
    store: Store,
    query: DeadQuery,
    *,
    dry_run: bool = False,
    parser: Callable[[Records], Parsed] = parse,
    progress: Callable[[ReplayResult], None] | None = None,
) -> ReplayResult:
    """Give dead letters to the parser again; see the module. A second replay finds nothing more to do.

    An event that the store has already, whatever day it was put under, is not written again. Raises
    StoreUnavailable when the store cannot take events now: what was done stays done."""
    result = ReplayResult(dry_run)
    store.refresh()
    for frame in store.iterate_dead(query):
        parsed = parser(records_of(frame))
        result.read += frame.height
        result.parsed += parsed.events.height
        for kind, count in _kinds_now(frame, parsed).value_counts().iter_rows():
            result.still_dead[kind] = result.still_dead.get(kind, 0) + count
        if parsed.events.height:
            _bury(store, parsed.events, result)
        if progress is not None:
            progress(result)
    if not dry_run:
        store.refresh()
    return result


def _kinds_now(letters: pl.DataFrame, parsed: Parsed) -> pl.Series:
    """What the parser calls those that are no event now; `withheld` where the bytes were not kept, for privacy."""
    withheld = letters.filter((pl.col("original").bin.size() == 0) & (pl.col("kind") != "empty"))["_id"]
    now = pl.when(pl.col("_id").is_in(withheld.implode())).then(pl.lit("withheld")).otherwise("kind")
    return parsed.dead.select(now.alias("kind")).to_series()


def _bury(store: Store, events: pl.DataFrame, result: ReplayResult) -> None:
    """Write the events that are missing, then remove the dead letters of all that are there."""
    there = _stored(store, events["_id"].to_list())
    missing = events.filter(~pl.col("_id").is_in(list(there)))
    result.there_already += len(there)
    if result.dry_run:
        result.written += missing.height
        return
    refused = _write(store, pending_events(missing, None, None))
    result.written += missing.height - len(refused)
    result.refused += len(refused)
    result.reasons = [*result.reasons, *refused.values()][:10]
    kept = {missing["_id"][row] for row in refused}
    result.removed += store.delete_dead([id for id in events["_id"] if id not in kept])


def _stored(store: Store, ids: list[str]) -> set[str]:
    """Those of some ids that the store has an event of, in any index: a day may have been told otherwise before."""
    frames = store.read_events(EventQuery(ids=tuple(ids)), columns=["_id"])
    return {id for frame in frames for id in frame["_id"]}


def _write(store: Store, events: pl.DataFrame) -> dict[int, str]:
    """Write until every row is acknowledged or refused for good; the refused ones, by row. Raises StoreUnavailable."""
    refused: dict[int, str] = {}
    rows = list(range(events.height))
    attempts = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(StoreUnavailable),
        stop=tenacity.stop_after_attempt(ATTEMPTS),
        wait=tenacity.wait_random_exponential(multiplier=0.2, max=5),
        reraise=True,
    )

    def attempt() -> None:
        nonlocal rows
        if not rows:
            return
        outcome = store.write_events(events[rows])
        refused.update({rows[row]: reason for row, reason in outcome.rejected.items()})
        rows = [rows[row] for row in sorted(outcome.retry)]
        if rows:
            raise StoreUnavailable(
                f"{len(rows)} events cannot be written now: {next(iter(outcome.retry.values()))}",
                expected="a store that takes writes",
                mend="run the replay again when it does: what was done stays done",
            )

    attempts(attempt)
    return refused


def records_of(dead: pl.DataFrame) -> Records:
    """Dead letters (DEAD_SCHEMA) as the records they were: position, bytes, broker's time."""
    epoch, topic, partition, offset = (dead[name].to_list() for name in POSITION_ORDER)
    return Records(
        value=dead["original"].to_list(),
        epoch=epoch,
        topic=topic,
        partition=partition,
        offset=offset,
        timestamp_ms=dead["@timestamp"].dt.epoch("ms").to_list(),
    )


_EXPECTED = re.compile(r".*; (expected .*)", re.DOTALL)
_PARTICULAR = re.compile(r"'[^']*'|\"[^\"]*\"|\[\d[^\]]*\]|\d+")


def reason_shape(reason: str) -> str:
    """A reason without what was found in particular, so that equal ones can be counted.

    >>> reason_shape("found 'what?'; expected a log line or JSON")
    'expected a log line or JSON'
    >>> reason_shape("the store refuses the document: [1:96] failed to parse field [status] with id 'e1-a-0-7'")
    'the store refuses the document: … failed to parse field [status] with id …'
    """
    if match := _EXPECTED.fullmatch(reason):
        return match[1]
    return _PARTICULAR.sub("…", reason)


def readable(original: bytes | None, most: int = 2_000) -> Iterator[str]:
    """Bytes for a terminal: text where they are, all that could act on a terminal escaped; cut after `most` bytes.

    >>> list(readable("é\\x1b[2J".encode() + bytes([255, 10]) + b"next"))
    ['é\\\\x1b[2J\\\\xff', 'next']
    """
    shown = (original or b"")[:most]
    text = shown.decode("utf-8", "backslashreplace")
    for line in text.split("\n"):
        yield "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in line)
    if original is not None and len(original) > most:
        yield f"... {len(original) - most:,} of {len(original):,} bytes more; --raw writes them all"
