"""What `oddlog demo` counts in the store when the story is over, and how it tells it. The story is in `demo.py`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import polars as pl

from cli.console import out, show_table
from oddlog.connectors.store import EventQuery, Store
from oddlog.events.printable import printable
from oddlog.events.schema import POSITION_ORDER
from oddlog.scoring.explanation import rarer_than


def summarise(store: Store, *, lines: int) -> dict[str, Any]:
    """Counts, the oddest clients with their reasons, quality where labels are known: all read from the store."""
    store.refresh()
    dead = store.read_dead()
    return {
        "lines": lines,
        "scored": store.count_events(EventQuery(status="scored")),
        "pending": store.count_events(EventQuery(status="pending")),
        "dead_letters": dead.height,
        "dead_letter_reasons": dead["reason"].to_list()[:10],
        "duplicates": _duplicates(store, dead),
        "oddest_clients": _oddest_clients(store),
        "quality": _quality(store),
    }


def _duplicates(store: Store, dead: pl.DataFrame) -> int:
    """Positions that occur in more than one document, over all event indices and the dead letters."""
    positions = [frame.select(POSITION_ORDER) for frame in store.read_events(EventQuery(), columns=POSITION_ORDER)]
    if not positions:
        return 0
    counted = pl.concat([*positions, dead.select(POSITION_ORDER)]).group_by(POSITION_ORDER).len()
    return counted.filter(pl.col("len") > 1).height


def _oddest_clients(store: Store, most: int = 5) -> list[dict[str, Any]]:
    """The clients with the severest anomalies: alerts (hours), requests over the threshold, the best reasons."""
    columns = ["@timestamp", "source.address", "anomaly.severity", "anomaly.reasons", "url.original"]
    frames = list(store.read_events(EventQuery(only_anomalies=True), columns=columns))
    if not frames:
        return []
    odd = pl.concat(frames).sort("anomaly.severity", descending=True)
    clients = (
        odd.group_by("source.address", maintain_order=True)
        .agg(
            severity=pl.col("anomaly.severity").max(),
            alerts=pl.col("@timestamp").dt.truncate("1h").n_unique(),
            anomalies=pl.len(),
            request=pl.col("url.original").first(),
            reasons=pl.col("anomaly.reasons").first(),
        )
        .head(most)
    )
    return [
        {
            "client": row["source.address"],
            "severity": round(row["severity"], 2),
            "alerts": row["alerts"],
            "anomalies": row["anomalies"],
            "oddest_request": row["request"],
            "reasons": [reason["text"] for reason in row["reasons"] or []],
        }
        for row in clients.iter_rows(named=True)
    ]


def _quality(store: Store) -> dict[str, float] | None:
    """How well the scores rank labelled attacks over labelled benign events; None without both."""
    columns = ["labels.truth", "anomaly.score", "anomaly.threshold"]
    frames = list(store.read_events(EventQuery(status="scored"), columns=columns))
    if not frames:
        return None
    from training.evaluate import judge_labelled, truth_of

    events = pl.concat(frames)
    # One demo has one champion and one threshold.
    threshold = float(events["anomaly.threshold"].item(0))
    figures = judge_labelled(events["anomaly.score"].to_numpy(), truth_of(events["labels.truth"]), threshold)
    return None if figures is None else {name: round(value, 4) for name, value in asdict(figures).items()}


def tell(summary: dict[str, Any], further: list[str]) -> None:
    """The summary for a person: counts, oddest clients and why, quality, drift, commands to look further."""

    def line(text: str = "", style: str | None = None) -> None:
        out.print(text, style=style, highlight=False, markup=False, soft_wrap=True)

    champion = summary["champion"]
    show_table(
        None,
        ["lines", "scored", "pending", "dead letters", "duplicates", "champion"],
        [
            (
                f"{summary['lines']:,}",
                f"{summary['scored']:,}",
                summary["pending"],
                summary["dead_letters"],
                summary["duplicates"],
                f"version {champion['version']}, {champion['algorithm']}",
            )
        ],
    )
    if champion["refused_by_gates"]:
        line(f"{champion['refused_by_gates']}. The demo went on with the best of them; `oddlog promote` would not.")
    for reason in summary["dead_letter_reasons"]:
        line(f"dead letter: {printable(reason)}")
    if summary["oddest_clients"]:
        line("\nthe oddest clients", style="bold")
    for one in summary["oddest_clients"]:
        hours = f"{one['alerts']} hour{'s' if one['alerts'] > 1 else ''}"
        line(
            f"  {printable(one['client'], 60)}  {rarer_than(one['severity'])}; "
            f"{one['anomalies']} odd events in {hours}, the oddest: {printable(one['oddest_request'], 70)}"
        )
        for reason in one["reasons"]:
            line(f"      {reason.split(': ', 1)[-1]}", style="dim")
    if quality := summary["quality"]:
        line("\nagainst the labels", style="bold")
        line(
            f"  average precision {quality['average_precision']:.3f}, ROC AUC {quality['roc_auc']:.3f}; "
            f"at the threshold: recall {quality['recall_at_budget']:.2f}, "
            f"precision {quality['precision_at_budget']:.2f} "
            f"({quality['attacks']:,} attack events, {quality['benign']:,} benign)"
        )
    line(f"\ndrift: {summary['drift']['verdict']}")
    line("\nlook further", style="bold")
    for command in further:
        line(f"  {command}")
