"""`oddlog privacy` where there is nobody to ask about the champion. With one it is in tests/e2e/test_privacy.py."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from oddlog.connectors import by_url
from oddlog.errors import RegistryError
from oddlog.settings import RegistrySettings
from tests.verbs import run_verb


def test_a_champion_that_was_not_asked_does_not_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    env = {
        "ODDLOG_STORE__URL": f"sqlite:///{tmp_path}/oddlog.sqlite",
        "ODDLOG_REGISTRY__URL": f"sqlite:///{tmp_path}/mlflow.db",
    }
    none = run_verb("privacy", env=env)
    assert none.exit_code == 0, none.output
    assert "settings and store agree" in none.stdout
    assert none.stderr == ""

    def away(settings: RegistrySettings) -> None:
        raise RegistryError("the registry at http://ada:hunter2@mlflow:5000 failed: [Errno 111]")

    monkeypatch.setattr(by_url, "open_registry", away)
    unknown = run_verb("privacy", "--json", env=env)
    assert unknown.exit_code == 0
    assert json.loads(unknown.stdout) == {"settings": None, "store": None}
    told = " ".join(unknown.stderr.split())
    assert told == "the champion was not looked at: the registry at http://mlflow:5000 failed: [Errno 111]"
