"""What a visited page makes a browser ask for: itself, assets, calls of its scripts, and the browser's own habits."""

from __future__ import annotations

import numpy as np

from oddlog.simulation.hits import Hits, hits
from oddlog.simulation.sessions import Views
from oddlog.simulation.site import Kind, Site
from oddlog.simulation.streams import Ints
from oddlog.simulation.visitors import Visitors

K = Kind
POSTED = (K.CONTACT_SENT, K.LOGIN_SENT, K.LOGIN_FAILED, K.CHECKOUT)
_PAGE_STATUS = {K.CONTACT_SENT: 303, K.LOGIN_SENT: 302, K.CHECKOUT: 303, K.LOGOUT: 302, K.DEAD: 404}


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
    referrer = np.where(np.isin(views.kind, (K.CONTACT_SENT, K.LOGIN_SENT, K.LOGIN_FAILED)), form, views.referrer)
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
                item = views.item[rows] * (1 if count == 1 else 5) + number * 3 if own else np.full(len(rows), number)
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
            )
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
            )
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
