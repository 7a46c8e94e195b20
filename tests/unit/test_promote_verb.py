"""What `oddlog promote` prints of what others wrote: a tag in MLflow may hold anything."""

from __future__ import annotations

import datetime as dt

import pytest

from cli.promote import _tell
from oddlog.connectors.registry import ModelVersion
from training.evidence import Evidence
from training.promotion_report import Judged, Promotion
from training.verdicts import Verdict

EVIDENCE = Evidence(
    version="7", algorithm="iforest", events=1, clients=1, hours=1.0, average_precision=None, basis=None, attacks=0,
    alerts_per_day=None, budget_per_day=20.0, graph_difference=None, golden_difference=None, feature_digest="d",
    serving_feature_digest="d",
)  # fmt: skip


def test_who_approved_is_shown_as_the_tag_has_it(capsys: pytest.CaptureFixture[str]) -> None:
    name = "Ada [ops] [/none]"
    version = ModelVersion("oddlog", "7", "run", "iforest", 0)
    judged = Judged(version, EVIDENCE, [Verdict("data", "pass", "1 event", "at least 1", "why")], approved_by=name)
    _tell(Promotion([judged], "7", None, False, dt.datetime(2026, 3, 1, tzinfo=dt.UTC)))
    assert f"approved by {name}" in " ".join(capsys.readouterr().out.split())

    hidden = Judged(version, EVIDENCE, judged.verdicts, approved_by="Ada\x1b[2J")
    _tell(Promotion([hidden], "7", None, False, dt.datetime(2026, 3, 1, tzinfo=dt.UTC)))
    assert "approved by Ada\\x1b[2J" in " ".join(capsys.readouterr().out.split())
