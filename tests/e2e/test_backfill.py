"""`oddlog backfill` from the command line: pending events, and a period anew with another version."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from typer.testing import Result

from oddlog.connectors.by_url import open_registry, open_store
from oddlog.connectors.registry import CHAMPION
from oddlog.connectors.store import EventQuery
from oddlog.events.logfile import records_from_lines
from oddlog.events.parse import parse
from oddlog.settings import RegistrySettings, StoreSettings
from oddlog.simulation.traffic import simulate
from serving.documents import pending_events
from tests.children import ODDLOG
from tests.small_model import small_model
from tests.small_registry import register
from tests.verbs import run_verb

pytestmark = pytest.mark.e2e

LINES = [line.encode() for line in simulate(seed=9, lines=800, days=1).lines]


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ODDLOG, "backfill", *arguments, "--scorer", "local:"], capture_output=True, text=True, cwd=cwd, timeout=120,
        check=False,
    )  # fmt: skip


def inside(*arguments: str, cwd: Path) -> Result:
    """The same in this process, which has imported what it needs."""
    return run_verb("backfill", *arguments, "--scorer", "local:", cwd=cwd)


def test_pending_events_are_scored_and_then_scored_anew(tmp_path: Path) -> None:
    registry = RegistrySettings(
        url=f"sqlite:///{tmp_path}/mlruns/mlflow.db",
        artifacts=f"{tmp_path}/mlruns/artifacts",
        cache_dir=tmp_path / "mlruns" / "cache",
    )
    (tmp_path / "mlruns").mkdir()
    for seed, lines in ((1, LINES[:500]), (2, LINES[300:])):
        small_model(tmp_path / f"model {seed}", lines)
        assert register(registry, tmp_path / f"model {seed}") == str(seed)
    open_registry(registry).set_alias(CHAMPION, "1")
    store = open_store(StoreSettings(url=f"sqlite:///{tmp_path}/mlruns/oddlog.sqlite"))
    store.setup()
    store.write_events(pending_events(parse(records_from_lines(LINES)).events, None, None))

    def scores() -> list[tuple[Any, ...]]:
        columns = ["anomaly.model.version", "anomaly.score", "anomaly.previous.version", "anomaly.previous.score"]
        return pl.concat(store.read_events(EventQuery(), columns=columns, order="position")).rows()

    done = run("--workers", "2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "800 of 800 pending events scored by version 1" in done.stdout
    first = scores()
    assert {(version, previous) for version, _, previous, _ in first} == {("1", None)}

    again = inside("--rescore", "2", "--json", cwd=tmp_path)  # no alias names it: a scorer in process has every version
    assert again.exit_code == 0, again.stderr
    told = json.loads(again.stdout)
    assert (told["version"], told["due"], told["updated"]) == ("2", 800, 800)
    second = scores()
    assert [(version, *rest) for version, _, *rest in second] == [("2", *row[:2]) for row in first]

    unknown = inside("--rescore", "7", cwd=tmp_path)
    assert unknown.exit_code == 2
    assert "'7'" in unknown.stderr
    assert "1, 2" in unknown.stderr or "2, 1" in unknown.stderr
    assert scores() == second
    store.close()
