"""Marks: what people said of events, as documents of a store's collection "marks", and which events each is about.

What follows from a mark is elsewhere: alerts that it hushes in serving/hush.py, labels in training/marks.py.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import polars as pl

from oddlog.connectors.store import Store
from oddlog.errors import UsageError

Verdict = Literal["false-alarm", "true-anomaly", "expected"]
VERDICTS: tuple[str, ...] = get_args(Verdict)

FALSE_ALARMS: tuple[Verdict, ...] = ("false-alarm", "expected")
"""The verdicts by which an alert need not have been raised."""

COLUMNS = ("_id", "@timestamp", "source.address", "url.path")
"""What has to be known of an event to tell which marks are about it."""

PATTERN_COLUMNS = COLUMNS[1:]


@dataclass(frozen=True, slots=True)
class Mark:
    """One person's verdict, on one event or on all that fit a pattern.

    With `event` it is about that document alone, and `client`, `path` and `time` tell what it was, also when it is
    deleted. Without, it is about the events of `client`, with a path that begins with `path_prefix`, from `since` on
    and before `until`; what is None narrows nothing, but one of client and path prefix is there.
    """

    id: str
    verdict: Verdict
    by: str
    at: dt.datetime
    note: str = ""
    event: str | None = None
    client: str | None = None
    path: str | None = None
    time: dt.datetime | None = None
    path_prefix: str | None = None
    since: dt.datetime | None = None
    until: dt.datetime | None = None

    @property
    def is_pattern(self) -> bool:
        """Whether it is about a pattern of events."""
        return self.event is None

    @property
    def about(self) -> str:
        """What it is about, in words.

        >>> at = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
        >>> Mark("m1", "expected", "ada", at, client="192.0.2.7", path_prefix="/api/", until=at).about
        'events of 192.0.2.7 below /api/, before 2026-03-01 00:00:00'
        """
        if self.event is not None:
            return f"event {self.event}" + (f", {self.client} {self.path or ''}".rstrip() if self.client else "")
        words = "events" + (f" of {self.client}" if self.client else "")
        words += f" below {self.path_prefix}" if self.path_prefix else ""
        words += f", from {self.since:%Y-%m-%d %H:%M:%S}" if self.since else ""
        return words + (f", before {self.until:%Y-%m-%d %H:%M:%S}" if self.until else "")

    def fits(self) -> pl.Expr:
        """Whether an event (PATTERN_COLUMNS) is one of the pattern's."""
        conditions = [
            *([pl.col("source.address") == self.client] if self.client is not None else []),
            *([pl.col("url.path").str.starts_with(self.path_prefix)] if self.path_prefix is not None else []),
            *([pl.col("@timestamp") >= self.since] if self.since is not None else []),
            *([pl.col("@timestamp") < self.until] if self.until is not None else []),
        ]
        return pl.all_horizontal(conditions).fill_null(value=False)


def new_mark(verdict: Verdict, *, by: str, note: str = "", at: dt.datetime | None = None, **about: Any) -> Mark:
    """A mark with an id of its own; `about`: the fields of Mark that say what it is about.

    Raises UsageError for one that is about everything, or about a pattern without an end: what is open would speak of
    events that nobody has seen yet, for good.
    """
    at = at or dt.datetime.now(dt.UTC)
    mark = Mark(id=f"{at:%Y%m%d%H%M%S}-{uuid.uuid4().hex[:8]}", verdict=verdict, by=by, at=at, note=note, **about)
    if mark.is_pattern:
        if not mark.client and not mark.path_prefix:
            raise UsageError(
                "a mark of every event there is", expected="a document, a client or a path prefix",
                mend="oddlog mark DOCUMENT, or --client ADDRESS, or --path-prefix /path",
            )  # fmt: skip
        if mark.until is None:
            raise UsageError(f"a mark of {mark.about} without an end", expected="an end: --until TIME, or --for 30d")
        if mark.since is not None and mark.since >= mark.until:
            raise UsageError(f"a mark of {mark.about}, which is no time", expected="a beginning before the end")
    return mark


def put_marks(store: Store, marks: Iterable[Mark]) -> None:
    """Store marks; one of the same id is replaced. Raises StoreError."""
    for mark in marks:
        store.put_document("marks", mark.id, _document(mark))


def list_marks(store: Store) -> list[Mark]:
    """Every mark, oldest first. Documents that are no mark are passed over. Raises StoreError."""
    return marks_of(store.list_documents("marks"))


def remove_mark(store: Store, id: str) -> Mark:
    """Remove a mark; what it was. Raises UsageError where there is none of that id, StoreError."""
    document = store.get_document("marks", id)
    found = None if document is None else _mark({**document, "_id": id})
    if found is None:
        raise UsageError(f"there is no mark {id!r}", expected="the id of one", mend="oddlog mark list")
    store.delete_document("marks", id)
    return found


def marks_of(documents: Iterable[Mapping[str, Any]]) -> list[Mark]:
    """The marks among documents, oldest first; others, and verdicts that are none, are passed over.

    >>> [mark.event for mark in marks_of([
    ...     {"_id": "b", "event": "e1-t-0-7", "verdict": "expected", "at": "2026-01-02"},
    ...     {"_id": "a", "event": "e1-t-0-8", "verdict": "nonsense", "at": "2026-01-02"},
    ...     {"_id": "c", "verdict": "expected", "at": "2026-01-02"}])]
    ['e1-t-0-7']
    """
    found = [mark for document in documents if (mark := _mark(document)) is not None]
    return sorted(found, key=lambda mark: (mark.at, mark.id))


class Hushes:
    """The patterns that people expect, at one moment: which of some anomalies are no alerts.

    >>> Hushes([]).ids(pl.DataFrame({"@timestamp": [None]}), pl.Series([True])).to_list()
    [None]
    """

    def __init__(self, marks: Iterable[Mark]) -> None:
        self.marks = tuple(mark for mark in marks if mark.is_pattern and mark.verdict == "expected")

    def __bool__(self) -> bool:
        return bool(self.marks)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Hushes) and self.marks == other.marks

    def __hash__(self) -> int:
        return hash(self.marks)

    def ids(self, events: pl.DataFrame, odd: pl.Series) -> pl.Series:
        """The id of the mark that hushes each event (PATTERN_COLUMNS) [n]; null where none does, or it is not `odd`.

        Of several the oldest. Nothing is looked at where there is no pattern, or nothing odd."""
        none = pl.Series("anomaly.hushed", [None], dtype=pl.String).new_from_index(0, events.height)
        if not self.marks or not odd.any():
            return none
        rows = odd.arg_true()
        told = [pl.when(mark.fits()).then(pl.lit(mark.id)) for mark in self.marks]
        found = events[rows].select(pl.coalesce(told).alias("id"))["id"]
        return none.scatter(rows, found) if found.null_count() < len(found) else none


def verdicts(marks: Iterable[Mark], events: pl.DataFrame) -> pl.Series:
    """What was said of each event (COLUMNS) [n], String; null where nothing was.

    A mark of the event itself beats one of a pattern; of several of a kind the last written counts.
    """
    told: dict[str, str] = {}
    by_pattern: list[pl.Expr] = []
    for mark in sorted(marks, key=lambda one: (one.at, one.id)):
        if mark.event is not None:
            told[mark.event] = mark.verdict
        else:
            by_pattern.insert(0, pl.when(mark.fits()).then(pl.lit(mark.verdict)))
    said = pl.DataFrame({"_id": list(told), "said": list(told.values())}, schema={"_id": pl.String, "said": pl.String})
    found = events.select(COLUMNS).join(said, on="_id", how="left", maintain_order="left")
    return found.select(pl.coalesce("said", *by_pattern).alias("verdict")).to_series()


_TIMES = ("at", "time", "since", "until")
_TEXTS = ("by", "note", "event", "client", "path", "path_prefix")


def _document(mark: Mark) -> dict[str, Any]:
    texts = {name: getattr(mark, name) for name in ("verdict", *_TEXTS)}
    times = {name: None if getattr(mark, name) is None else getattr(mark, name).isoformat() for name in _TIMES}
    return {name: value for name, value in {"@timestamp": times["at"], **texts, **times}.items() if value is not None}


def _mark(document: Mapping[str, Any]) -> Mark | None:
    """The mark in a document; None where it is none, for a hand in Kibana may have written anything."""
    texts: dict[str, Any] = {name: document.get(name) for name in _TEXTS}
    if document.get("verdict") not in VERDICTS or not all(v is None or isinstance(v, str) for v in texts.values()):
        return None
    try:
        times: dict[str, Any] = {name: _time(document.get(name)) for name in _TIMES}
    except (TypeError, ValueError, OverflowError):
        return None
    mark = Mark(
        id=str(document.get("_id", "")),
        verdict=cast(Verdict, document["verdict"]),
        by=texts["by"] or "",
        note=texts["note"] or "",
        at=times["at"] or dt.datetime.fromtimestamp(0, dt.UTC),
        **{name: texts[name] for name in ("event", "client", "path", "path_prefix")},
        **{name: times[name] for name in ("time", "since", "until")},
    )
    endless = mark.is_pattern and (mark.until is None or not (mark.client or mark.path_prefix))
    return None if endless else mark


def _time(text: object) -> dt.datetime | None:
    if text is None:
        return None
    if not isinstance(text, str):
        raise TypeError(text)
    time = dt.datetime.fromisoformat(text)
    return time.replace(tzinfo=dt.UTC) if time.tzinfo is None else time.astimezone(dt.UTC)
