"""Who and what stands out of a scored log: its oddest clients and requests, grouped where they are alike.

A distributed attack is one finding, not a thousand: clients whose odd requests ask for the same set of path
templates are one group. Scores come from `filescore.py`; words for programs are here, printing is not.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl

from oddlog.features.keys import keys_of
from oddlog.scoring.scorer import Reason
from training.filescore import Rows, ScoredLog
from training.novelty import novel_reasons, novel_rows

EXAMPLES = 5
"""Clients named of a group, beside the oddest."""
PER_CLIENT = 3
"""Requests listed of one client: a scan must not fill the list."""

DANGEROUS = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet would take for a formula at the beginning of a cell."""


@dataclass(frozen=True, slots=True)
class OddEvent:
    """One request and why it is odd."""

    line: int
    """Number of its line, from 1."""
    time: dt.datetime
    client: str
    method: str
    url: str
    status: int | None
    user_agent: str | None
    score: float
    severity: float
    is_anomaly: bool
    alike: int
    """Odd requests with the same path template in the whole log, this one included if it is odd."""
    reasons: list[Reason]


@dataclass(frozen=True, slots=True)
class OddClient:
    """A client, and those that behave like it."""

    client: str
    requests: int
    anomalies: int
    """How many of them reach the threshold."""
    alerts: int
    """Hours with such a request."""
    since: dt.datetime
    until: dt.datetime
    """Its first and last odd request; its oddest one where none is odd."""
    alike: int
    """Further clients whose odd requests are for the same paths."""
    alike_clients: list[str]
    """Some of them, oddest first."""
    alike_anomalies: int
    """Their odd requests."""
    oddest: OddEvent


@dataclass(frozen=True, slots=True)
class Findings:
    """What is told about a scored log."""

    events: int
    clients: int
    since: dt.datetime
    until: dt.datetime
    anomalies: int
    alerts: int
    groups: int
    """Groups of like clients with at least one odd request."""
    oddest_clients: list[OddClient]
    oddest_events: list[OddEvent]
    novel_events: list[OddEvent]
    """Requests odd in themselves, though their clients look sound (novelty.py); none of them is an anomaly."""


def find(scored: ScoredLog, *, clients: int = 10, events: int = 10) -> Findings:
    """The `clients` oddest groups of clients and the `events` oddest requests, oddest first.

    Requests are listed once a path template, and PER_CLIENT at most of one client.
    """
    frame = _frame(scored)
    odd = frame.filter("odd")
    groups = _groups(frame)
    shown = _spread(frame.sort("score", descending=True, maintain_order=True), events)
    novel_shown = _spread(frame[novel_rows(scored)], events)
    chosen = groups.head(clients)
    rows = [*chosen["row"].to_list(), *shown]
    described = dict(zip(rows, _describe(frame, rows, scored.reasons(rows)), strict=True))
    return Findings(
        events=frame.height,
        clients=frame["client"].n_unique(),
        since=_time(frame["time"].min()),
        until=_time(frame["time"].max()),
        anomalies=odd.height,
        alerts=odd.select("client", pl.col("time").dt.truncate("1h")).n_unique(),
        groups=groups.filter(pl.col("anomalies") > 0).height,
        oddest_clients=[
            OddClient(**one, oddest=described[row])
            for row, one in zip(chosen["row"], chosen.drop("row").iter_rows(named=True), strict=True)
        ],
        oddest_events=[described[row] for row in shown],
        novel_events=_describe(frame, novel_shown, novel_reasons(scored, np.asarray(novel_shown, dtype=np.intp))),
    )


def table(scored: ScoredLog, *, every: bool) -> pl.DataFrame:
    """One row an event for programs: the odd ones, oddest first, with their reasons; or `every` one, in file order.

    Text that a spreadsheet would run as a formula gets a `'` in front.
    """
    frame = _frame(scored)
    if not every:
        frame = frame.filter("odd").sort("score", descending=True, maintain_order=True)
    rows = frame["row"].to_numpy()
    reasons = pl.Series(
        "reasons",
        [None] * frame.height if every else ["; ".join(r["text"] for r in found) for found in scored.reasons(rows)],
        dtype=pl.String,
    )
    text = ["client", "method", "url", "user_agent"]
    formula = [pl.any_horizontal(pl.col(c).str.starts_with(sign) for sign in DANGEROUS) for c in text]
    return frame.select(
        pl.col("line"),
        pl.col("time").dt.to_string("%Y-%m-%dT%H:%M:%S%.3fZ"),
        "client", "method", "url", "status", "user_agent",
        pl.col("score").round(6), pl.col("severity").round(4),
        pl.col("odd").alias("is_anomaly"),
        reasons,
    ).with_columns(
        pl.when(bad).then(pl.concat_str(pl.lit("'"), c)).otherwise(c).alias(c)
        for c, bad in zip(text, formula, strict=True)
    ).drop("reasons" if every else [])  # fmt: skip


def document(scored: ScoredLog, findings: Findings) -> dict[str, Any]:
    """Everything as one JSON-able document."""
    log, threshold = scored.log, scored.threshold
    return {
        "file": log.name,
        "lines": log.lines,
        "unread": {
            "lines": log.unread,
            "first": None if log.first_unread is None else {"line": log.first_unread[0], "found": log.first_unread[1]},
        },
        "events": findings.events,
        "clients": findings.clients,
        "since": findings.since.isoformat(),
        "until": findings.until.isoformat(),
        "algorithm": scored.algorithm,
        "model": scored.model,
        "threshold": {"value": threshold.value, "budget_per_day": threshold.budget_per_day},
        "anomalies": findings.anomalies,
        "alerts": findings.alerts,
        "groups": findings.groups,
        "oddest_clients": [
            {**_plain(client, without="oddest"), "severity": round(client.oddest.severity, 4),
             "oddest": _plain(client.oddest)}
            for client in findings.oddest_clients
        ],
        "oddest_events": [_plain(event) for event in findings.oddest_events],
        "novel_events": [_plain(event) for event in findings.novel_events],
    }  # fmt: skip


def _plain(one: OddClient | OddEvent, *, without: str = "") -> dict[str, Any]:
    return {
        name: value.isoformat() if isinstance(value, dt.datetime) else value
        for name, value in asdict(one).items()
        if name != without
    }


def _frame(scored: ScoredLog) -> pl.DataFrame:
    events = scored.log.events
    return events.select(
        line=pl.col("oddlog.position.offset") + 1,
        time=pl.col("@timestamp"),
        client=pl.col("source.address"),
        method=pl.col("http.request.method"),
        url=pl.col("url.original"),
        path=pl.col("url.path"),
        status=pl.col("http.response.status_code"),
        user_agent=pl.col("user_agent.original"),
    ).with_columns(
        pl.Series("score", scored.scores.astype(np.float64)),
        pl.Series("severity", scored.severities),
        pl.Series("odd", scored.odd),
        pl.int_range(pl.len(), dtype=pl.Int64).alias("row"),
    )


def _groups(frame: pl.DataFrame) -> pl.DataFrame:
    """One row a group of clients with equal sets of path templates among their odd requests, oddest group first.

    Columns: the fields of OddClient; for `oddest` its `row`. A client without an odd request is judged by its oddest
    one.
    """
    oddest = pl.col("score").arg_max()
    hour = pl.col("time").dt.truncate("1h")
    clients = frame.group_by("client", maintain_order=True).agg(
        requests=pl.len(),
        anomalies=pl.col("odd").sum(),
        alerts=hour.filter("odd").n_unique(),
        score=pl.col("score").max(),
        row=pl.col("row").get(oddest),
        first_odd=pl.col("time").filter("odd").min(),
        last_odd=pl.col("time").filter("odd").max(),
        oddest_time=pl.col("time").get(oddest),
    )
    told = frame.filter(pl.col("odd") | pl.col("row").is_in(clients["row"].implode()))
    told = told.with_columns(template=_templates(told))
    behaviour = told.group_by("client").agg(behaviour=pl.col("template").unique().sort())
    hashed = pl.col("behaviour").list.join("\n").alias("behaviour")
    return (
        clients.join(behaviour, on="client", how="left", maintain_order="left")
        .with_columns(hashed)
        .sort("score", "anomalies", descending=True, maintain_order=True)
        .group_by("behaviour", maintain_order=True)
        .agg(
            pl.col("client", "requests", "anomalies", "alerts", "score", "row").first(),
            since=pl.coalesce("first_odd", "oddest_time").first(),
            until=pl.coalesce("last_odd", "oddest_time").first(),
            alike=pl.len() - 1,
            alike_clients=pl.col("client").slice(1, EXAMPLES),
            alike_anomalies=pl.col("anomalies").sum() - pl.col("anomalies").first(),
        )
        .sort("score", "anomalies", descending=True, maintain_order=True)
        .drop("behaviour", "score")
    )


def _spread(ranked: pl.DataFrame, most: int) -> list[int]:
    """Rows of the first requests, each path template once, PER_CLIENT at most of one client."""
    top = ranked.head(max(20_000, most * 50))  # far more than fill the list, far fewer than all
    top = top.with_columns(template=_templates(top)).unique("template", keep="first", maintain_order=True)
    return top.filter(pl.int_range(pl.len()).over("client") < PER_CLIENT)["row"].head(most).to_list()


def _describe(frame: pl.DataFrame, rows: Sequence[int], reasons_of: Sequence[list[Reason]]) -> list[OddEvent]:
    if not rows:
        return []
    odd = frame.filter(pl.col("odd") | pl.col("row").is_in(list(rows)))
    alike = odd.with_columns(template=_templates(odd)).with_columns(alike=pl.col("odd").sum().over("template"))
    counts = dict(alike.select("row", "alike").iter_rows())
    places: Rows = np.asarray(rows, dtype=np.intp)
    told = frame[places].select(
        "line", "time", "client", "method", "url", "status", "user_agent",
        pl.col("score").round(6), pl.col("severity").round(4), is_anomaly="odd",
    )  # fmt: skip
    return [
        OddEvent(**one, alike=int(counts[row]), reasons=reasons)
        for row, one, reasons in zip(rows, told.iter_rows(named=True), reasons_of, strict=True)
    ]


def _templates(frame: pl.DataFrame) -> pl.Series:
    """Path template of every row (oddlog/features/keys.py)."""
    keys = keys_of(
        frame.select(
            pl.col("url").alias("url.original"),
            pl.col("path").alias("url.path"),
            pl.col("method").alias("http.request.method"),
            pl.col("status").alias("http.response.status_code"),
        )
    )
    return keys.paths["tpl"][keys.url]


def _time(value: object) -> dt.datetime:
    assert isinstance(value, dt.datetime)
    return value
