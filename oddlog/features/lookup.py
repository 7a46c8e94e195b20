"""Signals of events under a baseline: its frozen tables looked up. The formulas are in `signals.py`."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl

from oddlog.features.baseline import STATUS_CLASSES, Baseline, Floats, Ints, KeyTable, padded
from oddlog.features.keys import UrlKeys, methods_of, statuses_of, url_keys, urls_of
from oddlog.features.requests import RequestMemory
from oddlog.features.signals import (
    Signals,
    company,
    company_prior,
    conditional_rarity,
    is_error,
    level,
    rarity,
    status_class,
)

Bools = npt.NDArray[np.bool_]


class Lookup:
    """Signals of events under one baseline. The same event always gives the same signals."""

    def __init__(self, baseline: Baseline) -> None:
        self.baseline = baseline
        self._memory = RequestMemory(self._signals)
        self._company_total = padded(baseline.company_total)
        self._company_units = padded(baseline.company_units)

    def signals(self, events: pl.DataFrame) -> Signals:
        """Signals of a frame of events (columns of EVENT_SCHEMA), row by row."""
        return self._memory.signals(events)

    def _signals(self, requests: pl.DataFrame) -> Signals:
        keys = url_keys(urls_of(requests))
        path = self.baseline.path.codes(keys.paths["tpl"])
        method, status = methods_of(requests), statuses_of(requests)
        rarities = [
            url_rarities(self.baseline, keys, path, own=0),
            conditional_rarities(self.baseline, path, method, status, own=0),
        ]
        return assemble(
            keys.paths["standard"].to_numpy(),
            keys.paths["asset"].to_numpy(),
            method,
            status,
            np.concatenate(rarities, axis=1),
            self._company(path, status),
        )

    def _company(self, path: Ints, status: Ints) -> Floats:
        base = self.baseline
        known = base.path.padded[:, path]
        buckets = base.bucket_total.shape[1]
        bucket = level(known) * STATUS_CLASSES + status_class(status)
        values = np.empty(known.shape)
        for kind in range(len(base.units)):
            place = np.minimum(bucket[kind], buckets - 1)
            inside = bucket[kind] < buckets
            prior = company_prior(
                np.where(inside, base.bucket_total[kind, place], 0.0),
                np.where(inside, base.bucket_units[kind, place], 0),
                float(base.general[kind]),
            )
            values[kind] = company(self._company_total[kind, path], self._company_units[kind, path], prior)
        mean: Floats = values.mean(axis=0)
        return mean


def url_rarities(baseline: Baseline, keys: UrlKeys, path: Ints, *, own: int) -> Floats:
    """p1, p2, tpl, tok of URLs [m, 4]; `path`: code of each one's template.

    `own` = 1 leaves a line's own unit out of counts and units, as fitting must: it has all the line's keys.
    """
    units = baseline.units[:, None] - own

    def key_rarity(table: KeyTable, code: Ints) -> Floats:
        mean: Floats = rarity(table.padded[:, code] - own, units).mean(axis=0)
        return mean

    length = len(keys.paths)
    token = key_rarity(baseline.token, baseline.token.codes(keys.token))
    total = np.bincount(keys.token_url, weights=token, minlength=length)
    tokens = np.bincount(keys.token_url, minlength=length)
    return np.stack(
        [
            key_rarity(baseline.section, baseline.section.codes(keys.paths["p1"])),
            key_rarity(baseline.subsection, baseline.subsection.codes(keys.paths["p2"])),
            key_rarity(baseline.path, path),
            total / np.maximum(tokens, 1),
        ],
        axis=1,
    )


def conditional_rarities(baseline: Baseline, path: Ints, method: pl.Series, status: Ints, *, own: int) -> Floats:
    """c_me, c_st of rows [n, 2]; `path`: code of each row's template; `own` as in `url_rarities`."""
    units = baseline.units[:, None] - own
    count = baseline.path.padded[:, path] - own
    values = [
        conditional_rarity(pairs.count(path, code) - own, count, table.padded[:, code] - own, units).mean(axis=0)
        for pairs, table, code in (
            (baseline.path_method, baseline.method, baseline.method.codes(method)),
            (baseline.path_status, baseline.status, baseline.status.codes(pl.Series(status, dtype=pl.Int64))),
        )
    ]
    return np.stack(values, axis=1)


def assemble(
    standard: Bools, asset: Bools, method: pl.Series, status: Ints, rarities: Floats, company_of: Floats
) -> Signals:
    """All signals of the rows; for standard files all but company, page and post are 0."""
    event = np.where(standard[:, None], 0.0, rarities)
    client = np.stack(
        [
            (is_error(status) & ~standard).astype(np.float64),
            event[:, 3],
            company_of,
            (~asset).astype(np.float64),
            (method == "POST").to_numpy().astype(np.float64),
        ],
        axis=1,
    )
    return Signals(client, event)
