"""How far an `oddlog enrich` is, by what its own port tells: records committed, events its shadow lane scored."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from benchmarks.place import still_running

STALLED_SECONDS = 180.0
LOOK_SECONDS = 0.05
_SAMPLE = re.compile(r"^(oddlog_consumer_\w+?)(?:_total)?(?:\{(.*?)\})? (\S+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Look:
    """What a consumer had done at a moment of time.monotonic()."""

    moment: float
    records: int
    """Read, written and committed."""
    shadow_scored: int
    shadow_dropped: int


def _look(asking: httpx.Client) -> Look:
    """Ask once; zeros while nobody answers."""
    try:
        text = asking.get("/metrics").text
    except httpx.TransportError:
        text = ""
    found = {(name, labels): float(value) for name, labels, value in _SAMPLE.findall(text)}

    def value(name: str, labels: str = "") -> int:
        return int(found.get((f"oddlog_consumer_{name}", labels), 0.0))

    shadow = [value("shadow_events", f'outcome="{outcome}"') for outcome in ("scored", "dropped")]
    return Look(time.monotonic(), value("records"), *shadow)


def looks_until(records: int, port: int, process: Any, log: Path) -> Iterator[Look]:
    """Looks at a consumer, until it has committed so many records. Raises SystemExit where it ends or stands still."""
    moved, seen = time.monotonic(), -1
    # One client: to make one takes longer than to ask, and the processor is what is measured.
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=5, trust_env=False) as asking:
        while True:
            still_running(process, log)
            now = _look(asking)
            yield now
            if now.records >= records:
                return
            if now.records > seen:
                moved, seen = now.moment, now.records
            if now.moment - moved > STALLED_SECONDS:
                raise SystemExit(f"the consumer stays at {seen:,} of {records:,} records")
            time.sleep(LOOK_SECONDS)
