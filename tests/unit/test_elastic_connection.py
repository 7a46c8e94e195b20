"""ElasticConnection before its first request: settings that no Elasticsearch could be reached with."""

from __future__ import annotations

from pathlib import Path

import pytest

from oddlog.connectors.elastic_connection import ElasticConnection
from oddlog.errors import UsageError
from oddlog.settings import StoreSettings


def test_an_authority_without_tls_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("of no matter")
    with pytest.raises(UsageError, match="not spoken to by TLS"):
        ElasticConnection(StoreSettings(url="http://127.0.0.1:9200", ca_file=tmp_path / "ca.pem"))


def test_an_authority_that_is_not_there_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no file .*nowhere\.pem"):
        ElasticConnection(StoreSettings(url="https://127.0.0.1:9200", ca_file=tmp_path / "nowhere.pem"))
