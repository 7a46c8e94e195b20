"""`oddlog demo` on servers, on a log of one's own, where an earlier demo was. What `make demo` alone comes to is asked
by the first command of the README: test_readme.py.
"""

from __future__ import annotations

import gzip
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from cli.demo import DEMO_TAG
from oddlog.connectors.by_url import open_registry
from oddlog.connectors.registry import CHAMPION, Registry
from oddlog.settings import RegistrySettings
from oddlog.simulation import simulate
from tests.children import ODDLOG
from tests.demo_summary import check_demo
from tests.small_model import small_model
from tests.small_registry import register

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


def run_demo(folder: Path, *arguments: str, gates: str, **settings: str) -> dict[str, Any]:
    (folder / "gates.toml").write_text(gates)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ODDLOG_")} | settings
    done = subprocess.run(
        [ODDLOG, "demo", *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=850,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3_000:] + done.stderr[-3_000:]
    assert "bentoml serve" in done.stdout
    summary: dict[str, Any] = json.loads((folder / "mlruns/demo/summary.json").read_text())
    return summary


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


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """As an earlier demo left it: its champion, and a candidate that was not promoted."""
    settings = RegistrySettings(url=f"sqlite:///{tmp_path}/mlruns/mlflow.db", artifacts=f"{tmp_path}/mlruns/artifacts")
    lines = [line.encode() for line in simulate(seed=1, lines=1_000, days=1.0).lines]
    small_model(tmp_path / "model", lines)
    found = open_registry(settings)
    for version, status in (("1", "champion"), ("2", "candidate")):
        assert register(settings, tmp_path / "model") == version
        found.set_tags(version, {DEMO_TAG: "earlier", "status": status})
    found.set_alias(CHAMPION, "1")
    return found


@pytest.mark.kafka
@pytest.mark.elasticsearch
def test_one_after_another_on_servers_that_the_settings_name(
    tmp_path: Path, log: Path, registry: Registry, kafka_url: str, elasticsearch_url: str
) -> None:
    """It starts anew and leaves the first one's runs in MLflow; gates that nothing passes do not end it."""
    left = tmp_path / "mlruns" / "demo" / "oddlog.sqlite"
    left.parent.mkdir()
    left.touch()
    gates = (ROOT / "gates.toml").read_text().replace("min_average_precision = 0.3", "min_average_precision = 1.0")
    summary = run_demo(
        tmp_path, "--backend", "real", "--log", str(log), gates=gates,
        ODDLOG_SOURCE__URL=f"{kafka_url}/logs.raw", ODDLOG_STORE__URL=elasticsearch_url,
    )  # fmt: skip
    check_demo(summary, lines=6_000, dead=1)
    assert len(summary["dead_letter_reasons"]) == 1
    assert summary["quality"]["average_precision"] > 0.5
    assert "quality" in summary["champion"]["refused_by_gates"]
    assert (tmp_path / summary["drift_report"]).is_file()
    assert not left.exists()
    champion = registry.by_alias(CHAMPION)
    assert champion is not None
    assert champion.version == summary["champion"]["version"]
    assert sorted(int(version.version) for version in registry.versions()) == [1, 2, 3, 4, 5]
    assert {run["version"] for run in summary["runs"]} == {"3", "4", "5"}
    assert registry.version("2").tags["status"] == "retired"
