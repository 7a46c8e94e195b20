"""The site that is visited: its addresses, their sizes, what a page loads, and what a release moves. No visitors."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from oddlog.simulation.streams import Ints, stream, zipf_cumulative

ORIGIN = "https://www.example.org"


class Kind(IntEnum):
    """Kinds of page; a kind's addresses stand together in the site's table, `item` counts within them."""

    HOME = 0
    BLOG = 1
    TAG = 2
    ARTICLE = 3
    SHOP = 4
    CATEGORY = 5
    ITEM = 6
    SEARCH = 7
    DOWNLOADS = 8
    FILE = 9
    ABOUT = 10
    CONTACT = 11
    CONTACT_SENT = 12
    LOGIN = 13
    LOGIN_SENT = 14
    LOGIN_FAILED = 15
    ACCOUNT = 16
    ORDERS = 17
    ORDER = 18
    CART = 19
    CHECKOUT = 20
    LOGOUT = 21
    DEAD = 22
    EXIT = 23


PAGES_PER_CATEGORY = 5
BLOG_PAGES = 24

_SYLLABLES = (
    "ka", "lo", "ri", "ten", "mar", "vi", "sol", "dra", "pe", "nor", "fa", "lin", "gos", "ber", "tu", "wes",
    "ha", "mil", "ro", "sta", "ce", "dun", "el", "qui", "ja", "por", "ze", "bo", "thi", "san",
)  # fmt: skip
_WORDS = (
    "garden", "winter", "guide", "setup", "review", "battery", "camera", "kitchen", "travel", "light", "paper",
    "router", "bicycle", "coffee", "music", "history", "market", "recipe", "summer", "engine", "window", "wood",
    "repair", "network", "backup", "python", "forest", "mountain", "river", "budget", "design", "studio", "baking",
    "training", "health", "family", "school", "weekend", "storage", "solar", "heating", "painting", "report",
    "release", "notes", "annual", "working", "remote", "small", "large", "better", "first", "steps", "simple",
)  # fmt: skip
_STATIC_PAGES = ("/about", "/imprint", "/privacy", "/team", "/jobs", "/shipping")


@dataclass(slots=True)
class Site:
    """Every address of the site in one table, before and after the release.

    `target[i]` is the i-th address; `size[i]` its body in bytes; `moved[i]` the index of the same thing after the
    release (itself where nothing moved). `block[name]` tells (first index, count) of a group of addresses.
    """

    target: list[str] = field(default_factory=list)
    size: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    moved: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    block: dict[str, tuple[int, int]] = field(default_factory=dict)
    kind_start: Ints = field(default_factory=lambda: np.zeros(len(Kind), dtype=np.int64))
    kind_count: Ints = field(default_factory=lambda: np.zeros(len(Kind), dtype=np.int64))
    published_ms: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    not_found_bytes: int = 0

    def index(self, name: str, item: npt.ArrayLike = 0) -> Ints:
        """Indices into the table of the item-th addresses of a group; items wrap around."""
        first, count = self.block[name]
        return first + np.asarray(item, dtype=np.int64) % count

    def page(self, kind: Ints, item: Ints) -> Ints:
        """Indices into the table of pages."""
        return self.kind_start[kind] + item % self.kind_count[kind]


def build_site(seed: int, start_ms: int, end_ms: int) -> Site:
    """The site of this seed. Articles are published before and through the period."""
    rng = stream(seed, "site")
    days = max(1.0, (end_ms - start_ms) / 86_400_000)
    old, new = 420, max(1, round(days * 0.7))
    site = Site(not_found_bytes=int(rng.integers(900, 5200)))
    site.published_ms = np.concatenate(
        [
            np.sort(start_ms - rng.exponential(400 * 86_400_000.0, old).astype(np.int64)),
            np.sort(rng.integers(start_ms, end_ms, size=new, dtype=np.int64)),
        ]
    )
    sizes: list[Ints] = []

    def add(name: str, targets: list[str], low: float, high: float) -> None:
        site.block[name] = (len(site.target), len(targets))
        site.target.extend(targets)
        sizes.append(np.exp(rng.uniform(np.log(low), np.log(high), len(targets))).astype(np.int64))

    slugs = _slugs(rng, old + new)
    names = _names(rng, 900)
    items = [100 + 7 * i + int(rng.integers(0, 7)) for i in range(900)]
    categories = names[:14]
    queries = _queries(rng, names, 3000)
    kinds: dict[Kind, tuple[list[str], float, float]] = {
        Kind.HOME: (["/"], 14_000, 18_000),
        Kind.BLOG: (["/blog", *(f"/blog?page={n}" for n in range(2, BLOG_PAGES + 1))], 9_000, 14_000),
        Kind.TAG: ([f"/blog/tag/{word}" for word in _WORDS[:40]], 6_000, 12_000),
        Kind.ARTICLE: ([f"/blog/{slug}" for slug in slugs], 7_000, 40_000),
        Kind.SHOP: (["/shop"], 11_000, 13_000),
        Kind.CATEGORY: (
            [
                f"/shop/{name}" if page == 1 else f"/shop/{name}?page={page}"
                for name in categories
                for page in range(1, PAGES_PER_CATEGORY + 1)
            ],
            10_000, 16_000,
        ),
        Kind.ITEM: ([f"/shop/item/{n}-{name}" for n, name in zip(items, names, strict=True)], 8_000, 15_000),
        Kind.SEARCH: ([f"/search?q={query}" for query in queries], 4_000, 12_000),
        Kind.DOWNLOADS: (["/downloads"], 6_000, 7_000),
        Kind.FILE: (
            [f"/files/{names[i % 30]}-{1 + i % 4}.{i // 7}.{'pdf' if i % 3 else 'zip'}" for i in range(45)],
            80_000, 30_000_000,
        ),
        Kind.ABOUT: (list(_STATIC_PAGES), 3_000, 9_000),
        Kind.CONTACT: (["/contact"], 4_000, 5_000),
        Kind.CONTACT_SENT: (["/contact"], 150, 400),
        Kind.LOGIN: (["/login"], 3_000, 4_000),
        Kind.LOGIN_SENT: (["/login"], 100, 300),
        Kind.LOGIN_FAILED: (["/login"], 3_100, 4_100),
        Kind.ACCOUNT: (["/account"], 7_000, 8_000),
        Kind.ORDERS: (["/account/orders"], 6_000, 8_000),
        Kind.ORDER: ([f"/account/orders/{48_000 + 3 * n}" for n in range(6000)], 4_500, 7_500),
        Kind.CART: (["/cart"], 5_000, 6_000),
        Kind.CHECKOUT: (["/checkout"], 200, 600),
        Kind.LOGOUT: (["/logout"], 0.5, 0.6),
        Kind.DEAD: (_dead_pages(rng, names, 90), 1, 1.1),
    }  # fmt: skip
    for kind, (targets, low, high) in kinds.items():
        site.kind_start[kind], site.kind_count[kind] = len(site.target), len(targets)
        add(kind.name, targets, low, high)
    build = [_hex(rng) for _ in range(8)]
    add("style", [f"/assets/app.{build[0]}.css"], 24_000, 60_000)
    add("script", [f"/assets/app.{build[1]}.js", f"/assets/vendor.{build[2]}.js"], 60_000, 180_000)
    add("shop_script", [f"/assets/shop.{build[3]}.js"], 20_000, 60_000)
    add("account_script", [f"/assets/account.{build[4]}.js"], 15_000, 40_000)
    add("font", ["/assets/fonts/text-regular.woff2", "/assets/fonts/text-bold.woff2"], 18_000, 40_000)
    add("logo", ["/img/logo.svg"], 1_800, 4_000)
    add("hero", [f"/img/articles/{slug}.webp" for slug in slugs], 30_000, 240_000)
    add("figure", [f"/img/articles/{slug}-2.webp" for slug in slugs], 20_000, 160_000)
    add("thumb", [f"/img/items/{n}-s.webp" for n in items], 4_000, 14_000)
    add("photo", [f"/img/items/{n}-l.webp" for n in items], 40_000, 160_000)
    add("lost_image", ["/img/banner-2019.png"], 1, 1.1)
    add("suggest", [f"/api/v1/suggest?q={query[:n]}" for query in queries[:700] for n in (2, 3, 5)], 40, 900)
    add("stock", [f"/api/v1/items/{n}/stock" for n in items], 40, 90)
    add("related", [f"/api/v1/items/{n}/related" for n in items], 600, 2_200)
    add("session", ["/api/v1/session"], 110, 240)
    add("cart_add", ["/api/v1/cart"], 90, 300)
    add("beacon", ["/api/v1/events"], 0.5, 0.6)
    add("catalogue", [f"/api/v1/items?page={n}" for n in range(1, 19)], 9_000, 14_000)
    add("favicon", ["/favicon.ico"], 1_100, 5_000)
    add(
        "touch_icon",
        [
            "/apple-touch-icon-precomposed.png",
            "/apple-touch-icon.png",
            "/apple-touch-icon-120x120-precomposed.png",
            "/apple-touch-icon-120x120.png",
        ],
        1,
        1.1,
    )
    add("manifest", ["/site.webmanifest"], 300, 600)
    add("robots", ["/robots.txt"], 120, 500)
    add("sitemap", ["/sitemap.xml"], 40_000, 90_000)
    add("feed", ["/feed.xml", "/blog/feed.xml"], 20_000, 60_000)
    add("health", ["/healthz"], 2, 16)
    add("closed", ["/files/internal/", "/files/"], 140, 170)
    add("ads", ["/ads.txt"], 1, 1.1)
    site.size = np.concatenate(sizes)
    _release(site, rng)
    return site


def _release(site: Site, rng: np.random.Generator) -> None:
    """Add the addresses after the release: `/blog/...` to `/articles/...`, new builds of assets, API v2."""
    count = len(site.target)
    moved = np.arange(count, dtype=np.int64)
    sizes: list[int] = []
    fresh: dict[str, str] = {}
    for index, old in enumerate(list(site.target)):
        if old.startswith("/blog/tag/"):
            new = "/topics/" + old.removeprefix("/blog/tag/")
        elif old.startswith("/blog") and not old.endswith(".xml"):
            new = "/articles" + old.removeprefix("/blog")
        elif old.startswith("/api/v1/"):
            new = "/api/v2/" + old.removeprefix("/api/v1/")
        elif built := re.fullmatch(r"(/assets/[a-z]+)\.[0-9a-f]+\.(css|js)", old):
            new = f"{built[1]}.{fresh.setdefault(built[1] + built[2], _hex(rng))}.{built[2]}"
        else:
            continue
        moved[index] = len(site.target)
        site.target.append(new)
        sizes.append(int(site.size[index] * rng.uniform(1.0, 1.15)))
    site.size = np.concatenate([site.size, np.array(sizes, dtype=np.int64)])
    site.moved = np.concatenate([moved, np.arange(count, len(site.target), dtype=np.int64)])


def latest_article(site: Site, rng: np.random.Generator, time_ms: Ints) -> Ints:
    """Items of recently published articles at each time: the newest is asked for most."""
    published = np.searchsorted(site.published_ms, time_ms, side="right")
    back = rng.geometric(0.22, len(time_ms))
    return np.asarray(np.maximum(published - back, 0), dtype=np.int64)


def known_article(site: Site, rng: np.random.Generator, time_ms: Ints) -> Ints:
    """Items of articles by lasting popularity, among those published at each time."""
    order = stream(len(site.published_ms), "popularity").permutation(len(site.published_ms))
    cumulative = zipf_cumulative(len(order), 0.95)
    chosen = order[np.minimum(np.searchsorted(cumulative, rng.random(len(time_ms))), len(order) - 1)]
    published = np.maximum(np.searchsorted(site.published_ms, time_ms, side="right"), 1)
    return np.where(chosen < published, chosen, chosen % published).astype(np.int64)


def _hex(rng: np.random.Generator) -> str:
    return f"{int(rng.integers(1 << 32)):08x}"


def _slugs(rng: np.random.Generator, count: int) -> list[str]:
    found: dict[str, None] = {}
    while len(found) < count:
        words = rng.choice(_WORDS, size=int(rng.integers(2, 6)), replace=False)
        found["-".join(str(word) for word in words)] = None
    return list(found)


def _names(rng: np.random.Generator, count: int) -> list[str]:
    found: dict[str, None] = {}
    while len(found) < count:
        found["".join(str(s) for s in rng.choice(_SYLLABLES, size=int(rng.integers(2, 4))))] = None
    return list(found)


def _queries(rng: np.random.Generator, names: list[str], count: int) -> list[str]:
    found: dict[str, None] = {}
    while len(found) < count:
        words = [str(word) for word in rng.choice(_WORDS, size=int(rng.integers(1, 4)), replace=False)]
        if rng.random() < 0.45:
            words[0] = names[int(rng.integers(len(names)))]
        if rng.random() < 0.06:
            words.append(f"%C3%BC{words[0][:3]}")
        found["+".join(words)] = None
    return list(found)


def _dead_pages(rng: np.random.Generator, names: list[str], count: int) -> list[str]:
    """Pages of a site before this one, which others still link to."""
    pages = []
    for number in range(count):
        word = _WORDS[int(rng.integers(len(_WORDS)))]
        pages.append(
            (
                f"/{2009 + number % 9}/{1 + number % 12:02d}/{word}-{names[number]}.html",
                f"/wiki/{names[number].capitalize()}",
                f"/index.php?id={100 + number * 3}",
                f"/gallery/{word}/{number}.jpg",
                f"/en/{word}/{names[number]}",
            )[number % 5]
        )
    return pages
