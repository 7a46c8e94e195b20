"""The first alerts that an analyst would open: the oddest of the later period, like ones as one, with reasons in words.

An alert is a (client, hour) with an anomaly. Alerts whose odd requests are for the same set of path templates show one
behaviour, and are told once: a distributed attack takes one place of the list, not all of them.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from html import escape
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from oddlog.events.printable import printable
from oddlog.scoring.alerts import alerts_of, client_hours
from oddlog.scoring.explanation import rarer_than
from oddlog.scoring.model import Verdict
from oddlog.scoring.scorer import Reason

MOST = 20
URL_LENGTH = 160
EXAMPLES = 5
"""Clients named of those that behave alike, beside the oddest."""


@dataclass(frozen=True, slots=True)
class Alert:
    """One (client, hour) and its oddest request, with how many more alerts show the same behaviour."""

    client: str
    hour: dt.datetime
    requests: int
    """Of the client in that hour."""
    odd: int
    """The anomalies among them."""
    method: str
    url: str
    status: int | None
    time: dt.datetime
    score: float
    severity: float
    """Of its oddest request, by the channel that finds it odder."""
    rarity: str
    """The severity in words."""
    reasons: list[Reason]
    alike: int
    """Further alerts of the period with the same behaviour."""
    alike_clients: int
    """Further clients among them."""
    examples: list[str]
    """Some of these clients, oddest first."""


def first_alerts(events: pl.DataFrame, verdict: Verdict, *, most: int = MOST) -> list[Alert]:
    """The `most` oddest behaviours among the alerts of `events` [n] (training/dataset.py COLUMNS), each by its oddest
    alert, under a model's `verdict` [n] on them.

    Clients come in the order of their oddest alert, a client's alerts one after another, oldest first.
    """
    frame = client_hours(events).with_columns(
        severity=pl.Series(severities_of(verdict)),
        odd=pl.Series(verdict.is_anomaly),
        row=pl.int_range(pl.len()),
    )
    hours = frame.join(frame.filter("odd").select("client", "hour").unique(), on=["client", "hour"], how="semi")
    if hours.is_empty():
        return []
    alerts = (
        alerts_of(hours.filter("odd"))
        .join(hours.group_by("client", "hour").agg(pl.len().alias("requests")), on=["client", "hour"])
        .sort(["severity", "row"], descending=[True, False])
    )
    own = pl.col("client") == pl.col("client").first()
    behaviours = (
        alerts.group_by("behaviour", maintain_order=True)
        .agg(
            pl.col("client", "hour", "requests", "odd", "severity", "row").first(),
            alike=pl.len() - 1,
            alike_clients=pl.col("client").n_unique() - 1,
            examples=pl.col("client").filter(~own).unique(maintain_order=True).head(EXAMPLES),
        )
        .head(most)
        .with_columns(best=pl.col("severity").max().over("client"), lead=pl.col("row").first().over("client"))
        .sort(["best", "lead", "hour"], descending=[True, False, False])
    )
    rows = behaviours["row"].to_numpy()
    requests = events[rows].select(
        "http.request.method", "url.original", "http.response.status_code", "@timestamp"
    ).rows()  # fmt: skip
    return [
        Alert(
            client=one["client"],
            hour=one["hour"],
            requests=one["requests"],
            odd=one["odd"],
            method=method or "",
            url=url or "",
            status=status,
            time=time,
            score=float(verdict.score[one["row"]]),
            severity=round(one["severity"], 4),
            rarity=rarer_than(one["severity"]),
            reasons=verdict.reasons.get(one["row"], []),
            alike=one["alike"],
            alike_clients=one["alike_clients"],
            examples=one["examples"],
        )
        for one, (method, url, status, time) in zip(behaviours.iter_rows(named=True), requests, strict=True)
    ]


def severities_of(verdict: Verdict) -> npt.NDArray[np.float64]:
    """Severity of every event [n], by the second channel where that alone finds it odd, or finds it odder."""
    if verdict.novelty is None:
        return verdict.severity
    second = np.where(verdict.novelty.is_anomaly, verdict.novelty.severity, 0.0)
    return np.maximum(verdict.severity, second)


def as_document(alerts: Sequence[Alert]) -> dict[str, Any]:
    """For programs."""
    return {
        "alerts": [
            {
                **asdict(alert),
                "hour": alert.hour.isoformat(),
                "time": alert.time.isoformat(),
                "reasons": [dict(reason) for reason in alert.reasons],
            }
            for alert in alerts
        ]
    }


_STYLE = """
:root { color-scheme: light dark; }
body { margin: 1.2rem; font: 14px/1.45 system-ui, sans-serif; }
h1 { font-size: 1.2rem; } p { max-width: 60rem; }
table { border-collapse: collapse; } th, td { text-align: left; vertical-align: top; padding: .35rem .6rem;
  border-bottom: 1px solid #8886; } td.number { text-align: right; } code { overflow-wrap: anywhere; }
ul { margin: 0; padding-left: 1.1rem; } .client { min-width: 9rem; font-weight: 600; } .why { min-width: 24rem; }
"""


def as_page(alerts: Sequence[Alert], title: str) -> str:
    """For people: one HTML page that needs no other file. Every text of the log is escaped; scripts are forbidden."""
    rows = []
    before = None
    for alert in alerts:
        again = alert.client == before
        before = alert.client
        answer = "" if alert.status is None else f" &rarr; {alert.status}"
        request = escape(f"{printable(alert.method or '(no HTTP)', most=20)} {printable(alert.url, most=URL_LENGTH)}")
        why = "".join(f"<li>{escape(printable(_without_name(reason)))}</li>" for reason in alert.reasons)
        if alert.alike:
            why += f"<li>{escape(_alike(alert))}</li>"
        rows.append(
            f'<tr><td class="client">{"" if again else escape(printable(alert.client, most=60))}</td>'
            f"<td>{alert.hour:%Y-%m-%d %H}:00</td>"
            f'<td class="number">{alert.odd:,} of {alert.requests:,}</td>'
            f"<td><code>{request}{answer}</code></td><td>{escape(alert.rarity)}</td>"
            f'<td class="why"><ul>{why}</ul></td></tr>'
        )
    heads = ("client", "hour, UTC", "odd requests", "oddest request", "severity", "why")
    body = (
        "<p>No event of the later period reaches the threshold.</p>"
        if not rows
        else f"<table><thead><tr>{''.join(f'<th>{head}</th>' for head in heads)}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table>"
    )
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" '
        f'content="{policy}"><title>{escape(title)}</title><style>{_STYLE}</style></head><body><h1>{escape(title)}</h1>'
        f"<p>The oddest {len(rows)} alerts of the later period, oddest client first. An alert is a client and an hour "
        f"with a request at or above the threshold; alerts whose odd requests are for the same paths are told once."
        f"</p>{body}</body></html>\n"
    )


def _alike(alert: Alert) -> str:
    """How many more alerts there are like it."""
    more = f"{alert.alike:,} more alert{'' if alert.alike == 1 else 's'} with odd requests for the same paths"
    if not alert.alike_clients:
        return f"{more}, of this client"
    named = ", ".join(printable(client, most=60) for client in alert.examples)
    others = alert.alike_clients - len(alert.examples)
    return f"{more}, of {alert.alike_clients:,} more clients: {named}" + (f" and {others:,} others" if others else "")


def _without_name(reason: Reason) -> str:
    """A reason's sentence without the feature's name before it."""
    return reason["text"].removeprefix(f"{reason['feature']}: ")
