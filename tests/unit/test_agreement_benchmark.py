"""`python -m benchmarks.agreement`, small: both judgements of every model, and the figures of their agreement."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.ablation import VARIANTS
from benchmarks.agreement import PLANTED, agreement, main, table
from oddlog.simulation import simulate


def test_one_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = simulate(seed=2, lines=2_500, days=2.0, attack_share=0.1)
    (tmp_path / "log").write_text("".join(f"{line}\n" for line in made.lines))
    (tmp_path / "labels").write_text("".join(f"{label}\n" for label in made.labels))
    arguments = ["--log", str(tmp_path / "log"), "--labels", str(tmp_path / "labels"), "--algorithm", "surprise"]
    assert main([*arguments, "--plantings", "1", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    models, found = document["models"][tmp_path.name], document["agreement"][tmp_path.name]
    assert found["models"] == len(models) == sum(not variant.parameters for variant in VARIANTS)
    for figures in models.values():
        assert set(figures) == {"labels", *PLANTED}
        # The log's own attacks rank among the planted ones: left out, nothing ranks lower.
        assert 0 < figures["all"] <= figures["cleaned"] <= 1
    assert models["surprise without nothing"]["labels"] > models["surprise without the client's features"]["labels"]


def test_agreement_by_hand() -> None:
    figures = {"a": (0.99, 0.6), "b": (0.98, 0.7), "c": (0.97, 0.8), "d": (0.5, 0.1)}
    models = {name: {"labels": x, "all": y, "mean": y, "cleaned": x} for name, (x, y) in figures.items()}
    found = agreement(models)
    assert (found["models"], found["near"], found["best"]) == (4, 3, 0.99)
    assert found["all"]["rank"] == pytest.approx(1 - 6 * (2**2 + 2**2) / (4 * 15))
    assert found["all"]["close"] == pytest.approx(-1.0)
    assert (found["all"]["chosen"], found["all"]["chosen_ap"]) == ("c", 0.97)
    assert found["cleaned"]["rank"] == pytest.approx(1.0)
    assert table({"log": found}).splitlines()[2].startswith("| log | 4, 3 | ")


def test_a_log_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "--log" in capsys.readouterr().err
