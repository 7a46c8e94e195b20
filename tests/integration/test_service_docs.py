"""What docs/serving.md and the OpenAPI page say of a service, held against a real one: every curl line of the page, and
every route by schemathesis. `make schemathesis` runs that one at length.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from oddlog.connectors.by_url import open_registry
from oddlog.connectors.registry import CHAMPION, PREVIOUS
from oddlog.settings import RegistrySettings, ServeSettings, Settings
from oddlog.simulation.traffic import simulate
from oddlog.stack.process import free_port
from serving.child import start_service
from serving.headers import bearer
from tests.small_model import small_model
from tests.small_registry import register, registry_in

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "serving.md").read_text()
COMMANDS = re.findall(r"```console\n\$ (.+)\n((?:.*\n)*?)```", PAGE)


KEY = "a-key-of-this-test-alone"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> RegistrySettings:
    """With version 2 as champion and version 1 as previous, as on the page."""
    folder = tmp_path_factory.mktemp("served")
    registry = registry_in(folder)
    lines = [line.encode() for line in simulate(seed=1, lines=20_000, days=3.0, attack_share=0.02).lines]
    for alias, algorithm in ((PREVIOUS, "surprise"), (CHAMPION, "iforest")):
        small_model(folder / algorithm, lines, algorithm=algorithm)
        open_registry(registry).set_alias(alias, register(registry, folder / algorithm))
    return registry


@pytest.fixture(scope="module")
def address(registry: RegistrySettings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of a service that asks for no key."""
    port = free_port()
    with start_service(Settings(registry=registry), port, folder=tmp_path_factory.mktemp("open")):
        yield f"localhost:{port}"


@pytest.fixture(scope="module")
def keyed(registry: RegistrySettings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of a service that asks for one."""
    port = free_port()
    settings = Settings(registry=registry, serve=ServeSettings.model_validate({"api_key": KEY}))
    with start_service(settings, port, folder=tmp_path_factory.mktemp("keyed")):
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
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}  # by which the page is sorted
    done = subprocess.run(run, shell=True, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert shape(done.stdout) == shape(shown)


def documented(address: str, folder: Path) -> Path:
    """The OpenAPI of the routes, with the versions that are held there: any other is a mistake."""
    document = httpx.get(f"http://{address}/docs.json").json()
    document["paths"] = {path: found for path, found in document["paths"].items() if path.startswith("/v1/")}
    for path in document["paths"].values():
        for operation in path.values():
            for parameter in operation.get("parameters", []):
                assert parameter["name"] == "version"
                parameter["schema"]["enum"] = ["1", "2"]
            for body in operation.get("requestBody", {}).get("content", {}).values():
                if "version" in body["schema"].get("properties", {}):
                    body["schema"]["properties"]["version"]["enum"] = ["1", "2", None]
    (folder / "openapi.json").write_text(json.dumps(document))
    return folder / "openapi.json"


def schemathesis(address: str, folder: Path, *arguments: str) -> str:
    """Hold every route to its OpenAPI with every check; what was said of it."""
    pytest.importorskip("schemathesis")
    program = Path(sys.executable).with_name("schemathesis")
    how = ["--checks", "all", "--continue-on-failure", "--warnings", "off", *arguments]
    done = subprocess.run(
        [program, "run", documented(address, folder), "--url", f"http://{address}", *how],
        cwd=folder,
        env={**os.environ, "SCHEMATHESIS_HOOKS": "tests.arrow_bodies", "PYTHONPATH": str(ROOT), "COLUMNS": "120"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def answered(address: str) -> dict[str, Any]:
    """How many events were scored by each version, and requests refused by status, until now."""
    text = httpx.get(f"http://{address}/metrics").text
    counted = re.findall(r'^oddlog_(events_scored|requests_refused)_total\{\w+="(\w+)"\} (\S+)$', text, re.MULTILINE)
    return {label: float(value) for _, label, value in counted}


def test_routes_keep_to_their_openapi(address: str, tmp_path: Path) -> None:
    told = schemathesis(
        address, tmp_path, "--max-examples", "4", "--phases", "fuzzing", "--include-method", "POST", "--seed", "7"
    )
    assert re.search(r"\d+ generated, \d+ passed", told), told
    assert {"1", "2", "422"} <= answered(address).keys()


@pytest.mark.schemathesis
def test_routes_keep_to_their_openapi_at_length(keyed: str, tmp_path: Path) -> None:
    # Written as here it is left out, too, to see that nobody gets in without it.
    key = f"Authorization:{bearer(KEY)['authorization']}"
    told = schemathesis(keyed, tmp_path, "--max-examples", "200", "--header", key)
    counted = answered(keyed)
    sys.stdout.write(f"{told}\nevents by version, refusals by status: {counted}\n")
    assert {"1", "2", "401", "404", "415", "422"} <= counted.keys()
    assert not [status for status in counted if len(status) == 3 and status >= "5"]
