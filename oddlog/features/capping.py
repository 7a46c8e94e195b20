"""A baseline of bounded size: the keys that most units have. Fitting and looking up are elsewhere."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from oddlog.features.baseline import Baseline, Ints, KeyTable, PairTable

MOST_KEYS = 200_000
"""Keys that a table of a model's baseline holds at most. A site with more has nearly all the rest from scanners."""


def capped(baseline: Baseline, most: int = MOST_KEYS) -> Baseline:
    """The baseline with at most `most` keys a table, those of the most units (of equals, the first in order).

    A key that is dropped is as unknown as one that never was there: it counts 0 and keeps the company of new paths, so
    that what is rare is never taken for usual. N, the priors and the buckets stay those of the whole period. The same
    object where everything fits.
    """
    tables = (baseline.token, baseline.section, baseline.subsection, baseline.path, baseline.method, baseline.status)
    pairs = (baseline.path_method, baseline.path_status)
    if max(counts.shape[1] for counts in (*(t.counts for t in tables), *(p.counts for p in pairs))) <= most:
        return baseline
    path, method, status = (_kept(table.counts, most) for table in (baseline.path, baseline.method, baseline.status))
    return replace(
        baseline,
        token=_of(baseline.token, _kept(baseline.token.counts, most)),
        section=_of(baseline.section, _kept(baseline.section.counts, most)),
        subsection=_of(baseline.subsection, _kept(baseline.subsection.counts, most)),
        path=_of(baseline.path, path),
        method=_of(baseline.method, method),
        status=_of(baseline.status, status),
        path_method=_pairs_of(baseline.path_method, len(baseline.path.keys), path, method, most),
        path_status=_pairs_of(baseline.path_status, len(baseline.path.keys), path, status, most),
        company_total=baseline.company_total[:, path],
        company_units=baseline.company_units[:, path],
    )


def _kept(counts: Ints, most: int) -> Ints:
    """Places of the `most` keys with the largest sums over the kinds [k], in order."""
    commonest = np.argsort(-counts.sum(axis=0), kind="stable")[:most]
    return np.sort(commonest).astype(np.int64)


def _of(table: KeyTable, kept: Ints) -> KeyTable:
    return KeyTable(table.keys.gather(kept), table.counts[:, kept])


def _pairs_of(pairs: PairTable, paths: int, path: Ints, other: Ints, most: int) -> PairTable:
    """Pairs of kept keys, under the numbers that these have now."""
    path_now, other_now = np.full(paths, -1), np.full(pairs.width, -1)
    path_now[path], other_now[other] = np.arange(len(path)), np.arange(len(other))
    first, second = path_now[pairs.keys // pairs.width], other_now[pairs.keys % pairs.width]
    held = np.flatnonzero((first >= 0) & (second >= 0))
    held = held[_kept(pairs.counts[:, held], most)]
    keys = (first[held] * len(other) + second[held]).astype(np.int64)
    return PairTable(keys, pairs.counts[:, held], len(other))
