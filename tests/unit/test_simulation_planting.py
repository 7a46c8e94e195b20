"""Planted attacks: events like the user's own, within their period, and marked so that they can be told apart."""

from __future__ import annotations

import ipaddress

import polars as pl
import pytest

from oddlog.errors import UsageError
from oddlog.events.logfile import records_from_lines
from oddlog.events.parse import parse
from oddlog.events.schema import EVENT_SCHEMA
from oddlog.simulation import SCENARIOS, plant, planted_of, simulate

RESERVED = (ipaddress.ip_network("198.18.0.0/15"), ipaddress.ip_network("2001:db8::/32"))


@pytest.fixture(scope="module")
def events() -> pl.DataFrame:
    made = simulate(seed=21, lines=15_000, days=4, attacks=[])
    own = parse(records_from_lines([line.encode() for line in made.lines], epoch="e1", topic="logs.raw")).events
    return own.with_columns(
        pl.lit("web-1").alias("host.name"),
        (pl.col("source.address").str.len_chars() % 3).cast(pl.Int32).alias("oddlog.position.partition"),
    )


@pytest.fixture(scope="module")
def planted(events: pl.DataFrame) -> pl.DataFrame:
    return plant(events, seed=1)


def test_planted_events_fit_beside_the_others(events: pl.DataFrame, planted: pl.DataFrame) -> None:
    assert planted.schema == pl.Schema(EVENT_SCHEMA)
    both = pl.concat([events, planted]).sort("@timestamp")
    assert both["_id"].n_unique() == len(both)
    assert planted["@timestamp"].is_sorted()
    assert planted["@timestamp"].min() >= events["@timestamp"].min()  # type: ignore[operator]
    assert planted["@timestamp"].max() <= events["@timestamp"].max()  # type: ignore[operator]
    assert planted["host.name"].unique().to_list() == ["web-1"]


def test_every_scenario_is_there_three_times(planted: pl.DataFrame) -> None:
    marks = planted_of(planted["_id"])
    found = marks.group_by("scenario").agg(pl.col("instance").unique().sort())
    assert dict(found.iter_rows()) == {name: [0, 1, 2] for name in SCENARIOS}
    assert planted["labels.truth"].to_list() == ("attack:" + marks["scenario"]).to_list()


def test_attackers_have_addresses_of_no_one_or_are_clients_that_are_there(
    events: pl.DataFrame, planted: pl.DataFrame
) -> None:
    clients = set(events["source.address"])
    names = planted_of(planted["_id"])["scenario"]
    for address, scenario in zip(planted["source.address"], names, strict=True):
        if scenario in ("error_outage", "shell_from_busy_client"):
            assert address in clients
        elif address not in clients:
            assert any(ipaddress.ip_address(address) in network for network in RESERVED)
        else:
            assert scenario == "web_shell_use"


def test_known_clients_stay_in_their_partition(events: pl.DataFrame, planted: pl.DataFrame) -> None:
    position = ["oddlog.position.epoch", "oddlog.position.topic", "oddlog.position.partition"]
    home = {row[0]: row[1:] for row in events.select("source.address", *position).iter_rows()}
    marks = planted_of(planted["_id"])
    for row, scenario, instance in zip(
        planted.select("source.address", *position).iter_rows(), marks["scenario"], marks["instance"], strict=True
    ):
        assert row[1:] == home.get(row[0], ("injected", scenario, instance))


def test_instances_are_small_beside_the_traffic(events: pl.DataFrame, planted: pl.DataFrame) -> None:
    marks = planted_of(planted["_id"])
    sizes = marks.group_by("scenario", "instance").len()["len"]
    assert sizes.max() <= 0.02 * len(events)  # type: ignore[operator]
    assert sizes.min() >= 12  # type: ignore[operator]


def test_the_same_seed_plants_the_same(events: pl.DataFrame, planted: pl.DataFrame) -> None:
    assert plant(events, seed=1).equals(planted)
    assert plant(events.sample(fraction=1.0, shuffle=True, seed=5), ["data_pull"], seed=1).height > 0
    other = plant(events, seed=2)
    assert not other["source.address"].equals(planted["source.address"])


def test_scenarios_and_instances_are_chosen(events: pl.DataFrame) -> None:
    some = plant(events, ["login_bruteforce", "data_pull"], seed=3, instances=1)
    assert set(planted_of(some["_id"]).unique().iter_rows()) == {("login_bruteforce", 0), ("data_pull", 0)}
    posts = some.filter(pl.col("http.request.method") == "POST")
    assert posts["url.path"].unique().to_list() == ["/login"]
    assert plant(events, [], seed=3).is_empty()


@pytest.mark.parametrize("count", [1, 5, 60])
def test_a_handful_of_events_is_enough(events: pl.DataFrame, count: int) -> None:
    few = events.head(count)
    found = set(planted_of(plant(few, seed=1)["_id"])["scenario"])
    # An outage needs requests that it can fail; they may all be assets.
    assert found >= set(SCENARIOS) - {"error_outage"}


def test_events_that_no_line_could_hold_do_no_harm(events: pl.DataFrame) -> None:
    odd = events.head(50).with_columns(
        pl.lit('/a "b" \\ c').alias("url.original"),
        pl.lit('says "hello"').alias("user_agent.original"),
        pl.lit(None, dtype=pl.Int32).alias("http.response.status_code"),
    )
    both = pl.concat([events.tail(500), odd])
    assert plant(both, seed=1, instances=1).height > 100
    assert plant(odd, seed=1, instances=1).height > 100


def test_what_cannot_be_planted_is_refused(events: pl.DataFrame) -> None:
    with pytest.raises(UsageError, match="dirscan"):
        plant(events, ["dirscan"])
    with pytest.raises(UsageError, match="no events"):
        plant(events.clear())
    with pytest.raises(UsageError, match="instances is 0"):
        plant(events, instances=0)


def test_planted_of_tells_nothing_of_others(events: pl.DataFrame) -> None:
    marks = planted_of(events["_id"])
    assert marks["scenario"].null_count() == marks["instance"].null_count() == len(events)
