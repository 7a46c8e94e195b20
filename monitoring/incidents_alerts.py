"""Alerts of stored events, hour by hour, and the event that an incident shows. Grouping them is `incidents.py`'s."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from monitoring.documents import iso
from oddlog.connectors.store import EventQuery, Store
from oddlog.events.schema import TIMESTAMP
from oddlog.scoring.alerts import alerts_of, client_hours

HOUR = dt.timedelta(hours=1)

ALERT_SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    "client": pl.String, "hour": TIMESTAMP, "odd": pl.UInt32, "severity": pl.Float64, "row": pl.String,
    "behaviour": pl.String, "first": TIMESTAMP, "last": TIMESTAMP,
}  # fmt: skip
"""`row` is the id of the alert's oddest event, `odd` how many there are."""

_ANOMALY = ["_id", "@timestamp", "source.address", "url.path", "anomaly.severity", "anomaly.novelty.severity"]
_SHOWN = [
    "_id", "@timestamp", "source.address", "http.request.method", "url.original", "http.response.status_code",
    "anomaly.reasons",
]  # fmt: skip
_URL_LENGTH = 1_000
_IDS = 500

MANY = 72
"""Hours past which it is asked first which of them have anomalies at all."""

ANEW = dt.timedelta(hours=1)
"""How long an hour with the same number of anomalies is taken for the same: one may be hushed as another comes."""


@dataclass(frozen=True, slots=True)
class _Hour:
    anomalies: int
    read_at: dt.datetime
    alerts: pl.DataFrame


class AlertReader:
    """Reads alerts of hours; an hour is read again only where its number of anomalies is another than before, which the
    store counts. In memory is one row an alert."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._hours: dict[dt.datetime, _Hour] = {}

    def read(self, since: dt.datetime, now: dt.datetime) -> pl.DataFrame:
        """The alerts (ALERT_SCHEMA) of the hours from that of `since` to that after `now`, whole ones.

        Raises StoreError."""
        first, end = hour_of(since), hour_of(now) + 2 * HOUR  # clocks of senders may be fast
        hours = list(_hours(first, end))
        if len(hours) > MANY:
            odd = self._store.client_hours(EventQuery(since=first, until=end, only_anomalies=True))
            hours = odd["hour"].unique().sort().to_list()
        self._hours = {hour: self._hours[hour] for hour in hours if hour in self._hours}
        for hour in hours:
            period = EventQuery(since=hour, until=hour + HOUR, only_anomalies=True)
            anomalies, held = self._store.count_events(period), self._hours.get(hour)
            if held is None or held.anomalies != anomalies or now - held.read_at >= ANEW:
                alerts = self._read(period) if anomalies else pl.DataFrame(schema=ALERT_SCHEMA)
                self._hours[hour] = _Hour(anomalies, now, alerts)
        return pl.concat([pl.DataFrame(schema=ALERT_SCHEMA), *(held.alerts for held in self._hours.values())])

    def _read(self, period: EventQuery) -> pl.DataFrame:
        frames = list(self._store.read_events(period, columns=_ANOMALY))
        if not frames:  # gone since they were counted
            return pl.DataFrame(schema=ALERT_SCHEMA)
        events = pl.concat(frames)
        severity = pl.max_horizontal("anomaly.severity", "anomaly.novelty.severity").fill_null(0.0)
        anomalies = client_hours(events).with_columns(
            events.select(severity=severity, row=pl.col("_id"), time=pl.col("@timestamp"))
        )
        times = anomalies.group_by("client", "hour").agg(first=pl.col("time").min(), last=pl.col("time").max())
        found = alerts_of(anomalies).join(times, on=["client", "hour"])
        return found.select(pl.col(name).cast(dtype) for name, dtype in ALERT_SCHEMA.items())


def read_examples(store: Store, ids: Sequence[str]) -> dict[str, tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Events by id as incidents show them, and their reasons; those that are gone are left out. Raises StoreError."""
    found = {}
    for some in _batched(ids, _IDS):
        for frame in store.read_events(EventQuery(ids=tuple(some)), columns=_SHOWN):
            for id, time, client, method, url, status, reasons in frame.iter_rows():
                example = {
                    "id": id, "time": iso(time),
                    "client": client, "method": method, "url": (url or "")[:_URL_LENGTH], "status": status,
                }  # fmt: skip
                found[id] = (example, list(reasons or []))
    return found


def hour_of(moment: dt.datetime) -> dt.datetime:
    """The beginning of its hour, UTC."""
    return moment.astimezone(dt.UTC).replace(minute=0, second=0, microsecond=0)


def _hours(first: dt.datetime, end: dt.datetime) -> Iterator[dt.datetime]:
    while first < end:
        yield first
        first += HOUR


def _batched(ids: Sequence[str], most: int) -> Iterable[Sequence[str]]:
    return (ids[begin : begin + most] for begin in range(0, len(ids), most))
