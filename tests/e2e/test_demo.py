"""`oddlog demo`, the whole story, on both columns: everything that arrived is scored once, or a dead letter."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from oddlog.simulation import simulate
from tests.children import ODDLOG

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


def run_demo(folder: Path, *arguments: str, gates: str | None = None, **settings: str) -> dict[str, Any]:
    (folder / "gates.toml").write_text(gates or (ROOT / "gates.toml").read_text())
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ODDLOG_")} | settings
    done = subprocess.run(
        [ODDLOG, "demo", *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=850,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3_000:] + done.stderr[-3_000:]
    assert "bentoml serve" in done.stdout
    summary: dict[str, Any] = json.loads((folder / "mlruns/demo/summary.json").read_text())
    return summary


def check(summary: dict[str, Any], lines: int, dead: int) -> None:
    assert summary["lines"] == lines
    assert summary["dead_letters"] == dead
    assert summary["scored"] == lines - dead
    assert summary["pending"] == 0
    assert summary["duplicates"] == 0
    assert sorted(run["algorithm"] for run in summary["runs"]) == ["autoencoder", "iforest", "surprise"]
    assert len({run["run_id"] for run in summary["runs"]}) == 3
    champion = [run for run in summary["runs"] if run["version"] == summary["champion"]["version"]]
    assert [run["algorithm"] for run in champion] == [summary["champion"]["algorithm"]]
    assert summary["backfilled"] + summary["scored_live"] == summary["scored"]
    assert summary["scored_live"] > 0
    assert all(seconds >= 0 for seconds in summary["seconds"].values())


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six thousand lines with labels beside them, one of them cut off."""
    folder = tmp_path_factory.mktemp("log")
    traffic = simulate(seed=4, lines=6_000, days=3.0, attacks=["directory_scan", "login_bruteforce"], attack_share=0.05)
    lines = traffic.lines
    lines[4_321] = lines[4_321][:60]
    with gzip.open(folder / "access.log.gz", "wt") as file:
        file.writelines(line + "\n" for line in lines)
    (folder / "access.log.labels").write_text("".join(label + "\n" for label in traffic.labels))
    return folder / "access.log.gz"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where one demo is run after the other."""
    return tmp_path_factory.mktemp("place")


@pytest.fixture(scope="module")
def embedded(place: Path, log: Path) -> dict[str, Any]:
    """The summary of the first one."""
    return run_demo(place, "--log", str(log))


def test_embedded(place: Path, embedded: dict[str, Any]) -> None:
    check(embedded, lines=6_000, dead=1)
    assert len(embedded["dead_letter_reasons"]) == 1
    assert embedded["quality"]["average_precision"] > 0.5
    assert embedded["oddest_clients"][0]["reasons"]
    assert embedded["champion"]["refused_by_gates"] is None
    assert (place / embedded["drift_report"]).is_file()


@pytest.mark.kafka
@pytest.mark.elasticsearch
def test_a_second_one_on_servers_that_the_settings_name(
    place: Path, embedded: dict[str, Any], log: Path, kafka_url: str, elasticsearch_url: str
) -> None:
    """It starts anew and leaves the first one's runs in MLflow; gates that nothing passes do not end it."""
    gates = (ROOT / "gates.toml").read_text().replace("min_average_precision = 0.3", "min_average_precision = 1.0")
    again = run_demo(
        place, "--backend", "real", "--log", str(log), gates=gates,
        ODDLOG_SOURCE__URL=f"{kafka_url}/logs.raw", ODDLOG_STORE__URL=elasticsearch_url,
    )  # fmt: skip
    check(again, lines=6_000, dead=1)
    assert {run["version"] for run in again["runs"]}.isdisjoint(run["version"] for run in embedded["runs"])
    assert "quality" in again["champion"]["refused_by_gates"]
