"""URLs of the registry, before MLflow is asked anything."""

from __future__ import annotations

import pytest

from oddlog.connectors.by_url import open_registry
from oddlog.errors import UsageError
from oddlog.settings import RegistrySettings


@pytest.mark.parametrize("url", ["http://me:hunter2@mlflow:5000", "postgresql://me:hunter2@db/m", "sqlite:///", "x"])
def test_a_url_of_no_registry_is_refused_without_showing_a_password(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_registry(RegistrySettings(url=url))
    assert "hunter2" not in str(caught.value)
