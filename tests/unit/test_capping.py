"""A capped baseline: the commonest keys as they were, all others as if they had never been there."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from oddlog.events.logfile import records_from_lines
from oddlog.events.parse import parse
from oddlog.features.baseline import Baseline
from oddlog.features.capping import capped
from oddlog.features.fitting import fit_baseline
from oddlog.features.keys import keys_of
from oddlog.features.lookup import Lookup
from oddlog.features.signals import rarity
from oddlog.simulation import simulate

MOST = 60


@pytest.fixture(scope="module")
def events() -> pl.DataFrame:
    made = simulate(seed=4, lines=2_500, days=2.0, attack_share=0.2)
    return parse(records_from_lines([line.encode() for line in made.lines])).events


@pytest.fixture(scope="module")
def baseline(events: pl.DataFrame) -> Baseline:
    return fit_baseline(events).baseline


def test_the_same_baseline_where_everything_fits(baseline: Baseline) -> None:
    assert capped(baseline) is baseline


def test_the_keys_of_the_most_units_are_kept(baseline: Baseline) -> None:
    small = capped(baseline, MOST)
    for name in ("token", "section", "path"):
        whole, table = getattr(baseline, name), getattr(small, name)
        assert len(table.keys) == MOST < len(whole.keys), name
        assert table.keys.is_sorted()
        np.testing.assert_array_equal(table.counts, whole.counts[:, whole.codes(table.keys)])
        dropped = ~whole.keys.is_in(table.keys.implode()).to_numpy()
        assert whole.counts[:, dropped].sum(axis=0).max() <= table.counts.sum(axis=0).min()
    assert len(small.path_status.keys) <= MOST
    np.testing.assert_array_equal(small.units, baseline.units)


def test_what_is_kept_looks_as_before_and_what_is_dropped_as_unknown(events: pl.DataFrame, baseline: Baseline) -> None:
    small = capped(baseline, MOST)
    before, after = Lookup(baseline).signals(events).event, Lookup(small).signals(events).event
    keys = keys_of(events)
    kept = keys.paths["tpl"].is_in(small.path.keys.implode()).to_numpy()[keys.url]
    standard = keys.paths["standard"].to_numpy()[keys.url]
    path = 2  # column of the rarity of the path
    assert 0 < (~kept & ~standard).sum() < kept.sum()
    np.testing.assert_array_equal(after[kept, path], before[kept, path])
    unknown = rarity(np.zeros(1, dtype=np.int64), baseline.units[:, None]).mean()
    np.testing.assert_allclose(after[~kept & ~standard, path], unknown)
    # Pairs are held under new numbers: their counts are those of before, or none.
    codes = small.path.codes(small.path.keys), baseline.path.codes(small.path.keys)
    for status in small.status.keys.to_list():
        code = [table.status.codes(pl.Series([status])).repeat(MOST) for table in (small, baseline)]
        now = small.path_status.count(codes[0], code[0])
        then = baseline.path_status.count(codes[1], code[1])
        assert ((now == then) | (now == 0)).all()
    assert small.path_status.counts.sum() > 0.5 * baseline.path_status.counts.sum()


def test_it_survives_its_bytes(events: pl.DataFrame, baseline: Baseline) -> None:
    small = capped(baseline, MOST)
    again = Baseline.from_arrow(small.to_arrow())
    assert again.digest == small.digest != baseline.digest
    np.testing.assert_array_equal(Lookup(again).signals(events).client, Lookup(small).signals(events).client)
