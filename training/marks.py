"""What people said of events (collection `marks`), as labels. Writing marks is another's.

A mark has `event` (the `_id` of a document) and `verdict`: `true-anomaly`, `false-alarm` or `expected`. Others, and
verdicts that are none of these, are passed over; of several marks of one event the last written (`at`) counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import polars as pl

_LABELS = {"true-anomaly": "attack:marked", "false-alarm": "benign", "expected": "benign"}

FALSE_ALARMS = ("false-alarm", "expected")


def verdicts_of(documents: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """The verdict on each marked event, by `_id`.

    >>> verdicts_of([{"event": "e1-t-0-7", "verdict": "expected", "at": "2"},
    ...              {"event": "e1-t-0-7", "verdict": "true-anomaly", "at": "1"}, {"note": "no event"}])
    {'e1-t-0-7': 'expected'}
    """
    found: dict[str, str] = {}
    for document in sorted(documents, key=lambda one: str(one.get("at", ""))):
        event, verdict = document.get("event"), document.get("verdict")
        if isinstance(event, str) and verdict in _LABELS:
            found[event] = str(verdict)
    return found


def with_marks(labels: pl.Series, ids: pl.Series, verdicts: Mapping[str, str]) -> pl.Series:
    """Labels [n] (`labels.truth`) of the events `ids` [n], a mark beating what was known before.

    >>> with_marks(pl.Series([None, "attack:scan"]), pl.Series(["a", "b"]), {"b": "false-alarm"}).to_list()
    [None, 'benign']
    """
    labels = labels.cast(pl.String)
    if not verdicts:
        return labels
    told = pl.DataFrame(
        {"id": list(verdicts), "told": [_LABELS[verdict] for verdict in verdicts.values()]},
        schema={"id": pl.String, "told": pl.String},
    )
    frame = pl.DataFrame({"id": ids, "label": labels}).join(told, on="id", how="left", maintain_order="left")
    return frame.select(pl.coalesce("told", "label").alias("label")).to_series()
