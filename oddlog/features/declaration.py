"""The features, declared once: name, meaning, formula, direction, unit. Computation is in `compute.py`."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Literal

DEFINITION = 1
"""Counts up whenever the same formula text comes to mean something else (keys, smoothing, standard files)."""

Unit = Literal["share", "nats"]


@dataclass(frozen=True, slots=True)
class Feature:
    """One column of the feature matrix.

    `meaning` completes the sentence "This event stands out by ..."; `formula` uses the terms of
    docs/features.md; `direction`: +1 where a larger value is the more suspicious one.
    """

    name: str
    meaning: str
    formula: str
    direction: Literal[1, -1]
    unit: Unit


HORIZONS: dict[str, float] = {"1h": 3_600.0, "1d": 86_400.0}
"""Decay constants of the client means, in seconds."""

HORIZON_WORDS: dict[str, str] = {"1h": "the last hour", "1d": "the last day"}
"""The same in words."""

CLIENT_SIGNALS: tuple[str, ...] = ("error", "token", "company", "page", "post")
"""What is averaged per client, in this order (`clients.py` keeps one decayed sum of each per horizon)."""

_CLIENT_TEXTS: dict[str, tuple[str, str, Unit]] = {
    "error": ("the share of this client's requests in {} that failed", "e", "share"),
    "token": ("how rare the words in this client's URLs of {} are", "tok", "nats"),
    "company": (
        "how often those fail who ask for the same paths as this client in {}",
        "comp",
        "share",
    ),
    "page": (
        "the share of this client's requests in {} that were for pages, not for images or styles",
        "page",
        "share",
    ),
    "post": ("the share of this client's requests in {} that were POSTs", "post", "share"),
}

EVENT_FEATURES: tuple[Feature, ...] = (
    Feature("section_rarity", "how rare the first segment of its path is", "nll(p1)", 1, "nats"),
    Feature("subsection_rarity", "how rare the first two segments of its path are", "nll(p2)", 1, "nats"),
    Feature("path_rarity", "how rare its path is", "nll(tpl)", 1, "nats"),
    Feature("token_rarity", "how rare the words in its URL are", "tok = mean over tokens of nll(token)", 1, "nats"),
    Feature(
        "method_rarity",
        "how unusual its method is for its path",
        "c_me = -ln((c(tpl,method) + 2q) / (max(c(tpl), c(tpl,method)) + 2)); q = min(1, (c(method) + .5) / (N + 1))",
        1,
        "nats",
    ),
    Feature(
        "status_rarity",
        "how unusual its status is for its path",
        "c_st = -ln((c(tpl,status) + 2q) / (max(c(tpl), c(tpl,status)) + 2)); q = min(1, (c(status) + .5) / (N + 1))",
        1,
        "nats",
    ),
)
"""Signals of the event alone."""


def client_feature(signal: str, horizon: str) -> str:
    """Name of a client mean.

    >>> client_feature("error", "1h")
    'client_error_1h'
    """
    return f"client_{signal}_{horizon}"


FEATURES: tuple[Feature, ...] = (
    *(
        Feature(
            client_feature(signal, horizon),
            _CLIENT_TEXTS[signal][0].format(HORIZON_WORDS[horizon]),
            f"(s + .3 g) / (n + .3); n, s: sums of 1 and {_CLIENT_TEXTS[signal][1]}, tau = {horizon}",
            1,
            _CLIENT_TEXTS[signal][2],
        )
        for signal in CLIENT_SIGNALS
        for horizon in HORIZONS
    ),
    *EVENT_FEATURES,
)
"""All features, in the order of the matrix's columns: ten client means, six signals of the event."""

FEATURE_NAMES: tuple[str, ...] = tuple(feature.name for feature in FEATURES)


def feature_digest() -> str:
    """SHA-256 over the declaration: the version of the feature contract, held in every model card.

    >>> len(feature_digest())
    64
    """
    text = json.dumps({"definition": DEFINITION, "features": [asdict(f) for f in FEATURES]}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
