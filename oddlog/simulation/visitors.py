"""Who visits: people with browsers, at home, behind shared addresses or on phones. What they do is in `sessions.py`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from oddlog.simulation.addresses import AddressPool
from oddlog.simulation.agents import Agents
from oddlog.simulation.rhythm import DAY_MS
from oddlog.simulation.streams import Floats, Ints, draw

Flags = npt.NDArray[np.bool_]


@dataclass(slots=True)
class Visitors:
    """One entry a person's browser; `client` tables are by visitor, sessions pick from them."""

    agent: Ints  # index into the browsers
    member: Flags  # has an account
    apple: Flags
    known: Flags  # has been here before the log begins: its cache is filled
    beacon: Flags  # lets itself be counted
    home: Ints  # first index of its addresses
    homes: Ints  # how many addresses it has in turn; 1 keeps it
    changes: Ints  # 0 address by day, 1 by session


def make_visitors(rng: np.random.Generator, agents: Agents, count: int) -> tuple[Visitors, int]:
    """`count` visitors, and how many addresses they need in all.

    72 % have an address of their own, 10 % sit behind an office's one address, 18 % are on phones whose carrier
    gives them one of a shared handful, another one each time.
    """
    agent = draw(rng, agents.cumulative, count)
    mobile = np.array(agents.mobile)[agent]
    place = rng.random(count)
    carrier = mobile & (place < 0.45)
    office = ~mobile & (place < 0.16)
    daily = ~carrier & ~office & (place > 0.90)
    offices = max(1, count // 150)
    pools = max(1, count // 60)
    home = np.zeros(count, dtype=np.int64)
    homes = np.ones(count, dtype=np.int64)
    # Offices differ in size as firms do: a few are large.
    share = 1.0 / (np.arange(offices) + 1.5)
    home[office] = rng.choice(offices, size=int(office.sum()), p=share / share.sum())
    home[carrier] = offices + rng.integers(0, pools, int(carrier.sum())) * 6
    homes[carrier] = 6
    own = np.flatnonzero(~office & ~carrier)
    homes[own] = np.where(daily[own], 4, 1)
    home[own] = offices + pools * 6 + np.concatenate([[0], np.cumsum(homes[own])[:-1]])
    visitors = Visitors(
        agent=agent,
        member=rng.random(count) < 0.26,
        apple=np.array(agents.apple)[agent],
        known=rng.random(count) < 0.30,
        beacon=rng.random(count) < 0.7,
        home=home,
        homes=homes,
        changes=carrier.astype(np.int64),
    )
    return visitors, offices + pools * 6 + int(homes[own].sum())


def activity(rng: np.random.Generator, count: int) -> Floats:
    """Cumulative shares of visits: most visitors come once or twice, a few all the time (Pareto, 1.3, cut)."""
    weight = np.minimum(rng.pareto(1.3, count) + 0.15, 120.0)
    return np.asarray(np.cumsum(weight) / weight.sum(), dtype=np.float64)


def session_addresses(visitors: Visitors, who: Ints, when_ms: Ints, session: Ints) -> Ints:
    """Which address each session comes from."""
    by_day = when_ms // DAY_MS
    turn = np.where(visitors.changes[who] == 1, session * 7 + who, by_day + who)
    return np.asarray(visitors.home[who] + turn % visitors.homes[who], dtype=np.int64)


def make_addresses(rng: np.random.Generator, count: int) -> list[str]:
    """Addresses for visitors, one in twelve IPv6."""
    return AddressPool(rng).take(count, v6_share=0.08)
