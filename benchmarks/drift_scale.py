"""`python -m benchmarks.drift_scale`: a drift check of a large batch, beside Evidently on all rows of it.

`cost`: one batch of `--events` events in a store; what `oddlog drift` reads and compares, against reading all rows
and giving them to Evidently with the same reference: seconds of both in one run, and the peak of memory of ours in a
process of its own; from the embedded store, or a real Elasticsearch (`--store elasticsearch`). `verdicts`: a simulated
month, batch by batch: the share of (feature, batch) pairs on which both say the same with the same limits; and the same
for a sample of whole clients of that size, which is not what is in force. Exit code 1 where ours is not 10 times
faster, takes more than setting drift.memory_mb, or agrees on less than 95 %.
"""

from __future__ import annotations

import argparse
import datetime as dt
import multiprocessing
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import polars as pl

from benchmarks.child import peak
from benchmarks.drift_site import CHANGES, SCALE_DAYS, Site, clean, embedded, fill, grown, make_site, url_of
from benchmarks.machine import machine
from benchmarks.program import told_by_the_clock
from benchmarks.pull import elasticsearch
from benchmarks.tables import markdown, publish
from monitoring.batch import SCORES, rows_within
from monitoring.comparison import METHOD, compare, distances
from monitoring.drift import measure
from monitoring.judgement import limit_of
from monitoring.limits import Limits, load_limits
from monitoring.reference import Reference
from oddlog.connectors.by_url import open_store
from oddlog.connectors.store import EventQuery, Store
from oddlog.errors import OddlogError
from oddlog.events.schema import FEATURE_PREFIX
from oddlog.settings import Settings, StoreSettings
from training.sample import in_sample

CLIENT = "source.address"
SETTINGS = Settings().drift
SAMPLE = rows_within(SETTINGS.memory_mb, SETTINGS.sample_rows)
LEAST_RATIO, LEAST_AGREED = 10.0, 0.95


def ours(
    store: Store, reference: Reference, limits: Limits, since: dt.datetime, until: dt.datetime
) -> dict[str, float]:
    """Distances as `oddlog drift` finds them, Evidently's report on the points included."""
    check = measure(
        store, reference, limits, since=since, until=until, against="reference", sample_rows=SAMPLE
    )  # fmt: skip
    assert check.expected.points is not None
    assert check.batch.points is not None
    return compare(check.expected.points, check.batch.points, columns(limits, check.expected.points)).distances


def evidently_on_all(
    store: Store, limits: Limits, since: dt.datetime, until: dt.datetime, expected: pl.DataFrame
) -> dict[str, float]:
    """Distances of Evidently, given every row of the batch, and its report rendered as it is meant to be."""
    whole = _rows(store, limits, since, until, expected).drop(CLIENT)
    compared = compare(expected, whole, columns(limits, expected))
    assert len(compared.snapshot.get_html_str(as_iframe=False)) > 0
    return compared.distances


def _rows(store: Store, limits: Limits, since: dt.datetime, until: dt.datetime, expected: pl.DataFrame) -> pl.DataFrame:
    """Every scored event of the batch: what is compared, by its name in `expected`, and the client."""
    stored = {name: SCORES.get(name, FEATURE_PREFIX + name) for name in columns(limits, expected)}
    query = EventQuery(since=since, until=until, status="scored")
    rows = pl.concat(store.read_events(query, columns=[CLIENT, *stored.values()]))
    return rows.rename({column: name for name, column in stored.items()})


def columns(limits: Limits, points: pl.DataFrame) -> dict[str, float]:
    """The limits of the columns, not widened."""
    return {name: limit for name in points.columns if (limit := limit_of(limits, name)) is not None}


def cost(arguments: argparse.Namespace) -> bool:
    """One large batch. Whether the ratio and the memory are kept."""
    where, say = machine(), told_by_the_clock()
    limits = load_limits()
    site = make_site(arguments.first_seed, days=7 + SCALE_DAYS, lines_per_day=10_000)
    with _place(arguments.store) as place, closing(open_store(place)) as store:
        store.setup()
        say(f"writing {arguments.events:,} events")
        since, until = site.begin, site.begin + dt.timedelta(days=SCALE_DAYS)
        written = grown(store, site, since, until, arguments.events)
        expected = _expected(store, site, limits, since, until)
        compare(expected, expected, columns(limits, expected))  # imports and first use count for neither
        seconds: dict[str, list[float]] = {"ours": [], "all rows": []}
        for turn in range(arguments.rounds):
            say(f"round {turn + 1}")
            begun = time.monotonic()
            ours(store, site.reference, limits, since, until)
            seconds["ours"].append(time.monotonic() - begun)
            begun = time.monotonic()
            evidently_on_all(store, limits, since, until, expected)
            seconds["all rows"].append(time.monotonic() - begun)
        memory = _peak_of_ours(place, site.reference, limits, since, until)
    best = {name: min(values) for name, values in seconds.items()}
    ratio = best["all rows"] / best["ours"]
    table = markdown(
        ["way", "s", "peak MB"],
        [
            [f"`oddlog drift`: counts, and {SAMPLE:,} of {written:,} events", f"{best['ours']:.1f}", f"{memory:.0f}"],
            ["Evidently on all rows", f"{best['all rows']:.1f}", ""],
            ["ratio", f"{ratio:.1f}", ""],
        ],
    )
    figures = {
        "store": arguments.store, "events": written, "seconds": seconds, "ratio": ratio, "memory_mb": memory,
        "method": METHOD,
    }  # fmt: skip
    publish(f"drift_scale_cost_{arguments.store}", where, figures, [table], arguments.out)
    return ratio >= LEAST_RATIO and memory <= SETTINGS.memory_mb


def verdicts(arguments: argparse.Namespace) -> bool:
    """A month of batches. Whether both agree."""
    where, say = machine(), told_by_the_clock()
    limits = load_limits()
    site = make_site(arguments.first_seed, days=7 + arguments.days, lines_per_day=arguments.lines_per_day)
    half = site.begin + dt.timedelta(days=arguments.days / 2)
    # Half of it clean, then a release: verdicts of both kinds.
    changed = CHANGES["release"](site, half) if arguments.days >= 2 else clean(site, half)
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder, embedded(Path(folder)) as store:
        fill(store, site, changed, site.begin, site.end)
        begin = site.begin
        while begin + dt.timedelta(hours=6) <= site.end:
            until = begin + dt.timedelta(hours=6)
            check = measure(
                store, site.reference, limits, since=begin, until=until, against="reference",
                sample_rows=arguments.sample_rows,
            )  # fmt: skip
            begin = until
            judged = {m.name: m for m in check.verdict.measures if m.unit == "sd" and m.effect is not None}
            expected = check.expected.points
            if not judged or expected is None:
                continue
            rows = _rows(store, limits, check.batch.since, check.batch.until, expected)
            chosen = rows.filter(in_sample(rows[CLIENT], arguments.sample_rows / rows.height)).drop(CLIENT)
            asked = columns(limits, expected)
            every = compare(expected, rows.drop(CLIENT), asked).distances
            by_client = distances(expected, chosen, asked) if chosen.height else {}
            for name, one in judged.items():
                truth = every[name] >= one.limit
                counts["pairs"] += 1
                counts["past"] += truth
                counts["by position"] += one.drifted == truth
                counts["by client"] += (by_client.get(name, 0.0) >= one.limit) == truth
            counts["batches"] += 1
            say(f"{check.batch.until}: {counts['by position']} of {counts['pairs']} alike")
    pairs = max(1, counts["pairs"])
    share = counts["by position"] / pairs
    table = markdown(
        ["(feature, batch) pairs of a month", "number", "share"],
        [
            ["all", f"{counts['pairs']:,}", ""],
            ["past the limit on all rows", f"{counts['past']:,}", f"{100 * counts['past'] / pairs:.1f} %"],
            [f"same verdict of `oddlog drift`: about {arguments.sample_rows:,} events a batch by position",
             f"{counts['by position']:,}", f"{100 * share:.1f} %"],
            ["same verdict of as many events of whole clients",
             f"{counts['by client']:,}", f"{100 * counts['by client'] / pairs:.1f} %"],
        ],
    )  # fmt: skip
    figures = {"counts": dict(counts), "agreed": share, "sample_rows": arguments.sample_rows}
    publish("drift_scale_verdicts", where, figures, [table], arguments.out)
    return share >= LEAST_AGREED


def _expected(store: Store, site: Site, limits: Limits, since: dt.datetime, until: dt.datetime) -> pl.DataFrame:
    check = measure(store, site.reference, limits, since=since, until=until, against="reference", sample_rows=100)
    assert check.expected.points is not None
    return check.expected.points


@contextmanager
def _place(store: str) -> Iterator[StoreSettings]:
    """Where the batch is kept: in a folder that goes, or in an Elasticsearch that is started, or was named."""
    if store == "sqlite":
        with tempfile.TemporaryDirectory() as folder:
            yield StoreSettings(url=url_of(Path(folder)))
        return
    with elasticsearch() as url:
        yield StoreSettings(url=url, prefix=f"d{uuid.uuid4().hex[:8]}", timeout=120)


def _peak_of_ours(
    place: StoreSettings, reference: Reference, limits: Limits, since: dt.datetime, until: dt.datetime
) -> float:
    """Megabytes that a process of its own had at most while it made the check, libraries and Evidently included."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_check_aside, (place, reference, limits, since, until))


def _check_aside(
    place: StoreSettings, reference: Reference, limits: Limits, since: dt.datetime, until: dt.datetime
) -> float:
    with closing(open_store(place)) as store:
        ours(store, reference, limits, since, until)
    return peak() / 1e6


def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: 0 kept, 1 not, 2 wrong arguments."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.drift_scale", description=__doc__)
    parser.add_argument("what", choices=["cost", "verdicts"])
    parser.add_argument("--events", type=int, default=1_000_000, help="cost: size of the batch")
    parser.add_argument("--store", choices=["sqlite", "elasticsearch"], default="sqlite", help="cost: of the batch")
    parser.add_argument("--rounds", type=int, default=2, help="cost: turns of each way; the best counts")
    parser.add_argument("--days", type=float, default=30, help="verdicts: simulated days")
    parser.add_argument("--lines-per-day", type=float, default=20_000, help="verdicts: size of the site")
    parser.add_argument("--sample-rows", type=int, default=2_000, help="verdicts: events that are read of a batch")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="where the JSON goes")
    arguments = parser.parse_args(argv)
    ways: dict[str, Any] = {"cost": cost, "verdicts": verdicts}
    try:
        return 0 if ways[arguments.what](arguments) else 1
    except OddlogError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
