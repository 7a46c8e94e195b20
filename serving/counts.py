"""What a consumer has done, counted. Who counts is `enrich.py`; who tells it is `consumer_metrics.py` and the verb."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Counts:
    """What a consumer has done since it started."""

    records: int = 0
    scored: int = 0
    pending: int = 0
    settled: int = 0
    dead_letters: int = 0
    anomalies: int = 0
    hushed: int = 0
    batches: int = 0
    retries: int = 0
    replayed: int = 0
    shadow_scored: int = 0
    shadow_dropped: int = 0
