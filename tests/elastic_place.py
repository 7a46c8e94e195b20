"""Indices and templates of a test's own in a real Elasticsearch, gone afterwards whatever state they were left in."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator

from oddlog.connectors.elastic_connection import ElasticConnection, ElasticError
from oddlog.connectors.elastic_template import templates
from oddlog.settings import StoreSettings


@contextlib.contextmanager
def elastic_place(url: str) -> Iterator[StoreSettings]:
    """Settings of a store with a prefix that nobody else uses."""
    place = StoreSettings(url=url, prefix=f"t{uuid.uuid4().hex[:12]}")
    try:
        yield place
    finally:
        connection = ElasticConnection(place)
        # By name: Elasticsearch deletes by pattern only where it was told to.
        for index in connection.json("GET", f"/{place.prefix}-*/_settings", params={"expand_wildcards": "all"}):
            connection.json("DELETE", f"/{index}")
        for template in templates(place.prefix):
            with contextlib.suppress(ElasticError):  # the test did not set the store up
                connection.json("DELETE", f"/_index_template/{template}")
        connection.close()
