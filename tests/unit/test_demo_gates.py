"""`oddlog demo` where there are no gates: said before anything is simulated or trained. The story itself: tests/e2e."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.verbs import run_verb


def test_a_folder_without_gates_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = run_verb("demo")
    assert found.exit_code == 2
    told = " ".join(found.stderr.split())
    assert "gates.toml" in told
    assert "ODDLOG_PROMOTE__GATES" in told
    assert list(tmp_path.iterdir()) == []
