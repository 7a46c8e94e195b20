"""What every event store promises of marks: kept whole, listed oldest first, removed, and hushing what they hushed."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from oddlog.connectors.marks import Mark, list_marks, new_mark, put_marks, remove_mark
from oddlog.connectors.store import Store
from oddlog.errors import UsageError

NOON = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)


def test_marks_come_back_as_they_were_oldest_first(store: Store) -> None:
    marks = [
        new_mark("expected", by="ada", note="our own “scanner”", at=NOON + dt.timedelta(seconds=1),
                 client="192.0.2.7", path_prefix="/api/", since=NOON, until=NOON + dt.timedelta(days=30)),
        new_mark("false-alarm", by="bob", at=NOON, event="e1-logs.raw-0-17", client="2001:db8::1", path="/é",
                 time=NOON - dt.timedelta(milliseconds=1)),
    ]  # fmt: skip
    put_marks(store, marks)
    assert list_marks(store) == marks[::-1]


def test_a_mark_is_removed_once(store: Store) -> None:
    mark = new_mark("true-anomaly", by="ada", event="e1-logs.raw-0-17")
    put_marks(store, [mark])
    assert remove_mark(store, mark.id) == mark
    assert list_marks(store) == []
    with pytest.raises(UsageError, match="there is no mark"):
        remove_mark(store, mark.id)


def test_documents_that_are_no_marks_are_passed_over(store: Store) -> None:
    mark = Mark("m1", "false-alarm", "ada", NOON, event="e1-logs.raw-0-17")
    put_marks(store, [mark])
    others: dict[str, dict[str, Any]] = {
        "text": {"verdict": "nonsense", "event": "e1-logs.raw-0-18"},
        "endless": {"verdict": "expected", "client": "192.0.2.7", "at": NOON.isoformat()},
        "everything": {"verdict": "expected", "until": NOON.isoformat()},
        "time": {"verdict": "expected", "client": "192.0.2.7", "until": 7},
        "type": {"verdict": "expected", "client": "192.0.2.7", "note": 7, "until": NOON.isoformat()},
    }
    for id, document in others.items():
        store.put_document("marks", id, document)
    assert list_marks(store) == [mark]
