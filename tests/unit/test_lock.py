"""The lock under which the registry is changed: who has it, who lost it, and a store that is away when it ends."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from oddlog.connectors.by_url import open_store
from oddlog.connectors.store import Store
from oddlog.errors import StoreUnavailable
from oddlog.settings import StoreSettings
from training.lock import Taken, locked


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(StoreSettings(url=f"sqlite:///{tmp_path}/oddlog.sqlite"))
    opened.setup()
    yield opened
    opened.close()


def test_the_second_is_told_who_is_at_work_and_the_third_gets_in(store: Store) -> None:
    with locked(store, "a", seconds=60, what="promotion") as prolong:
        prolong()
        with (
            pytest.raises(Taken, match=f":{os.getpid()}:.* holds the lock 'a'"),
            locked(store, "a", seconds=60, what="promotion"),
        ):
            raise AssertionError("two at once")
        with locked(store, "b", seconds=60, what="promotion"):
            pass
    with locked(store, "a", seconds=60, what="promotion"):
        pass


def test_who_lost_it_is_told_and_leaves_it_to_who_has_it(store: Store) -> None:
    with locked(store, "a", seconds=60, what="promotion") as prolong:
        store.delete_document("locks", "a")  # it expired, and somebody else began
        assert store.acquire_lock("a", "somebody", 60) is None
        with pytest.raises(Taken, match="another promotion is at work: somebody"):
            prolong()
    assert store.acquire_lock("a", "a third", 60) == "somebody"


def test_a_store_that_is_away_at_the_end_undoes_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def away(name: str, holder: str) -> None:
        raise StoreUnavailable("the store is away")

    monkeypatch.setattr(store, "release_lock", away)
    with locked(store, "a", seconds=60, what="promotion"):
        pass
    assert "the lock 'a' ends by itself, after 60 s: the store is away" in caplog.text
    with pytest.raises(KeyError), locked(store, "b", seconds=60, what="promotion"):
        raise KeyError("what went wrong is told, and not the lock")
