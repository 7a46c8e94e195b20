"""`python -m benchmarks.caps`, small: every cap is measured, and a hard one costs something."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.caps import CLIENTS, KEYS, UNBOUNDED, main, table
from oddlog.simulation import simulate


def test_one_log_and_no_site(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = simulate(seed=2, lines=2_500, days=2.0, attack_share=0.1)
    (tmp_path / "log").write_text("".join(f"{line}\n" for line in made.lines))
    (tmp_path / "labels").write_text("".join(f"{label}\n" for label in made.labels))
    arguments = ["--log", str(tmp_path / "log"), "--labels", str(tmp_path / "labels"), "--sites", "0", "--json"]
    assert main([*arguments, "--algorithm", "surprise"]) == 0
    (case,) = json.loads(capsys.readouterr().out)["cases"]
    rows = case["rows"]
    assert len(rows) == 1 + len(KEYS) + len(CLIENTS)
    assert rows[f"{KEYS[0]:,} keys a table"] == rows[UNBOUNDED]  # nothing to drop on so small a site
    assert rows[f"{CLIENTS[-1]:,} clients"]["surprise"] < rows[UNBOUNDED]["surprise"]
    assert case["clients"] > CLIENTS[-2]
    shown = table([case], "surprise").splitlines()
    assert len(shown) == 2 + 2 + len(rows)


def test_nothing_to_measure(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--sites", "0"]) == 2
    assert "nothing to measure" in capsys.readouterr().err
