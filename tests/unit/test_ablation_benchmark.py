"""`python -m benchmarks.ablation`, small: every part is really taken away, the table, and what is refused."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from benchmarks.ablation import VARIANTS, WHOLE, main, table
from oddlog.events.logfile import records_from_lines
from oddlog.events.parse import parse
from oddlog.features.compute import fit_features
from oddlog.features.declaration import FEATURE_NAMES
from oddlog.simulation import simulate


@pytest.fixture(scope="module")
def events() -> pl.DataFrame:
    made = simulate(seed=2, lines=2_500, days=2.0, attack_share=0.1)
    return parse(records_from_lines([line.encode() for line in made.lines])).events


def test_what_is_replaced_changes_the_features_and_is_put_back(events: pl.DataFrame) -> None:
    whole = fit_features(events)[1].features
    replaced = [variant for variant in VARIANTS if variant.replaced]
    assert len(replaced) == 4
    for variant in replaced:
        with ExitStack() as stack:
            for replace in variant.replaced:
                stack.enter_context(replace())
            assert not np.array_equal(fit_features(events)[1].features, whole), variant.without
        assert np.array_equal(fit_features(events)[1].features, whole)


def test_every_feature_is_taken_away_by_some_variant() -> None:
    assert {name for variant in VARIANTS for name in variant.constant} == set(FEATURE_NAMES)


def test_one_log_and_no_site(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = simulate(seed=2, lines=2_500, days=2.0, attack_share=0.1)
    (tmp_path / "log").write_text("".join(f"{line}\n" for line in made.lines))
    (tmp_path / "labels").write_text("".join(f"{label}\n" for label in made.labels))
    arguments = ["--log", str(tmp_path / "log"), "--labels", str(tmp_path / "labels"), "--sites", "0", "--json"]
    assert main([*arguments, "--algorithm", "surprise"]) == 0
    found = json.loads(capsys.readouterr().out)["algorithms"]["surprise"]
    # Variants of other detectors' parameters are not asked of this one.
    assert list(found) == [variant.without for variant in VARIANTS if not variant.parameters]
    (whole,) = found[WHOLE][tmp_path.name]
    (blind,) = found["the client's features"][tmp_path.name]
    assert whole > blind


def test_the_table_gives_the_mean_change() -> None:
    found = {WHOLE: {"a": [1.0, 0.8], "b": [0.5]}, "company": {"a": [0.8, 0.8], "b": [0.4]}}
    assert table(found, "surprise").splitlines()[2:] == [
        f"| {WHOLE} | .90 | .50 |  |",
        "| company | .80 | .40 | -0.100 |",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--log", "somewhere"], "--labels"),
        (["--sites", "0"], "nothing to measure"),
        (["--sites", "-1"], "--sites"),
        (["--log", "nowhere", "--labels", "nowhere"], "nowhere"),
    ],
)
def test_wrong_arguments(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert message in capsys.readouterr().err
