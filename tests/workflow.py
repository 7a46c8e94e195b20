"""A workflow of GitHub's, read and run here: expressions, environment files and steps as its runner has them.

Only what the project's own workflows use: `run` steps in order; `uses` steps are the runner's business and passed over.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).resolve().parents[1] / ".github" / "workflows"

EXPRESSION = re.compile(r"\$\{\{\s*(.*?)\s*\}\}")
_TOKEN = re.compile(r"'[^']*'|&&|\|\||==|!=|[()]|[A-Za-z_][\w.-]*|\s+")
_OPERATORS = {"&&": "and", "||": "or", "==": "==", "!=": "!=", "(": "(", ")": ")", "true": "True", "false": "False"}


def read_workflow(name: str) -> dict[str, Any]:
    """A workflow by its file's name; what YAML takes for a truth value, its key `on`, under that name."""
    document = yaml.safe_load((FOLDER / name).read_text())
    assert isinstance(document, dict)
    return {"on" if key is True else key: value for key, value in document.items()}


def evaluate(expression: str, context: Mapping[str, Any]) -> Any:
    """The value of an expression without function calls; a name that the context has not is None."""
    found, at = [], 0
    while at < len(expression):
        token = _TOKEN.match(expression, at)
        assert token is not None, f"{expression!r} at {at}"
        at, text = token.end(), token[0].strip()
        if text in _OPERATORS or text.startswith("'"):
            found.append(_OPERATORS.get(text, text))
        elif text:
            found.append(f"look({text!r})")
    return eval(" ".join(found), {"__builtins__": {}, "look": lambda path: _look(path, context)})


def rendered(text: str, context: Mapping[str, Any]) -> str:
    """A text with the values of its expressions."""

    def value(match: re.Match[str]) -> str:
        found = evaluate(match[1], context)
        return "" if found is None else str(found).lower() if isinstance(found, bool) else str(found)

    return EXPRESSION.sub(value, text)


@dataclass(frozen=True)
class Step:
    """What came of a `run` step."""

    name: str
    code: int
    output: str
    summary: str
    """What it wrote for the page of its run."""


def run_job(job: Mapping[str, Any], context: Mapping[str, Any], checkout: Path, temp: Path) -> Iterator[Step] | None:
    """The `run` steps of a job in a checkout, in order, up to the first that fails; None where its `if` says no."""
    if "if" in job and not evaluate(job["if"], context):
        return None
    return _steps(job, context, checkout, temp)


def _steps(job: Mapping[str, Any], context: Mapping[str, Any], checkout: Path, temp: Path) -> Iterator[Step]:
    environment = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    environment |= {name: os.environ[name] for name in os.environ if name.startswith(("OMP_", "OPENBLAS_"))}
    environment |= {"GITHUB_WORKSPACE": str(checkout), "RUNNER_TEMP": str(temp), "CI": "true"}
    environment |= {name: rendered(str(value), context) for name, value in job.get("env", {}).items()}
    assert job["defaults"]["run"]["shell"] == "bash"
    for number, step in enumerate(job["steps"]):
        if "run" not in step:
            continue
        files = {name: temp / f"{name}-{number}" for name in ("GITHUB_ENV", "GITHUB_STEP_SUMMARY")}
        for file in files.values():
            file.touch()
        own = {name: rendered(str(value), context) for name, value in step.get("env", {}).items()}
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", rendered(step["run"], context)],
            cwd=checkout, env=environment | own | {name: str(file) for name, file in files.items()},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300, check=False,
        )  # fmt: skip
        for line in files["GITHUB_ENV"].read_text().splitlines():
            name, _, value = line.partition("=")
            environment[name] = value
        yield Step(step["name"], done.returncode, done.stdout, files["GITHUB_STEP_SUMMARY"].read_text())
        if done.returncode:
            return


def _look(path: str, context: Mapping[str, Any]) -> Any:
    found: Any = context
    for part in path.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found
