"""Every curl line of docs/serving.md, run against a real service: it answers as the page shows."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from oddlog.connectors.by_url import open_registry
from oddlog.connectors.registry import CHAMPION, PREVIOUS
from oddlog.settings import Settings
from oddlog.simulation.traffic import simulate
from oddlog.stack.process import free_port
from serving.child import start_service
from tests.small_model import small_model
from tests.small_registry import register, registry_in

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "serving.md").read_text()
COMMANDS = re.findall(r"```console\n\$ (.+)\n((?:.*\n)*?)```", PAGE)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of a service with version 2 as champion and version 1 as previous, as on the page."""
    folder = tmp_path_factory.mktemp("served")
    registry = registry_in(folder)
    lines = [line.encode() for line in simulate(seed=1, lines=20_000, days=3.0, attack_share=0.02).lines]
    for alias, algorithm in ((PREVIOUS, "surprise"), (CHAMPION, "iforest")):
        small_model(folder / algorithm, lines, algorithm=algorithm)
        open_registry(registry).set_alias(alias, register(registry, folder / algorithm))
    port = free_port()
    with start_service(Settings(registry=registry), port, folder=folder / "service"):
        yield f"localhost:{port}"


def shape(output: str) -> list[str]:
    """Output without what differs from model to model: numbers, digests, times, sentences."""
    output = re.sub(r"[0-9a-f]{64}", "DIGEST", output)
    output = re.sub(r"\d{4}-\d\d-\d\dT[\d:.+]+", "TIME", output)
    output = re.sub(r'("text": ").*(")', r"\1\2", output)
    output = re.sub(r"-?\d+\.\d+(e[+-]?\d+)?", "NUMBER", output)
    return output.splitlines()


def test_the_page_has_commands() -> None:
    assert len(COMMANDS) == PAGE.count("curl -s localhost:3000")
    assert len(COMMANDS) >= 5


@pytest.mark.parametrize(("command", "shown"), COMMANDS, ids=[command[:60] for command, _ in COMMANDS])
def test_it_answers_as_the_page_shows(address: str, command: str, shown: str) -> None:
    run = command.replace("localhost:3000", address)
    done = subprocess.run(run, shell=True, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert shape(done.stdout) == shape(shown)
