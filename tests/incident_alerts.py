"""Alerts as `monitoring/incidents_alerts.py` reads them, for tests of what is made of them, and incidents of such."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping

import polars as pl

from monitoring.incidents import Incident, regroup
from monitoring.incidents_alerts import ALERT_SCHEMA, hour_of

NOON = dt.datetime(2024, 3, 1, 12, tzinfo=dt.UTC)
QUIET = dt.timedelta(hours=2)


def at(hours: float) -> dt.datetime:
    """So many hours after noon."""
    return NOON + dt.timedelta(hours=hours)


def alert(
    client: str, hours: float, *paths: str, odd: int = 1, severity: float = 3.0, lasts: float = 0.0
) -> dict[str, object]:
    """An alert whose first odd event is at noon and so many `hours`; `lasts` hours pass to its last."""
    first = at(hours)
    behaviour = "\n".join(sorted(paths or ("/x",)))
    return {
        "client": client, "hour": hour_of(first), "odd": odd, "severity": severity, "row": f"{client}-{first:%H%M}",
        "behaviour": behaviour, "first": first, "last": first + dt.timedelta(hours=lasts),
    }  # fmt: skip


def grouped(
    known: Mapping[str, Incident],
    *alerts: dict[str, object],
    since: float = -24,
    now: float = 1,
    pattern: int = 3,
    quiet: dt.timedelta = QUIET,
) -> dict[str, Incident]:
    """All incidents after a round at `now` (hours after noon) that finds these alerts."""
    frame = pl.DataFrame(alerts, schema=ALERT_SCHEMA)
    changed = regroup(known, frame, since=hour_of(at(since)), now=at(now), quiet=quiet, pattern_clients=pattern)
    return {**known, **changed}
