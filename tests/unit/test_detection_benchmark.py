"""`python -m benchmarks.detection` on simulated traffic: its document, its table, and what it refuses."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.detection import main
from oddlog.simulation.traffic import simulate
from training.metrics import metrics


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A log and its labels; some lines are ambiguous, one is broken."""
    folder = tmp_path_factory.mktemp("log")
    traffic = simulate(seed=5, lines=3_000, days=3.0, attack_share=0.1)
    labels = ["ambiguous" if n % 10 == 0 else label for n, label in enumerate(traffic.labels)]
    lines = [*traffic.lines, "what?"]
    (folder / "access.log.gz").write_bytes(gzip.compress("".join(f"{line}\n" for line in lines).encode()))
    (folder / "labels").write_text("".join(f"{label}\n" for label in [*labels, "attack:none"]))
    return folder / "access.log.gz", folder / "labels"


def test_one_line_of_json(log: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--log", str(log[0]), "--labels", str(log[1]), "--json"]) == 0
    text = capsys.readouterr().out
    assert text.count("\n") == 1
    document = json.loads(text)
    assert set(document) == {"algorithms", "rules", "events", "positives"}
    assert set(document["algorithms"]) == {"iforest", "autoencoder", "surprise"}
    assert set(document["rules"]) == {"status>=400", "client_4xx_share", "rare_path", "tutorial_iforest"}
    assert document["events"] == 1_350  # half of 3,000, a tenth of them ambiguous, the broken one no event
    assert 0 < document["positives"] < 300
    for result in (*document["algorithms"].values(), *document["rules"].values()):
        assert all(0.0 <= result[key] <= 1.0 for key in ("ap", "roc_auc", "precision_at_1pct"))
        assert result["ap_interval"][0] <= result["ap"] <= result["ap_interval"][1]
        for group in (result, result["client_hours"]):
            assert all(0.0 <= group[key] <= 1.0 for key in ("recall_at_budget", "precision_at_budget"))
        assert sum(one["events"] for one in result["by_type"].values()) == document["positives"]
    best_rule = max(result["ap"] for result in document["rules"].values())
    assert all(result["ap"] > best_rule for result in document["algorithms"].values())


def test_a_table_over_seeds(log: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--log", str(log[0]), "--labels", str(log[1]), "--algorithm", "surprise", "--seeds", "2"]
    assert main(arguments) == 0
    text = capsys.readouterr().out
    assert "surprise" in text
    assert "±0.000" in text  # surprise takes nothing from its seed
    assert "autoencoder" not in text
    assert "client-hours" in text
    assert "attack:slow_distributed_scan" in text


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--algorithm", "magic"], "no detector 'magic'"),
        (["--fit-share", "1.5"], "--fit-share"),
        (["--seeds", "0"], "--seeds"),
        (["--budget", "many"], "alert budget"),
        (["--labels", "nowhere"], "there is no file nowhere"),
    ],
)
def test_wrong_arguments(
    log: tuple[Path, Path], extra: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--log", str(log[0]), "--labels", str(log[1]), *extra]) == 2
    assert message in capsys.readouterr().err


def test_labels_of_another_log(log: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "labels").write_text("benign\n")
    assert main(["--log", str(log[0]), "--labels", str(tmp_path / "labels")]) == 2
    assert "one label for every line" in capsys.readouterr().err


def test_metrics_by_hand() -> None:
    truth = np.array([1, 0, 1, 0, -1] + [0] * 196, dtype=np.int8)
    scores = np.array([4.0, 3.0, 2.0, 1.0, 9.0] + [0.0] * 196)
    found = metrics(truth, scores)
    assert found["ap"] == pytest.approx((1 + 2 / 3) / 2)
    assert found["precision_at_1pct"] == pytest.approx(0.5)  # the two best of 200: one attack, one benign
    assert found["roc_auc"] == pytest.approx(1 - 1 / (2 * 198))


def test_equal_scores_share_their_places() -> None:
    truth = np.array([1] * 50 + [0] * 150, dtype=np.int8)
    assert metrics(truth, np.zeros(200))["precision_at_1pct"] == pytest.approx(0.25)
