"""The order of a retraining's steps, on an embedded store; training and promotion are stood in for. The real ones are
in tests/integration/test_marks_loop.py.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from oddlog.connectors.by_url import open_store
from oddlog.connectors.registry import Registry
from oddlog.connectors.store import Store
from oddlog.settings import Settings
from tests.store_frames import MIDNIGHT, events
from training import retrain as module
from training.due import Conditions
from training.lock import Taken
from training.promotion_report import Promotion
from training.retrain import Retraining, retrain
from training.train import TrainResult


class NoChampion:
    """A registry where nobody has been promoted."""

    def by_alias(self, alias: str) -> None:
        return None

    def set_tags(self, version: str, tags: object) -> None:
        return None


def candidate(version: str) -> TrainResult:
    return TrainResult(version, "run", "surprise", {}, cast(Any, None), "m", "d", 1_500, {})


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(Settings(store={"url": f"sqlite:///{tmp_path}/oddlog.sqlite"}).store)
    opened.setup()
    assert not opened.write_events(events(1_500)).rejected
    yield opened
    opened.close()


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The versions that were trained; promotion waits for a person."""
    made: list[str] = []

    def train(*arguments: object, **options: object) -> TrainResult:
        made.append(str(len(made) + 1))
        return candidate(made[-1])

    def promote(settings: Settings, *, candidate: str, dry_run: bool, **options: object) -> Promotion:
        return Promotion([], candidate, None, dry_run, MIDNIGHT)

    monkeypatch.setattr(module, "train", train)
    monkeypatch.setattr(module, "promote", promote)
    return made


def asked(store: Store, conditions: Conditions, hours: float) -> Retraining:
    """So many hours after midnight."""
    return retrain(
        Settings(), conditions, drift=lambda version, newest: None, store=store,
        registry=cast(Registry, NoChampion()), now=lambda: MIDNIGHT + dt.timedelta(hours=hours),
    )  # fmt: skip


def test_until_somebody_is_promoted_a_candidate_gets_no_sibling_at_every_call(
    store: Store, trainings: list[str]
) -> None:
    drifted = Conditions(drifted=True)
    assert asked(store, drifted, 0).outcome == "ready"
    cooling = asked(store, drifted, 6)
    assert (cooling.outcome, trainings) == ("cooling-down", ["1"])
    assert cooling.why.startswith("there is no champion yet; the last one was trained less than 24 h ago: 18.0 h left")
    assert asked(store, Conditions(), 6).outcome == "ready"  # a person asks for it now
    assert asked(store, drifted, 31).outcome == "ready"
    assert trainings == ["1", "2", "3"]


def test_who_lost_the_lock_while_it_trained_moves_no_alias(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def train(*arguments: object, **options: object) -> TrainResult:
        # It expired, and somebody else began.
        store.delete_document("locks", "retrain-oddlog")
        assert store.acquire_lock("retrain-oddlog", "somebody", 60) is None
        return candidate("1")

    promoted: list[object] = []
    monkeypatch.setattr(module, "train", train)
    monkeypatch.setattr(module, "promote", lambda *arguments, **options: promoted.append(options))
    with pytest.raises(Taken, match="another retraining is at work: somebody"):
        asked(store, Conditions(), 0)
    assert promoted == []
    assert asked(store, Conditions(), 0).outcome == "busy"  # what is somebody else's is left to them
