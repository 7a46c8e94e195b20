"""Every implementation of the port Store, for the suites of this folder. Real servers are in tests/conftest.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from oddlog.connectors.by_url import open_store
from oddlog.connectors.store import Store
from oddlog.settings import StoreSettings
from tests.elastic_place import elastic_place


@pytest.fixture(params=["sqlite", pytest.param("elasticsearch", marks=pytest.mark.elasticsearch)])
def store_settings(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StoreSettings]:
    """A place of its own for every test, gone afterwards."""
    if request.param == "sqlite":
        yield StoreSettings(url=f"sqlite:///{tmp_path / 'deep' / 'er' / 'oddlog.sqlite'}")
        return
    with elastic_place(request.getfixturevalue("elasticsearch_url")) as place:
        yield place


@pytest.fixture
def connect(store_settings: StoreSettings) -> Iterator[Callable[[], Store]]:
    """Opens the test's store once more, as another process would."""
    opened: list[Store] = []

    def another() -> Store:
        opened.append(open_store(store_settings))
        return opened[-1]

    yield another
    for one in opened:
        one.close()


@pytest.fixture
def store(connect: Callable[[], Store]) -> Store:
    """A store that is set up and empty."""
    one = connect()
    one.setup()
    return one
