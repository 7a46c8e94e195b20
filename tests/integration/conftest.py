"""A place of a test's own in a real Elasticsearch, and who works there. The servers are in tests/conftest.py."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from oddlog.connectors.elastic import ElasticStore
from oddlog.connectors.elastic_connection import ElasticConnection
from oddlog.settings import StoreSettings
from tests.elastic_place import elastic_place


@pytest.fixture
def place(elasticsearch_url: str) -> Iterator[StoreSettings]:
    """Indices of the test's own, gone afterwards whatever state they were left in."""
    with elastic_place(elasticsearch_url) as own:
        yield own


@pytest.fixture
def connection(place: StoreSettings) -> Iterator[ElasticConnection]:
    """What an operator would do with curl."""
    one = ElasticConnection(place)
    yield one
    one.close()


@pytest.fixture
def store(place: StoreSettings) -> Iterator[ElasticStore]:
    """A store that is set up and empty."""
    one = ElasticStore(place)
    one.setup()
    yield one
    one.close()
