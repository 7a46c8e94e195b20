"""A bento of the service carries every module that the service imports, and pins as the project does: known without
building one. `python -m benchmarks.bento` builds and starts it."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
BUILD: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["bentoml"]["build"]

FIRST = ("serving.service", "oddlog.connectors.mlflow_registry")
"""What the service is, and the connector that it imports when its registry is named."""


def path_of(module: str) -> Path | None:
    """The file of a module of ours."""
    base = ROOT.joinpath(*module.split("."))
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)


def imported(path: Path) -> Iterator[str]:
    """Modules that a file imports when it is imported itself, and what it takes from them, which may be modules."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names)


def needed() -> set[str]:
    """Files of ours that a running service has imported, from the root."""
    found: set[str] = set()
    waiting = list(FIRST)
    while waiting:
        module = waiting.pop()
        path = path_of(module)
        if path is None or (name := path.relative_to(ROOT).as_posix()) in found:
            continue
        found.add(name)
        waiting += [module.rpartition(".")[0], *imported(path)]
    return found


def test_every_module_of_the_service_is_in_it() -> None:
    files = needed()
    assert "serving/wire_json.py" in files
    patterns = [pattern.removeprefix("/") for pattern in BUILD["include"]]
    assert not [file for file in files if not any(fnmatch(file, pattern) for pattern in patterns)]
    assert not [pattern for pattern in patterns if not list(ROOT.glob(pattern))]
    rooms = {Path(file).parts[1] for file in files if file.startswith("oddlog/") and file.count("/") > 1}
    assert rooms == {"connectors", "events", "features", "scoring"}, "the service has begun to import another room"


def test_its_packages_are_pinned_as_the_projects() -> None:
    def pins(path: str) -> set[str]:
        return set(re.findall(r"^([a-z0-9-]+==\S+)", (ROOT / path).read_text(), re.MULTILINE))

    own = pins(BUILD["python"]["requirements_txt"])
    assert own <= pins("requirements.lock")
    names = {pin.split("==")[0] for pin in own}
    wanted = re.findall(r"^([a-z][a-z-]+)$", (ROOT / "deploy/bento/requirements.in").read_text(), re.MULTILINE)
    assert set(wanted) <= names
    assert not names & {"mlflow", "scikit-learn", "pandas", "evidently", "elasticsearch", "kafka-python", "matplotlib"}
