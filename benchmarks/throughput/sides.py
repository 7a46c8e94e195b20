"""Who runs: each side's program, over how many records, and what its documents must have."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from benchmarks.place import ENRICH, Place

Shape = Literal["whole", "event"]
"""What is held against the product's documents: every field, or what the event itself brings."""


@dataclass(frozen=True, slots=True)
class Side:
    """One way to do it."""

    name: str
    what: str
    records: int
    shape: Shape
    module: str | None = None
    """None: the product."""
    python: str = sys.executable
    features: bool = False
    """Its features are held against the product's, too."""
    own_arguments: bool = True
    """Told by arguments (`asked.py`); else by settings, as the product is."""
    variables: Mapping[str, str] = field(default_factory=dict)

    def command(self, place: Place, topic: str, prefix: str, state: Path) -> list[str]:
        """How it is started."""
        if self.module is None:
            return ENRICH
        started = [self.python, "-m", f"benchmarks.throughput.{self.module}"]
        if not self.own_arguments:
            return started
        told = {
            "servers": place.kafka.removeprefix("kafka://"),
            "topic": topic,
            "group": prefix,
            "elastic": place.elastic,
            "prefix": prefix,
            "scorer": place.service.url,
            "fitted": str(place.folder / "fitted.log"),
            "state": str(state),
        }
        return [*started, *(part for name, value in told.items() for part in (f"--{name}", value))]


def product(records: int) -> Side:
    """`oddlog enrich`, as anybody runs it."""
    return Side("product", "oddlog enrich", records, "whole")


def constant(records: int) -> Side:
    """Its own code without features and scorer."""
    return Side(
        "constant", "oddlog enrich, constant features and scores", records, "whole", "constant", own_arguments=False
    )


def bare(records: int) -> Side:
    """What the client libraries allow."""
    return Side("bare", "kafka-python poll + orjson + raw bulk, by hand", records, "whole", "bare")


def naive(records: int) -> Side:
    """What tutorials do."""
    return Side("naive", "one record, one predict, one index call", records, "event", "naive")


def quix(records: int, python: str) -> Side:
    """The same work in a framework."""
    return Side("quix", "Quix Streams, the same work", records, "whole", "quix", python, features=True)
