"""How far a training is: what is told on the way, and what is shown of it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from cli import stages as showing
from oddlog.connectors.by_url import open_store
from oddlog.events.logfile import records_from_lines
from oddlog.events.parse import parse
from oddlog.settings import StoreSettings
from oddlog.simulation import simulate
from serving.documents import pending_events
from training import progress
from training.dataset import Selection
from training.progress import Counted, Underway
from training.pull import pull


def test_a_pull_tells_how_far_it_is_and_a_resumed_one_what_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "EVERY", 0.0)
    store = open_store(StoreSettings(url=f"sqlite:///{tmp_path}/oddlog.sqlite"))
    lines = [line.encode() for line in simulate(seed=1, lines=300).lines]
    store.write_events(pending_events(parse(records_from_lines(lines)).events, None, None))
    told: list[str] = []

    class Interrupted(Exception):
        pass

    def interrupting(text: str) -> None:
        told.append(text)
        raise Interrupted

    folder, url = tmp_path / "sets", "sqlite:///x"
    read_events = store.read_events
    monkeypatch.setattr(store, "read_events", lambda *args, **more: read_events(*args, **{**more, "batch_rows": 100}))
    with pytest.raises(Interrupted):
        pull(store, Selection(), url=url, folder=folder, part_rows=100, progress=interrupting)
    assert [text.partition(" events")[0] for text in told] == ["100 of 300"]
    told.clear()
    pull(store, Selection(), url=url, folder=folder, part_rows=100, progress=told.append)
    stage, *underway = told
    assert stage == "going on with an interrupted pull after offset 99 of log 0"
    assert [text.partition(" events")[0] for text in underway] == ["100 of 200", "200 of 200"]
    assert all(isinstance(text, Underway) for text in underway)
    assert underway[-1].endswith(" 0:00 left")
    store.close()


def test_more_than_was_expected_is_no_more_than_the_whole() -> None:
    told: list[str] = []
    now = iter([0.0, 10.0]).__next__
    Counted(told.append, 50, clock=now).add(100)
    assert told == ["100 of 100 events (100 %), 10/s, 0:00 left"]


def test_stages_are_lines_of_their_own_and_how_far_they_are_is_indented_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    moments = iter([0.0, 1.0, 5.0, 12.0, 13.0, 14.0]).__next__
    monkeypatch.setattr(showing, "time", SimpleNamespace(monotonic=moments))
    with showing.stages() as tell:
        tell("reading")
        for share in ("a third", "two thirds", "nearly all"):
            tell(Underway(share))
        tell("fitting")
    assert capsys.readouterr().err.splitlines() == ["reading", "  two thirds", "fitting"]
