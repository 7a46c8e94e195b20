"""Which faults, in which order, how long each: all of it from a seed. How a fault is done is in `world.py`."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

from benchmarks.fault_proxy import PROXY_FAULTS

Lane = Literal["servers", "others"]
"""Two lanes of faults go on side by side: a server that takes long to come back, and everything else."""

SERVERS = ("kill elasticsearch", "kill kafka", "freeze elasticsearch", "freeze kafka", "kill scorer", "freeze scorer")
POINTS = ("between-write-and-commit", "between-commit-and-snapshot", "during-restore")
CONSUMERS = ("kill consumer", "freeze consumer", "join and leave", *(f"kill consumer {point}" for point in POINTS))
INDICES = ("write block", "flood stage", "closed index")
PROMOTION = "promotion"
OTHERS = (*CONSUMERS, *INDICES, PROMOTION, *(f"proxy {name}" for name in PROXY_FAULTS))

SECONDS = {"freeze consumer": (7.0, 10.0), "freeze elasticsearch": (3.0, 8.0), "freeze kafka": (3.0, 8.0)}
"""How long a fault lasts, between these; a frozen consumer for longer than its session of 6 seconds."""
OTHERWISE = (1.0, 4.0)

BRISK_PAUSE, BRISK = (0.1, 0.4), (0.5, 1.5)
"""Of the short form, which has one fault of a kind and no time to lose."""

SHORT = (
    "kill elasticsearch", "kill kafka", "kill scorer", "kill consumer", "kill consumer between-write-and-commit",
    "join and leave", "closed index", "write block", PROMOTION, "proxy part_429", "proxy cut_after",
    "proxy too_large_413", "proxy refused_401",
)  # fmt: skip
"""Of the short form: each once."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: after `pause` seconds without any, `kind` for `seconds`."""

    kind: str
    pause: float
    seconds: float

    @property
    def lane(self) -> Lane:
        """Where it goes on."""
        return "servers" if self.kind in SERVERS else "others"


def short_plan(seed: int) -> list[Fault]:
    """Every kind of SHORT once, in an order of the seed's.

    >>> len(short_plan(1)) == len(SHORT), short_plan(1) == short_plan(1), short_plan(1) == short_plan(2)
    (True, True, False)
    """
    chance = random.Random(seed)
    kinds = list(SHORT)
    chance.shuffle(kinds)
    return [_fault(chance, kind, brisk=True) for kind in kinds]


def plan(seed: int, faults: int) -> list[Fault]:
    """`faults` faults: a tenth each for Elasticsearch and Kafka, a twentieth for the scorer, the rest cheap ones.

    >>> [sum("kafka" in fault.kind for fault in plan(0, n)) for n in (10, 200)]
    [1, 20]
    """
    chance = random.Random(seed)
    kinds: list[str] = []
    for name, share in (("elasticsearch", 10), ("kafka", 10), ("scorer", 20)):
        count = faults // share
        kinds += [f"kill {name}" if number % 3 < 2 else f"freeze {name}" for number in range(count)]
    while len(kinds) < faults:
        kinds += chance.sample(OTHERS, min(len(OTHERS), faults - len(kinds)))
    chance.shuffle(kinds)
    return [_fault(chance, kind) for kind in kinds]


def _fault(chance: random.Random, kind: str, *, brisk: bool = False) -> Fault:
    pause = chance.uniform(*(BRISK_PAUSE if brisk else (0.2, 2.0)))
    low, high = SECONDS.get(kind, BRISK if brisk else OTHERWISE)
    return Fault(kind, round(pause, 2), round(chance.uniform(low, high), 2))
