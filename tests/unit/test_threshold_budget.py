"""`python -m benchmarks.threshold_budget`, small: its document, its table and its exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.threshold_budget import BUDGETS, Row, main, show


def test_one_site_in_a_document(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "table.json"
    arguments = ["--seeds", "1", "--lines-per-day", "400", "--algorithm", "surprise", "--json", "--out", str(out)]
    code = main(arguments)
    document = json.loads(capsys.readouterr().out)
    assert document == json.loads(out.read_text())
    assert [(row["way"], row["budget"]) for row in document["rows"]] == [
        (way, budget) for way in ("train", "recalibrated") for budget in BUDGETS
    ]
    for row in document["rows"]:
        (chosen,), (after,) = row["calibrated"], row["after"]
        assert 0 <= chosen <= row["budget"]
        assert row["mean"] == after >= row["by_novelty"][0] >= 0
        assert after >= row["distinct"][0] >= (0 if after == 0 else 0.25)
        assert row["kept"] == (after <= 2 * row["budget"])
    assert code == (0 if all(row["kept"] for row in document["rows"]) else 1)


def test_a_budget_that_is_not_kept_is_told() -> None:
    kept, broken = (Row("iforest", "train", 5.0, [4.8], [9.0, after], [8.0, 8.0], [0.0, 1.0]) for after in (11.0, 11.5))
    assert (kept.mean, kept.kept, broken.kept) == (10.0, True, False)
    assert list(show([kept, broken]).columns[-1].cells) == ["yes", "NO"]


def test_wrong_arguments_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seeds", "0"]) == 2
    assert "--seeds 0" in capsys.readouterr().err
