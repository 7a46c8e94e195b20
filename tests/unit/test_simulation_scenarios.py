"""Each scenario: as many lines as asked, within its window, and with the marks that make it what it is."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from oddlog.events.logfile import records_from_lines
from oddlog.events.parse import parse
from oddlog.simulation import SCENARIOS, simulate
from oddlog.simulation.addresses import AddressPool
from oddlog.simulation.attacks import chosen_scenarios
from oddlog.simulation.ground import Ground, read_ground
from oddlog.simulation.planting import _as_requests
from oddlog.simulation.requests import REQUEST_SCHEMA, combined_lines

START = 1_772_400_000_000
ADDING = [name for name, scenario in SCENARIOS.items() if not scenario.breaks]


@pytest.fixture(scope="module")
def traffic() -> pl.DataFrame:
    lines = simulate(seed=8, lines=12_000, days=3, attacks=[]).lines
    return _as_requests(parse(records_from_lines([line.encode() for line in lines])).events)


@pytest.fixture(scope="module")
def ground(traffic: pl.DataFrame) -> Ground:
    return read_ground(traffic, np.random.default_rng(1), AddressPool(np.random.default_rng(2), reserved=True))


def play(
    name: str, ground: Ground, lines: int, seed: int = 1, window: tuple[int, int] = (START, START + 86_400_000)
) -> pl.DataFrame:
    make = SCENARIOS[name].make
    assert make is not None
    return make(np.random.default_rng(seed), ground, lines, *window).frame(SCENARIOS[name].label)


@pytest.mark.parametrize("name", ADDING)
@pytest.mark.parametrize("lines", [1, 7, 250, 4_000])
@pytest.mark.parametrize("length", [1_000, 86_400_000])
def test_as_many_lines_as_asked_within_the_window(name: str, ground: Ground, lines: int, length: int) -> None:
    rows = play(name, ground, lines, window=(START, START + length))
    assert rows.schema == pl.Schema(REQUEST_SCHEMA)
    assert len(rows) == lines
    assert rows["time"].is_between(START, START + length, closed="left").all()
    assert rows["label"].unique().to_list() == [f"attack:{name}"]


@pytest.mark.parametrize("name", ADDING)
def test_every_line_is_one_that_a_server_would_write(name: str, ground: Ground) -> None:
    rows = play(name, ground, 600)
    parsed = parse(records_from_lines([line.encode() for line in combined_lines(rows).to_list()]))
    assert parsed.dead.is_empty()
    assert parsed.events["url.original"].to_list() == rows["target"].to_list()
    assert parsed.events["http.response.status_code"].to_list() == rows["status"].to_list()
    assert (rows["bytes"] >= 0).all()


def test_the_ground_is_read_from_the_traffic(ground: Ground) -> None:
    assert ground.login == "/login"
    assert ground.pages[0] == "/"
    assert ground.origin == "https://www.example.org"
    assert ground.numbered.prefix == "/account/orders/"
    assert len(ground.numbered.known) >= 10
    assert ground.answer(np.random.default_rng(1), "/")[0] == 200
    assert ground.answer(np.random.default_rng(1), "/no-such-thing")[0] == 404
    assert not any("bot" in agent.lower() for agent in ground.agents)
    assert len(ground.busy) > 5


def test_a_directory_scan_guesses(ground: Ground) -> None:
    rows = play("directory_scan", ground, 400)
    assert rows["client"].n_unique() == 1
    assert rows["target"].n_unique() > 390
    assert (rows["status"] == 404).mean() > 0.9


def test_a_distributed_scan_comes_from_many(ground: Ground) -> None:
    rows = play("slow_distributed_scan", ground, 300)
    assert rows["client"].n_unique() > 60
    assert rows.group_by("client").len()["len"].max() <= 5  # type: ignore[operator]
    assert rows["agent"].n_unique() > 10


def test_brute_force_is_mostly_answered_200(ground: Ground) -> None:
    plays = [play("login_bruteforce", ground, 100, seed=seed) for seed in range(20)]
    assert all(rows["target"].unique().to_list() == ["/login"] for rows in plays)
    answered = [rows.filter(pl.col("method") == "POST")["status"][0] for rows in plays]
    assert set(answered) == {200, 401}
    assert answered.count(200) > answered.count(401)


def test_injections_go_into_real_pages(ground: Ground) -> None:
    rows = play("injection_probes", ground, 300)
    asked = rows.filter(pl.col("method") == "GET")
    paths = {page.split("?")[0] for page in ground.pages}
    assert set(asked["target"].str.split("?").list.first()) <= paths
    assert (asked["status"] == 200).mean() > 0.4


def test_a_shell_is_used_by_a_lone_client_or_a_busy_one(ground: Ground) -> None:
    busy = {client for client, _ in ground.busy}
    users = {play("web_shell_use", ground, 20, seed=seed)["client"][0] in busy for seed in range(12)}
    assert users == {True, False}
    for seed in range(6):
        rows = play("shell_from_busy_client", ground, 20, seed=seed)
        assert rows["client"].n_unique() == 1
        assert rows["client"][0] in busy
        assert rows["target"].str.split("?").list.first().n_unique() == 1
        assert (rows["status"] == 200).all()


def test_a_shell_from_a_busy_client_is_among_its_requests(ground: Ground, traffic: pl.DataFrame) -> None:
    start, end = int(traffic["time"][0]), int(traffic["time"][-1]) + 1
    rows = play("shell_from_busy_client", ground, 20, window=(start, end))
    own = traffic.filter(pl.col("client") == rows["client"][0])["time"].to_numpy()
    nearest = [np.abs(own - time).min() for time in rows["time"]]
    assert max(nearest) <= 121_000


def test_a_data_pull_counts(ground: Ground) -> None:
    rows = play("data_pull", ground, 200)
    numbers = rows["target"].str.extract(r"(\d+)$").cast(pl.Int64)
    assert rows["target"].str.starts_with("/account/orders/").all()
    assert rows["client"].n_unique() == 1
    assert (numbers.diff().drop_nulls() == 1).all()
    assert (rows["status"] == 200).mean() > 0.8


def test_a_botnet_asks_once_each(ground: Ground) -> None:
    rows = play("botnet_one_request", ground, 500)
    assert rows["client"].n_unique() == 500
    assert rows["target"].n_unique() == 1
    assert rows["agent"].n_unique() == 1


def test_the_marks_of_the_other_scenarios(ground: Ground) -> None:
    assert play("probes_answered_5xx", ground, 50)["status"].is_between(500, 503).all()
    rotating = play("rotating_user_agents", ground, 200)
    assert rotating["client"].n_unique() == 1
    assert rotating["agent"].n_unique() > 60
    posts = play("xmlrpc_posts", ground, 100)
    assert posts.select("method", "target", "status", "bytes").n_unique() == 1
    spread = play("distributed_bruteforce", ground, 200)
    assert spread["client"].n_unique() > 40
    assert (spread["status"] == 200).all()


def test_an_empty_ground_still_serves_every_scenario() -> None:
    one = pl.DataFrame(
        [{"time": 0, "client": "192.0.2.1", "method": "GET", "target": "/", "protocol": "HTTP/1.1", "status": 200,
          "bytes": 10, "referrer": None, "agent": None, "label": "benign"}],
        schema=REQUEST_SCHEMA,
    )  # fmt: skip
    ground = read_ground(one, np.random.default_rng(1), AddressPool(np.random.default_rng(1)))
    for name in ADDING:
        assert len(play(name, ground, 30)) == 30


def test_every_scenario_says_what_it_is() -> None:
    assert len(SCENARIOS) >= 12
    for name, scenario in SCENARIOS.items():
        assert scenario.name == name
        assert scenario.label == f"attack:{name}"
        assert scenario.sentence.endswith(".")
        assert len(scenario.sentence.split()) > 6
    assert chosen_scenarios(None) == list(SCENARIOS)
