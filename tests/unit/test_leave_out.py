"""Which clients nothing is learnt of: by alerts, by marks, and how many at most."""

from __future__ import annotations

import datetime as dt

import polars as pl

from oddlog.settings import TrainSettings
from training.leave_out import cautions, leave_out

NOON = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)

EVENTS = pl.DataFrame(
    {
        # Two days; "c0" to "c9" alerted once each, the higher the odder; "n" by novelty alone; "m" by a mark alone.
        "@timestamp": [NOON, *(NOON + dt.timedelta(hours=n) for n in range(10)), NOON, NOON,
                       NOON + dt.timedelta(days=2)],
        "source.address": ["sound", *(f"c{n}" for n in range(10)), "n", "m", "sound"],
        "labels.truth": [None, *(None for _ in range(10)), None, "attack:marked", None],
        "anomaly.is_anomaly": [None, *(True for _ in range(10)), True, False, False],
        "anomaly.severity": [1.0, *(3.0 + n / 10 for n in range(10)), 0.5, 0.5, 0.5],
        "anomaly.novelty.severity": [None, *(None for _ in range(10)), 9.0, None, None],
    },
    schema_overrides={"@timestamp": pl.Datetime("ms", "UTC"), "anomaly.novelty.severity": pl.Float64},
)  # fmt: skip


def learnt(**options: object) -> tuple[set[str], int]:
    settings = TrainSettings.model_validate({"budget": "2/day", **options})
    chosen, left_out, out = leave_out(EVENTS, settings)
    assert set(out) == set(EVENTS["source.address"]) - set(chosen["source.address"])
    assert left_out.events == EVENTS.height - chosen.height
    assert len(cautions(left_out, settings)) == bool(left_out.spared)
    return set(chosen["source.address"]), left_out.spared


def test_all_that_were_alerted_on_and_who_is_marked_are_left_out() -> None:
    assert learnt(exclude_alerted=True) == ({"sound"}, 0)
    assert learnt() == (set(EVENTS["source.address"]), 0)


def test_past_the_budget_only_the_oddest_are_left_out() -> None:
    # 2 a day, twice that, two days: eight alerts.
    assert learnt(exclude_alerted=True, exclude_up_to=2.0) == ({"sound", "c0", "c1", "c2"}, 3)
    assert learnt(exclude_alerted=True, exclude_up_to=100.0) == ({"sound"}, 0)
    # A sample's share of the budget, and one that is marked in any case.
    kept = {"sound", *(f"c{n}" for n in range(9))}
    assert learnt(exclude_alerted=True, exclude_up_to=0.5, sample=0.75) == (kept, 9)


def test_where_nothing_is_odd_nobody_is_left_out() -> None:
    quiet = EVENTS.with_columns(pl.lit(value=False).alias("anomaly.is_anomaly"), pl.lit(None).alias("labels.truth"))
    chosen, left_out, out = leave_out(quiet, TrainSettings(exclude_alerted=True, exclude_up_to=2.0))
    assert len(out) == 0
    assert chosen.equals(quiet)
    assert (left_out.clients, left_out.events, left_out.spared) == (0, 0, 0)
