"""A sample of clients by hash, and what it does to the counts that features are made of. Whole clients, never lines."""

from __future__ import annotations

import zlib

import polars as pl

_SALT = b"oddlog-train:"
"""So that this sample is no other one's, such as the consumer's for its shadow."""


def in_sample(clients: pl.Series, share: float) -> pl.Series:
    """Which events are of a client in the sample, Boolean [n]: by hash, the same clients in every pull.

    A smaller share's clients are among a larger one's.

    >>> clients = pl.Series([f"192.0.2.{i}" for i in range(200)])
    >>> 30 < in_sample(clients, 0.25).sum() < 70
    True
    >>> in_sample(clients, 1.0).all()
    True
    """
    if share >= 1:
        return pl.repeat(value=True, n=len(clients), dtype=pl.Boolean, eager=True)
    distinct = clients.unique()
    limit = share * 2**32
    chosen = [zlib.crc32(_SALT + str(client).encode()) < limit for client in distinct.to_list()]
    return clients.is_in(distinct.filter(pl.Series(chosen, dtype=pl.Boolean)).implode())


def effect(share: float, *, events: int, clients: int, behaviours: int) -> str:
    """What is to be known of counts that were made over a sample, in a sentence for run and card.

    >>> effect(0.25, events=1200, clients=80, behaviours=49)[:70]
    '25 % of the clients, chosen by hash: 1,200 events of 80 clients. All c'
    """
    return (
        f"{100 * share:.3g} % of the clients, chosen by hash: {events:,} events of {clients:,} clients. All counts are "
        f"over this sample: with {behaviours:,} behaviours in the fitted part, nothing is rarer than 1 in "
        f"{2 * (behaviours + 1):,}, what few clients ask for may be unknown, and more than in the whole counts as new. "
        "The alert budget was taken pro rata, so that it holds for all clients."
    )
