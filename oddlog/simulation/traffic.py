"""`simulate`: the whole stream of log lines, sound traffic and attacks, exact in number and sorted by time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import polars as pl

from oddlog.errors import UsageError
from oddlog.simulation import machines
from oddlog.simulation.addresses import AddressPool
from oddlog.simulation.agents import Agents, browsers
from oddlog.simulation.attacks import SCENARIOS, attack, chosen_scenarios
from oddlog.simulation.hits import METHODS, Hits, hits
from oddlog.simulation.loads import asset_hits, call_hits, habit_hits, page_hits
from oddlog.simulation.machines import Party
from oddlog.simulation.requests import REQUEST_SCHEMA, combined_lines
from oddlog.simulation.rhythm import DAY_MS, intensity, visit_times
from oddlog.simulation.sessions import EXTERNAL, walk
from oddlog.simulation.site import ORIGIN, Site, build_site
from oddlog.simulation.streams import Floats, Ints, draw, stream
from oddlog.simulation.visitors import activity, make_addresses, make_visitors, session_addresses

START = datetime(2026, 3, 2, tzinfo=UTC)  # a Monday
DAYS = 7.0
LINES_PER_DAY = 10_000.0

Progress = Callable[[str, float], None]
"""Called with what is being done and the share of the whole that is done."""


@dataclass(frozen=True, slots=True)
class Simulated:
    """Simulated traffic. `frame` has one row a line, in order of time.

    Columns: `time` (Datetime ms, UTC; the line itself tells the second), `client`, `line` (combined log format,
    without line end), `label` (`benign` or `attack:<scenario>`).
    """

    frame: pl.DataFrame
    start: datetime
    end: datetime
    release: datetime | None
    scenarios: tuple[str, ...]

    @property
    def lines(self) -> list[str]:
        """The log's lines, in order of time."""
        return self.frame["line"].to_list()

    @property
    def labels(self) -> list[str]:
        """The label of each line."""
        return self.frame["label"].to_list()


def simulate(
    *,
    seed: int = 0,
    start: datetime = START,
    lines: int | None = None,
    days: float | None = None,
    lines_per_day: float | None = None,
    release_after: float | None = None,
    attacks: Sequence[str] | None = None,
    attack_share: float = 0.02,
    attacks_after: float = 0.0,
    progress: Progress | None = None,
) -> Simulated:
    """Log lines of a believable site, with a label for every line; the same arguments give the same bytes.

    Args:
        seed: any integer >= 0; another seed is another site with other visitors.
        start: moment of the first line at the earliest; a naive one counts as UTC.
        lines: exactly how many lines. Without it, `days` times `lines_per_day`.
        days: how long. Without it, `lines` / `lines_per_day`, or a week where only `lines` is given.
        lines_per_day: rate; 10,000 where neither `lines` nor the rate is given.
        release_after: share of the time after which a release moves paths; None: no release.
        attacks: names in `SCENARIOS`; None: all of them; an empty sequence: none.
        attack_share: share of all lines that attacks make up, in equal parts by scenario.
        attacks_after: share of the time that is free of attacks at the beginning.
        progress: told how far it has come.

    Raises:
        UsageError: for values that make no traffic, and unknown scenarios.
    """
    total, begin, end = _extent(seed, start, lines, days, lines_per_day)
    for name, value, low, high in (
        ("release_after", release_after, 0.0, 1.0), ("attack_share", attack_share, 0.0, 0.9),
        ("attacks_after", attacks_after, 0.0, 0.99),
    ):  # fmt: skip
        if value is not None and not low <= value <= high:
            raise UsageError(f"{name} is {value}", expected=f"a share from {low:g} to {high:g}")
    chosen = chosen_scenarios(attacks)
    tell = progress or (lambda _what, _share: None)
    release = None if release_after is None else begin + round((end - begin) * release_after)

    attack_lines = round(total * attack_share) if chosen else 0
    budgets = {name: attack_lines // len(chosen) for name in chosen}
    for name in chosen[: attack_lines % len(chosen) if chosen else 0]:
        budgets[name] += 1
    added = sum(budget for name, budget in budgets.items() if not SCENARIOS[name].breaks)
    sound = _sound_traffic(seed, begin, end, total - added, release, tell)
    tell("attacks", 0.72)
    first = begin + round((end - begin) * attacks_after)
    stream_rows = attack(sound, budgets, seed=seed, start_ms=first, end_ms=end, release_ms=release)
    tell("lines", 0.82)
    stream_rows = stream_rows.sort("time", maintain_order=True)
    frame = stream_rows.select(
        pl.from_epoch("time", time_unit="ms").dt.replace_time_zone("UTC"), "client",
        combined_lines(stream_rows), "label",
    )  # fmt: skip
    tell("done", 1.0)
    return Simulated(
        frame, _moment(begin), _moment(end), None if release is None else _moment(release),
        tuple(name for name in chosen if budgets[name]),
    )  # fmt: skip


def _extent(
    seed: int, start: datetime, lines: int | None, days: float | None, lines_per_day: float | None
) -> tuple[int, int, int]:
    """(lines, first millisecond, millisecond after the last)."""
    if seed < 0:
        raise UsageError(f"seed is {seed}", expected="an integer from 0")
    for name, value in (("lines", lines), ("days", days), ("lines_per_day", lines_per_day)):
        if value is not None and not value > 0:
            raise UsageError(f"{name} is {value}", expected="more than 0")
    if lines is not None and days is not None and lines_per_day is not None:
        raise UsageError("lines, days and lines_per_day are all given", expected="two of them: the third follows")
    if lines is None:
        days = DAYS if days is None else days
        lines = max(1, round(days * (lines_per_day or LINES_PER_DAY)))
    elif days is None:
        days = DAYS if lines_per_day is None else lines / lines_per_day
    begin = round((start if start.tzinfo else start.replace(tzinfo=UTC)).timestamp() * 1000)
    return lines, begin, begin + max(60_000, round(days * DAY_MS))


def _moment(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)


def _sound_traffic(seed: int, begin: int, end: int, count: int, release: int | None, tell: Progress) -> pl.DataFrame:
    """Exactly `count` requests of people and of programs that visit by right, in REQUEST_SCHEMA, by time."""
    site = build_site(seed, begin, end)
    agents = browsers(stream(seed, "browsers"))
    tell("programs", 0.02)
    pool = AddressPool(stream(seed, "programs"))
    rng = stream(seed, "programs", "requests")
    parties = [
        machines.crawlers(rng, site, begin, end, round(count * machines.CRAWLER_SHARE), release),
        machines.feed_readers(rng, site, begin, end, round(count * machines.FEED_SHARE), pool.take(400)),
        machines.monitors(rng, site, begin, end, round(count * machines.MONITOR_SHARE), pool.take(3)),
        machines.partners(rng, site, begin, end, round(count * machines.PARTNER_SHARE), pool.take(4)),
    ]
    passing = round(count * machines.PASSER_SHARE)
    parties.append(
        machines.passers(rng, site, begin, end, passing, agents, pool.take(max(1, passing // 2), v6_share=0.04))
    )
    frames = [_requests(site, party, release, begin, end) for party in parties]
    machine_rows = pl.concat(frames).head(round(count * 0.4))
    tell("people", 0.08)
    people = _people(seed, site, agents, begin, end, count - len(machine_rows), release, tell)
    return pl.concat([machine_rows, people]).sort("time", maintain_order=True)


def _people(
    seed: int, site: Site, agents: Agents, begin: int, end: int, count: int, release: int | None, tell: Progress
) -> pl.DataFrame:
    """Exactly `count` requests of people's browsers: whole sessions, of which the last one is cut short."""
    rhythm = intensity(begin, end, stream(seed, "rhythm"))
    found: list[pl.DataFrame] = []
    missing, each, block = count, 11.0, 0
    while missing > 0:
        sessions = max(20, round(missing / each * 1.06) + 10)
        party = _sessions(seed, block, site, agents, rhythm, begin, end, sessions, release)
        inside = np.flatnonzero(party.hits.time < end)
        party.hits = party.hits.pick(inside)
        # Whole sessions as long as they fit, in the order they were drawn, which is no order in time.
        order = np.lexsort((party.hits.time, party.hits.unit))[:missing]
        party.hits = party.hits.pick(order)
        each = max(len(inside) / sessions, 1.0)
        found.append(_requests(site, party, release, begin, end))
        missing -= len(order)
        block += 1
        tell("people", 0.08 + 0.6 * (1 - missing / max(count, 1)))
    return pl.concat(found) if found else pl.DataFrame(schema=REQUEST_SCHEMA)


def _sessions(
    seed: int, block: int, site: Site, agents: Agents, rhythm: Floats,
    begin: int, end: int, sessions: int, release: int | None,
) -> Party:  # fmt: skip
    """`sessions` sessions of people, with all their requests."""
    rng = stream(seed, "people", block)
    visitors, addresses = make_visitors(rng, agents, max(10, round(sessions * 1.1)))
    who = draw(rng, activity(rng, len(visitors.agent)), sessions)
    when = visit_times(rng, rhythm, begin, end, sessions)
    views = walk(rng, site, visitors, who, when)
    pages = page_hits(rng, site, views)
    parts = [
        pages,
        asset_hits(rng, site, visitors, who, views, release),
        call_hits(rng, site, visitors, who, views),
        habit_hits(rng, site, visitors, who, views),
    ]
    if release is not None:
        parts.append(_redirects(rng, site, pages.pick(np.flatnonzero(views.step == 0)), release))
    every = Hits.joined(parts)
    every.time = np.maximum(every.time, begin)
    return Party(
        every, make_addresses(stream(seed, "people", block, "addresses"), addresses), list(agents.name),
        session_addresses(visitors, who, when, np.arange(sessions)), visitors.agent[who],
    )  # fmt: skip


def _redirects(rng: np.random.Generator, site: Site, entries: Hits, release: int) -> Hits:
    """Old links of the world outside, after the release: the old address answers 301, then the new one follows."""
    days = np.maximum(entries.time - release, 0) / DAY_MS
    old = (entries.time >= release) & (site.moved[entries.target] != entries.target) & (entries.status == 200)
    old &= rng.random(len(entries)) < 0.7 * np.exp(-days / 12)
    rows = entries.pick(np.flatnonzero(old))
    return hits(
        time=rows.time - 80,
        unit=rows.unit,
        target=rows.target,
        status=301,
        size=178,
        referrer=rows.referrer,
        fixed=1,
    )


def _requests(site: Site, party: Party, release: int | None, begin: int, end: int) -> pl.DataFrame:
    """Hits between begin and end as REQUEST_SCHEMA: codes become text, and the release takes effect."""
    all_hits = party.hits
    all_hits = all_hits.pick(np.flatnonzero((all_hits.time >= begin) & (all_hits.time < end)))
    target, referrer = all_hits.target, all_hits.referrer
    if release is not None:
        after = all_hits.time >= release
        target = np.where(after & (all_hits.fixed == 0), site.moved[target], target)
        referrer = np.where(after & (referrer >= 0), site.moved[np.maximum(referrer, 0)], referrer)
    targets = pl.Series(site.target)
    pages = [*EXTERNAL[::-1], *(ORIGIN + path for path in site.target)]
    # -1 is the first external place, none; -2 - n is the n-th: all of them stand before the pages.
    external = np.where(referrer == -1, 0, -2 - referrer)
    place = np.where(referrer >= 0, referrer + len(EXTERNAL), len(EXTERNAL) - 1 - external)
    return pl.DataFrame(
        {
            "time": all_hits.time,
            "client": _text(pl.Series(party.clients, dtype=pl.String), party.unit_client[all_hits.unit]),
            "method": _text(pl.Series(METHODS), all_hits.method),
            "target": _text(targets, target),
            "protocol": _text(pl.Series(["HTTP/1.1"]), np.zeros(len(all_hits), dtype=np.int64)),
            "status": all_hits.status,
            "bytes": all_hits.size,
            "referrer": _text(pl.Series(pages, dtype=pl.String), place),
            "agent": _text(pl.Series(party.agents, dtype=pl.String), party.unit_agent[all_hits.unit]),
            "label": _text(pl.Series(["benign"]), np.zeros(len(all_hits), dtype=np.int64)),
        },
        schema=REQUEST_SCHEMA,
        strict=False,
    )


def _text(table: pl.Series, index: Ints) -> pl.Series:
    return table.gather(pl.Series(index, dtype=pl.UInt32))
