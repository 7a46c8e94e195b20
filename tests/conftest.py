"""What tests of every kind share: the real servers, one pair a session. Others live beside their tests."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from oddlog import stack


@pytest.fixture(scope="session")
def kafka_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`kafka://127.0.0.1:port` of a real broker; add `/topic`.

    The variable TEST_KAFKA_URL names one that runs already, so that it need not be started.
    """
    if given := os.environ.get("TEST_KAFKA_URL"):
        yield given.rstrip("/")
        return
    yield from _server("kafka", tmp_path_factory.mktemp("kafka"))


@pytest.fixture(scope="session")
def elasticsearch_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`http://127.0.0.1:port` of a real Elasticsearch.

    The variable TEST_ELASTICSEARCH_URL names one that runs already, so that it need not be started.
    """
    if given := os.environ.get("TEST_ELASTICSEARCH_URL"):
        yield given.rstrip("/")
        return
    yield from _server("elasticsearch", tmp_path_factory.mktemp("elasticsearch"))


def _server(name: str, folder: Path) -> Iterator[str]:
    """Start one server for the session; stop it and delete its data whatever the tests did."""
    if lacking := stack.missing_tools():
        reason = f"a real {name} needs {' and '.join(lacking)}"
        if os.environ.get("CI") == "true":
            pytest.fail(f"{reason}; in CI a test that cannot run is a failure")
        pytest.skip(reason)
    try:
        state = stack.up(folder, kafka=name == "kafka", elasticsearch=name == "elasticsearch")
        yield state.urls[name]
    finally:
        stack.down(folder, purge=True)


@pytest.fixture
def topic() -> str:
    """A topic name nobody else uses; the test makes the topic itself."""
    return f"t-{uuid.uuid4().hex[:12]}"


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """A developer's own ODDLOG_ variables must not decide a test."""
    for name in [name for name in os.environ if name.startswith("ODDLOG_")]:
        monkeypatch.delenv(name)
