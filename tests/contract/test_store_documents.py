"""What every event store promises of the small documents beside events, and of locks."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from oddlog.connectors.store import Store
from tests.waiting import until


def test_a_document_comes_back_and_is_replaced(store: Store) -> None:
    document: Mapping[str, Any] = {
        "text": "é “",
        "n": 3,
        "x": 0.1,
        "yes": True,
        "none": None,
        "deep": {"a": [1, {"b": []}]},
    }
    store.put_document("runs", "one/two three", document)
    assert store.get_document("runs", "one/two three") == document
    store.put_document("runs", "one/two three", {"n": 4})
    assert store.get_document("runs", "one/two three") == {"n": 4}


def test_collections_and_ids_are_apart(store: Store) -> None:
    store.put_document("marks", "a", {"n": 1})
    store.put_document("state", "a", {"n": 2})
    assert store.get_document("marks", "a") == {"n": 1}
    assert store.get_document("runs", "a") is None
    assert store.get_document("marks", "b") is None


def test_a_list_has_every_document_with_its_id_sorted_at_once(store: Store) -> None:
    assert store.list_documents("drift") == []
    for id in ("b", "é", "a", "B"):
        store.put_document("drift", id, {"_id": "not this", "share": 0.5})
    assert store.list_documents("drift") == [{"_id": id, "share": 0.5} for id in ("B", "a", "b", "é")]


def test_a_list_may_begin_at_a_time(store: Store) -> None:
    noon = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
    assert store.list_documents("drift", since=noon) == []
    for id, time in {
        "before": "2026-03-01T11:59:59.999Z",
        "then": "2026-03-01T12:00:00.000Z",
        "elsewhere": "2026-03-01T13:00:00+01:00",
        "after": "2026-03-02T00:00:00Z",
    }.items():
        store.put_document("drift", id, {"@timestamp": time})
    store.put_document("drift", "timeless", {"share": 0.5})
    assert [one["_id"] for one in store.list_documents("drift", since=noon)] == ["after", "elsewhere", "then"]
    assert len(store.list_documents("drift")) == 5


def test_a_list_may_be_long(store: Store) -> None:
    for n in range(30):
        store.put_document("state", f"{n:04}", {"chunk": "x" * 100, "n": n})
    assert [document["n"] for document in store.list_documents("state")] == list(range(30))


def test_documents_of_one_collection_may_differ_in_shape(store: Store) -> None:
    for collection in ("runs", "marks", "state", "drift", "incidents"):
        store.put_document(collection, "1", {"value": 1, "share": 0})
        store.put_document(collection, "2", {"value": 2.5, "share": 0.25})
        assert [document["value"] for document in store.list_documents(collection)] == [1, 2.5]


def test_deleting_twice_is_harmless(store: Store) -> None:
    store.delete_document("marks", "a")
    store.put_document("marks", "a", {"n": 1})
    store.delete_document("marks", "a")
    store.delete_document("marks", "a")
    assert store.get_document("marks", "a") is None
    assert store.list_documents("marks") == []


def test_a_lock_excludes_others_until_it_is_given_back(store: Store, connect: Callable[[], Store]) -> None:
    other = connect()
    assert store.acquire_lock("promotion", "me", 60) is None
    assert other.acquire_lock("promotion", "you", 60) == "me"
    assert other.acquire_lock("another", "you", 60) is None
    store.release_lock("promotion", "me")
    assert other.acquire_lock("promotion", "you", 60) is None
    assert store.acquire_lock("promotion", "me", 60) == "you"


def test_its_holder_may_prolong_it_and_no_one_else_give_it_back(store: Store) -> None:
    assert store.acquire_lock("promotion", "me", 60) is None
    assert store.acquire_lock("promotion", "me", 60) is None
    store.release_lock("promotion", "you")
    store.release_lock("never taken", "you")
    assert store.acquire_lock("promotion", "you", 60) == "me"


def test_a_lock_expires(store: Store) -> None:
    assert store.acquire_lock("promotion", "me", 0.05) is None
    until(lambda: store.acquire_lock("promotion", "you", 60) is None, "the end of the lock")
    assert store.acquire_lock("promotion", "me", 60) == "you"
    store.release_lock("promotion", "me")  # it is no longer ours
    assert store.acquire_lock("promotion", "me", 60) == "you"


@pytest.mark.parametrize("expired", [False, True])
def test_of_many_that_come_at_once_one_gets_it(store: Store, connect: Callable[[], Store], expired: bool) -> None:
    if expired:
        assert store.acquire_lock("promotion", "before", -1) is None
    contenders = [connect() for _ in range(6)]
    with ThreadPoolExecutor(len(contenders)) as pool:
        answers = list(pool.map(lambda n: contenders[n].acquire_lock("promotion", f"c{n}", 60), range(len(contenders))))
    winners = [f"c{n}" for n, answer in enumerate(answers) if answer is None]
    assert len(winners) == 1
    assert {answer for answer in answers if answer is not None} == set(winners)
