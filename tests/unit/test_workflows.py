"""The workflows, without running them: what they may do, when, and that docs and settings know what they name."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from oddlog.settings import Settings
from tests.workflow import EXPRESSION, FOLDER, evaluate, read_workflow, rendered, run_job

ROOT = Path(__file__).resolve().parents[2]
NAMES = sorted(path.name for path in FOLDER.glob("*.yml"))

PULL_REQUEST = {
    "github": {
        "event_name": "pull_request",
        "ref": "refs/pull/7/merge",
        "repository": "acme/oddlog",
        "event": {"pull_request": {"head": {"repo": {"full_name": "acme/oddlog"}}}},
    }
}
NIGHTLY = {"github": {"event_name": "schedule", "ref": "refs/heads/main", "repository": "acme/oddlog"}}


def test_there_is_one_for_the_project_and_one_for_promotion() -> None:
    assert NAMES == ["ci.yml", "promote.yml"]


@pytest.mark.parametrize("name", NAMES)
def test_a_workflow_is_whole_and_may_do_little(name: str) -> None:
    workflow = read_workflow(name)
    assert set(workflow) <= {"name", "on", "permissions", "concurrency", "jobs"}
    assert workflow["permissions"] == {"contents": "read"}
    assert set(workflow["concurrency"]) == {"group", "cancel-in-progress"}
    # Code of a stranger's never runs with the project's secrets.
    assert "pull_request_target" not in workflow["on"]
    declared = set((workflow["on"].get("workflow_dispatch") or {}).get("inputs", {}))
    for expression in expressions(workflow):
        if not expression.startswith(("hashFiles(", "always()")):
            evaluate(expression, NIGHTLY)  # can be read
        for context in re.findall(r"\b([a-z]+)\.\w", re.sub(r"'[^']*'", "", expression)):
            assert context in {"github", "secrets", "vars", "inputs", "event", "pull_request", "head", "repo"}
        assert set(re.findall(r"\binputs\.(\w+)", expression)) <= declared
    for job in workflow["jobs"].values():
        assert job["runs-on"]
        assert 0 < job["timeout-minutes"] <= 120
        for step in job["steps"]:
            assert ("run" in step) != ("uses" in step)
            if "uses" in step:
                assert re.fullmatch(r"actions/[a-z-]+@v\d+", step["uses"])
            else:
                assert step["name"]
                # Text from outside reaches a shell by the environment alone.
                assert not EXPRESSION.search(step["run"])
                subprocess.run(["bash", "-n"], input=step["run"], text=True, check=True)


def test_ci_runs_what_anybody_runs() -> None:
    workflow = read_workflow("ci.yml")
    assert {"push", "pull_request"} <= set(workflow["on"])
    ran = [step["run"] for step in workflow["jobs"]["check"]["steps"] if "run" in step]
    assert any(line.endswith(" .ci/run") for line in ran)
    # .ci/run installs Debian's packages, as root.
    assert workflow["jobs"]["check"]["container"].endswith("-bookworm")


def test_promotion_runs_by_hand_by_the_clock_and_dry_for_pull_requests() -> None:
    workflow = read_workflow("promote.yml")
    assert set(workflow["on"]) == {"workflow_dispatch", "schedule", "pull_request"}
    job = workflow["jobs"]["promote"]
    group = workflow["concurrency"]["group"]
    assert rendered(group, NIGHTLY) == "promote-champion"
    assert rendered(group, PULL_REQUEST) == "promote-refs/pull/7/merge"
    by_hand = {"github": {"event_name": "workflow_dispatch"}, "inputs": {"dry_run": True}}
    dry = [rendered(job["env"]["DRY_RUN"], context) for context in (NIGHTLY, PULL_REQUEST, by_hand)]
    assert dry == ["false", "true", "true"]
    # None is cut short while it moves aliases.
    assert rendered(workflow["concurrency"]["cancel-in-progress"], NIGHTLY) == "false"
    # By hand as in docs: what it takes and what runs it can be changed without changing the file.
    assert rendered(job["runs-on"], {**NIGHTLY, "vars": {"PROMOTE_RUNNER": "our-network"}}) == "our-network"


def test_a_pull_request_from_elsewhere_is_not_judged(tmp_path: Path) -> None:
    job = read_workflow("promote.yml")["jobs"]["promote"]
    foreign = {"github": {**PULL_REQUEST["github"], "repository": "somebody/else"}}
    assert run_job(job, foreign, tmp_path, tmp_path) is None
    assert evaluate(job["if"], PULL_REQUEST)
    assert evaluate(job["if"], NIGHTLY)


def test_a_secret_that_is_missing_is_told_by_name(tmp_path: Path) -> None:
    job = read_workflow("promote.yml")["jobs"]["promote"]
    steps = run_job(job, {**NIGHTLY, "secrets": {"ODDLOG_STORE_URL": "http://store:9200"}}, tmp_path, tmp_path)
    assert steps is not None
    (step,) = steps
    assert step.code == 2
    assert "::error::the secret for ODDLOG_REGISTRY__URL is not set" in step.output


def test_settings_and_docs_know_what_the_workflow_names() -> None:
    workflow = read_workflow("promote.yml")
    for name in workflow["jobs"]["promote"]["env"]:
        if name.startswith("ODDLOG_"):
            group, field = name.removeprefix("ODDLOG_").lower().split("__")
            assert field in type(getattr(Settings(), group)).model_fields, name
    page = (ROOT / "docs" / "promotion.md").read_text()
    named = {name for text in expressions(workflow) for name in re.findall(r"\b(?:secrets|vars)\.(\w+)", text)}
    assert len(named) > 8
    assert not {name for name in named if f"`{name}`" not in page}
    for environment in re.findall(r"'(promotion[a-z-]*)'", workflow["jobs"]["promote"]["environment"]):
        assert f"`{environment}`" in page


def expressions(value: Any) -> list[str]:
    """Every expression in a workflow; `if` is one without its braces."""
    if isinstance(value, dict):
        bare = [value["if"]] if isinstance(value.get("if"), str) else []
        return bare + [text for one in value.values() for text in expressions(one)]
    if isinstance(value, list):
        return [text for one in value for text in expressions(one)]
    return EXPRESSION.findall(value) if isinstance(value, str) else []
