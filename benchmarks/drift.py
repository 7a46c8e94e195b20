"""`python -m benchmarks.drift`: how often clean weeks alarm, and how soon planted changes do, with the limits in force.

Simulated sites: a model of the first week, then clean weeks, judged batch by batch as `oddlog monitor` would, of 1 h,
6 h and 1 d. Then each change, from noon of the first day after: how many batches until the first alarm, and by what.
Exit code 1 where a length of batch has more than `--most` false alarms a week, or a change goes unseen by all lengths.
"""

from __future__ import annotations

import argparse
import datetime as dt
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.drift_site import CHANGES, Changed, Site, clean, embedded, fill, make_site
from benchmarks.machine import machine
from benchmarks.program import told_by_the_clock
from benchmarks.tables import markdown, publish
from monitoring.documents import Check
from monitoring.drift import measure
from monitoring.limits import Limits, load_limits
from monitoring.period import LENGTHS
from oddlog.errors import OddlogError

NOON = dt.timedelta(days=1, hours=12)
"""When the change comes, after the fitted week."""
HALF_DAY = dt.timedelta(hours=12)
WATCHED = {"1h": dt.timedelta(hours=12), "6h": dt.timedelta(days=1, hours=12), "1d": dt.timedelta(days=3, hours=12)}
"""How long a change is given to be seen."""


@dataclass(slots=True)
class Length:
    """What was found with batches of one length."""

    batches: int = 0
    alarms: int = 0
    by: Counter[str] = field(default_factory=Counter)
    """What clean batches alarmed by."""
    delays: dict[str, list[int | None]] = field(default_factory=dict)
    """Batches until the first alarm of each change, by site; 1: the batch that it began in."""
    seen_by: dict[str, Counter[str]] = field(default_factory=dict)


def watch(
    site: Site,
    changed: Changed,
    limits: Limits,
    lengths: Sequence[str],
    since: dt.datetime,
    until: dict[str, dt.datetime],
) -> Iterator[tuple[str, Check]]:
    """The checks of every batch from `since` on, by length."""
    with tempfile.TemporaryDirectory() as folder, embedded(Path(folder)) as store:
        fill(store, site, changed, since, max(until[length] for length in lengths))
        for name in lengths:
            length, begin = LENGTHS[name], since
            while begin + length <= until[name]:
                yield name, measure(
                    store, site.reference, limits, since=begin, until=begin + length, against="reference",
                    sample_rows=20_000,
                )  # fmt: skip
                begin += length


def run(arguments: argparse.Namespace) -> bool:
    """Measure and publish; whether alarms are rare and changes seen. Raises OddlogError."""
    where, say = machine(), told_by_the_clock()
    limits = load_limits(arguments.limits)
    lengths = arguments.lengths.split(",")
    chosen = [name for name in arguments.changes.split(",") if name]
    found = {name: Length() for name in lengths}
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
        say(f"site {seed}: a clean week fitted")
        site = make_site(seed, days=7 + 7 * arguments.weeks, lines_per_day=arguments.lines_per_day)
        say(f"site {seed}: {arguments.weeks} clean weeks")
        for name, check in watch(
            site, clean(site, site.begin), limits, lengths, site.begin, dict.fromkeys(lengths, site.end)
        ):
            one = found[name]
            one.batches += 1
            one.alarms += check.verdict.drifted
            one.by.update(check.verdict.by)
            if check.verdict.drifted and arguments.verbose:
                say(f"  {name} {check.batch.since}: {check.text}")
        at = site.begin + NOON
        for change in chosen:
            say(f"site {seed}: {change}")
            until = {name: at + WATCHED[name] for name in lengths}
            # From midnight on, so that days are whole; the change comes at noon.
            counts = dict.fromkeys(lengths, 0)
            seen: dict[str, int] = {}
            for name, check in watch(
                site, CHANGES[change](site, at), limits, lengths, site.begin + NOON - HALF_DAY, until
            ):
                if check.batch.until <= at or name in seen:
                    continue
                counts[name] += 1
                if check.verdict.drifted:
                    seen[name] = counts[name]
                    found[name].seen_by.setdefault(change, Counter()).update(check.verdict.by)
                    if arguments.verbose:
                        say(f"  {name} {check.batch.since}: {check.text}")
            for name in lengths:
                found[name].delays.setdefault(change, []).append(seen.get(name))
    weeks = arguments.seeds * arguments.weeks
    tables = [_alarms(found, weeks), *([_delays(found, chosen)] if chosen else [])]
    figures = {
        "lines_per_day": arguments.lines_per_day, "sites": arguments.seeds, "weeks": weeks,
        "lengths": {
            name: {"batches": one.batches, "alarms_per_week": one.alarms / weeks, "by": dict(one.by),
                   "delays": one.delays, "seen_by": {c: dict(by) for c, by in one.seen_by.items()}}
            for name, one in found.items()
        },
    }  # fmt: skip
    publish("drift", where, figures, tables, arguments.out)
    quiet = all(one.alarms / weeks <= arguments.most for one in found.values())
    seen_all = all(any(d is not None for one in found.values() for d in one.delays.get(c, [])) for c in chosen)
    return quiet and seen_all


def _alarms(found: dict[str, Length], weeks: int) -> str:
    rows = [
        [name, f"{one.batches / weeks:g}", f"{one.alarms / weeks:.2f}",
         ", ".join(f"{what} {count}" for what, count in one.by.most_common()) or "none"]
        for name, one in found.items()
    ]  # fmt: skip
    return markdown(["batch", "batches a week", "false alarms a week", "by"], rows)


def _delays(found: dict[str, Length], chosen: Sequence[str]) -> str:
    def told(delays: list[int | None]) -> str:
        seen = [delay for delay in delays if delay is not None]
        if not seen:
            return "not seen"
        missed = f", {len(delays) - len(seen)} not seen" if len(seen) < len(delays) else ""
        return f"{statistics.median(seen):g} (at most {max(seen)}{missed})"

    rows = []
    for change in chosen:
        by: Counter[str] = sum((one.seen_by.get(change, Counter()) for one in found.values()), Counter())
        rows.append(
            [change.replace("_", " "), *(told(one.delays[change]) for one in found.values()),
             ", ".join(what for what, _ in by.most_common(4))]
        )  # fmt: skip
    return markdown(["change", *(f"batches of {name} until the alarm" for name in found), "by"], rows)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: 0 quiet and seen, 1 not, 2 wrong arguments."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.drift", description=__doc__)
    parser.add_argument("--seeds", type=int, default=4, help="sites")
    parser.add_argument("--first-seed", type=int, default=0, help="the first one's seed")
    parser.add_argument("--weeks", type=int, default=1, help="clean weeks watched, of each site")
    parser.add_argument("--lines-per-day", type=float, default=10_000, help="size of a site")
    parser.add_argument("--lengths", default="1h,6h,1d", help="lengths of batches")
    parser.add_argument("--changes", default=",".join(CHANGES), help="planted changes; empty for none")
    parser.add_argument("--most", type=float, default=1.0, help="false alarms a week, of each length")
    parser.add_argument("--limits", type=Path, help="another file of limits than drift.toml")
    parser.add_argument("--verbose", action="store_true", help="tell every alarm")
    parser.add_argument("--out", type=Path, help="where the JSON goes")
    try:
        return 0 if run(parser.parse_args(argv)) else 1
    except OddlogError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
