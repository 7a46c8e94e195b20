"""Fitting of a baseline from a period of events, and the period's signals, own unit left out."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import polars as pl

from oddlog.errors import UsageError
from oddlog.features.baseline import STATUS_CLASSES, Baseline, Floats, Ints, KeyTable, PairTable
from oddlog.features.keys import Keys, keys_of
from oddlog.features.lookup import assemble, conditional_rarities, url_rarities
from oddlog.features.signals import Signals, company, company_prior, is_error, level, status_class

MIN_USER_AGENTS = 20
"""Fewer distinct user agents than this say nothing: then behaviours alone are counted."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """A baseline and what the lines it was fitted on look like under it, each line's own unit left out.

    `behaviour` int64 [n]: number of the line's behaviour; `client_hour` int64 [n]: of its client-hour.
    """

    baseline: Baseline
    signals: Signals
    behaviour: Ints
    client_hour: Ints


def fit_baseline(events: pl.DataFrame) -> Fitted:
    """Tables of a period of events (columns of EVENT_SCHEMA), unlabelled. Raises UsageError on no events."""
    if events.is_empty():
        raise UsageError("there are no events to fit a baseline on", expected="at least one event")
    keys = keys_of(events)
    path, path_keys = _coded(keys.paths["tpl"])
    row_path = path[keys.url]
    client_hour = _client_hours(events)
    behaviour = _behaviours(client_hour, row_path)
    kinds = [behaviour]
    agents = events["user_agent.original"].fill_null("-")
    if agents.n_unique() >= MIN_USER_AGENTS:
        kinds.append(_coded(agents)[0])

    method, method_keys = _coded(keys.method)
    status, status_keys = _coded(pl.Series("key", keys.status, dtype=pl.Int64))
    token, token_keys = _coded(keys.token)
    section, section_keys = _coded(keys.paths["p1"])
    subsection, subsection_keys = _coded(keys.paths["p2"])

    def table(names: pl.Series, code: Ints) -> KeyTable:
        return KeyTable(names, np.stack([_units_with(unit, code, len(names)) for unit in kinds]))

    def pairs(code: Ints, width: int) -> PairTable:
        pair_keys, pair = np.unique(row_path * width + code, return_inverse=True)
        return PairTable(pair_keys, np.stack([_units_with(u, pair, len(pair_keys)) for u in kinds]), width)

    paths = table(path_keys, row_path)
    error = is_error(keys.status) & ~keys.paths["standard"].to_numpy()[keys.url]
    companies = [
        _Company(unit, row_path, status_class(keys.status), error.astype(np.float64), paths.counts[kind])
        for kind, unit in enumerate(kinds)
    ]
    buckets = max(c.bucket_total.size for c in companies)
    baseline = Baseline(
        units=np.array([unit.max() + 1 for unit in kinds], dtype=np.int64),
        token=KeyTable(token_keys, np.stack([_units_with_tokens(u, keys, token, len(token_keys)) for u in kinds])),
        section=table(section_keys, section[keys.url]),
        subsection=table(subsection_keys, subsection[keys.url]),
        path=paths,
        method=table(method_keys, method),
        status=table(status_keys, status),
        path_method=pairs(method, len(method_keys)),
        path_status=pairs(status, len(status_keys)),
        company_total=np.stack([c.total for c in companies]),
        company_units=np.stack([c.units for c in companies]),
        bucket_total=np.stack([np.pad(c.bucket_total, (0, buckets - c.bucket_total.size)) for c in companies]),
        bucket_units=np.stack([np.pad(c.bucket_units, (0, buckets - c.bucket_units.size)) for c in companies]),
        general=np.array([c.general for c in companies]),
        client_prior=np.empty(0),
    )
    of_url = url_rarities(baseline, keys, path, own=1)[keys.url]
    of_path = conditional_rarities(baseline, row_path, keys.method, keys.status, own=1)
    signals = assemble(
        keys.paths["standard"].to_numpy()[keys.url],
        keys.paths["asset"].to_numpy()[keys.url],
        keys.method,
        keys.status,
        np.concatenate([of_url, of_path], axis=1),
        np.stack([c.left_out for c in companies]).mean(axis=0),
    )
    prior = _mean_of_means(_coded(events["source.address"])[0], signals.client)
    return Fitted(_with_prior(baseline, prior), signals, behaviour, client_hour)


def units_of(events: pl.DataFrame) -> tuple[Ints, Ints]:
    """Number of the behaviour of every row, and of its client-hour, int64 [n] each: what `Fitted` tells, unfitted."""
    keys = keys_of(events)
    client_hour = _client_hours(events)
    return _behaviours(client_hour, _coded(keys.paths["tpl"])[0][keys.url]), client_hour


def _with_prior(baseline: Baseline, prior: Floats) -> Baseline:
    return replace(baseline, client_prior=prior)


def _coded(values: pl.Series) -> tuple[Ints, pl.Series]:
    """Code of every value, and the distinct values, sorted: codes are places in them."""
    keys = values.unique().sort().alias("key")
    table = KeyTable(keys, np.zeros((1, len(keys)), dtype=np.int64))
    return table.codes(values), keys


def _client_hours(events: pl.DataFrame) -> Ints:
    hours = events.select(
        pl.struct(pl.col("source.address"), pl.col("@timestamp").dt.truncate("1h")).rank("dense")
    ).to_series()
    return hours.to_numpy().astype(np.int64) - 1


def _behaviours(client_hour: Ints, path: Ints) -> Ints:
    """Number of the behaviour of every row: client-hours with equal sets of path templates share one."""
    sets = (
        pl.DataFrame({"hour": client_hour, "path": path})
        .group_by("hour")
        .agg(pl.col("path").unique().sort())
        .sort("hour")
    )
    number: dict[bytes, int] = {}
    of_hour = np.array([number.setdefault(s.to_numpy().tobytes(), len(number)) for s in sets["path"]])
    return of_hour[client_hour].astype(np.int64)


def _units_with(unit: Ints, key: Ints, n_keys: int) -> Ints:
    """In how many distinct units every key occurs [n_keys]."""
    return np.bincount(np.unique(unit * n_keys + key) % n_keys, minlength=n_keys).astype(np.int64)


def _units_with_tokens(unit: Ints, keys: Keys, token: Ints, n_tokens: int) -> Ints:
    """The same for tokens: those of every distinct URL of a unit."""
    urls = len(keys.paths)
    held = np.unique(unit * urls + keys.url)
    lengths = np.bincount(keys.token_url, minlength=urls)
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    count = lengths[held % urls]
    # Tokens are grouped by URL: those of the i-th (unit, URL) are a slice of `token`.
    place = np.repeat(starts[held % urls] - np.concatenate([[0], np.cumsum(count)[:-1]]), count) + np.arange(
        count.sum()
    )
    if not n_tokens:
        return np.zeros(0, dtype=np.int64)
    return _units_with(np.repeat(held // urls, count), token[place], n_tokens)


def _mean_of_means(client: Ints, signals: Floats) -> Floats:
    """Mean over clients of each one's own mean [signals]."""
    lines = np.bincount(client)
    return np.array([(np.bincount(client, weights=x) / lines).mean() for x in signals.T])


class _Company:
    """The company that paths keep, over one kind of unit: tables, and the rows' values, own unit left out.

    f(u, path) = share of failed requests among unit u's requests for other paths.
    """

    def __init__(self, unit: Ints, path: Ints, status: Ints, error: Floats, path_count: Ints) -> None:
        paths, units = len(path_count), int(unit.max()) + 1
        lines_of_unit = np.bincount(unit, minlength=units)
        errors_of_unit = np.bincount(unit, weights=error, minlength=units)
        self.general = float((errors_of_unit / lines_of_unit).mean())

        pair_keys, pair = np.unique(unit * paths + path, return_inverse=True)
        pair_unit, pair_path = pair_keys // paths, pair_keys % paths
        elsewhere = lines_of_unit[pair_unit] - np.bincount(pair)
        failed = errors_of_unit[pair_unit] - np.bincount(pair, weights=error)
        has = elsewhere > 0
        f = np.where(has, failed / np.maximum(elsewhere, 1), 0.0)
        self.total: Floats = np.bincount(pair_path, weights=f, minlength=paths).astype(np.float64)
        self.units = np.bincount(pair_path, weights=has, minlength=paths).astype(np.int64)

        # A path is as well known as it is among the others: as it will be to a newcomer.
        bucket = level(path_count - 1)[path] * STATUS_CLASSES + status
        buckets = (int(level(path_count - 1).max()) + 1) * STATUS_CLASSES
        in_bucket_keys, in_bucket = np.unique(unit * buckets + bucket, return_inverse=True)
        lines = np.bincount(in_bucket, weights=has[pair])
        counted = lines > 0
        own = np.where(counted, np.bincount(in_bucket, weights=f[pair]) / np.maximum(lines, 1), 0.0)
        self.bucket_total = np.bincount(in_bucket_keys % buckets, weights=own, minlength=buckets)
        self.bucket_units = np.bincount(in_bucket_keys % buckets, weights=counted, minlength=buckets).astype(np.int64)

        prior = company_prior(
            self.bucket_total[bucket] - own[in_bucket],
            self.bucket_units[bucket] - counted[in_bucket],
            self.general,
        )
        self.left_out: npt.NDArray[np.float64] = company(
            self.total[path] - f[pair], self.units[path] - has[pair], prior
        )
