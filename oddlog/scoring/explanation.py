"""Reasons: the few features that carried an anomaly's score, each as a sentence. What a feature means is
declared in oddlog/features/declaration.py; how much it carried, the detector's contribution graph tells.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from oddlog.features.declaration import FEATURES, HORIZON_WORDS, Unit, client_feature
from oddlog.scoring.scorer import Reason

MOST = 3
"""Most reasons of an event: what a person reads."""
LEAST_SHARE = 0.05
"""A feature that carried less is not named."""

_CLIENT_SENTENCES = {
    "error": "{value} of this client's requests in {horizon} failed",
    "token": "the words in this client's URLs of {horizon} are as rare as {value}",
    "company": "those who ask for the same paths as this client in {horizon} fail {value} of the time",
    "page": "{value} of this client's requests in {horizon} were for pages, not for images or styles",
    "post": "{value} of this client's requests in {horizon} were POSTs",
}
_EVENT_SENTENCES = {
    "section_rarity": "the first segment of its path is as rare as {value}",
    "subsection_rarity": "the first two segments of its path are as rare as {value}",
    "path_rarity": "its path is as rare as {value}",
    "token_rarity": "the words in its URL are as rare as {value}",
    "method_rarity": "its method is as unusual for its path as {value}",
    "status_rarity": "its status is as unusual for its path as {value}",
}
SENTENCES: dict[str, str] = {
    **{
        client_feature(signal, horizon): sentence.replace("{horizon}", words)
        for signal, sentence in _CLIENT_SENTENCES.items()
        for horizon, words in HORIZON_WORDS.items()
    },
    **_EVENT_SENTENCES,
}
"""A feature's declared meaning as the statement of a value; not in the feature digest: words may improve."""

_FEATURES = {feature.name: feature for feature in FEATURES}
_SIGNAL = {client_feature(signal, horizon): signal for signal in _CLIENT_SENTENCES for horizon in HORIZON_WORDS}
"""What a client feature is a mean of."""


def explain(
    features: npt.NDArray[np.float32],
    contributions: npt.NDArray[np.float32],
    names: Sequence[str],
    typical: Mapping[str, float],
) -> list[list[Reason]]:
    """Reasons for each of k anomalies: `features` and `contributions` [k, d] with the columns `names`.

    A feature's share is its part of the positive contributions of its row: what speaks for a sound event
    explains no anomaly. At most three features, each with a share of 5 % or more, largest first; of equals,
    the first declared. Of a signal's two horizons only the larger is told: the other says the same again. A row
    without any positive contribution has no reasons.
    """
    carried = np.clip(np.nan_to_num(np.asarray(contributions, dtype=np.float64)), 0, None)
    total = carried.sum(axis=1, keepdims=True)
    shares = np.divide(carried, total, out=np.zeros_like(carried), where=total > 0)
    order = np.argsort(-shares, axis=1, kind="stable")
    return [
        [
            _reason(
                names[column],
                float(features[row, column]),
                typical[names[column]],
                float(shares[row, column]),
            )
            for column in _distinct(columns, names)
            if shares[row, column] >= LEAST_SHARE
        ]
        for row, columns in enumerate(order)
    ]


NOVELTY = "novelty"
"""What a reason of the second channel names instead of a feature."""

NOVELTY_MOST = 2
"""Rarities told in it."""


def explain_novelty(
    features: npt.NDArray[np.float32],
    contributions: npt.NDArray[np.float32],
    names: Sequence[str],
    typical: Mapping[str, float],
    novelty: npt.NDArray[np.float32],
    usual: float,
) -> list[Reason]:
    """The second channel's one reason for each of k requests: what is new about them, in a sentence.

    `features` and `contributions` (oddlog/detectors/novelty.py) [k, d]; its value is the request's `novelty` [k], its
    typical value `usual`, that of the fitted period.
    """
    found = []
    for parts, value in zip(explain(features, contributions, names, typical), novelty.tolist(), strict=True):
        new = [part["text"].removeprefix(f"{part['feature']}: ").replace("; typical", ", typically") for part in parts]
        said = "; ".join(new[:NOVELTY_MOST])
        found.append(
            Reason(
                feature=NOVELTY,
                value=value,
                typical=usual,
                share=1.0,
                text=f"{NOVELTY}: odd in itself, whoever sends it" + (f": {said}" if said else ""),
            )
        )
    return found


def _distinct(columns: npt.NDArray[np.intp], names: Sequence[str]) -> list[int]:
    """The first MOST of `columns`, of every signal one."""
    chosen: dict[str, int] = {}
    for column in columns.tolist():
        chosen.setdefault(_SIGNAL.get(names[column], names[column]), column)
        if len(chosen) == MOST:
            break
    return list(chosen.values())


def _reason(name: str, value: float, typical: float, share: float) -> Reason:
    unit = _FEATURES[name].unit
    statement = SENTENCES[name].format(value=amount(value, unit))
    return Reason(
        feature=name,
        value=value,
        typical=typical,
        share=round(share, 4),
        text=f"{name}: {statement}; typical {amount(typical, unit)}",
    )


def amount(value: float, unit: Unit) -> str:
    """A value in its unit, for people: shares in percent, rarities (-ln p) as one in 1/p.

    >>> amount(0.9634, "share"), amount(0.004, "share"), amount(6.9, "nats")
    ('96 %', '0.4 %', '1 in 992')
    """
    if not math.isfinite(value):
        return "unknown"
    if unit == "share":
        percent = 100 * value
        return f"{percent:.0f} %" if percent >= 1 or percent < 0.05 else f"{percent:.1f} %"
    return f"1 in {math.exp(min(max(value, 0.0), 30.0)):,.0f}"


def rarer_than(severity: float) -> str:
    """A severity in words, N to two figures.

    >>> rarer_than(3.61), rarer_than(0.0), rarer_than(40.0)
    ('rarer than one event in 4,000', 'as usual as any event', 'rarer than one event in a million million')
    """
    if severity >= 12:  # far beyond what was counted: the tail of the calibration goes on for ever
        return "rarer than one event in a million million"
    n = 10 ** max(severity, 0.0)
    step = 10 ** max(0, math.floor(math.log10(n)) - 1)
    n = math.floor(n / step + 1e-6) * step
    return f"rarer than one event in {n:,.0f}" if n > 1 else "as usual as any event"
