"""How people walk through the site, page by page. What each page makes a browser ask for is in `loads.py`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from oddlog.simulation.site import BLOG_PAGES, PAGES_PER_CATEGORY, Kind, Site, known_article, latest_article
from oddlog.simulation.streams import Floats, Ints, draw, zipf_cumulative
from oddlog.simulation.visitors import Visitors

K = Kind
LONGEST = 60  # pages in a session

# Where a visitor goes from a kind of page: shares, normalised later; what is missing to "leave" is EXIT's.
_GUEST: dict[Kind, dict[Kind, float]] = {
    K.HOME: {K.BLOG: 14, K.ARTICLE: 20, K.SHOP: 14, K.CATEGORY: 8, K.ITEM: 5, K.SEARCH: 6, K.DOWNLOADS: 3,
             K.ABOUT: 4, K.CONTACT: 1.5, K.LOGIN: 1, K.EXIT: 24},
    K.BLOG: {K.ARTICLE: 52, K.BLOG: 14, K.TAG: 7, K.SEARCH: 3, K.HOME: 4, K.EXIT: 20},
    K.TAG: {K.ARTICLE: 55, K.TAG: 6, K.BLOG: 8, K.EXIT: 31},
    K.ARTICLE: {K.ARTICLE: 17, K.BLOG: 7, K.TAG: 4, K.HOME: 5, K.SEARCH: 2, K.SHOP: 2, K.ITEM: 2, K.DOWNLOADS: 1,
                K.EXIT: 60},
    K.SHOP: {K.CATEGORY: 48, K.ITEM: 20, K.SEARCH: 8, K.HOME: 3, K.EXIT: 21},
    K.CATEGORY: {K.ITEM: 46, K.CATEGORY: 24, K.SEARCH: 5, K.SHOP: 4, K.EXIT: 21},
    K.ITEM: {K.ITEM: 22, K.CATEGORY: 20, K.CART: 7, K.SEARCH: 5, K.SHOP: 4, K.HOME: 2, K.EXIT: 40},
    K.SEARCH: {K.ARTICLE: 24, K.ITEM: 26, K.SEARCH: 18, K.HOME: 3, K.EXIT: 29},
    K.DOWNLOADS: {K.FILE: 62, K.HOME: 8, K.EXIT: 30},
    K.FILE: {K.DOWNLOADS: 12, K.FILE: 14, K.EXIT: 74},
    K.ABOUT: {K.ABOUT: 16, K.CONTACT: 10, K.HOME: 14, K.EXIT: 60},
    K.CONTACT: {K.CONTACT_SENT: 22, K.HOME: 10, K.EXIT: 68},
    K.CONTACT_SENT: {K.HOME: 25, K.EXIT: 75},
    K.LOGIN: {K.LOGIN_SENT: 30, K.LOGIN_FAILED: 9, K.HOME: 15, K.EXIT: 46},
    K.LOGIN_SENT: {K.ACCOUNT: 97, K.EXIT: 3},
    K.LOGIN_FAILED: {K.LOGIN_SENT: 52, K.LOGIN_FAILED: 16, K.EXIT: 32},
    K.ACCOUNT: {K.ORDERS: 30, K.SHOP: 20, K.HOME: 8, K.LOGOUT: 5, K.EXIT: 37},
    K.ORDERS: {K.ORDER: 55, K.ACCOUNT: 12, K.SHOP: 6, K.LOGOUT: 4, K.EXIT: 23},
    K.ORDER: {K.ORDERS: 32, K.ITEM: 14, K.ORDER: 10, K.EXIT: 44},
    K.CART: {K.LOGIN: 16, K.CHECKOUT: 16, K.ITEM: 14, K.SHOP: 12, K.EXIT: 42},
    K.CHECKOUT: {K.ORDER: 55, K.HOME: 12, K.EXIT: 33},
    K.LOGOUT: {K.HOME: 55, K.EXIT: 45},
    K.DEAD: {K.HOME: 30, K.SEARCH: 5, K.EXIT: 65},
}  # fmt: skip
_MEMBER_ENTRY = {
    K.HOME: 34,
    K.LOGIN: 34,
    K.ARTICLE: 14,
    K.ITEM: 10,
    K.SHOP: 6,
    K.ORDERS: 4,
    K.CATEGORY: 3,
    K.BLOG: 3,
}
_GUEST_ENTRY = {K.HOME: 21, K.ARTICLE: 41, K.ITEM: 15, K.CATEGORY: 5, K.BLOG: 5, K.SHOP: 3, K.TAG: 2, K.SEARCH: 0.5,
                K.FILE: 2.5, K.DOWNLOADS: 1, K.ABOUT: 1.5, K.CONTACT: 0.7, K.DEAD: 1.8}  # fmt: skip

_THINK_S = {K.ARTICLE: 70, K.ITEM: 28, K.SEARCH: 14, K.LOGIN: 12, K.LOGIN_FAILED: 9, K.LOGIN_SENT: 0.3, K.LOGOUT: 0.3,
            K.CONTACT: 60, K.CONTACT_SENT: 0.4, K.CHECKOUT: 0.5, K.CART: 35, K.FILE: 20, K.DEAD: 6}  # fmt: skip

# Places that visitors come from: null is a bookmark, an app or a browser that does not tell.
EXTERNAL = (
    None, "https://www.google.com/", "https://www.bing.com/", "https://duckduckgo.com/", "https://t.co/",
    "https://news.ycombinator.com/", "https://www.facebook.com/", "https://www.reddit.com/", "android-app://com.google.android.gm/",
    "https://www.linkedin.com/", "https://forum.example.net/t/1842", "https://en.wikipedia.org/",
)  # fmt: skip
_EXTERNAL_SHARE = (40, 36, 5, 4, 2.5, 1.5, 3, 2, 1.5, 1, 2, 1.5)


@dataclass(slots=True)
class Views:
    """Pages that people looked at, in the order of `session`, then `step`."""

    session: Ints
    step: Ints
    time: Ints
    kind: Ints
    item: Ints
    referrer: Ints


def _matrix() -> Floats:
    table = np.zeros((len(Kind), len(Kind)))
    table[K.EXIT, K.EXIT] = 1.0
    for kind, row in _GUEST.items():
        for target, share in row.items():
            table[kind, target] = share
    return np.asarray(np.cumsum(table / table.sum(axis=1, keepdims=True), axis=1))


def _entry(shares: dict[Kind, float] | dict[Kind, int]) -> Floats:
    row = np.zeros(len(Kind))
    for kind, share in shares.items():
        row[kind] = share
    return np.asarray(np.cumsum(row) / row.sum())


def walk(rng: np.random.Generator, site: Site, visitors: Visitors, who: Ints, start_ms: Ints) -> Views:
    """Sessions of visitors `who`, beginning at `start_ms`, through the graph of pages."""
    sessions = len(who)
    member = visitors.member[who]
    kind = np.where(member, draw(rng, _entry(_MEMBER_ENTRY), sessions), draw(rng, _entry(_GUEST_ENTRY), sessions))
    step_of = _matrix()
    think = np.array([_THINK_S.get(k, 22) for k in Kind], dtype=float)
    external = draw(rng, np.cumsum(np.array(_EXTERNAL_SHARE) / sum(_EXTERNAL_SHARE)), sessions)
    referrer = np.where(external == 0, -1, -2 - external)
    active = np.arange(sessions)
    time = start_ms.astype(np.int64)
    item = _items(rng, site, who, kind, np.full(sessions, K.EXIT), np.zeros(sessions, dtype=np.int64), time)
    parts: list[tuple[Ints, ...]] = []
    for step in range(LONGEST):
        parts.append((active, np.full(len(active), step), time, kind, item, referrer))
        following = (rng.random(len(active))[:, None] > step_of[kind]).sum(axis=1)
        # Members came for something: where a guest would leave, they log in, look at their orders, go on.
        doubt = rng.random(len(active))
        stay = (following == K.EXIT) & member[active] & (doubt < np.where(kind == K.LOGIN, 0.85, 0.3))
        onward = np.select(
            [kind == K.LOGIN, kind == K.ACCOUNT, kind == K.ORDERS], [K.LOGIN_SENT, K.ORDERS, K.ORDER], K.SHOP
        )
        following = np.where(stay, onward, following)
        going = np.flatnonzero(following != K.EXIT)
        if not len(going):
            break
        wait = rng.lognormal(0.0, 0.9, len(going)) * think[kind[going]] * 1000 + 150
        page = site.page(kind[going], item[going])
        # A form is shown again by what answered it: the browser names the form, not the answer.
        referrer = np.where(kind[going] == K.DEAD, -1, page)
        new_kind = following[going]
        time = time[going] + np.minimum(wait, 1_500_000).astype(np.int64)
        item = _items(rng, site, who[active[going]], new_kind, kind[going], item[going], time)
        kind, active = new_kind, active[going]
    session, steps, times, kinds, items, referrers = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.lexsort((steps, session))
    return Views(session[order], steps[order], times[order], kinds[order], items[order], referrers[order])


def _items(
    rng: np.random.Generator, site: Site, who: Ints, kind: Ints, before: Ints, item_before: Ints, time: Ints
) -> Ints:
    """Which page of its kind each visitor takes, coming from another page."""
    item = np.zeros(len(kind), dtype=np.int64)

    def at(chosen: Kind) -> Ints:
        return np.flatnonzero(kind == chosen)

    rows = at(K.ARTICLE)
    if len(rows):
        fresh = rng.random(len(rows)) < np.where(np.isin(before[rows], (K.HOME, K.BLOG, K.EXIT)), 0.4, 0.15)
        item[rows] = np.where(fresh, latest_article(site, rng, time[rows]), known_article(site, rng, time[rows]))
    for chosen, exponent in ((K.TAG, 0.8), (K.ITEM, 0.9), (K.SEARCH, 0.9), (K.FILE, 1.0), (K.DEAD, 0.9)):
        rows = at(chosen)
        if len(rows):
            item[rows] = draw(rng, zipf_cumulative(int(site.kind_count[chosen]), exponent), len(rows))
    rows = at(K.ABOUT)
    item[rows] = draw(rng, zipf_cumulative(int(site.kind_count[K.ABOUT]), 0.7), len(rows))
    rows = at(K.BLOG)
    item[rows] = np.where(before[rows] == K.BLOG, (item_before[rows] + 1) % BLOG_PAGES, 0)
    rows = at(K.CATEGORY)
    if len(rows):
        categories = int(site.kind_count[K.CATEGORY]) // PAGES_PER_CATEGORY
        first = draw(rng, zipf_cumulative(categories, 0.8), len(rows)) * PAGES_PER_CATEGORY
        turn = (before[rows] == K.CATEGORY) & (rng.random(len(rows)) < 0.6)
        on = item_before[rows] + 1
        item[rows] = np.where(turn & (on % PAGES_PER_CATEGORY != 0), on, first)
    rows = at(K.ORDER)
    # A member sees orders of its own, a few, always the same ones.
    item[rows] = (who[rows] * 7919 + rng.integers(0, 4, len(rows)) * 131) % int(site.kind_count[K.ORDER])
    return item
