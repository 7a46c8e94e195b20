"""The real command line: help without heavy imports, configuration, exit codes."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cli.logs import logs_are_json
from cli.main import VERBS
from tests.children import ODDLOG
from tests.verbs import run_verb

pytestmark = pytest.mark.e2e


def run(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ODDLOG, *arguments], capture_output=True, text=True, cwd=cwd, env=os.environ | environment, timeout=120,
        check=False,
    )  # fmt: skip


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "sys.argv = ['oddlog', '--help']\n"
        "import cli.main\n"
        "try:\n    cli.main.main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'mlflow', 'evidently', 'bentoml', 'polars', 'pandas', 'sklearn', 'onnx', 'kafka', 'elasticsearch'}\n"
        "print('LOADED', sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert "LOADED []" in done.stdout
    assert "simulate" in done.stdout


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(verb: str) -> None:
    done = run_verb(verb, "--help")
    assert done.exit_code == 0, done.output
    assert f"oddlog {verb}" in done.stdout
    assert "--help" in done.stdout


def test_config_tells_value_and_origin(tmp_path: Path) -> None:
    (tmp_path / "oddlog.toml").write_text('[store]\nurl = "http://es:9200"\n')
    done = run("config", "--json", "--source", "kafka://k:9092/t", cwd=tmp_path, ODDLOG_STORE__PASSWORD="hunter2")
    assert done.returncode == 0
    settings = json.loads(done.stdout)
    assert settings["source.url"] == {"value": "kafka://k:9092/t", "origin": "flag"}
    assert settings["store.url"]["origin"] == "oddlog.toml"
    assert settings["store.password"]["origin"] == "environment"
    assert "hunter2" not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["enrich", "--source", "ftp://x/y"], 2, "kafka://"),
        (["nonsense"], 2, "nonsense"),
        (["setup", "--store", "http://127.0.0.1:9"], 3, "127.0.0.1:9"),
    ],
)
def test_exit_codes_and_messages(tmp_path: Path, arguments: list[str], code: int, said: str) -> None:
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["enrich", "--store", "mysql://x"], 2, "sqlite:///"),
        (["train", "--algorithm", "magic"], 2, "magic"),
        (["config", "--config", "nowhere.toml"], 2, "nowhere.toml"),
        (["backfill", "--scorer", "http://127.0.0.1:9"], 3, "127.0.0.1:9"),
    ],
)
def test_what_verbs_refuse(tmp_path: Path, arguments: list[str], code: int, said: str) -> None:
    done = run_verb(*arguments, cwd=tmp_path)
    assert done.exit_code == code, done.stderr
    assert said in done.stderr


def test_a_verb_in_this_process_leaves_logging_and_signals_to_the_next_test(tmp_path: Path) -> None:
    def stands() -> tuple[object, ...]:
        levels = [logging.getLogger(name).level for name in ("", "cli", "oddlog", "monitoring")]
        ends = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
        return logging.getLogger().handlers[:], levels, ends, sys.excepthook, logs_are_json()

    (tmp_path / "access.log").touch()
    before = stands()
    done = run_verb(
        "enrich", "--until-idle", "0", "--log-json", "--source", f"file://{tmp_path}/access.log", cwd=tmp_path
    )
    assert done.exit_code == 0, done.stderr
    assert stands() == before
