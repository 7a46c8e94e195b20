"""Scoring of pending events that carry features already: the scorer was away when they were written."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from oddlog.connectors.marks import PATTERN_COLUMNS, Hushes
from oddlog.connectors.store import EventQuery, Store
from oddlog.events.schema import FEATURE_PREFIX
from oddlog.features.declaration import FEATURE_NAMES
from oddlog.scoring.scorer import Scorer
from serving.documents import NO_HUSHES, verdict_columns


def settle_pending(
    store: Store,
    scorer: Scorer,
    query: EventQuery,
    version: str,
    *,
    hushes: Hushes = NO_HUSHES,
    alive: Callable[[], None] = lambda: None,
) -> int:
    """Score the pending events of `query` with `version`, whose baseline their features were computed under.

    Those that reads of the store see: what was written just now, after its refresh. `alive` is called after every frame
    of events: there may be many, and a store that is slow with each of them.
    Returns how many were updated; an event that changed meanwhile is left alone. Raises ScorerError."""
    columns = [FEATURE_PREFIX + name for name in FEATURE_NAMES]
    settled = 0
    known = ["_id", *(PATTERN_COLUMNS if hushes else ["@timestamp"])]
    for events in store.read_events(query, columns=[*known, *columns], with_version=True):
        features = events.select(columns).to_numpy().astype(np.float32)
        scores = scorer.score(features, list(FEATURE_NAMES), version=version)
        updates = events.select("_id", "@timestamp", "_version").hstack(verdict_columns(scores, events, hushes))
        settled += store.update_events(updates)
        alive()
    return settled
