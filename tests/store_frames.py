"""Events and dead letters as stores keep them, and how a test writes and reads them. Fixtures are not here."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import polars as pl

from oddlog.connectors.store import EventQuery, Store, WriteOutcome
from oddlog.events.schema import ANOMALY_SCHEMA, DEAD_SCHEMA, EVENT_SCHEMA

ALL = EventQuery()
MIDNIGHT = dt.datetime(2024, 3, 1, tzinfo=dt.UTC)
STORED = [*EVENT_SCHEMA, *ANOMALY_SCHEMA]
REASONS = [{"feature": "tok", "value": 4.5, "typical": 0.25, "share": 0.6, "text": "rare “words” in the URL"}]


def events(n: int, *, start: int = 0, partition: int = 0, epoch: str = "e1", **columns: Any) -> pl.DataFrame:
    """Events of EVENT_SCHEMA a minute apart, over midnight; `columns` replaces or adds, by name with __ for a dot."""
    offsets = range(start, start + n)
    base: dict[str, Any] = {
        "_id": [f"{epoch}-logs.raw-{partition}-{offset}" for offset in offsets],
        "@timestamp": [MIDNIGHT + dt.timedelta(minutes=offset - 3) for offset in offsets],
        "source.address": [f"192.0.2.{offset % 250}" for offset in offsets],
        "source.ip": [f"192.0.2.{offset % 250}" for offset in offsets],
        "user.name": [None] * n,
        "http.request.method": ["GET"] * n,
        "url.original": [f"/page/{offset}?q=1" for offset in offsets],
        "url.path": [f"/page/{offset}" for offset in offsets],
        "url.query": ["q=1" if offset % 2 else None for offset in offsets],
        "http.version": ["1.1"] * n,
        "http.response.status_code": [200 + offset % 300 for offset in offsets],
        "http.response.body.bytes": [2**40 + offset if offset % 3 else None for offset in offsets],
        "http.request.referrer": [None] * n,
        "user_agent.original": ["Mozilla/5.0"] * n,
        "host.name": ["web1"] * n,
        "log.file.path": ["/var/log/nginx/access.log"] * n,
        "labels.truth": ["benign"] * n,
        "event.original": [f'192.0.2.1 - - "GET /page/{offset}"' for offset in offsets],
        "oddlog.position.epoch": [epoch] * n,
        "oddlog.position.topic": ["logs.raw"] * n,
        "oddlog.position.partition": [partition] * n,
        "oddlog.position.offset": list(offsets),
    }
    frame = pl.DataFrame(base, schema=EVENT_SCHEMA)
    more = {name.replace("__", "."): value for name, value in columns.items()}
    return frame.with_columns(
        pl.Series(name, value, dtype={**EVENT_SCHEMA, **ANOMALY_SCHEMA}.get(name, pl.Float32))
        for name, value in more.items()
    )


def scored(n: int, **columns: Any) -> pl.DataFrame:
    """Events with every column that enrichment adds, and two features."""
    odd = [row % 4 == 3 for row in range(n)]
    return events(
        n,
        **{
            "anomaly__status": ["scored"] * n,
            "anomaly__score": [row / 7 for row in range(n)],
            "anomaly__severity": [row / 3 for row in range(n)],
            "anomaly__is_anomaly": odd,
            "anomaly__threshold": [0.4] * n,
            "anomaly__threshold_version": ["2024-03-01T00:00:00Z"] * n,
            "anomaly__model__name": ["oddlog"] * n,
            "anomaly__model__version": ["3"] * n,
            "anomaly__baseline": ["0f" * 16] * n,
            "anomaly__reasons": [REASONS if one else None for one in odd],
            "features__tok": np.linspace(-1, 1, n, dtype=np.float32),
            "features__client_e_1h": np.linspace(0, 1e-7, n, dtype=np.float32),
            **columns,
        },
    )


def dead_letters(n: int, *, start: int = 0) -> pl.DataFrame:
    """Letters a minute apart, the newest first, every other one with bytes."""
    offsets = list(range(start, start + n))
    return pl.DataFrame(
        {
            "_id": [f"e1-logs.raw-0-{offset}" for offset in offsets],
            "@timestamp": [MIDNIGHT - dt.timedelta(minutes=offset) for offset in offsets],
            "reason": [f"line {offset} fits no format" for offset in offsets],
            "kind": ["no_format"] * n,
            "original": [bytes(range(256)) + b"%d" % offset if offset % 2 else None for offset in offsets],
            "oddlog.position.epoch": ["e1"] * n,
            "oddlog.position.topic": ["logs.raw"] * n,
            "oddlog.position.partition": [0] * n,
            "oddlog.position.offset": offsets,
        },
        schema=DEAD_SCHEMA,
    )


def acknowledged(outcome: WriteOutcome) -> None:
    """Fail unless the store took every row."""
    assert not outcome.rejected, outcome.rejected
    assert not outcome.retry, outcome.retry


def write(store: Store, frame: pl.DataFrame) -> None:
    """Write events so that they are found by what is asked next."""
    acknowledged(store.write_events(frame))
    store.refresh()


def write_letters(store: Store, frame: pl.DataFrame) -> None:
    """The same for dead letters."""
    acknowledged(store.write_dead(frame))
    store.refresh()


def read(store: Store, query: EventQuery = ALL, **how: Any) -> pl.DataFrame:
    """Everything that fits, in position order unless told otherwise."""
    frames = list(store.read_events(query, **{"order": "position", **how}))
    return pl.concat(frames) if frames else pl.DataFrame()


def ids(store: Store, query: EventQuery = ALL, **how: Any) -> list[str]:
    found = read(store, query, columns=["_id"], **how)
    return found["_id"].to_list() if found.height else []
