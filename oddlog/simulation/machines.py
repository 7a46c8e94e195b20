"""Programs that visit a site: crawlers, passers-by, feed readers, monitors, partners. People: `sessions.py`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from oddlog.simulation.agents import CRAWLERS, FEED_READERS, MONITORS, PARTNERS, Agents, Crawler
from oddlog.simulation.hits import Hits, hits
from oddlog.simulation.rhythm import DAY_MS, even_times
from oddlog.simulation.site import Kind, Site
from oddlog.simulation.streams import Ints, draw

K = Kind
CRAWLER_SHARE, PASSER_SHARE, FEED_SHARE, MONITOR_SHARE, PARTNER_SHARE = 0.15, 0.035, 0.04, 0.03, 0.02

_CRAWLED = {K.ARTICLE: 42, K.ITEM: 28, K.TAG: 8, K.CATEGORY: 8, K.BLOG: 5, K.HOME: 3, K.ABOUT: 2, K.FILE: 2,
            K.SHOP: 1, K.DOWNLOADS: 0.5, K.LOGIN: 0.5}  # fmt: skip
_CRAWLED_ASSETS = ("hero", "photo", "thumb", "figure", "style", "script", "logo", "favicon")


@dataclass(slots=True)
class Party:
    """Hits of one sort of visitor, with the address and the user agent of every unit."""

    hits: Hits
    clients: list[str]
    agents: list[str | None]
    unit_client: Ints  # index into `clients` by unit
    unit_agent: Ints  # index into `agents` by unit


def crawlers(
    rng: np.random.Generator, site: Site, start_ms: int, end_ms: int, count: int, release_ms: int | None
) -> Party:
    """About `count` requests of crawlers that say who they are; one unit a visit."""
    clients: list[str] = []
    agents: list[str | None] = []
    parts: list[Hits] = []
    unit_client: list[Ints] = []
    unit_agent: list[Ints] = []
    total = sum(crawler.weight for crawler in CRAWLERS)
    units = 0
    for crawler in CRAWLERS:
        visits = round(count * crawler.weight / total / 9)
        if not visits:
            continue
        part = _crawl(rng, site, crawler, visits, start_ms, end_ms, release_ms)
        part.unit = part.unit + units
        parts.append(part)
        unit_client.append(len(clients) + rng.integers(0, crawler.addresses, visits))
        unit_agent.append(len(agents) + np.minimum(rng.geometric(0.6, visits) - 1, len(crawler.agents) - 1))
        clients.extend(f"{crawler.network}.{3 + 5 * n}" for n in range(crawler.addresses))
        agents.extend(crawler.agents)
        units += visits
    return _party(parts, clients, agents, unit_client, unit_agent)


def _crawl(
    rng: np.random.Generator,
    site: Site,
    crawler: Crawler,
    visits: int,
    start_ms: int,
    end_ms: int,
    release_ms: int | None,
) -> Hits:
    """The visits of one crawler, nine requests each on average, some seconds apart."""
    length = np.minimum(rng.geometric(1 / 9, visits), 400)
    unit = np.repeat(np.arange(visits), length)
    rows = len(unit)
    begun = np.concatenate([[0], np.cumsum(length)[:-1]])
    passed = np.cumsum(rng.lognormal(2.2, 1.1, rows) * 1000)
    time = even_times(rng, start_ms, end_ms, visits)[unit] + (passed - passed[begun][unit]).astype(np.int64)
    target, status = _crawl_targets(rng, site, crawler, time)
    first = np.zeros(rows, dtype=bool)
    first[begun] = True
    robots = first & (rng.random(rows) < 0.2)
    sitemap = ~robots & (rng.random(rows) < 0.006)
    feed = ~robots & ~sitemap & (rng.random(rows) < 0.02)
    advertising = ~robots & ~sitemap & ~feed & (rng.random(rows) < 0.004)
    for chosen, group, code in (
        (robots, "robots", 200),
        (sitemap, "sitemap", 200),
        (feed, "feed", 200),
        (advertising, "ads", 404),
    ):
        target[chosen], status[chosen] = site.block[group][0], code
    status[(rng.random(rows) < 0.0006) & (status == 200)] = 503
    fixed = np.zeros(rows, dtype=np.int64)
    if release_ms is not None:
        # What was indexed before the release is asked for weeks after it.
        age = np.maximum(time - release_ms, 0) / (8 * DAY_MS)
        old = (time >= release_ms) & (site.moved[target] != target) & (status == 200)
        old &= rng.random(rows) < 0.6 * np.exp(-age)
        # Pages are redirected; old builds of assets are gone.
        gone = np.array([site.target[index].startswith("/assets/") for index in target[old].tolist()], dtype=bool)
        status[old] = np.where(gone, 404, 301)
        fixed[old] = 1
    size = np.select(
        [status == 200, status == 404, status == 301, status == 503],
        [site.size[target] * rng.normal(1, 0.01, rows), site.not_found_bytes, 178, 1_190],
        0,
    )
    return hits(time=time, unit=unit, target=target, status=status, size=size.astype(np.int64), fixed=fixed)


def _crawl_targets(rng: np.random.Generator, site: Site, crawler: Crawler, time: Ints) -> tuple[Ints, Ints]:
    """What a crawler asks for at each time, and the status: the whole site evenly, dead pages too."""
    rows = len(time)
    row = np.zeros(len(Kind))
    for page, share in _CRAWLED.items():
        row[page] = share
    kind = draw(rng, np.asarray(np.cumsum(row) / row.sum()), rows)
    dead = rng.random(rows) < crawler.dead
    kind = np.where(dead, int(K.DEAD), kind)
    item = rng.integers(0, 1 << 40, size=rows) % site.kind_count[kind]
    published = np.maximum(np.searchsorted(site.published_ms, time, side="right"), 1)
    item = np.where(kind == K.ARTICLE, item % published, item)
    target = site.page(kind, item)
    asset = ~dead & (rng.random(rows) < crawler.assets)
    which = rng.integers(0, len(_CRAWLED_ASSETS), rows)
    for number, group in enumerate(_CRAWLED_ASSETS):
        target = np.where(asset & (which == number), site.index(group, item), target)
    status = np.where(dead, 404, np.where(rng.random(rows) < crawler.conditional, 304, 200))
    return target, status.astype(np.int64)


def passers(
    rng: np.random.Generator, site: Site, start_ms: int, end_ms: int, count: int, browsers: Agents, addresses: list[str]
) -> Party:
    """About `count` requests of programs that do not say who they are: a page or two, no assets, then gone."""
    visits = max(1, round(count / 1.3))
    length = rng.choice(np.array([1, 2, 3]), size=visits, p=[0.78, 0.14, 0.08])
    unit = np.repeat(np.arange(visits), length)
    rows = len(unit)
    time = even_times(rng, start_ms, end_ms, visits)[unit] + np.arange(rows) % 3 * rng.integers(300, 9000, rows)
    shares = np.array([0.55, 0.20, 0.12, 0.05, 0.05, 0.03])
    kinds = np.array([K.HOME, K.ARTICLE, K.ITEM, K.DEAD, K.CATEGORY, K.ABOUT], dtype=np.int64)
    kind = kinds[draw(rng, np.cumsum(shares), rows)]
    published = np.maximum(np.searchsorted(site.published_ms, time, side="right"), 1)
    item = rng.integers(0, 1 << 40, size=rows) % np.where(kind == K.ARTICLE, published, site.kind_count[kind])
    target = site.page(kind, item)
    robots = rng.random(rows) < 0.05
    target[robots] = site.block["robots"][0]
    status = np.where((kind == K.DEAD) & ~robots, 404, 200)
    head = (rng.random(rows) < 0.06) & (kind == K.HOME) & ~robots
    size = np.where(status == 404, site.not_found_bytes, site.size[target])
    # The names of browsers, or what libraries call themselves, or nothing.
    libraries: list[str | None] = [*PARTNERS, "curl/8.5.0", "Wget/1.21.4", "axios/1.7.2", None]
    agent = np.where(
        rng.random(visits) < 0.65,
        draw(rng, browsers.cumulative, visits),
        len(browsers.name) + rng.integers(0, len(libraries), visits),
    )
    part = hits(time=time, unit=unit, target=target, status=status, size=np.where(head, 0, size), method=head * 2)
    client = (rng.random(visits) ** 1.5 * len(addresses)).astype(np.int64)
    return _party([part], addresses, [*browsers.name, *libraries], [client], [agent])


def feed_readers(
    rng: np.random.Generator, site: Site, start_ms: int, end_ms: int, count: int, addresses: list[str]
) -> Party:
    """About `count` requests of feed readers; one unit a reader. Unchanged feeds are answered 304."""
    days = max((end_ms - start_ms) / DAY_MS, 0.05)
    readers = max(1, min(round(count / (days * 20)), len(addresses)))
    parts: list[Hits] = []
    agents = draw(rng, np.cumsum(np.full(len(FEED_READERS), 1 / len(FEED_READERS))), readers)
    for reader in range(readers):
        polls = max(1, round(count / readers * rng.uniform(0.6, 1.4)))
        time = _regular(rng, start_ms, end_ms, polls, 0.12)
        version = np.searchsorted(site.published_ms, time, side="right")
        fresh = np.ones(len(time), dtype=bool)
        fresh[1:] = version[1:] != version[:-1]
        fresh |= rng.random(len(time)) < 0.03
        target = int(site.index("feed", int(rng.random() < 0.3)))
        size = np.where(fresh, site.size[target] + (version % 7) * 311, 0)
        parts.append(hits(time=time, unit=reader, target=target, status=np.where(fresh, 200, 304), size=size))
        # What is new they fetch, for those who read it there.
        rows = np.flatnonzero(fresh & (version > 0) & (rng.random(len(time)) < 0.5))
        for group, later in ((K.ARTICLE.name, 900), ("hero", 2_100)):
            found = site.index(group, version[rows] - 1)
            parts.append(hits(time=time[rows] + later, unit=reader, target=found, status=200, size=site.size[found]))
    return _party(parts, addresses[:readers], list(FEED_READERS), [np.arange(readers)], [agents])


def monitors(
    rng: np.random.Generator, site: Site, start_ms: int, end_ms: int, count: int, addresses: list[str]
) -> Party:
    """At most `count` probes of whether the site is up, at even intervals; one unit a monitor."""
    parts = []
    number = len(MONITORS) if count > 3000 else 1
    for monitor in range(number):
        interval = max(60_000, (end_ms - start_ms) * number // max(count, 1))
        time = np.arange(start_ms + monitor * 7_000 % interval, end_ms, interval, dtype=np.int64)
        time = time + rng.integers(0, 1500, size=len(time))
        home = monitor == 0
        target = int(site.index(K.HOME.name if home else "health"))
        status = np.where(rng.random(len(time)) < 0.0008, 503, 200)
        size = np.where(status == 200, 0 if home else site.size[target], 0)
        parts.append(hits(time=time, unit=monitor, target=target, status=status, size=size, method=2 * home))
    which = np.arange(number)
    return _party(parts, addresses[:number], list(MONITORS), [which], [which])


def partners(
    rng: np.random.Generator, site: Site, start_ms: int, end_ms: int, count: int, addresses: list[str]
) -> Party:
    """About `count` calls of the API by partners' programs, page after page of the catalogue; one unit a run."""
    pages = site.block["catalogue"][1]
    runs = max(1, round(count / (pages + 2)))
    firms = min(4, runs, len(addresses))
    unit = np.repeat(np.arange(runs), pages + 2)
    step = np.tile(np.arange(pages + 2), runs)
    begin = _regular(rng, start_ms, end_ms, runs, 0.02)
    time = begin[unit] + step * 900 + rng.integers(0, 400, len(unit))
    target = np.where(step < pages, site.index("catalogue", step), site.index("stock", unit * 13 + step))
    status = np.where(rng.random(len(unit)) < 0.004, 429, 200)
    size = np.where(status == 200, site.size[target], 64)
    part = hits(time=time, unit=unit, target=target, status=status, size=size)
    return _party([part], addresses[:firms], list(PARTNERS), [np.arange(runs) % firms], [np.arange(runs) % firms])


def _regular(rng: np.random.Generator, start_ms: int, end_ms: int, count: int, jitter: float) -> Ints:
    """`count` moments at about even distance, with a share of the distance as jitter; in order."""
    step = (end_ms - start_ms) / count
    moment = start_ms + (np.arange(count) + rng.random() + jitter * rng.normal(0, 1, count)) * step
    return np.sort(np.clip(moment, start_ms, end_ms - 1).astype(np.int64))


def _party(
    parts: list[Hits],
    clients: list[str],
    agents: list[str | None] | list[str],
    unit_client: list[Ints],
    unit_agent: list[Ints],
) -> Party:
    empty = np.zeros(0, dtype=np.int64)
    joined = Hits.joined(parts) if parts else hits(time=empty, unit=empty, target=empty, status=empty, size=empty)
    return Party(
        joined, clients, list(agents),
        np.concatenate([*unit_client, empty]).astype(np.int64), np.concatenate([*unit_agent, empty]).astype(np.int64),
    )  # fmt: skip
