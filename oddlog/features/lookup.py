"""Signals of events under a baseline: its frozen tables looked up. The formulas are in `signals.py`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from oddlog.features.baseline import STATUS_CLASSES, Baseline, Floats, Ints, KeyTable, padded
from oddlog.features.keys import Keys, keys_of
from oddlog.features.signals import (
    company,
    company_prior,
    conditional_rarity,
    is_error,
    level,
    rarity,
    status_class,
)


@dataclass(frozen=True, slots=True)
class Signals:
    """Signals of n events: float64 `client` [n, 5] as CLIENT_SIGNALS, `event` [n, 6] as EVENT_FEATURES."""

    client: Floats
    event: Floats


class Lookup:
    """Signals of events under one baseline. Holds no state: the same event always gives the same signals."""

    def __init__(self, baseline: Baseline) -> None:
        self.baseline = baseline
        self._company_total = padded(baseline.company_total)
        self._company_units = padded(baseline.company_units)

    def signals(self, events: pl.DataFrame) -> Signals:
        """Signals of a frame of events (columns of EVENT_SCHEMA), row by row."""
        keys = keys_of(events)
        path = self.baseline.path.codes(keys.paths["tpl"])
        return assemble(
            keys,
            event_rarities(self.baseline, keys, path, own=0),
            self._company(keys, path),
        )

    def _company(self, keys: Keys, path: Ints) -> Floats:
        base = self.baseline
        known = base.path.padded[:, path][:, keys.url]
        buckets = base.bucket_total.shape[1]
        bucket = level(known) * STATUS_CLASSES + status_class(keys.status)
        values = np.empty(known.shape)
        for kind in range(len(base.units)):
            place = np.minimum(bucket[kind], buckets - 1)
            inside = bucket[kind] < buckets
            prior = company_prior(
                np.where(inside, base.bucket_total[kind, place], 0.0),
                np.where(inside, base.bucket_units[kind, place], 0),
                float(base.general[kind]),
            )
            code = path[keys.url]
            values[kind] = company(self._company_total[kind, code], self._company_units[kind, code], prior)
        mean: Floats = values.mean(axis=0)
        return mean


def event_rarities(baseline: Baseline, keys: Keys, path: Ints, *, own: int) -> Floats:
    """p1, p2, tpl, tok, c_me, c_st of the rows [n, 6]; `path`: code of every distinct URL's path template.

    `own` = 1 leaves a line's own unit out of counts and units, as fitting must: it has all the line's keys.
    """
    units = baseline.units[:, None] - own

    def key_rarity(table: KeyTable, keys: pl.Series) -> Floats:
        mean: Floats = rarity(table.padded[:, table.codes(keys)] - own, units).mean(axis=0)
        return mean

    token = key_rarity(baseline.token, keys.token)
    length = len(keys.paths)
    total = np.bincount(keys.token_url, weights=token, minlength=length)
    tokens = np.bincount(keys.token_url, minlength=length)
    of_url = np.stack(
        [
            key_rarity(baseline.section, keys.paths["p1"]),
            key_rarity(baseline.subsection, keys.paths["p2"]),
            key_rarity(baseline.path, keys.paths["tpl"]),
            total / np.maximum(tokens, 1),
        ],
        axis=1,
    )
    row_path = path[keys.url]
    path_count = baseline.path.padded[:, row_path] - own
    method = baseline.method.codes(keys.method)
    status = baseline.status.codes(pl.Series("key", keys.status, dtype=pl.Int64))
    conditional = [
        conditional_rarity(pairs.count(row_path, code) - own, path_count, table.padded[:, code] - own, units).mean(
            axis=0
        )
        for pairs, table, code in (
            (baseline.path_method, baseline.method, method),
            (baseline.path_status, baseline.status, status),
        )
    ]
    return np.concatenate([of_url[keys.url], np.stack(conditional, axis=1)], axis=1)


def assemble(keys: Keys, rarities: Floats, company_of: Floats) -> Signals:
    """All signals of the rows; for standard files all but company, page and post are 0."""
    standard: npt.NDArray[np.bool_] = keys.paths["standard"].to_numpy()[keys.url]
    page = ~keys.paths["asset"].to_numpy()[keys.url]
    event = np.where(standard[:, None], 0.0, rarities)
    client = np.stack(
        [
            (is_error(keys.status) & ~standard).astype(np.float64),
            event[:, 3],
            company_of,
            page.astype(np.float64),
            (keys.method == "POST").to_numpy().astype(np.float64),
        ],
        axis=1,
    )
    return Signals(client, event)
