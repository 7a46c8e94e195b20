"""Every command of the README, run as a reader would: in order, in one folder, its long-running ones in the background.

A block ```console holds commands (`$ `) and what they print. In the output, JSON must have the keys shown, and every
other line is prose for people: figures depend on the machine.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.children import serving
from tests.demo_summary import check_demo

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

BACKGROUND = {"bentoml serve": "http://127.0.0.1:3000/readyz", "mlflow ui": "http://127.0.0.1:5000/health"}
"""Commands that stay, and what answers 200 when they have started."""

ELSEWHERE = {
    "make test": "this test is part of it",
    "make demo LOG=": "needs a log of the reader's own; make demo itself is run, and --log in test_demo.py",
    "make demo BACKEND=real": "run by tests/e2e/test_demo.py, on the session's servers",
    "docker compose": "no Docker here; tests/unit/test_compose.py checks it statically",
}
"""Commands that are not run here, and why."""


RECIPES = {"make demo": "oddlog demo --backend embedded"}
"""The recipe of a target, without building the virtual environment that this test runs in once more."""


def blocks() -> Iterator[tuple[str, str]]:
    """(command, output shown) of every console block, in order; a command may go on over lines with `> `."""
    for block in re.findall(r"```console\n(.*?)```", README, re.DOTALL):
        command, shown = "", []
        for line in block.splitlines():
            if line.startswith("$ "):
                if command:
                    yield command, "\n".join(shown)
                command, shown = line[2:], []
            elif line.startswith("> ") and not shown:
                command += "\n" + line[2:]
            else:
                shown.append(line)
        if command:
            yield command, "\n".join(shown)


def elsewhere(command: str) -> bool:
    return any(command.startswith(prefix) for prefix in ELSEWHERE)


def test_the_readme_has_commands_and_every_exception_is_used() -> None:
    commands = [command for command, _ in blocks()]
    assert len(commands) > 10
    for prefix in ELSEWHERE:
        assert any(command.startswith(prefix) for command in commands), prefix
    assert commands[0] == "make demo"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The checkout as a reader has it, with an mlruns/ of its own and the virtual environment that is there."""
    names = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    for top in sorted({name.split("/")[0] for name in names if name} - {"mlruns"}):
        (tmp_path / top).symlink_to(ROOT / top)
    (tmp_path / ".venv").symlink_to(Path(sys.prefix))
    (tmp_path / "mlruns").mkdir()
    return tmp_path


def taken(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


def test_every_command_of_the_readme_runs(checkout: Path) -> None:
    if busy := [port for port in (3000, 5000) if taken(port)]:
        reason = f"the README's own ports {busy} are taken on this machine"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ODDLOG_")}
    environment["PATH"] = f"{Path(sys.prefix) / 'bin'}{os.pathsep}{environment['PATH']}"
    environment["HOME"] = str(checkout / "home")
    # MLflow's pages by one process: what starts four of them, and those of its job queue, is no matter of the README's.
    environment |= {"MLFLOW_WORKERS": "1", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    (checkout / "home").mkdir()
    with ExitStack() as background:
        for command, shown in blocks():
            if elsewhere(command):
                continue
            stays = next((url for name, url in BACKGROUND.items() if command.startswith(name)), None)
            if stays is not None:
                log = checkout / f"{command.split(maxsplit=1)[0]}.log"
                program = ["bash", "-c", f"exec {command.removesuffix('&')}"]
                background.enter_context(serving(program, log, stays, env=environment, cwd=checkout))
                continue
            done = subprocess.run(
                ["bash", "-c", RECIPES.get(command, command)], cwd=checkout, env=environment,
                capture_output=True, text=True, timeout=400, check=False,
            )  # fmt: skip
            assert done.returncode == 0, f"{command}\n{done.stdout[-3_000:]}\n{done.stderr[-3_000:]}"
            if command == "make demo":
                check_simulated_demo(checkout)
            told = documents(done.stdout)
            assert len(told) >= len(documents(shown)), command
            for expected, found in zip(documents(shown), told, strict=False):
                assert shape(expected) <= shape(found), command


def check_simulated_demo(folder: Path) -> None:
    """What `make demo` alone comes to: a champion that the gates let through, and a report of drift."""
    summary = json.loads((folder / "mlruns/demo/summary.json").read_text())
    check_demo(summary, lines=30_000, dead=0)
    assert summary["quality"]["average_precision"] > 0.5
    assert summary["champion"]["refused_by_gates"] is None
    assert (folder / summary["drift_report"]).is_file()


def documents(text: str) -> list[Any]:
    """The lines of a text that are JSON documents."""
    found = []
    for line in text.splitlines():
        if line.startswith(("{", "[")):
            try:
                found.append(json.loads(line))
            except ValueError:
                continue
    return found


def shape(document: Any, path: str = "") -> set[str]:
    """The paths of every key; items of a list share one."""
    if isinstance(document, dict):
        return {path} | {key for name, value in document.items() for key in shape(value, f"{path}.{name}")}
    if isinstance(document, list):
        return {path} | {key for value in document for key in shape(value, f"{path}[]")}
    return {path}
