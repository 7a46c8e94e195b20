"""Simulated traffic: exact, repeatable, readable by the parser, and shaped like people, programs and a release."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest

from oddlog.errors import UsageError
from oddlog.events.logfile import records_from_lines
from oddlog.events.parse import parse
from oddlog.simulation import SCENARIOS, Simulated, simulate

START = datetime(2026, 3, 2, tzinfo=UTC)
LINES = 30_000


@pytest.fixture(scope="module")
def made() -> Simulated:
    return simulate(seed=3, start=START, lines=LINES, days=6, release_after=0.5, attack_share=0.05)


@pytest.fixture(scope="module")
def events(made: Simulated) -> pl.DataFrame:
    """What the parser reads, beside what the simulation meant."""
    parsed = parse(records_from_lines([line.encode() for line in made.lines]))
    assert parsed.dead.is_empty(), parsed.dead["reason"].head(3).to_list()
    return pl.concat([parsed.events, made.frame.rename({"client": "meant"})], how="horizontal")


def test_every_line_is_read_as_it_was_meant(events: pl.DataFrame) -> None:
    assert len(events) == LINES
    assert events["source.address"].to_list() == events["meant"].to_list()
    assert events["@timestamp"].to_list() == events["time"].dt.truncate("1s").to_list()


def test_lines_are_sorted_and_within_the_period(made: Simulated) -> None:
    assert made.frame["time"].is_sorted()
    assert made.frame["time"][0] >= START
    assert made.frame["time"][-1] < made.end
    assert (made.end - made.start).days == 6


@pytest.mark.parametrize("lines", [1, 2, 17, 500, 4_001])
@pytest.mark.parametrize("attacks", [None, (), ("error_outage",)])
def test_the_number_of_lines_is_exact(lines: int, attacks: tuple[str, ...] | None) -> None:
    made = simulate(seed=1, lines=lines, attacks=attacks, attack_share=0.1, release_after=0.3)
    assert len(made.frame) == lines
    assert made.frame.null_count().sum_horizontal()[0] == 0


def test_rate_and_days_give_the_number_of_lines() -> None:
    made = simulate(seed=1, days=0.5, lines_per_day=4_000)
    assert len(made.frame) == 2_000
    assert (made.end - made.start).total_seconds() == 43_200


def test_labels_have_the_share_that_was_asked_for(made: Simulated) -> None:
    counts = dict(made.frame["label"].value_counts().iter_rows())
    assert counts.pop("benign") == pytest.approx(LINES * 0.95, abs=len(SCENARIOS))
    assert set(counts) == {scenario.label for scenario in SCENARIOS.values()}
    assert max(counts.values()) - min(counts.values()) <= 1


def test_without_attacks_all_is_benign() -> None:
    assert simulate(seed=1, lines=3_000, attacks=[]).frame["label"].unique().to_list() == ["benign"]
    assert simulate(seed=1, lines=3_000, attack_share=0).frame["label"].unique().to_list() == ["benign"]


def test_attacks_wait_for_their_time() -> None:
    made = simulate(seed=2, lines=20_000, days=4, attacks_after=0.5, attack_share=0.1)
    attacked = made.frame.filter(pl.col("label") != "benign")
    middle = made.start + (made.end - made.start) / 2
    assert len(attacked) == 2_000
    assert attacked["time"].min() >= middle  # type: ignore[operator]


def test_the_same_seed_gives_the_same_bytes_in_another_process() -> None:
    program = (
        "import hashlib\n"
        "from oddlog.simulation import simulate\n"
        "made = simulate(seed=11, lines=6000, release_after=0.5, attack_share=0.1)\n"
        "print(hashlib.sha256('\\n'.join(made.lines + made.labels).encode()).hexdigest())\n"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            check=True,
            env=os.environ | {"PYTHONHASHSEED": hash_seed, "POLARS_MAX_THREADS": threads},
        ).stdout
        for hash_seed, threads in (("1", "1"), ("77", "2"))
    }
    assert len(digests) == 1


def test_another_seed_is_another_site() -> None:
    one, other = (set(simulate(seed=seed, lines=2_000).lines) for seed in (1, 2))
    assert not one & other


def test_a_scenario_changes_no_other_one_and_no_benign_line() -> None:
    """Benign traffic does not depend on which attacks there are, where those add as many lines."""
    one = simulate(seed=4, lines=5_000, attacks=["data_pull"], attack_share=0.1).frame
    other = simulate(seed=4, lines=5_000, attacks=["xmlrpc_posts"], attack_share=0.1).frame
    benign = pl.col("label") == "benign"
    assert one.filter(benign)["line"].to_list() == other.filter(benign)["line"].to_list()


def test_a_release_moves_paths(made: Simulated, events: pl.DataFrame) -> None:
    sound = events.filter((pl.col("label") == "benign") & (pl.col("http.response.status_code") < 300))
    before, after = sound.filter(pl.col("time") < made.release), sound.filter(pl.col("time") >= made.release)

    def share(frame: pl.DataFrame, start: str) -> float:
        return float(frame["url.path"].str.starts_with(start).mean() or 0.0)  # type: ignore[arg-type]

    for old, new in (("/blog", "/articles"), ("/api/v1/", "/api/v2/"), ("/blog/tag/", "/topics/")):
        assert share(before, old) > 0.005
        assert share(before, new) == 0
        assert share(after, new) > 0.005
        assert share(after, old) < 0.2 * share(before, old)
    builds = [
        set(frame["url.path"].str.extract(r"^(/assets/app\.\w+\.css)$").drop_nulls()) for frame in (before, after)
    ]
    assert all(len(build) == 1 for build in builds)
    assert builds[0] != builds[1]
    redirects = events.filter(pl.col("http.response.status_code") == 301, pl.col("label") == "benign")
    assert redirects["time"].min() >= made.release  # type: ignore[operator]
    assert len(redirects) > 50


def test_there_is_day_and_night_and_a_weekend() -> None:
    made = simulate(seed=5, lines=40_000, days=7, attacks=[])
    hour = made.frame.group_by(pl.col("time").dt.hour().alias("hour")).len()
    sizes = dict(hour.iter_rows())
    assert sum(sizes[h] for h in (9, 10, 11, 14, 15)) > 1.6 * sum(sizes[h] for h in (0, 1, 2, 3, 23))
    day = dict(made.frame.group_by(pl.col("time").dt.weekday()).len().iter_rows())
    assert max(day[6], day[7]) < min(day[n] for n in range(1, 6))


def test_clients_differ_as_clients_do(events: pl.DataFrame) -> None:
    benign = events.filter(pl.col("label") == "benign")
    counts = benign["source.address"].value_counts(sort=True)["count"].to_numpy()
    top = counts[: len(counts) // 20].sum() / counts.sum()
    assert top > 0.3  # a twentieth of the clients makes a third of the lines and more
    assert np.median(counts) < 30
    assert (counts <= 2).mean() > 0.1
    assert benign["source.address"].str.contains(":").mean() > 0.01  # type: ignore[operator]
    assert benign["user_agent.original"].n_unique() > 100
    # Offices and carriers: several browsers behind one address.
    shared = benign.group_by("source.address").agg(pl.col("user_agent.original").n_unique().alias("n"))
    assert (shared["n"] > 3).sum() > 5


def test_referrers_agree_with_the_walk(events: pl.DataFrame) -> None:
    """A page of the site that is named as referrer was asked for before by the same client, with few exceptions."""
    people = events.filter(
        (pl.col("label") == "benign")
        & pl.col("http.request.referrer").str.starts_with("https://www.example.org/").fill_null(False)
    )
    seen = set(events.select(pl.struct("source.address", "url.original")).to_series().struct.unnest().iter_rows())
    known = [
        (address, referrer.removeprefix("https://www.example.org")) in seen
        for address, referrer in people.select("source.address", "http.request.referrer").iter_rows()
    ]
    assert len(known) > 5_000
    assert np.mean(known) > 0.95


def test_browsers_keep_what_they_have(events: pl.DataFrame) -> None:
    style = events.filter(pl.col("url.path").str.starts_with("/assets/app.") & (pl.col("label") == "benign"))
    status = dict(style["http.response.status_code"].value_counts().iter_rows())
    assert status[200] > 100
    assert status[304] > 20
    pages = events.filter(pl.col("url.path") == "/").height
    assert style.height < events.height * 0.12
    assert pages > 100


def test_normal_life_has_errors(events: pl.DataFrame) -> None:
    benign = events.filter(pl.col("label") == "benign")
    failed = benign.filter(pl.col("http.response.status_code") >= 400)
    assert 0.005 < failed.height / benign.height < 0.06
    paths = failed["url.path"]
    assert paths.str.starts_with("/apple-touch-icon").any()
    assert paths.str.contains(r"^/wiki/|\.html$|^/gallery/").any()
    for agent in ("Googlebot/2.1", "UptimeRobot", "Feedly|RSS|Miniflux|Thunderbird|Liferea|NewsBlur|Inoreader"):
        assert benign["user_agent.original"].str.contains(agent).any(), agent
    assert benign.filter(pl.col("url.path") == "/robots.txt").height > 0


def test_an_outage_fails_for_everyone_for_a_while(events: pl.DataFrame) -> None:
    out = events.filter(pl.col("label") == "attack:error_outage")
    assert out["http.response.status_code"].is_between(502, 504).all()
    assert out["source.address"].n_unique() > 10
    span = out["time"].max() - out["time"].min()  # type: ignore[operator]
    assert span.total_seconds() < 6 * 3600  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("wrong", "found"),
    [
        ({"attacks": ["dirscan"]}, "dirscan"),
        ({"lines": 0}, "lines is 0"),
        ({"days": -1.0}, "days is -1"),
        ({"lines": 10, "days": 1.0, "lines_per_day": 5.0}, "all given"),
        ({"release_after": 1.5}, "release_after is 1.5"),
        ({"attack_share": 0.99}, "attack_share is 0.99"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_what_makes_no_traffic_is_refused(wrong: dict[str, object], found: str) -> None:
    with pytest.raises(UsageError, match=found) as caught:
        simulate(**wrong)  # type: ignore[arg-type]
    assert caught.value.expected
    if "attacks" in wrong:
        assert "directory_scan" in caught.value.expected


def test_progress_is_told_and_grows() -> None:
    told: list[float] = []
    simulate(seed=1, lines=2_000, progress=lambda _what, share: told.append(share))
    assert told == sorted(told)
    assert told[-1] == 1.0
