"""How people walk through the site: page by page, with what each page loads and what their browsers keep."""

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
    K.LOGIN: 26,
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

METHODS = ("GET", "POST", "HEAD")
POSTED = (K.CONTACT_SENT, K.LOGIN_SENT, K.LOGIN_FAILED, K.CHECKOUT)
_PAGE_STATUS = {K.CONTACT_SENT: 303, K.LOGIN_SENT: 302, K.CHECKOUT: 303, K.LOGOUT: 302, K.DEAD: 404}

# Places that visitors come from: null is a bookmark, an app or a browser that does not tell.
EXTERNAL = (
    None, "https://www.google.com/", "https://www.bing.com/", "https://duckduckgo.com/", "https://t.co/",
    "https://news.ycombinator.com/", "https://www.facebook.com/", "https://www.reddit.com/", "android-app://com.google.android.gm/",
    "https://www.linkedin.com/", "https://forum.example.net/t/1842", "https://en.wikipedia.org/",
)  # fmt: skip
_EXTERNAL_SHARE = (40, 36, 5, 4, 2.5, 1.5, 3, 2, 1.5, 1, 2, 1.5)


@dataclass(slots=True)
class Hits:
    """Requests in codes, one array a column, all of one length. `unit` is what belongs together: a session."""

    time: Ints  # UTC milliseconds since 1970
    unit: Ints
    target: Ints  # index into the site's table
    method: Ints  # index into METHODS
    status: Ints
    size: Ints
    referrer: Ints  # -1 none, >= 0 a page of the site, <= -2 the external place -2 - n
    fixed: Ints  # 1: the address stays what it is whatever a release moves

    def __len__(self) -> int:
        return len(self.time)

    def pick(self, which: Ints) -> Hits:
        """These rows."""
        return Hits(**{name: getattr(self, name)[which] for name in Hits.__dataclass_fields__})

    @staticmethod
    def joined(parts: list[Hits]) -> Hits:
        """Rows of all parts, one after another."""
        return Hits(
            **{
                name: np.concatenate([getattr(part, name) for part in parts])
                for name in Hits.__dataclass_fields__
            }
        )


def hits(**columns: Ints | int) -> Hits:
    """Hits from columns of which some are one value for all rows."""
    rows = np.asarray(columns["time"]).shape[0]
    full = {"fixed": 0, "method": 0, "referrer": -1, **columns}
    return Hits(
        **{
            name: np.asarray(np.broadcast_to(np.asarray(value, dtype=np.int64), (rows,)))
            for name, value in full.items()
        }
    )


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
    kind = np.where(
        member, draw(rng, _entry(_MEMBER_ENTRY), sessions), draw(rng, _entry(_GUEST_ENTRY), sessions)
    )
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
        # Members do not leave as soon, and do not log in twice.
        stay = (following == K.EXIT) & member[active] & (rng.random(len(active)) < 0.25)
        following = np.where(stay, K.SHOP, following)
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
    session, steps, times, kinds, items, referrers = (
        np.concatenate(column) for column in zip(*parts, strict=True)
    )
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
        item[rows] = np.where(
            fresh, latest_article(site, rng, time[rows]), known_article(site, rng, time[rows])
        )
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


def page_hits(rng: np.random.Generator, site: Site, views: Views) -> Hits:
    """The request of each page itself."""
    status = np.full(len(views.kind), 200, dtype=np.int64)
    for kind, code in _PAGE_STATUS.items():
        status[views.kind == kind] = code
    target = site.page(views.kind, views.item)
    size = site.size[target].astype(float)
    # Pages are made anew each time, and packed: their size wavers. Files are sent as they are.
    size *= np.where(views.kind == K.FILE, 1.0, rng.normal(1.0, 0.012, len(size)))
    rare = rng.random(len(size))
    failed = (rare < 0.0004) & (status == 200)
    status[failed], size[failed] = 500, 1_240
    away = (rare > 0.9990) & (status == 200) & np.isin(views.kind, (K.SEARCH, K.FILE, K.ARTICLE))
    status[away], size[away] = 499, 0
    part = (views.kind == K.FILE) & (rng.random(len(size)) < 0.12)
    status[part], size[part] = 206, size[part] * rng.random(int(part.sum()))
    empty = (views.kind == K.LOGOUT) & (status == 302)
    size[empty] = 0
    lost = status == 404
    size[lost] = site.not_found_bytes
    unchanged = np.isin(views.kind, (K.FILE,)) & (rng.random(len(size)) < 0.06) & (status == 200)
    status[unchanged], size[unchanged] = 304, 0
    method = np.isin(views.kind, POSTED).astype(np.int64)
    # What a form posts to names the form as its referrer.
    form = np.where(views.kind == K.CONTACT_SENT, site.kind_start[K.CONTACT], site.kind_start[K.LOGIN])
    referrer = np.where(
        np.isin(views.kind, (K.CONTACT_SENT, K.LOGIN_SENT, K.LOGIN_FAILED)), form, views.referrer
    )
    return hits(
        time=views.time, unit=views.session, target=target, method=method, status=status,
        size=size.astype(np.int64), referrer=referrer,
    )  # fmt: skip


# What a kind of page loads: (group of the site's table, how many, item of the page it belongs to or 0).
_EVERY = (("style", 1, False), ("script", 2, False), ("font", 2, False), ("logo", 1, False))
_LOADS: dict[Kind, tuple[tuple[str, int, bool], ...]] = {
    K.HOME: (*_EVERY, ("hero", 3, True), ("thumb", 4, True), ("manifest", 1, False)),
    K.BLOG: (*_EVERY, ("hero", 6, True)),
    K.TAG: (*_EVERY, ("hero", 5, True)),
    K.ARTICLE: (*_EVERY, ("hero", 1, True), ("figure", 1, True)),
    K.SHOP: (*_EVERY, ("shop_script", 1, False), ("thumb", 8, True)),
    K.CATEGORY: (*_EVERY, ("shop_script", 1, False), ("thumb", 9, True)),
    K.ITEM: (*_EVERY, ("shop_script", 1, False), ("photo", 1, True), ("thumb", 3, True)),
    K.SEARCH: (*_EVERY, ("thumb", 2, True)),
    K.DOWNLOADS: _EVERY,
    K.ABOUT: (*_EVERY, ("lost_image", 1, False)),
    K.CONTACT: _EVERY,
    K.LOGIN: _EVERY,
    K.LOGIN_FAILED: _EVERY,
    K.ACCOUNT: (*_EVERY, ("account_script", 1, False)),
    K.ORDERS: (*_EVERY, ("account_script", 1, False)),
    K.ORDER: (*_EVERY, ("account_script", 1, False), ("thumb", 2, True)),
    K.CART: (*_EVERY, ("shop_script", 1, False), ("thumb", 2, True)),
    K.DEAD: _EVERY,
}


def asset_hits(
    rng: np.random.Generator, site: Site, visitors: Visitors, who: Ints, views: Views, release_ms: int | None
) -> Hits:
    """What the pages load: a browser asks once, later it keeps silent or asks whether it has changed (304)."""
    rows_of: list[Ints] = []
    targets: list[Ints] = []
    for kind, loads in _LOADS.items():
        rows = np.flatnonzero(views.kind == kind)
        if not len(rows):
            continue
        for group, count, own in loads:
            for number in range(count):
                # Listings show different things page by page, always the same on the same page.
                item = (
                    views.item[rows] * (1 if count == 1 else 5) + number * 3
                    if own
                    else np.full(len(rows), number)
                )
                rows_of.append(rows)
                targets.append(site.index(group, item))
    rows = np.concatenate(rows_of)
    target = np.concatenate(targets)
    time = views.time[rows]
    if release_ms is not None:
        target = np.where(time >= release_ms, site.moved[target], target)
    person = who[views.session[rows]]
    key = person * len(site.target) + target
    order = np.lexsort((time, key))
    key, time = key[order], time[order]
    first = np.ones(len(key), dtype=bool)
    first[1:] = key[1:] != key[:-1]
    gap = np.zeros(len(key), dtype=np.int64)
    gap[1:] = time[1:] - time[:-1]
    chance = rng.random(len(key))
    kept = first & visitors.known[person[order]] & (chance < 0.6)
    asks = np.where(first, ~kept | (chance < 0.2), (gap > 6 * 3_600_000) & (chance < 0.5) | (chance < 0.015))
    chosen = np.flatnonzero(asks)
    fresh = first[chosen] & ~kept[chosen]
    rows, target = rows[order][chosen], target[order][chosen]
    lost_first, lost_count = site.block["lost_image"]
    lost = (target >= lost_first) & (target < lost_first + lost_count)
    status = np.where(lost, 404, np.where(fresh, 200, 304))
    size = np.where(lost, site.not_found_bytes, np.where(fresh, site.size[target], 0))
    delay = 60 + rng.exponential(220, len(rows)).astype(np.int64)
    page = site.page(views.kind[rows], views.item[rows])
    font_first, font_count = site.block["font"]
    font = (target >= font_first) & (target < font_first + font_count)
    return hits(
        time=views.time[rows] + delay + font * 150, unit=views.session[rows], target=target, status=status,
        size=size, referrer=np.where(font, site.block["style"][0], page),
    )  # fmt: skip


def call_hits(rng: np.random.Generator, site: Site, visitors: Visitors, who: Ints, views: Views) -> Hits:
    """What scripts in the pages call: suggestions, stock, session, cart, beacons."""
    person = who[views.session]
    page = site.page(views.kind, views.item)
    parts: list[Hits] = []

    def call(rows: Ints, group: str, item: Ints, delay: Ints, status: int, method: int = 0) -> None:
        target = site.index(group, item)
        size = np.maximum(site.size[target] * rng.normal(1, 0.03, len(rows)), 0) if status != 204 else 0
        parts.append(
            hits(
                time=views.time[rows] + delay,
                unit=views.session[rows],
                target=target,
                status=status,
                size=np.asarray(size, dtype=np.int64),
                referrer=page[rows],
                method=method,
            )  # fmt: skip
        )

    def some(kind: Kind, share: float) -> Ints:
        return np.flatnonzero((views.kind == kind) & (rng.random(len(views.kind)) < share))

    def soon(rows: Ints, low: int, high: int) -> Ints:
        return rng.integers(low, high, size=len(rows), dtype=np.int64)

    rows = some(K.ITEM, 0.97)
    call(rows, "stock", views.item[rows], soon(rows, 150, 700), 200)
    rows = some(K.ITEM, 0.5)
    call(rows, "related", views.item[rows], soon(rows, 300, 2500), 200)
    rows = some(K.ITEM, 0.11)
    call(rows, "cart_add", np.zeros(len(rows), dtype=np.int64), soon(rows, 4000, 26000), 201, 1)
    for number, share in enumerate((0.8, 0.7, 0.5)):
        rows = some(K.SEARCH, share)
        call(
            rows,
            "suggest",
            views.item[rows] % 700 * 3 + number,
            soon(rows, 1, 400) + 400 * number - 1800,
            200,
        )
    inside = np.isin(views.kind, (K.ACCOUNT, K.ORDERS, K.ORDER, K.CART))
    rows = np.flatnonzero(inside & (rng.random(len(inside)) < 0.8))
    call(rows, "session", np.zeros(len(rows), dtype=np.int64), soon(rows, 100, 500), 200)
    seen = ~np.isin(views.kind, (*POSTED, K.LOGOUT, K.FILE, K.DEAD)) & visitors.beacon[person]
    rows = np.flatnonzero(seen & (rng.random(len(seen)) < 0.45))
    call(rows, "beacon", np.zeros(len(rows), dtype=np.int64), soon(rows, 900, 15000), 204, 1)
    return (
        Hits.joined([part for part in parts if len(part)])
        if parts
        else hits(time=np.zeros(0, dtype=np.int64), unit=0, target=0, status=200, size=0)
    )


def habit_hits(rng: np.random.Generator, site: Site, visitors: Visitors, who: Ints, views: Views) -> Hits:
    """What browsers ask for by themselves, and slips: favicon, apple-touch-icon, truncated and forbidden links."""
    first = np.flatnonzero(views.step == 0)
    person = who[views.session[first]]
    parts: list[Hits] = []

    def ask(rows: Ints, group: str, item: int, status: int, delay: int) -> None:
        target = site.index(group, np.full(len(rows), item))
        size = site.not_found_bytes if status == 404 else site.size[target] if status in (200, 403) else 0
        page = site.page(views.kind[rows], views.item[rows])
        parts.append(
            hits(
                time=views.time[rows] + delay,
                unit=views.session[rows],
                target=target,
                status=status,
                size=np.asarray(size, dtype=np.int64),
                referrer=page if group in ("favicon", "closed") else -1,
            )  # fmt: skip
        )

    chance = rng.random(len(first))
    ask(first[(chance < 0.42) & ~visitors.known[person]], "favicon", 0, 200, 700)
    ask(first[(chance < 0.05) & visitors.known[person]], "favicon", 0, 304, 700)
    apple = first[visitors.apple[person] & (rng.random(len(first)) < 0.14)]
    for number in range(4):
        rows = apple if number < 2 else apple[::3]
        ask(rows, "touch_icon", number, 404, 300 + 40 * number)
    rows = np.flatnonzero((views.kind == K.DOWNLOADS) & (rng.random(len(views.kind)) < 0.05))
    ask(rows, "closed", int(rng.integers(2)), 403, 4000)
    return Hits.joined(parts)
