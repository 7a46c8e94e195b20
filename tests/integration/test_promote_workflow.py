"""The promotion workflow's own steps, in order, as its file has them: on a tracking server and a real Elasticsearch."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from oddlog.connectors import mlflow_connection
from oddlog.connectors.by_url import open_registry
from oddlog.connectors.elastic import ElasticStore
from oddlog.connectors.registry import CHAMPION, Registry
from oddlog.events.logfile import records_from_lines
from oddlog.events.parse import parse
from oddlog.settings import RegistrySettings, StoreSettings
from oddlog.simulation import simulate
from tests.children import mlflow_server
from tests.small_model import small_model
from tests.small_registry import register
from tests.workflow import Step, read_workflow, run_job
from training.record import GRAPH_TAG

pytestmark = pytest.mark.elasticsearch

ROOT = Path(__file__).resolve().parents[2]
TRAFFIC = simulate(seed=5, lines=3_000, days=2, attack_share=0.06)
FITTED = 1_500
STAMP = Path(sys.prefix) / ".installed-from-lock"


@dataclass(frozen=True)
class Place:
    """A checkout, and the servers that its secrets name; one candidate in the registry."""

    checkout: Path
    temp: Path
    registry: Registry
    version: str
    context: dict[str, Any]

    def run(self, name: str, **github: Any) -> list[Step]:
        """The steps of the job on an event of this name."""
        context = {**self.context, "github": {"event_name": name, "repository": "acme/oddlog", **github}}
        folder = self.temp / name
        folder.mkdir()
        steps = run_job(read_workflow("promote.yml")["jobs"]["promote"], context, self.checkout, folder)
        assert steps is not None
        return list(steps)


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[RegistrySettings]:
    folder = tmp_path / "mlflow"
    folder.mkdir()
    database = f"sqlite:///{folder}/mlflow.db"
    mlflow_connection.client(RegistrySettings(url=database, artifacts=str(folder / "artifacts")))  # makes its tables
    with mlflow_server(database, folder / "server.log", artifacts=folder / "artifacts") as url:
        yield RegistrySettings(url=url)


@pytest.fixture
def at_work(tmp_path: Path, store: ElasticStore, place: StoreSettings, registry: RegistrySettings) -> Place:
    lines = [line.encode() for line in TRAFFIC.lines]
    events = parse(records_from_lines(lines, labels=TRAFFIC.labels)).events
    outcome = store.write_events(events.with_columns(pl.lit("pending").alias("anomaly.status")))
    assert not outcome.rejected
    assert not outcome.retry
    store.refresh()
    small_model(tmp_path / "model", lines[:FITTED])
    version = register(registry, tmp_path / "model")
    opened = open_registry(registry)
    opened.set_tags(version, {GRAPH_TAG: "0"})
    secrets = {"ODDLOG_STORE_URL": place.url, "ODDLOG_REGISTRY_URL": registry.url}
    context = {"secrets": secrets, "vars": {"ODDLOG_STORE_PREFIX": place.prefix}}
    return Place(checkout(tmp_path), tmp_path, opened, version, context)


def checkout(folder: Path) -> Path:
    """What the workflow needs of a checkout, with the virtual environment that is there already."""
    if not STAMP.exists():
        reason = f"`make setup` has not built {sys.prefix}, and this test builds none"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    place = folder / "checkout"
    place.mkdir()
    for name in ("Makefile", "pyproject.toml", "requirements-dev.lock", "gates.toml"):
        shutil.copy(ROOT / name, place / name)
        os.utime(place / name, (0, 0))  # older than the environment, so that `make setup` finds it built
    (place / ".venv").symlink_to(sys.prefix)
    return place


def test_the_workflow_judges_a_pull_request_and_promotes_what_a_person_approved(at_work: Place) -> None:
    names = [step["name"] for step in read_workflow("promote.yml")["jobs"]["promote"]["steps"] if "run" in step]
    origin = {"event": {"pull_request": {"head": {"repo": {"full_name": "acme/oddlog"}}}}}

    dry = at_work.run("pull_request", **origin)
    assert [step.name for step in dry] == names
    assert dry[-1].code == 0, dry[-1].output
    assert dry[-1].summary.startswith(f"# Dry run: version {at_work.version} would become champion")
    assert at_work.registry.by_alias(CHAMPION) is None

    # What waits for a person is told with exit code 1: tests/integration/test_promotion.py.
    at_work.registry.set_tags(at_work.version, {"approved_by": "ada"})  # as a person does on the version's page
    nightly = at_work.run("schedule")
    assert nightly[-1].code == 0, nightly[-1].output
    assert nightly[-1].summary.startswith(f"# Version {at_work.version} is champion")
    assert "Approved by ada, says its tag." in nightly[-1].summary
    champion = at_work.registry.by_alias(CHAMPION)
    assert champion is not None
    assert champion.version == at_work.version

    # What the last step hands to the runner to keep.
    kept = sorted((at_work.checkout / "promotions").iterdir())
    assert [path.suffix for path in kept] == [".json", ".md"] * 2
    assert json.loads(kept[-2].read_text())["promoted"] == at_work.version
