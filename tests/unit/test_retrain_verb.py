"""`oddlog retrain` around the retraining itself: conditions, exit codes, one at a time, and the loop."""

from __future__ import annotations

import datetime as dt
import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import Result

from cli import retrain as verb
from oddlog.connectors.by_url import open_store
from oddlog.errors import StoreUnavailable, UsageError
from oddlog.settings import Settings, StoreSettings
from tests.verbs import run_verb
from training.due import Conditions, Look
from training.promotion_report import Promotion
from training.retrain import Retraining


def run(folder: Path, *arguments: str) -> Result:
    env = {
        "ODDLOG_STORE__URL": f"sqlite:///{folder}/oddlog.sqlite",
        "ODDLOG_REGISTRY__URL": f"sqlite:///{folder}/mlflow.db",
    }
    return run_verb("retrain", *arguments, env=env)


@pytest.mark.parametrize(
    "text", ["never", "older-than", "older-than soon", "marks", "marks few", "marks 0", "drifted 7d"]
)
def test_what_is_no_condition_is_refused(text: str, tmp_path: Path) -> None:
    refused = run(tmp_path, "--when", text)
    assert refused.exit_code == 2
    assert "--when" in refused.stderr


def test_a_loop_has_no_document(tmp_path: Path) -> None:
    refused = run(tmp_path, "--every", "6h", "--json")
    assert refused.exit_code == 2
    assert "--log-json" in refused.stderr


def test_an_empty_store_is_nothing_to_do(tmp_path: Path) -> None:
    done = run(tmp_path, "--json")
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert (document["outcome"], document["why"]) == ("waiting", "the store holds no events")
    assert document["version"] is None


def test_one_is_at_work_at_a_time(tmp_path: Path) -> None:
    store = open_store(StoreSettings(url=f"sqlite:///{tmp_path}/oddlog.sqlite"))
    store.setup()
    assert store.acquire_lock("retrain-oddlog", "somebody", 60) is None
    busy = run(tmp_path, "--when", "drifted")
    store.release_lock("retrain-oddlog", "somebody")
    store.close()
    assert busy.exit_code == 0
    assert "busy: another retraining is at work: somebody" in busy.output


def test_a_candidate_that_gates_reject_is_told_by_exit_code_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    promotion = Promotion([], None, "4", False, dt.datetime(2026, 3, 1, tzinfo=dt.UTC), report=Path("reports/one.md"))
    rejected = Retraining("rejected", "quality", [Look("marks", True, "20 marks")], promotion=promotion)
    monkeypatch.setattr(verb, "_once", lambda *arguments: rejected)
    done = run(tmp_path, "--when", "marks 20", "--json")
    assert done.exit_code == 1
    assert "reports/one.md" in done.stderr
    document = json.loads(done.stdout)
    assert (document["outcome"], document["promoted"], document["replaced"]) == ("rejected", None, None)
    assert document["conditions"] == [{"condition": "marks", "met": True, "text": "20 marks"}]


@pytest.fixture
def signals_put_back() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("signals_put_back")
def test_the_loop_outlives_what_fails_and_ends_by_a_signal(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[Conditions] = []

    def once(settings: Settings, conditions: Conditions) -> Retraining:
        asked.append(conditions)
        if len(asked) == 1:
            raise StoreUnavailable("the store is away")
        if len(asked) == 2:
            raise UsageError("there is nothing to learn from")
        if len(asked) == 4:
            signal.raise_signal(signal.SIGTERM)
        return Retraining("not-due", "young enough")

    monkeypatch.setattr(verb, "_once", once)
    with caplog.at_level("INFO"):
        verb._loop(Settings(), Conditions(marks=3), dt.timedelta(milliseconds=1))
    assert asked == [Conditions(marks=3)] * 4
    told = [(record.levelname, record.getMessage()) for record in caplog.records if record.name == "cli.retrain"]
    assert told == [
        ("WARNING", "nothing came of it: the store is away"),
        ("ERROR", "nothing came of it: there is nothing to learn from"),
        ("INFO", "not-due: young enough"),
        ("INFO", "not-due: young enough"),
    ]
