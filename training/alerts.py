"""The first alerts that an analyst would open: the oddest of the later period, by client, with reasons in words.

An alert is a (client, hour) with an event at or above the threshold. How alike clients are grouped is in `findings.py`.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from html import escape
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import polars as pl

from oddlog.events.printable import printable
from oddlog.scoring.explanation import explain, rarer_than
from oddlog.scoring.scorer import Reason

Matrix = npt.NDArray[np.float32]

MOST = 20
URL_LENGTH = 160


class Explained(Protocol):
    """A model: severities of scores, and how much each feature carried."""

    def severity(self, scores: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """[n]."""

    def contributions(self, features: Matrix) -> Matrix:
        """[n, d]."""


@dataclass(frozen=True, slots=True)
class Alert:
    """One (client, hour) and its oddest request."""

    client: str
    hour: dt.datetime
    requests: int
    """Of the client in that hour."""
    odd: int
    """Those at or above the threshold."""
    method: str
    url: str
    status: int | None
    time: dt.datetime
    score: float
    severity: float
    rarity: str
    """The severity in words."""
    reasons: list[Reason]


def first_alerts(
    events: pl.DataFrame,
    scores: npt.NDArray[np.float32],
    features: Matrix,
    threshold: float,
    model: Explained,
    names: Sequence[str],
    typical: dict[str, float],
    *,
    most: int = MOST,
) -> list[Alert]:
    """The `most` oddest alerts of `events` [n] (training/dataset.py COLUMNS) with their scores [n] and features [n, d].

    Clients come in the order of their oddest alert, a client's alerts one after another, oldest first.
    """
    frame = events.select(
        pl.col("source.address").alias("client"),
        pl.col("@timestamp").alias("time"),
        pl.col("@timestamp").dt.truncate("1h").alias("hour"),
    ).with_columns(score=pl.Series(scores.astype(np.float64)), row=pl.int_range(pl.len()))
    alerts = (
        frame.group_by("client", "hour")
        .agg(
            pl.len().alias("requests"),
            (pl.col("score") >= threshold).sum().alias("odd"),
            pl.col("score").max(),
            pl.col("row").sort_by("score", descending=True, maintain_order=True).first(),
        )
        .filter(pl.col("odd") > 0)
        .sort(["score", "row"], descending=[True, False])
        .head(most)
        .with_columns(best=pl.col("score").max().over("client"), lead=pl.col("row").first().over("client"))
        .sort(["best", "lead", "hour"], descending=[True, False, False])
    )
    if alerts.is_empty():
        return []
    rows = alerts["row"].to_numpy()
    chosen = np.ascontiguousarray(features[rows])
    severities = model.severity(scores[rows])
    reasons = explain(chosen, model.contributions(chosen), names, typical)
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
            score=float(one["score"]),
            severity=round(float(severity), 4),
            rarity=rarer_than(float(severity)),
            reasons=why,
        )
        for one, (method, url, status, time), severity, why in zip(
            alerts.iter_rows(named=True), requests, severities, reasons, strict=True
        )
    ]


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
        f"with a request at or above the threshold.</p>{body}</body></html>\n"
    )


def _without_name(reason: Reason) -> str:
    """A reason's sentence without the feature's name before it."""
    return reason["text"].removeprefix(f"{reason['feature']}: ")
