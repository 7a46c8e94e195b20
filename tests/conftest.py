"""What tests of every kind share: the real servers, one pair for a whole run. Others live beside their tests."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import hypothesis
import pytest

from oddlog import stack
from oddlog.connectors import mlflow_connection
from oddlog.stack.process import free_port
from tests.children import QUICK_START
from tests.mlflow_schema import made_once

# How long an example may take says nothing about it: the machine may have much to do.
hypothesis.settings.register_profile("oddlog", deadline=None)
hypothesis.settings.load_profile("oddlog")

# Tests run side by side, and what they compute is small: threads that wait for each other take processors from others.
# Programs that tests start inherit it.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")

# The same few programs are started again and again: they are compiled once.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# What verbs print is folded to fit: by the terminal that the tests happen to be started from, if nothing is said.
os.environ["COLUMNS"] = "200"

SERVERS = pytest.StashKey[Path]()
SERVERS_VARIABLE = "TEST_SERVERS_DIR"
"""By it the workers of a run (pytest-xdist) know the folder whose servers they share."""


def pytest_configure(config: pytest.Config) -> None:
    """Name the folder of this run's servers. They are started when a test first asks for one."""
    if not hasattr(config, "workerinput"):
        config.stash[SERVERS] = Path(tempfile.mkdtemp(prefix="oddlog-test-servers-"))
        os.environ[SERVERS_VARIABLE] = str(config.stash[SERVERS])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The campaign first: it waits for servers for minutes, beside which the other workers have enough to do."""
    items.sort(key=lambda item: item.get_closest_marker("campaign") is None)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop this run's servers and delete their data, whatever its tests did, and whatever became of its workers."""
    if (folder := config.stash.get(SERVERS, None)) is not None:
        stack.down(folder, purge=True)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session", autouse=True)
def _mlflow_tables_made_once() -> Iterator[None]:
    """In this process alone: the programs that tests start make theirs as everywhere."""
    with pytest.MonkeyPatch.context() as patch:
        folder = Path(os.environ[SERVERS_VARIABLE])
        patch.setattr(mlflow_connection, "_create_schema", made_once(folder, mlflow_connection._create_schema))
        yield


@pytest.fixture(scope="session")
def kafka_url() -> str:
    """`kafka://127.0.0.1:port` of a real broker; add `/topic`.

    The variable TEST_KAFKA_URL names one that runs already, so that it need not be started.
    """
    return os.environ.get("TEST_KAFKA_URL", "").rstrip("/") or _server("kafka")


@pytest.fixture(scope="session")
def elasticsearch_url() -> str:
    """`http://127.0.0.1:port` of a real Elasticsearch.

    The variable TEST_ELASTICSEARCH_URL names one that runs already, so that it need not be started.
    """
    return os.environ.get("TEST_ELASTICSEARCH_URL", "").rstrip("/") or _server("elasticsearch")


@pytest.fixture(scope="session")
def own_servers() -> Callable[[Path], AbstractContextManager[Path]]:
    """For tests that start servers themselves: a state folder, whose servers are ended with the block."""

    @contextmanager
    def ended_with_the_block(folder: Path) -> Iterator[Path]:
        _need_the_tools("servers of a test's own")
        try:
            yield folder
        finally:
            stack.down(folder, purge=True)

    return ended_with_the_block


def _server(name: str) -> str:
    """The URL of one of the shared servers, started by whoever comes first."""
    _need_the_tools(f"a real {name}")
    state = stack.up(
        Path(os.environ[SERVERS_VARIABLE]),
        kafka=name == "kafka",
        elasticsearch=name == "elasticsearch",
        kafka_options=stack.KafkaOptions(port=free_port(), java_options=QUICK_START),
        elasticsearch_options=stack.ElasticsearchOptions(port=free_port(), java_options=QUICK_START),
    )
    return state.urls[name]


def _need_the_tools(what: str) -> None:
    if lacking := stack.missing_tools():
        reason = f"{what} needs {' and '.join(lacking)}"
        if os.environ.get("CI") == "true":
            pytest.fail(f"{reason}; in CI a test that cannot run is a failure")
        pytest.skip(reason)


@pytest.fixture
def topic() -> str:
    """A topic name nobody else uses; the test makes the topic itself."""
    return f"t-{uuid.uuid4().hex[:12]}"


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """A developer's own ODDLOG_ variables must not decide a test."""
    for name in [name for name in os.environ if name.startswith("ODDLOG_")]:
        monkeypatch.delenv(name)
