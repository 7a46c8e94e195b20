"""Counts over events of the SQLite store: the questions, and their answers as the port has them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import polars as pl

from oddlog.connectors.sqlite_query import where
from oddlog.connectors.store import STATUS_CLASSES, EventQuery, EventSummary
from oddlog.events.schema import TIMESTAMP

Ask = Callable[[str, Sequence[Any]], list[tuple[Any, ...]]]
"""Runs a statement with its parameters."""

_HOUR = '"@timestamp" - ("@timestamp" % 3600000 + 3600000) % 3600000'  # before 1970, too


def summarise(ask: Ask, query: EventQuery) -> EventSummary:
    """In one pass over what fits: by client and hour, then by client, then all."""
    clause, parameters = where(query)
    classes = {name: f"s{number}" for number, name in enumerate(STATUS_CLASSES, 1)}
    counted = {
        "events": "1",
        "pending": "\"anomaly.status\" = 'pending'",
        **{short: f'"http.response.status_code" / 100 = {short[1:]}' for short in classes.values()},
    }
    is_scored = "\"anomaly.status\" = 'scored'"
    by_hour = (
        f'SELECT "source.address" AS client, {", ".join(f"sum({term}) AS {name}" for name, term in counted.items())},'
        f' max({is_scored}) AS hours, max({is_scored} AND coalesce("anomaly.is_anomaly", 0)) AS alerts'
        f" FROM events{clause} GROUP BY 1, {_HOUR}"
    )
    summed = ", ".join(f"sum({name}) AS {name}" for name in (*counted, "hours", "alerts"))
    statement = f"SELECT count(*), max(events), {summed} FROM (SELECT {summed} FROM ({by_hour}) GROUP BY client)"
    ((clients, busiest, *sums),) = ask(statement, parameters)
    found = {name: count or 0 for name, count in zip((*counted, "hours", "alerts"), sums, strict=True)}
    return EventSummary(
        events=found["events"],
        pending=found["pending"],
        statuses={name: found[short] for name, short in classes.items()},
        clients=clients,
        busiest=busiest or 0,
        client_hours=found["hours"],
        alerts=found["alerts"],
    )


def client_hours(ask: Ask, query: EventQuery) -> pl.DataFrame:
    """The distinct (client, hour) of events that fit."""
    clause, parameters = where(query)
    rows = ask(f'SELECT DISTINCT "source.address", {_HOUR} FROM events{clause}', parameters)
    frame = pl.DataFrame(rows, schema={"client": pl.String, "hour": pl.Int64}, orient="row")
    return frame.with_columns(pl.col("hour").cast(TIMESTAMP))
