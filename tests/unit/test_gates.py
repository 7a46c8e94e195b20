"""gates.toml: what may be declared, and what every gate says of the evidence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from oddlog.errors import UsageError
from training.gates import GATE_NAMES, Evidence, Outcome, Rival, Verdict, judge, load_gates, passed

PROJECT = Path(__file__).parents[2]

GOOD = Evidence(
    version="7",
    algorithm="iforest",
    events=5_000,
    hours=48.0,
    average_precision=0.9,
    basis="labels",
    attacks=120,
    alerts_per_day=18.0,
    budget_per_day=20.0,
    graph_difference=3.5e-7,
    golden_difference=2e-7,
    feature_digest="d" * 64,
    serving_feature_digest="d" * 64,
    champion=Rival("4", 0.88),
)

ALL = """
[data]
min_events = 200
min_hours = 6
[schema]
[graph]
max_difference = 1e-3
[golden]
max_difference = 1e-3
[quality]
min_average_precision = 0.5
[not_worse]
margin = 0.02
[alert_rate]
max_factor = 1.5
"""


def said(text: str, evidence: Evidence, folder: Path) -> dict[str, Verdict]:
    file = folder / "gates.toml"
    file.write_text(text)
    return {verdict.gate: verdict for verdict in judge(load_gates(file), evidence)}


def test_the_projects_own_gates_are_valid_and_all_of_them_are_asked() -> None:
    gates = load_gates(PROJECT / "gates.toml")
    assert [verdict.gate for verdict in judge(gates, GOOD)] == list(GATE_NAMES)
    assert passed(judge(gates, GOOD))


def test_good_evidence_passes_every_gate(tmp_path: Path) -> None:
    verdicts = said(ALL, GOOD, tmp_path)
    assert {name: verdict.outcome for name, verdict in verdicts.items()} == dict.fromkeys(GATE_NAMES, "pass")
    assert all(verdict.figure and verdict.limit and verdict.why for verdict in verdicts.values())


@pytest.mark.parametrize(
    ("gate", "change", "outcome", "figure"),
    [
        ("data", {"events": 199}, "fail", "199 events"),
        ("data", {"events": 200, "hours": 5.9}, "fail", "over 5.9 h"),
        ("data", {"events": 200, "hours": 6.0}, "pass", "200 events over 6.0 h"),
        ("schema", {"feature_digest": "e" * 64}, "fail", "eeeeeeeeeeee"),
        ("schema", {"feature_digest": ""}, "fail", "unknown"),
        ("graph", {"graph_difference": 1.1e-3}, "fail", "0.0011"),
        ("graph", {"graph_difference": None}, "fail", "did not log"),
        ("golden", {"golden_difference": 2e-3}, "fail", "0.002"),
        ("golden", {"golden_difference": None, "problem": "a file was cut short"}, "fail", "cut short"),
        ("quality", {"average_precision": 0.499}, "fail", "0.499 on 120 labelled"),
        ("quality", {"average_precision": 0.5, "basis": "planted", "champion": None}, "pass", "planted attack events"),
        ("quality", {"average_precision": None}, "fail", "nothing to judge by"),
        ("not_worse", {"average_precision": 0.859}, "fail", "0.859, the champion's 0.880"),
        ("not_worse", {"average_precision": 0.861}, "pass", "0.861"),
        ("not_worse", {"champion": None}, "skipped", "no champion yet"),
        ("not_worse", {"champion": Rival("4", None, "other features")}, "skipped", "other features"),
        ("not_worse", {"average_precision": None}, "fail", "could not be judged"),
        ("alert_rate", {"alerts_per_day": 30.1}, "fail", "30.1 alerts"),
        ("alert_rate", {"alerts_per_day": 30.0}, "pass", "30.0 alerts"),
        ("alert_rate", {"alerts_per_day": None}, "fail", "no events"),
    ],
)
def test_a_gate_says_what_was_found(
    gate: str, change: dict[str, object], outcome: Outcome, figure: str, tmp_path: Path
) -> None:
    verdicts = said(ALL, replace(GOOD, **change), tmp_path)  # type: ignore[arg-type]
    assert verdicts[gate].outcome == outcome
    assert figure in verdicts[gate].figure
    assert passed(list(verdicts.values())) == (outcome != "fail")


def test_a_gate_that_is_not_declared_is_not_asked(tmp_path: Path) -> None:
    bad = replace(GOOD, average_precision=0.1, alerts_per_day=500.0)
    verdicts = said("[quality]\nmin_average_precision = 0.05", bad, tmp_path)
    assert list(verdicts) == ["quality"]
    assert verdicts["quality"].outcome == "pass"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[qualty]\nmin_average_precision = 0.5", r"there is no gate \[qualty\]"),
        ("[quality]\nmin_ap = 0.5", r"\[quality\] lacks the field 'min_average_precision'; .* has no field 'min_ap'"),
        ("[quality]\nmin_average_precision = 1.5", r"\[quality\] min_average_precision: .*less than or equal to 1"),
        ("[alert_rate]\nmax_factor = 'two'", r"\[alert_rate\] max_factor: .*valid number"),
        ("quality = 3", r"\[quality\]: .*"),
        ("[quality", "is no TOML"),
        ("", "declares no gate"),
    ],
)
def test_a_wrong_file_is_refused_and_the_gates_are_named(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "gates.toml"
    file.write_text(text)
    with pytest.raises(UsageError, match=message) as caught:
        load_gates(file)
    assert str(file) in str(caught.value)
    assert caught.value.mend


def test_a_missing_file_is_told_with_how_to_name_another(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no gates file") as caught:
        load_gates(tmp_path / "gates.toml")
    assert caught.value.mend is not None
    assert "--gates" in caught.value.mend
