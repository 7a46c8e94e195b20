"""gates.toml: what may be declared, and what every gate says of the evidence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from oddlog.errors import UsageError
from training.evidence import Change, Cost, Detected, Evidence, Marked, Rival, Shadowed
from training.gates import GATE_NAMES, load_gates
from training.verdicts import Outcome, Verdict, judge, passed

PROJECT = Path(__file__).parents[2]

GOOD = Evidence(
    version="7",
    algorithm="iforest",
    events=5_000,
    clients=80,
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
    detected=Detected(average_precision=0.8, share=0.9, missed=("slow_drip",)),
    marked=Marked(false_alarms=20, flagged_false_alarms=4, true_anomalies=8, flagged_true_anomalies=6),
    cost=Cost(one_row_ms=0.02, batch_ms=9.0, batch_rows=4_096, growth_mb=11.0),
    shadowed=Shadowed(events=400, agreement=0.9999),
    change=Change(events=900, worth=60.0, since=None, distances={"a": 0.1, "b": 0.2, "c": 0.5, "d": 0.0}, error=0.05),
    champion=Rival("4", 0.88, marked=Marked(20, 14, 8, 3), agreement=0.9),
)

ALL = """
[data]
min_events = 200
min_hours = 6
min_clients = 10
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
[scenarios]
min_detected = 0.6
[marks]
[agreement]
min_correlation = 0.5
[shadow]
min_correlation = 0.99
[latency]
max_one_row_ms = 5
max_batch_ms = 200
[memory]
max_growth_mb = 100
[drift]
max_distance = 0.3
max_share = 0.5
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
        ("data", {"events": 200, "hours": 5.9}, "fail", "5.9 h"),
        ("data", {"events": 200, "hours": 6.0}, "pass", "200 events of 80 clients, 6.0 h"),
        ("data", {"clients": 9}, "fail", "of 9 clients"),
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
        (
            "scenarios",
            {"detected": Detected(0.9, 0.59, ("scan", "flood"))},
            "fail",
            "59% found (average precision 0.900); missed: scan, flood",
        ),
        ("scenarios", {"detected": Detected(0.9, 0.6, ())}, "pass", "60% found"),
        ("scenarios", {"detected": None}, "fail", "nothing could be planted"),
        ("agreement", {"champion": Rival("4", 0.88, agreement=0.49)}, "fail", "0.490 with version 4"),
        ("agreement", {"champion": Rival("4", 0.88, agreement=None)}, "fail", "all scores of one"),
        ("agreement", {"champion": Rival("4", None, "other features")}, "skipped", "other features"),
        ("agreement", {"champion": None}, "skipped", "no champion yet"),
        ("shadow", {"shadowed": None}, "skipped", "it was not challenger"),
        ("shadow", {"shadowed": Shadowed(99, 0.1)}, "skipped", "99 live scores, fewer than 100"),
        ("shadow", {"shadowed": Shadowed(100, 0.98)}, "fail", "0.9800 over 100 events"),
        ("shadow", {"shadowed": Shadowed(100, None)}, "fail", "all scores of one side"),
        ("latency", {"cost": Cost(5.1, 9.0, 4_096, 1.0)}, "fail", "one event 5.100 ms"),
        ("latency", {"cost": Cost(0.1, 201.0, 4_096, 1.0)}, "fail", "4,096 events 201.0 ms"),
        ("latency", {"cost": None, "problem": "cut short"}, "fail", "cut short"),
        ("memory", {"cost": Cost(0.1, 9.0, 4_096, 100.1)}, "fail", "100.1 MB"),
        ("memory", {"cost": None}, "fail", "could not be measured"),
        ("drift", {"change": None}, "skipped", "0 events have come since"),
        ("drift", {"change": Change(199, 60, None, {"a": 9.0}, 0.0)}, "skipped", "199 events have come since"),
        ("drift", {"change": Change(900, 4.9, None, {"a": 9.0}, 0.0)}, "skipped", "worth 4.9 clients"),
        ("drift", {"change": Change(900, 60, None, {}, 0.0)}, "skipped", "no reference"),
        (
            "drift",
            {"change": Change(900, 60, None, {"a": 0.3, "b": 0.4}, 0.0)},
            "fail",
            "100% of the features so far away, over 900 events since its training; farthest: b, a",
        ),
        # What so few clients differ by chance is taken off: 0.3 + 2 x 0.05.
        (
            "drift",
            {"change": Change(900, 60, None, {"a": 0.39, "b": 0.4}, 0.05)},
            "fail",
            "50% of the features so far away",
        ),
        ("drift", {"change": Change(900, 60, None, {"a": 0.39, "b": 0.39}, 0.05)}, "pass", "0% of the features"),
    ],
)
def test_a_gate_says_what_was_found(
    gate: str, change: dict[str, object], outcome: Outcome, figure: str, tmp_path: Path
) -> None:
    verdicts = said(ALL, replace(GOOD, **change), tmp_path)  # type: ignore[arg-type]
    assert verdicts[gate].outcome == outcome
    assert figure in verdicts[gate].figure
    assert passed(list(verdicts.values())) == (outcome != "fail")


@pytest.mark.parametrize(
    ("own", "champions", "outcome"),
    [
        ((20, 10, 0, 0), None, "pass"),
        ((20, 11, 0, 0), None, "fail"),
        # The champion flags 14 of 20: whoever flags fewer is an improvement, whoever flags more is none.
        ((20, 14, 0, 0), (20, 14, 0, 0), "pass"),
        ((20, 15, 0, 0), (20, 14, 0, 0), "fail"),
        ((0, 0, 8, 4), None, "pass"),
        ((0, 0, 8, 3), None, "fail"),
        ((0, 0, 8, 3), (0, 0, 8, 3), "pass"),
        ((0, 0, 8, 2), (0, 0, 8, 3), "fail"),
        ((20, 0, 8, 3), None, "fail"),
        ((4, 4, 4, 0), None, "skipped"),
        ((4, 4, 5, 5), None, "pass"),
    ],
)
def test_marks_are_held_to_a_share_or_to_the_champion(
    own: tuple[int, int, int, int], champions: tuple[int, int, int, int] | None, outcome: Outcome, tmp_path: Path
) -> None:
    rival = None if champions is None else Rival("4", 0.88, marked=Marked(*champions), agreement=0.9)
    verdict = said("[marks]", replace(GOOD, marked=Marked(*own), champion=rival), tmp_path)["marks"]
    assert verdict.outcome == outcome, verdict


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
