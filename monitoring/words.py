"""Measures in words: one sentence on each, with what it was and what it is. Numbers come from `judgement.py`."""

from __future__ import annotations

import math

import polars as pl

from monitoring.judgement import Measure
from oddlog.features.declaration import FEATURES

_FEATURES = {feature.name: feature for feature in FEATURES}

_SUBJECTS = {
    "score": "the score",
    "severity": "the severity (log10 N of one event in N)",
    "alert_rate": "the share of client-hours with an anomaly",
    "unseen_paths": "the share of requests for paths that the baseline does not know",
    "new_clients": "the share of requests from clients that were away for a day before",
    "dominance": "the share of the busiest client",
    "volume": "events",
    "parse_failures": "the share of records that fit no format",
    "dead_letters": "the share of records that became dead letters for another reason",
    "pending": "the share of events that are not scored",
    "lateness": "the slowest hundredth of the events came so much after later ones",
}

_QUANTILES = ((0.5, "median"), (0.9, "nine tenths are below"), (0.99, "99 of 100 are below"), (0.1, "a tenth is below"))


def sentence(measure: Measure, batch: pl.Series | None = None, expected: pl.Series | None = None) -> str:
    """What was and what is. Of a feature or score, given the points of both, where the two differ most.

    >>> m = Measure("pending", "flow", "share", 0.25, None, 0.25, 0.1, True)
    >>> sentence(m)
    'the share of events that are not scored: 25 %, at most 10 %'
    """
    if measure.group in {"feature", "score"}:
        return _distribution(measure, batch, expected)
    subject = _SUBJECTS.get(measure.name) or f"the share of answers with status {measure.name.removeprefix('status_')}"
    if measure.value is None:
        return f"{subject}: {measure.note}"
    if measure.unit == "factor":
        return _times(subject, measure)
    if measure.unit == "seconds":
        return f"{subject}: {measure.value:,.0f} s, at most {measure.limit:,.0f} s"
    if measure.expected is None:
        told = f", {measure.note}" if measure.note else f", at most {percent(measure.limit)}"
        return f"{subject}: {percent(measure.value)}{told}"
    return f"{subject}: {percent(measure.expected)} -> {percent(measure.value)}" + (
        f" ({measure.note})" if measure.note else ""
    )


def _times(subject: str, measure: Measure) -> str:
    if measure.expected is None or measure.effect is None:
        return f"{subject}: {measure.value:,.0f} ({measure.note})"
    more = measure.effect >= 1
    times = measure.effect if more else 1 / measure.effect
    told = f", {times:.2g} times {'more' if more else 'fewer'}" if times >= 1.05 else ""
    return f"{subject}: {measure.expected:,.0f} expected -> {measure.value:,.0f}{told}"


def _distribution(measure: Measure, batch: pl.Series | None, expected: pl.Series | None) -> str:
    feature = _FEATURES.get(measure.name)
    subject = feature.meaning if feature else _SUBJECTS[measure.name]
    if batch is None or expected is None or not batch.drop_nulls().len() or not expected.drop_nulls().len():
        return f"{subject}: {measure.note or 'no values'}"

    places = [(name, _quantile(expected, at), _quantile(batch, at)) for at, name in _QUANTILES]
    name, before, now = places[0]
    for other, was, is_now in places[1:]:  # the median, unless another place differs more than twice as much
        if abs(is_now - was) > 2 * abs(now - before):
            name, before, now = other, was, is_now
    return f"{subject}: {name} {in_words(measure.name, before)} -> {in_words(measure.name, now)}" + (
        f" ({measure.note})" if measure.note else ""
    )


def in_words(name: str, value: float) -> str:
    """A value of a feature, or of the score, in the unit that people know it by.

    >>> in_words("client_error_1h", 0.25), in_words("token_rarity", 6.9), in_words("severity", 2.0)
    ('25 %', '1 in 992', '2')
    >>> in_words("path_rarity", 8.721), in_words("severity", 3.5e-05)
    ('1 in 6,130', '0')
    """
    feature = _FEATURES.get(name)
    if feature is None:
        return _plain(value)
    return percent(value) if feature.unit == "share" else f"1 in {_plain(max(1.0, math.exp(value)))}"


def _plain(value: float) -> str:
    """Three digits that tell something, never an exponent; nothing is told below a thousandth."""
    if abs(value) < 0.001:
        return "0"
    return f"{value:.3g}" if abs(value) < 999.5 else f"{float(f'{value:.3g}'):,.0f}"


def _quantile(points: pl.Series, at: float) -> float:
    value = points.quantile(at)
    return 0.0 if value is None else float(value)


def percent(share: float) -> str:
    """A share as people read it.

    >>> percent(0.0213), percent(0.25), percent(0.0004), percent(0.0)
    ('2.1 %', '25 %', '0.04 %', '0 %')
    """
    hundred = 100 * share
    return f"{hundred:.0f} %" if hundred >= 10 or hundred == 0 else f"{hundred:.2g} %"
