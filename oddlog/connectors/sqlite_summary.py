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
    """In three passes over what fits."""
    clause, parameters = where(query)
    pending, *classes = (
        f"sum({term})"
        for term in (
            "\"anomaly.status\" = 'pending'",
            *(f'"http.response.status_code" / 100 = {n}' for n in range(1, 6)),
        )
    )
    ((events, waiting, *counts),) = ask(
        f"SELECT count(*), {pending}, {', '.join(classes)} FROM events{clause}", parameters
    )
    ((clients, busiest),) = ask(
        f'SELECT count(*), max(n) FROM (SELECT count(*) AS n FROM events{clause} GROUP BY "source.address")', parameters
    )
    scored = f"{clause} AND" if clause else " WHERE"
    ((hours, alerts),) = ask(
        'SELECT count(*), sum(odd) FROM (SELECT max(coalesce("anomaly.is_anomaly", 0)) AS odd FROM events'
        f'{scored} "anomaly.status" = \'scored\' GROUP BY "source.address", {_HOUR})',
        parameters,
    )
    return EventSummary(
        events=events,
        pending=waiting or 0,
        statuses={name: count or 0 for name, count in zip(STATUS_CLASSES, counts, strict=True)},
        clients=clients,
        busiest=busiest or 0,
        client_hours=hours,
        alerts=alerts or 0,
    )


def client_hours(ask: Ask, query: EventQuery) -> pl.DataFrame:
    """The distinct (client, hour) of events that fit."""
    clause, parameters = where(query)
    rows = ask(f'SELECT DISTINCT "source.address", {_HOUR} FROM events{clause}', parameters)
    frame = pl.DataFrame(rows, schema={"client": pl.String, "hour": pl.Int64}, orient="row")
    return frame.with_columns(pl.col("hour").cast(TIMESTAMP))
