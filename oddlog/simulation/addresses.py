"""Client addresses by seed: public-looking ones for visitors, and reserved ones for what is planted in real logs."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

import numpy as np

# Not handed out to visitors: private, local, multicast, documentation, benchmark, and the crawlers' own networks.
_CLOSED = tuple(
    ipaddress.ip_network(block)
    for block in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
        "192.0.0.0/24", "192.0.2.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
        "224.0.0.0/3", "66.249.0.0/16", "157.55.0.0/16", "77.88.0.0/16", "54.36.0.0/16", "185.191.0.0/16",
        "20.171.0.0/16", "17.0.0.0/8", "173.252.0.0/16", "216.244.0.0/16", "207.241.0.0/16",
    )
)  # fmt: skip


class AddressPool:
    """Addresses that no one else in the same log has.

    >>> pool = AddressPool(np.random.default_rng(1))
    >>> len(set(pool.take(500)))
    500
    """

    def __init__(self, rng: np.random.Generator, *, reserved: bool = False, taken: Iterable[str] = ()) -> None:
        """`reserved`: only from 198.18.0.0/15 and 2001:db8::/32, which belong to no one. `taken`: never given."""
        self._rng = rng
        self._reserved = reserved
        self._taken = set(taken)
        self._networks = [] if reserved else self._providers(400)

    def _providers(self, count: int) -> list[int]:
        """Networks of /16 that visitors' providers own."""
        networks: list[int] = []
        while len(networks) < count:
            base = int(self._rng.integers(1 << 16)) << 16
            block = ipaddress.ip_network((base, 16))
            if base >> 24 and not any(block.overlaps(closed) for closed in _CLOSED):
                networks.append(base)
        return networks

    def take(self, count: int, *, v6_share: float = 0.0) -> list[str]:
        """`count` fresh addresses, about `v6_share` of them IPv6."""
        found: list[str] = []
        while len(found) < count:
            many = count - len(found)
            six = self._rng.random(many) < v6_share
            which = self._rng.integers(1 << 30, size=many)
            host = self._rng.integers(1 << 17, size=many)
            low = self._rng.integers(1 << 62, size=many)
            for is_six, network, number, rest in zip(
                six.tolist(), which.tolist(), host.tolist(), low.tolist(), strict=True
            ):
                if is_six:
                    top = 0x20010DB8 << 96 if self._reserved else (0x2A000000 | (network & 0xFFFFF)) << 96
                    address = str(ipaddress.IPv6Address(top | (network >> 20) << 64 | rest))
                else:
                    if self._reserved:
                        value = (198 << 24) + (18 << 16) + number
                    else:
                        value = self._networks[network % len(self._networks)] + (number & 0xFFFF)
                    address = f"{value >> 24}.{value >> 16 & 255}.{value >> 8 & 255}.{value & 255}"
                if address not in self._taken:
                    self._taken.add(address)
                    found.append(address)
        return found
