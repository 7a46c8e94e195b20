"""What is judged of a batch, without store, registry or Evidently: limits, chance, shares, flow, words, page."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from monitoring.batch import Batch
from monitoring.comparison import distances
from monitoring.expected import SKETCH_POINTS, Expected
from monitoring.figures import Figures
from monitoring.judgement import Measure, Verdict, judge
from monitoring.limits import DEFAULT, Limits, load_limits
from monitoring.plots import distribution_svg
from monitoring.words import sentence
from oddlog.errors import UsageError
from oddlog.features.declaration import FEATURE_NAMES
from oddlog.scoring.distance import weighted_points

ROOT = Path(__file__).resolve().parents[2]
START = dt.datetime(2024, 3, 1, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)
COLUMNS = [*FEATURE_NAMES, "score", "severity"]
FIGURES = Figures(
    events=10_000, worth=400, alert_rate=0.01, statuses={"2xx": 0.9, "3xx": 0.06, "4xx": 0.04, "5xx": 0.0},
    unseen_paths=0.02, new_clients=0.6, busiest=0.05,
)  # fmt: skip


def points(shift: float = 0.0) -> pl.DataFrame:
    values = np.sort(np.random.default_rng(1).normal(size=SKETCH_POINTS)) + shift
    return pl.DataFrame(dict.fromkeys(COLUMNS, values))


def expected(**changes: Any) -> Expected:
    base = Expected("reference", START, START + HOUR, points(), FIGURES, worth=2_000, pace=0.1)
    return replace(base, **changes)


def batch(shift: float = 0.0, **changes: Any) -> Batch:
    own = {name: value for name, value in changes.items() if name in Batch.__dataclass_fields__}
    figures = replace(FIGURES, **{name: value for name, value in changes.items() if name not in own})
    base = Batch(
        since=START, until=START + HOUR, scored=10_000, compared=10_000, clients=600, points=points(shift), missing={},
        figures=figures, pending=0.0, dead={}, lateness=1.0,
    )  # fmt: skip
    return replace(base, **own)


def verdict(one: Batch, other: Expected | None = None, limits: Limits = DEFAULT) -> Verdict:
    other = other or expected()
    found = {}
    if one.points is not None and other.points is not None:
        found = distances(other.points, one.points, dict.fromkeys(COLUMNS, 0.3))
    return judge(limits, one, other, found)


def of(found: Verdict, name: str) -> Measure:
    return next(measure for measure in found.measures if measure.name == name)


def test_a_batch_as_expected_has_not_drifted() -> None:
    found = verdict(batch())
    assert (found.drifted, found.by, found.share) == (False, [], 0.0)
    assert {m.name for m in found.measures} > {*COLUMNS, "volume", "parse_failures", "alert_rate", "status_4xx"}


@pytest.mark.parametrize(
    ("change", "by"),
    [
        ({"alert_rate": 0.08}, ["alert_rate"]),
        ({"statuses": {"2xx": 0.7, "3xx": 0.06, "4xx": 0.04, "5xx": 0.2}}, ["status_2xx", "status_5xx"]),
        ({"unseen_paths": 0.2}, ["unseen_paths"]),
        ({"unseen_paths": 0.0}, []),  # fewer unknown paths are no harm
        ({"new_clients": 0.1}, ["new_clients"]),
        ({"busiest": 0.5, "worth": 4}, ["dominance"]),
        ({"events": 1_500}, ["volume"]),
        ({"events": 60_000}, ["volume"]),
        ({"events": 0, "scored": 0, "points": None, "alert_rate": None, "statuses": {}, "unseen_paths": None,
          "new_clients": None, "busiest": None, "worth": 0, "pending": None, "lateness": None}, ["volume"]),
        ({"dead": {"no_format": 400}}, ["parse_failures"]),
        ({"dead": {"refused": 400}}, ["dead_letters"]),
        ({"pending": 0.5}, ["pending"]),
        ({"lateness": 4_000.0}, ["lateness"]),
        ({"shift": 0.6}, ["features", "score", "severity"]),
    ],
)  # fmt: skip
def test_each_change_is_told_by_its_own_measure(change: dict[str, Any], by: list[str]) -> None:
    found = verdict(batch(**change))
    assert sorted(found.by) == sorted(by)
    assert found.drifted == bool(by)


def test_what_few_clients_do_by_chance_is_no_drift() -> None:
    """The same effect, of four hundred clients and of ten."""
    assert verdict(batch(0.5)).drifted
    few = verdict(batch(0.5, worth=10))
    assert not few.drifted
    assert of(few, "score").limit > of(verdict(batch(0.5)), "score").limit + 0.4
    none = verdict(batch(0.5, worth=3))
    assert of(none, "score").effect is None
    assert "fewer than 5" in of(none, "score").note


def test_a_client_that_dominates_does_not_excuse_itself_and_a_quiet_hour_is_excused() -> None:
    limit = of(verdict(batch()), "dominance").limit
    assert of(verdict(batch(worth=4)), "dominance").limit == limit  # by what it is worth itself
    night = expected(figures=replace(FIGURES, worth=8))  # by what such an hour is usually worth
    assert of(verdict(batch(), night), "dominance").limit == pytest.approx(limit + 0.3, abs=0.05)
    few = batch(busiest=0.33, worth=4)
    assert verdict(few).by == ["dominance"]
    assert verdict(few, night).by == []


def test_a_table_that_is_not_declared_is_not_asked() -> None:
    found = verdict(
        batch(0.6, events=5_000, pending=0.9), limits=Limits.model_validate({"pending": {"max_share": 0.5}})
    )
    assert [m.name for m in found.measures] == ["pending"]
    assert found.by == ["pending"]


def test_without_figures_of_what_is_usual_distances_and_absolute_limits_are_judged() -> None:
    found = verdict(batch(0.6, dead={"empty": 500}), expected(figures=None))
    assert set(found.by) == {"features", "score", "severity", "parse_failures"}
    assert "volume" not in {m.name for m in found.measures}


def test_how_much_came_is_not_judged_by_a_part_of_the_hours() -> None:
    found = verdict(batch(events=100_000), expected(complete=False))
    assert (of(found, "volume").effect, found.drifted) == (None, False)
    assert sentence(of(found, "volume")).startswith("events: 100,000 (not judged: ")


def test_a_feature_that_is_gone_has_drifted_and_one_that_never_was_is_not_judged() -> None:
    nothing = pl.lit(None, dtype=pl.Float64)
    gone = verdict(batch(points=points().with_columns(path_rarity=nothing)))
    assert of(gone, "path_rarity").drifted
    assert gone.measures[0].name == "path_rarity"
    never = verdict(batch(), expected(points=points().with_columns(path_rarity=nothing)))
    assert not of(never, "path_rarity").drifted
    assert "not judged" in of(never, "path_rarity").note


def test_a_mixture_is_weighted() -> None:
    low, high = np.zeros(50), np.ones(20)
    assert weighted_points([low, high], [1, 3], 100).mean() == pytest.approx(0.75)
    assert weighted_points([low, high, np.empty(0)], [1, 0, 5], 10).tolist() == [0.0] * 10
    assert weighted_points([low], [0], 10).size == 0


def test_the_files_limits_are_the_built_in_ones() -> None:
    assert load_limits(ROOT / "drift.toml") == DEFAULT


def test_without_a_file_the_built_in_limits_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_limits() == DEFAULT
    (tmp_path / "drift.toml").write_text("[volume]\nfactor = 7\n")
    found = load_limits()
    assert found.volume is not None
    assert (found.volume.factor, found.score) == (7, None)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[volumes]\nfactor = 3", "there is no table [volumes]"),
        ("[volume]\nfacto = 3", "[volume] has no field 'facto'"),
        ("[volume]\nfactor = 0.5", "[volume] factor: Input should be greater than 1"),
        ("[features.limits]\npath = 1.0", "there is no feature 'path'"),
        ("[features.limits]\npath_rarity = -1.0", "the limit of path_rarity is -1"),
        ("[volume", "is no TOML"),
        ("[batch]\nmin_events = 5", "declares no limit"),
    ],
)
def test_a_file_that_is_wrong_is_told_by_name(tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "d.toml"
    file.write_text(text)
    with pytest.raises(UsageError) as caught:
        load_limits(file)
    assert told in str(caught.value)
    with pytest.raises(UsageError, match="no file of limits"):
        load_limits(tmp_path / "none.toml")


def test_sentences() -> None:
    found = verdict(batch(events=1_500, dead={"no_format": 100}, unseen_paths=0.2))
    assert sentence(of(found, "volume")) == "events: 10,000 expected -> 1,500, 6.7 times fewer"
    assert sentence(of(found, "unseen_paths")).endswith("does not know: 2 % -> 20 %")
    assert sentence(of(found, "parse_failures")).startswith("the share of records that fit no format: 6.2 %, at most")
    half = pl.Series([0.02] * 60 + [0.03] * 40)
    measure = Measure("client_error_1h", "feature", "sd", 0.09, 0.02, 1.0, 0.3, True)
    assert sentence(measure, half * 4, half) == (
        "the share of this client's requests in the last hour that failed: median 2 % -> 8 %"
    )


def test_less_of_what_only_counts_upwards_stands_behind_what_differs() -> None:
    found = verdict(batch(busiest=0.0001, unseen_paths=0.0, shift=0.1))
    names = [measure.name for measure in found.measures]
    for name in ("unseen_paths", "dominance"):
        measure = found.measures[names.index(name)]
        assert (measure.effect or 0.0) < -0.1
        assert names.index(name) > max(names.index(column) for column in COLUMNS)


def test_a_plot_has_both_sides_and_needs_values() -> None:
    plot = distribution_svg(pl.Series([0.0, 1.0, 2.0]), pl.Series([5.0, 6.0]), title="x", show=str)
    assert plot.count("<path") == 2
    assert len(plot) < 6_000
    assert distribution_svg(pl.Series([1.0, 1.0]), pl.Series([1.0]), title="x", show=str).count("<path") == 2
    assert distribution_svg(pl.Series([], dtype=pl.Float64), pl.Series([5.0]), title="x", show=str) == ""
