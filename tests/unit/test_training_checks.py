"""What checks find in a period: each in one that has it, and none in a sound week."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable

import polars as pl
import pytest

from oddlog.errors import UsageError
from oddlog.events.schema import POSITION_SCHEMA
from training.checks import DOMINANT, FEW_CLIENTS, Caution, check_fitted, check_period

START = dt.datetime(2024, 5, 1, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)


def week(*, days: float = 7.0, clients: int = 60, every: dt.timedelta = dt.timedelta(minutes=7)) -> pl.DataFrame:
    """Events at an even pace, the clients taking turns, in two partitions."""
    events = int(dt.timedelta(days=days) / every)
    number = pl.int_range(events, eager=True)
    return pl.DataFrame(
        {
            "@timestamp": pl.Series([START + every * i for i in range(events)], dtype=pl.Datetime("ms", "UTC")),
            "source.address": [f"192.0.2.{i % clients}" for i in range(events)],
            "user_agent.original": [f"agent {i % 30}" for i in range(events)],
            "oddlog.position.epoch": ["e1"] * events,
            "oddlog.position.topic": ["logs"] * events,
            "oddlog.position.partition": number % 2,
            "oddlog.position.offset": number,
        },
        schema_overrides=POSITION_SCHEMA,
    ).sort("oddlog.position.partition", "oddlog.position.offset")


def found(events: pl.DataFrame) -> dict[str, Caution]:
    whole = check_period([events])
    assert check_period(events.iter_slices(101)) == whole  # whatever batches they come in
    return {caution.name: caution for caution in whole}


def test_a_sound_week_gives_no_caution() -> None:
    assert found(week()) == {}
    assert check_period([]) == []


def test_few_clients_and_few_days_are_told() -> None:
    cautions = found(week(days=1.5, clients=FEW_CLIENTS - 1))
    assert set(cautions) == {"few_clients", "few_days"}
    assert cautions["few_clients"].figure == FEW_CLIENTS - 1
    assert cautions["few_days"].text.startswith("1.5 days of events")


def test_a_client_that_dominates_is_named_without_what_terminals_obey() -> None:
    odd = "198.51.100.7\x1b[2J"
    events = week().with_columns(
        pl.when(pl.int_range(pl.len()) % 10 < 6).then(pl.lit(odd)).otherwise("source.address").alias("source.address")
    )
    caution = found(events)["dominating_client"]
    assert caution.figure == pytest.approx(0.6, abs=0.01)
    assert caution.figure > DOMINANT
    assert "198.51.100.7\\x1b[2J has 60%" in caution.text


def test_a_gap_is_told_where_other_days_have_events() -> None:
    since = START + dt.timedelta(days=3, hours=9)
    events = week().filter(~pl.col("@timestamp").is_between(since, since + 5 * HOUR, closed="left"))
    caution = found(events)["gap"]
    assert caution.figure == 5
    assert "for 5 hours from 2024-05-04 09:00 UTC" in caution.text


def quiet_nights(events: pl.DataFrame) -> pl.DataFrame:
    return events.filter(pl.col("@timestamp").dt.hour() >= 8)


def short_gap(events: pl.DataFrame) -> pl.DataFrame:
    since = START + dt.timedelta(days=3, hours=9)
    return events.filter(~pl.col("@timestamp").is_between(since, since + 2 * HOUR))


@pytest.mark.parametrize("change", [quiet_nights, short_gap])
def test_quiet_nights_and_short_gaps_are_none(change: Callable[[pl.DataFrame], pl.DataFrame]) -> None:
    assert found(change(week())) == {}


def test_a_clock_that_jumps_is_told_with_how_far() -> None:
    row = pl.int_range(pl.len())
    forward = week().with_columns(
        pl.when(row.is_between(100, 103)).then(pl.col("@timestamp") + 10 * HOUR).otherwise("@timestamp")
    )
    caution = found(forward)["clock_jumps"]
    # Four events of one partition, 14 minutes apart, are ten hours ahead: those until then lie behind them.
    assert 30 < caution.figure < 45
    assert "up to 9.8 hours" in caution.text


def test_events_a_little_out_of_order_are_usual() -> None:
    shaken = week().with_columns(
        pl.when(pl.int_range(pl.len()) % 5 == 0).then(pl.col("@timestamp") - HOUR / 2).otherwise("@timestamp")
    )
    assert "clock_jumps" not in found(shaken)


def test_too_few_clients_to_fit_on_are_refused() -> None:
    events = week(clients=3)
    with pytest.raises(UsageError, match="3 clients to fit on") as caught:
        check_fitted(events, least_clients=5)
    assert caught.value.expected is not None
    assert caught.value.expected.startswith("at least 5 (setting train.min_clients)")
    with pytest.raises(UsageError, match="after 17 that were alerted on were left out"):
        check_fitted(events, least_clients=5, excluded=17)
    assert check_fitted(events, least_clients=3) == []


def test_few_user_agents_are_told() -> None:
    (caution,) = check_fitted(week().with_columns(pl.lit("one").alias("user_agent.original")), least_clients=5)
    assert (caution.name, caution.figure) == ("few_user_agents", 1)
