"""Forgetting a client: what a store holds of one deleted, counted first where that is asked for.

Events go; so do dead letters that name the client, marks and incidents about it, and its state in snapshots. What
tells of others, too (an incident of many clients), stays with the name taken out. Files beside the store are
`forget_files.py`'s. What else stays is told in docs/privacy.md.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

import orjson

from oddlog.connectors.store import Collection, DeadQuery, EventQuery, Store
from oddlog.events.record import Partition
from serving.mentions import Mentions
from serving.snapshots import drop_clients, written_at

_PER_DELETE = 500
_DOCUMENTS: tuple[Collection, ...] = ("marks", "incidents", "drift", "runs")


@dataclass(slots=True)
class Forgotten:
    """What was deleted, or with `dry_run` would be."""

    dry_run: bool
    events: int = 0
    dead_letters: int = 0
    """That name the client."""
    documents: int = 0
    """Marks and incidents about it."""
    redacted: int = 0
    """Documents that tell of others, too: only the name is taken out."""
    states: int = 0
    """In snapshots, of any model's lane."""
    snapshot_at: dt.datetime | None = None
    """When the newest snapshot was written: lately, where a consumer runs."""


def forget(store: Store, names: Sequence[str], *, dry_run: bool = False) -> Forgotten:
    """Delete what the store holds of the client that `names` are all of (its address, its pseudonym).

    Events are found by `source.address`, letters and documents by a name that stands by itself in them. What is done
    stays done when the store fails on the way, and a second call does the rest.
    Raises StoreUnavailable, StoreRefused."""
    mentions, result = Mentions(names), Forgotten(dry_run)
    store.refresh()
    # Before the events go: their positions tell which partitions have snapshots.
    for partition in store.partitions(EventQuery()):
        one = Partition(*partition)
        result.states += drop_clients(store, one, names, dry_run=dry_run)
        if (at := written_at(store, one)) is not None:
            moment = dt.datetime.fromtimestamp(at, dt.UTC)
            result.snapshot_at = max(moment, result.snapshot_at or moment)
    result.dead_letters = _dead(store, mentions, dry_run)
    if dry_run:
        result.events = store.count_events(EventQuery(clients=tuple(names)))
    else:
        result.events = sum(store.delete_client(name) for name in dict.fromkeys(names))
        store.refresh()
    for collection in _DOCUMENTS:  # after the events, which incidents are made of
        _in_documents(store, collection, names, mentions, result)
    if not dry_run and (place := store.get_document("runs", "incidents")) is not None:
        # A watch that runs reads incidents anew where the last round was another's (monitoring/incidents_watch.py).
        store.put_document("runs", "incidents", {**place, "holder": ""})
    return result


def _dead(store: Store, mentions: Mentions, dry_run: bool) -> int:
    found: list[str] = []
    for letters in store.iterate_dead(DeadQuery(), columns=["_id", "reason", "original"]):
        for id, reason, original in letters.iter_rows():
            if mentions.among(original or b"") or mentions.among((reason or "").encode()):
                found.append(id)
    if not dry_run:
        for first in range(0, len(found), _PER_DELETE):
            store.delete_dead(found[first : first + _PER_DELETE])
    return len(found)


def _in_documents(
    store: Store, collection: Collection, names: Sequence[str], mentions: Mentions, result: Forgotten
) -> None:
    for document in store.list_documents(collection):
        id = str(document["_id"])
        if not mentions.among(orjson.dumps(document, default=str)):
            continue
        if collection == "marks" or document.get("client") in names or mentions.among(id.encode()):
            result.documents += 1
            if not result.dry_run:
                store.delete_document(collection, id)
            continue
        result.redacted += 1
        if not result.dry_run:
            store.put_document(collection, id, mentions.without(document))
