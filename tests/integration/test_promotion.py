"""Promotion with a person's word, its evidence, and two of them at once: on a real MLflow, embedded, and small models.

What trainings register and gates say of it is in test_training.py.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from cli.main import app
from oddlog.connectors import mlflow_connection
from oddlog.connectors.by_url import open_registry, open_store
from oddlog.connectors.registry import CHALLENGER, CHAMPION, PREVIOUS, Registry
from oddlog.connectors.store import Store
from oddlog.errors import OutsideError
from oddlog.events.logfile import records_from_lines
from oddlog.events.parse import parse
from oddlog.settings import Settings
from oddlog.simulation import simulate
from tests.small_model import small_model
from tests.small_registry import register
from tests.waiting import until
from training import promote as module
from training.promote import NoCandidate, promote, refusal, rollback
from training.promotion_report import STEP_SUMMARY, Promotion

ROOT = Path(__file__).resolve().parents[2]
TRAFFIC = simulate(seed=5, lines=3_000, days=2, attack_share=0.06)
FITTED = 1_500
GATES = """
[data]
min_events = 200
[quality]
min_average_precision = 0.1
[latency]
max_one_row_ms = 1_000
max_batch_ms = 10_000
"""
STRICT = GATES.replace("0.1", "1.0")


@dataclass(frozen=True)
class Place:
    """A store with events, and a registry with two candidates that were fitted on their first half."""

    settings: Settings
    store: Store
    registry: Registry
    best: str
    other: str

    def asking(self) -> Settings:
        """Settings under which promotion takes a person's approval."""
        chosen = self.settings.promote.model_copy(update={"require_approval": True})
        return self.settings.model_copy(update={"promote": chosen})

    def promote(
        self, settings: Settings | None = None, *, candidate: str | None = None, dry_run: bool = False
    ) -> Promotion:
        return promote(
            settings or self.settings, candidate=candidate, dry_run=dry_run, store=self.store, registry=self.registry
        )

    def alias(self, name: str) -> str | None:
        found = self.registry.by_alias(name)
        return found and found.version

    def status(self, version: str) -> str:
        return self.registry.version(version).tags["status"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("promotion")
    settings = Settings(
        store={"url": f"sqlite:///{folder}/oddlog.sqlite"},
        registry={"url": f"sqlite:///{folder}/mlflow.db", "artifacts": str(folder / "artifacts")},
        promote={"gates": folder / "gates.toml", "reports": folder / "reports"},
    )
    store, registry = open_store(settings.store), open_registry(settings.registry)
    store.setup()
    lines = [line.encode() for line in TRAFFIC.lines]
    events = parse(records_from_lines(lines, labels=TRAFFIC.labels)).events
    assert not store.write_events(events.with_columns(pl.lit("pending").alias("anomaly.status"))).rejected
    versions = []
    for number in range(2):
        small_model(folder / f"model-{number}", lines[:FITTED], seed=number)
        versions.append(register(settings.registry, folder / f"model-{number}"))
    # They are the same model, fitted twice: a tie, which the newer version wins.
    yield Place(settings, store, registry, best=versions[1], other=versions[0])
    store.close()


@pytest.fixture
def place(made: Place) -> Place:
    """The same place, with nobody promoted, approved or waiting."""
    for alias in (CHAMPION, PREVIOUS, CHALLENGER):
        made.registry.delete_alias(alias)
    for version in (made.best, made.other):
        made.registry.set_tags(version, {"status": "candidate", "approved_by": ""})
    made.settings.promote.gates.write_text(GATES)
    return made


def test_a_version_that_nobody_approved_waits_as_challenger(place: Place) -> None:
    asking = place.asking()
    for _ in range(2):  # asked again, it keeps waiting
        done = place.promote(asking)
        assert (done.promoted, done.waiting) == (None, place.best)
        assert (place.alias(CHAMPION), place.alias(CHALLENGER)) == (None, place.best)
        assert place.status(place.best) == "waiting_for_approval"
        assert place.status(place.other) == "candidate"
    told = refusal(asking, done)
    assert told.exit_code == 1
    assert told.mend is not None
    assert "approved_by" in told.mend
    assert f"/#/models/oddlog/versions/{place.best}" in told.mend
    assert done.report.read_text().startswith(f"# Version {place.best} passed and waits for approval")

    place.registry.set_tags(place.best, {"approved_by": " Ada "})
    done = place.promote(asking)
    assert (done.promoted, done.waiting) == (place.best, None)
    # There is nothing left to compare it with.
    assert (place.alias(CHAMPION), place.alias(CHALLENGER)) == (place.best, None)
    assert place.status(place.other) == "outranked"
    assert "Approved by Ada, says its tag." in done.report.read_text()


def test_approval_beats_no_gate(place: Place) -> None:
    place.settings.promote.gates.write_text(STRICT)
    place.registry.set_tags(place.best, {"approved_by": "Ada"})
    done = place.promote(place.asking())
    assert (done.promoted, done.waiting) == (None, None)
    assert "no candidate passed the gates" in refusal(place.asking(), done).found
    assert place.status(place.best) == "rejected"


def test_an_approved_version_is_not_held_up_by_a_better_one_that_is_not(place: Place) -> None:
    place.registry.set_tags(place.other, {"approved_by": "Ada"})
    done = place.promote(place.asking())
    assert (done.promoted, done.waiting) == (place.other, place.best)
    assert (place.alias(CHAMPION), place.alias(CHALLENGER)) == (place.other, place.best)
    assert place.status(place.best) == "waiting_for_approval"
    # Without being asked for it, approval is no matter.
    assert place.promote().promoted == place.best
    assert place.alias(CHALLENGER) is None
    # What comes back from there takes a new word.
    rollback(place.settings, store=place.store, registry=place.registry)
    assert place.alias(CHAMPION) == place.other
    place.promote(candidate=place.best)
    rollback(place.settings, store=place.store, registry=place.registry)
    place.registry.set_tags(place.other, {"approved_by": "Ada"})
    place.promote(candidate=place.best)
    place.registry.set_tags(place.best, {"approved_by": "Ada"})
    rollback(place.settings, store=place.store, registry=place.registry)
    assert place.registry.version(place.best).tags["approved_by"] == ""
    assert place.promote(place.asking(), candidate=place.best).waiting == place.best


def test_an_approved_version_is_judged_however_many_were_trained_since(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_CANDIDATES", 1)
    assert [one.version.version for one in place.promote(place.asking(), dry_run=True).judged] == [place.best]
    place.registry.set_tags(place.other, {"approved_by": "Ada"})
    assert place.promote(place.asking()).promoted == place.other


def test_an_approval_that_is_withdrawn_meanwhile_counts_no_more(place: Place) -> None:
    place.registry.set_tags(place.best, {"approved_by": "Ada"})

    def withdraw(stage: str) -> None:
        if stage.startswith("judging"):
            place.registry.set_tags(place.best, {"approved_by": ""})

    with pytest.raises(OutsideError, match=f"approval of version {place.best} was withdrawn"):
        promote(place.asking(), store=place.store, registry=place.registry, progress=withdraw)
    assert (place.alias(CHAMPION), place.status(place.best)) == (None, "candidate")


def test_a_dry_run_tells_who_would_wait_and_changes_nothing(place: Place) -> None:
    done = place.promote(place.asking(), dry_run=True)
    assert done.report.read_text().startswith(f"# Dry run: version {place.best} passes and would wait for approval")
    assert (place.alias(CHALLENGER), place.status(place.best)) == (None, "candidate")


def test_the_evidence_is_kept_for_people_and_for_programs(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    summary = tmp_path / "summary.md"
    summary.write_text("what an earlier step wrote\n")
    monkeypatch.setenv(STEP_SUMMARY, str(summary))
    done = place.promote()
    assert summary.read_text() == f"what an earlier step wrote\n{done.report.read_text()}\n"
    assert f"| 1 | {place.best} | surprise |" in summary.read_text()

    run = place.registry.version(place.best).run_id
    client = mlflow_connection.client(place.settings.registry)
    kept = {Path(entry.path).name for entry in client.list_artifacts(run, "promotion")}
    assert kept >= {done.report.name, done.evidence.name}
    document = json.loads(Path(client.download_artifacts(run, f"promotion/{done.evidence.name}")).read_text())
    assert (document["promoted"], document["waiting"]) == (place.best, None)
    first, second = document["judged"]
    assert (first["rank"], first["version"], first["passed"]) == (1, place.best, True)
    assert (second["rank"], second["version"], second["verdicts"]) == (2, place.other, [])
    assert {v["gate"] for v in first["verdicts"]} == {"data", "quality", "latency"}
    assert all(v["figure"] and v["limit"] and v["why"] for v in first["verdicts"])
    assert first["evidence"]["cost"]["one_row_ms"] > 0
    assert place.registry.version(place.best).tags["rank"] == "1 of 2"

    # A page that cannot be written costs the promotion nothing.
    monkeypatch.setenv(STEP_SUMMARY, str(tmp_path / "missing" / "summary.md"))
    assert place.promote(candidate=place.other).promoted == place.other


def test_the_verb_says_why_a_gate_is_asked_where_it_failed(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    in_environment(place, monkeypatch)
    run = CliRunner().invoke
    waits = run(app, ["promote", "--require-approval"])
    assert waits.exit_code == 1
    assert "waits, as challenger, for approval" in " ".join(waits.output.split())
    asked_for = {"ODDLOG_PROMOTE__REQUIRE_APPROVAL": "true"}
    alone = run(app, ["promote", "--no-require-approval", "--dry-run", "--json"], env=asked_for)
    assert json.loads(alone.stdout)["promoted"] == place.best
    place.settings.promote.gates.write_text(STRICT)
    refused = " ".join(run(app, ["promote"], env={"COLUMNS": "300"}).output.split())
    assert "why it is asked" in refused
    assert "It must put attacks before what is usual." in refused
    assert "A figure over few events is luck." not in refused
    none = run(app, ["promote", "--if-any", "--json"])
    assert (none.exit_code, json.loads(none.stdout)["judged"]) == (0, [])
    assert run(app, ["promote"]).exit_code == 2
    with pytest.raises(NoCandidate):
        place.promote()


FIRST = """
import os, sys, pathlib, time
from oddlog.settings import load
from training.promote import promote

def stage(name):
    if name.startswith("judging"):
        pathlib.Path(sys.argv[1]).write_text(str(os.getpid()))
        deadline = time.monotonic() + 120
        while not pathlib.Path(sys.argv[2]).exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)

print(promote(load(), progress=stage).promoted)
"""
"""A promotion that stays at its work until it is told to go on."""


def test_of_two_promotions_at_once_the_second_is_told_who_is_at_work(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_environment(place, monkeypatch)
    at_work, go_on = tmp_path / "at-work", tmp_path / "go-on"
    command = [sys.executable, "-c", FIRST, str(at_work), str(go_on)]
    with subprocess.Popen(command, cwd=ROOT, env=os.environ.copy(), stdout=subprocess.PIPE, text=True) as first:
        try:
            until(lambda: at_work.exists() and at_work.read_text() != "", "the first promotion at work", seconds=120)
            second = CliRunner().invoke(app, ["promote"])
            told = " ".join(second.output.split())
            assert second.exit_code == 3, told
            assert f"another promotion is at work: {socket.gethostname()}:{at_work.read_text()}" in told
            back = CliRunner().invoke(app, ["rollback"])
            assert back.exit_code == 3
            assert place.alias(CHAMPION) is None
        finally:
            go_on.touch()
            printed, _ = first.communicate(timeout=120)
    assert first.returncode == 0
    assert printed.strip() == place.best == place.alias(CHAMPION)
    # And the right was given back.
    assert CliRunner().invoke(app, ["promote", "--candidate", place.other]).exit_code == 0


def in_environment(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ODDLOG_STORE__URL", place.settings.store.url)
    monkeypatch.setenv("ODDLOG_REGISTRY__URL", place.settings.registry.url)
    monkeypatch.setenv("ODDLOG_REGISTRY__ARTIFACTS", place.settings.registry.artifacts)
    monkeypatch.setenv("ODDLOG_PROMOTE__REPORTS", str(place.settings.promote.reports))
    monkeypatch.setenv("ODDLOG_PROMOTE__GATES", str(place.settings.promote.gates))
