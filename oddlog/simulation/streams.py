"""Named streams of random numbers from one seed, and draws that several parts need; no traffic is made here."""

from __future__ import annotations

import zlib

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def stream(seed: int, *names: str | int) -> np.random.Generator:
    """A generator of its own for every name, so that a new part changes no other part's numbers.

    The same seed and names give the same numbers in every process.

    >>> int(stream(1, "agents").integers(1000)) == int(stream(1, "agents").integers(1000))
    True
    """
    key = zlib.crc32("/".join(str(name) for name in names).encode())
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, key])))


def zipf_cumulative(count: int, exponent: float = 1.0, shift: float = 2.0) -> Floats:
    """Cumulative shares of a Zipf-Mandelbrot law over ranks 0..count-1: p(r) ~ 1 / (r + shift)^exponent."""
    weight = 1.0 / (np.arange(count) + shift) ** exponent
    return np.asarray(np.cumsum(weight) / weight.sum(), dtype=np.float64)


def draw(rng: np.random.Generator, cumulative: Floats, count: int) -> Ints:
    """`count` indices by cumulative shares."""
    found = np.searchsorted(cumulative, rng.random(count), side="right")
    return np.minimum(found, len(cumulative) - 1).astype(np.int64)
