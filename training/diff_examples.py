"""Requests that one version alerts on and another does not, and what each says of them. Counting is in `diff.py`."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from oddlog.connectors.registry import ModelVersion
from oddlog.scoring.alerts import alerts_of, client_hours
from oddlog.scoring.card import Threshold
from oddlog.scoring.explanation import explain, rarer_than
from oddlog.scoring.model import Model
from oddlog.scoring.scorer import Reason
from training.alerts import severities_of
from training.fit import Matrix

MOST_EXAMPLES = 5
"""Of either kind."""

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Opinion:
    """What a version says of one request."""

    is_anomaly: bool
    score: float
    severity: float
    rarity: str
    """The severity in words."""
    reasons: list[Reason]
    """What carried its score, odd to it or not."""


@dataclass(frozen=True, slots=True)
class Example:
    """The oddest request of a client-hour in which one version finds something odd, and the other nothing."""

    event: str
    client: str
    hour: dt.datetime
    time: dt.datetime
    method: str
    url: str
    status: int | None
    odd: int
    """Anomalies of the client in that hour."""
    alike: int
    """Further such client-hours with anomalies for the same paths."""
    a: Opinion
    b: Opinion


@dataclass(frozen=True, slots=True)
class Contender:
    """A version, and what it says of the period's n events."""

    registered: ModelVersion
    model: Model
    threshold: Threshold
    features: Matrix
    score: npt.NDArray[np.float32]
    flagged: Bools


def examples_of(
    events: pl.DataFrame, own: Contender, other: Contender, chosen: Bools, *, first_is_a: bool
) -> list[Example]:  # fmt: skip
    """The oddest behaviours of the alerts that only `own` raises; `chosen` [n]: its anomalies in these client-hours."""
    rows = np.flatnonzero(chosen)
    if not rows.size:
        return []
    verdict = own.model.judge(np.ascontiguousarray(own.features[rows]), own.threshold)
    odd = client_hours(events[rows]).with_columns(severity=pl.Series(severities_of(verdict)), row=pl.Series(rows))
    alerts = alerts_of(odd).sort(["severity", "row"], descending=[True, False])
    told = (
        alerts.group_by("behaviour", maintain_order=True)
        .agg(pl.col("client", "hour", "odd", "row").first(), alike=pl.len() - 1)
        .head(MOST_EXAMPLES)
    )
    at = told["row"].to_numpy()
    opinions = [_opinions(own, at), _opinions(other, at)]
    requests = events[at].select(
        "_id", "@timestamp", "http.request.method", "url.original", "http.response.status_code"
    ).rows()  # fmt: skip
    found = []
    for number, (one, (event, time, method, url, status)) in enumerate(
        zip(told.iter_rows(named=True), requests, strict=True)
    ):
        mine, theirs = opinions[0][number], opinions[1][number]
        found.append(
            Example(
                event=event,
                client=one["client"],
                hour=one["hour"],
                time=time,
                method=method or "",
                url=url or "",
                status=status,
                odd=one["odd"],
                alike=one["alike"],
                a=mine if first_is_a else theirs,
                b=theirs if first_is_a else mine,
            )
        )
    return found


def _opinions(one: Contender, rows: npt.NDArray[np.int64]) -> list[Opinion]:
    """What a version says of some rows: of what it finds odd the reasons that documents have, else what carried it."""
    matrix = np.ascontiguousarray(one.features[rows])
    verdict, card = one.model.judge(matrix, one.threshold), one.model.card
    usual = explain(matrix, one.model.contributions(matrix), card.feature_names, card.typical)
    return [
        Opinion(
            is_anomaly=bool(verdict.is_anomaly[row]),
            score=float(verdict.score[row]),
            severity=round(float(severity), 4),
            rarity=rarer_than(float(severity)),
            reasons=verdict.reasons.get(row) or usual[row],
        )
        for row, severity in enumerate(severities_of(verdict))
    ]
