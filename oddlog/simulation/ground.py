"""What an attacker meets: pages, forms, numbered things, sound clients, error pages, all read from traffic."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import polars as pl

from oddlog.simulation.addresses import AddressPool
from oddlog.simulation.agents import browsers

ASSET = r"(?i)\.(?:css|js|mjs|map|png|jpe?g|gif|webp|avif|svg|ico|woff2?|ttf|eot|otf|mp4|webm|mp3)$"
"""A path that a page loads: what a web server sends by itself."""
_BOT = r"(?i)bot|crawl|spider|slurp|feed|rss|monitor|check|preview|externalhit|\+http|http://|https://"
_SIGN_IN = re.compile(r"(?i)log-?in|sign-?in")
_ACCOUNT = re.compile(r"(?i)session|auth|account|admin|user")
_OWNED = re.compile(r"(?i)order|invoice|customer|user|account|profile|member|ticket|message|node|id=$")
_STATIC = re.compile(ASSET)
_BUSY = 25


@dataclass(frozen=True, slots=True)
class Numbered:
    """A thing with an id in its address: `prefix` + id + `suffix`, with the ids seen, from `low` to `high`."""

    prefix: str
    suffix: str
    low: int
    high: int
    known: dict[str, int]  # address -> bytes

    def address(self, number: int) -> str:
        """Address of the thing of that number."""
        return f"{self.prefix}{number}{self.suffix}"


@dataclass(frozen=True, slots=True)
class Ground:
    """What scenarios build on; every list is in a stable order."""

    pages: list[str]  # GET, answered 200, no assets; most asked for first
    known: dict[str, int]  # address -> bytes, for everything that was answered 200
    folders: list[str]  # where things lie: "/", "/blog/", ...
    login: str
    login_bytes: int
    numbered: Numbered
    not_found: list[int]  # sizes of error pages, as they occur
    agents: list[str]  # of people's browsers, as often as they occur
    busy: list[tuple[str, str]]  # (client, user agent) of the busiest sound clients
    busy_times: dict[str, list[int]]  # when they asked
    origin: str | None  # "https://www.example.org" where referrers tell it
    addresses: AddressPool

    def answer(self, rng: np.random.Generator, path: str) -> tuple[int, int]:
        """Status and bytes that the site gives to a GET of a path."""
        if path in self.known:
            return 200, self.known[path]
        return 404, self.missing(rng)

    def missing(self, rng: np.random.Generator) -> int:
        """Bytes of a "not found"."""
        return self.not_found[int(rng.integers(len(self.not_found)))]

    def agent(self, rng: np.random.Generator) -> str:
        """A user agent as people here have."""
        return self.agents[int(rng.integers(len(self.agents)))]

    def page(self, rng: np.random.Generator) -> str:
        """A page, popular ones more often."""
        return self.pages[min(int(rng.exponential(len(self.pages) / 6)), len(self.pages) - 1)]


def read_ground(traffic: pl.DataFrame, rng: np.random.Generator, addresses: AddressPool) -> Ground:
    """The ground of traffic (REQUEST_SCHEMA). Traffic that lacks something gets the usual: /login, /item?id=."""
    path = pl.col("target").str.split("?").list.first()
    good = (
        traffic.lazy()
        .filter((pl.col("status") == 200) & (pl.col("method") == "GET"))
        .group_by("target")
        .agg(pl.len().alias("n"), pl.col("bytes").median().cast(pl.Int64).alias("bytes"))
        .sort(["n", "target"], descending=[True, False])
        .collect()
    )
    known = dict(zip(good["target"].to_list(), good["bytes"].fill_null(0).to_list(), strict=True))
    pages = [target for target in good["target"].head(3000).to_list() if not _STATIC.search(target.split("?")[0])]
    pages = pages[:600] or ["/"]
    login, login_bytes = _login(traffic)
    people = traffic.lazy().filter(pl.col("agent").str.starts_with("Mozilla") & ~pl.col("agent").str.contains(_BOT))
    agents = people.select("client", "agent").unique(maintain_order=True).select("agent").collect()["agent"].to_list()
    busy = (
        people.group_by("client")
        .agg(
            pl.len().alias("n"),
            (pl.col("status") >= 400).mean().alias("failed"),
            pl.col("agent").mode(maintain_order=True).first().alias("agent"),
        )
        .filter(pl.col("failed") < 0.1)
        .sort(["n", "client"], descending=[True, False])
        .head(_BUSY)
        .collect()
    )
    names = busy["client"].to_list()
    times = traffic.lazy().filter(pl.col("client").is_in(names)).select("client", "time").sort("time").collect()
    not_found = traffic.filter(pl.col("status") == 404)["bytes"].drop_nulls().head(500).to_list()
    folders = (
        good.lazy().head(400).select(path.str.extract(r"^(/(?:[^/]+/)?)").drop_nulls().unique(maintain_order=True))
    ).collect()  # fmt: skip
    return Ground(
        pages=pages,
        known=known,
        folders=folders.to_series().to_list() or ["/"],
        login=login,
        login_bytes=login_bytes,
        numbered=_numbered(known),
        not_found=not_found or [int(rng.integers(300, 5000))],
        agents=agents[:5000] or browsers(rng, 40).name,
        busy=list(zip(names, busy["agent"].to_list(), strict=True)),
        busy_times=_by_client(zip(times["client"].to_list(), times["time"].to_list(), strict=True)),
        origin=_origin(traffic),
        addresses=addresses,
    )


def _by_client(pairs: Iterable[tuple[str, int]]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for client, time in pairs:
        found.setdefault(client, []).append(time)
    return found


def _login(traffic: pl.DataFrame) -> tuple[str, int]:
    """Where credentials are posted to: the most posted path that sounds like it, else the most posted one."""
    posted = (
        traffic.lazy()
        .filter((pl.col("method") == "POST") & (pl.col("status") < 400))
        .group_by(pl.col("target").str.split("?").list.first().alias("path"))
        .agg(pl.len().alias("n"), pl.col("bytes").filter(pl.col("status") == 200).median().alias("bytes"))
        .sort(["n", "path"], descending=[True, False])
        .head(40)
        .collect()
    )
    paths, sizes = posted["path"].to_list(), posted["bytes"].to_list()
    if not paths:
        return "/login", 3_400
    place = next((n for n, path in enumerate(paths) if _SIGN_IN.search(path)), None)
    if place is None:
        place = next((n for n, path in enumerate(paths) if _ACCOUNT.search(path)), None)
    if place is None:
        # Comment spam posts to anything once; a form is posted to again and again.
        if posted["n"][0] < 10:
            return "/login", 3_400
        place = 0
    return paths[place], int(sizes[place] or 3_400)


def _numbered(known: dict[str, int]) -> Numbered:
    """The largest group of addresses that differ by one number alone; what belongs to someone comes first."""
    groups: dict[tuple[str, str], dict[int, str]] = {}
    for target in known:
        if _STATIC.search(target.split("?")[0]) or "page=" in target:
            continue
        if match := re.fullmatch(r"(.*?[/=_-])(\d{1,9})((?:[/?.&][^\d]*)?)", target):
            groups.setdefault((match[1], match[3]), {})[int(match[2])] = target
    # Whose things they are matters more to a thief than how many there are.
    best = max(
        groups,
        key=lambda key: (len(groups[key]) >= 10 and bool(_OWNED.search(key[0])), len(groups[key]), key),
        default=None,
    )
    if best is None or len(groups[best]) < 5:
        return Numbered("/item?id=", "", 1, 4_000, {})
    numbers = groups[best]
    return Numbered(
        best[0], best[1], min(numbers), max(numbers), {target: known[target] for target in numbers.values()}
    )


def _origin(traffic: pl.DataFrame) -> str | None:
    """Scheme and host that most referrers with a page of this site have."""
    hosts = (
        traffic.lazy()
        .filter(pl.col("referrer").is_not_null())
        .select(pl.col("referrer").str.extract(r"^(https?://[^/]+)").alias("host"))
        .drop_nulls()
        .group_by("host")
        .len()
        .sort(["len", "host"], descending=[True, False])
        .head(1)
        .collect()["host"]
    )
    return str(hosts[0]) if len(hosts) else None
