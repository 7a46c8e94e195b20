"""Since when the batches of a version have drifted without a break, as the documents of its checks tell. No judging."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any

from oddlog.connectors.registry import ModelVersion
from oddlog.connectors.store import Store

LOOK_BACK = dt.timedelta(days=60)
"""Older checks are not read: who has not retrained for so long has no need to know the first day of drift."""


@dataclass(frozen=True, slots=True)
class Drifting:
    """The newest batches of one length that have all drifted."""

    since: dt.datetime
    """Where the first of them begins."""
    until: dt.datetime
    """Where the last of them ends."""
    batches: int
    verdict: str
    """Of the last, in a sentence."""


def drifting(store: Store, version: ModelVersion, *, newest: dt.datetime) -> Drifting | None:
    """The longest unbroken run of drifted batches of a version up to its last one; None where that has not drifted.

    Batches of different lengths, and such as were compared with other things, are looked at apart. One with too little
    to be judged breaks no run and begins none. `newest`: the newest event's time. Raises StoreError."""
    groups: dict[tuple[dt.timedelta, str], list[dict[str, Any]]] = {}
    for document in store.list_documents("drift", since=newest - LOOK_BACK):
        if document.get("kind") != "batch" or document.get("model", {}).get("name") != version.name:
            continue
        if document["model"].get("version") == version.version:
            begin, end = _period(document)
            groups.setdefault((end - begin, str(document.get("against"))), []).append(document)
    found = [run for documents in groups.values() if (run := _run(documents)) is not None]
    return max(found, key=lambda run: (run.until - run.since, run.until), default=None)


def _run(documents: list[dict[str, Any]]) -> Drifting | None:
    judged = [d for d in sorted(documents, key=_period) if d.get("drifted") or d.get("batch", {}).get("compared")]
    run: list[dict[str, Any]] = []
    for document in reversed(judged):
        if not document.get("drifted"):
            break
        run.append(document)
    if not run:
        return None
    return Drifting(
        since=_period(run[-1])[0], until=_period(run[0])[1], batches=len(run), verdict=str(run[0].get("verdict", ""))
    )


def _period(document: dict[str, Any]) -> tuple[dt.datetime, dt.datetime]:
    batch = document["batch"]
    return dt.datetime.fromisoformat(batch["since"]), dt.datetime.fromisoformat(batch["until"])
