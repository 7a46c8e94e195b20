"""The short form of the fault campaign, with servers of its own: it kills them. The long form is a program
(`python -m benchmarks.campaign`, docs/campaign.md).
"""

from __future__ import annotations

import os

import pytest

from benchmarks.campaign.plan import SHORT, short_plan
from benchmarks.campaign.report import remarks, table
from benchmarks.campaign.run import run_campaign
from oddlog import stack

pytestmark = [
    pytest.mark.campaign, pytest.mark.kafka, pytest.mark.elasticsearch, pytest.mark.usefixtures("own_servers"),
    pytest.mark.timeout(1_200),
]  # fmt: skip

SEED = 1
RECORDS = 12_000
RATE = 250.0


def test_no_fault_of_the_short_campaign_breaks_a_property() -> None:
    if lacking := stack.missing_tools():
        reason = f"the campaign starts real servers, which need {' and '.join(lacking)}"
        if os.environ.get("CI") == "true":
            pytest.fail(f"{reason}; in CI a test that cannot run is a failure")
        pytest.skip(reason)
    outcome = run_campaign(short_plan(SEED), seed=SEED, records=RECORDS, rate=RATE)
    told = f"{table(outcome)}\n{remarks(outcome)}"
    assert outcome.broken == {}, told
    # That it was a campaign at all: every fault came, records were scored by both versions, which differ, and
    # committed offsets were looked at while it went on.
    assert sorted(outcome.injected) == sorted(SHORT), told
    assert outcome.produced == RECORDS
    assert outcome.verdict.records >= RECORDS - 10, told
    assert sum(outcome.poisoned.values()) == outcome.verdict.dead_letters + 4, told  # four kinds of it are events
    assert len(outcome.verdict.scored_by_version) == 2, told
    assert outcome.verdict.tellable > RECORDS / 2, told
    assert outcome.watched.checks > 10, told
