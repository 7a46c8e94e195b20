"""The HTML page of a drift check: verdict, what changed most with a sentence and a plot each, then everything.

It stands alone: no script, nothing fetched, some 60 kB.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from html import escape
from typing import Any

import polars as pl

from monitoring.judgement import UPWARDS
from monitoring.plots import distribution_svg
from monitoring.words import in_words, percent

FIRST = 10
"""Features shown with a plot."""

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1b1f24; background: #fff; max-width: 1000px; margin: 24px auto;
  padding: 0 24px; }
h1 { font-size: 24px; margin: 0 0 4px; } h2 { font-size: 18px; margin: 28px 0 8px; }
.verdict { display: inline-block; margin: 8px 0 12px; padding: 6px 12px; border-radius: 4px; font-weight: 600; }
.sound { background: #e3f4e5; color: #14532d; } .drifted { background: #fde7e4; color: #7f1d1d; }
.caution { color: #7a4b00; font-weight: 600; margin: 0 0 8px; }
table { border-collapse: collapse; width: 100%; margin: 8px 0 20px; }
th, td { text-align: left; padding: 3px 12px 3px 0; border-bottom: 1px solid #e4e7eb; vertical-align: top; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
tr.past td { font-weight: 600; color: #7f1d1d; } .plain td:first-child { width: 9em; color: #57606a; }
.change { display: grid; grid-template-columns: 1fr 420px; gap: 4px 24px; padding: 10px 0;
  border-bottom: 1px solid #e4e7eb; break-inside: avoid; }
.change b { font-family: ui-monospace, monospace; } .change.past b { color: #7f1d1d; }
.change p { margin: 2px 0; } .small { color: #57606a; font-size: 13px; }
svg { width: 420px; max-width: 100%; } svg text { font: 11px system-ui, sans-serif; fill: #57606a; }
svg .was { fill: #9aa5b1; fill-opacity: .55; } svg .now { fill: #d9480f; fill-opacity: .45; stroke: #d9480f; }
svg .axis { stroke: #9aa5b1; } .key span { padding: 0 8px; } .key .was { background: #cdd3d9; }
.key .now { background: #f2c4ad; }
@media (max-width: 800px) { .change { grid-template-columns: 1fr; } }
"""
_UNITS = {"sd": "standard deviations", "h": "Cohen's h", "factor": "times", "share": "share", "seconds": "s"}
_SECTIONS = {"score": "Scores", "share": "Shares", "flow": "What came, and how"}


def render(
    document: Mapping[str, Any],
    measures: Sequence[Mapping[str, Any]],
    expected: pl.DataFrame | None,
    batch: pl.DataFrame | None,
) -> str:
    """The page of a check: its documents (`monitoring/documents.py`) and the quantile points of both sides."""
    title = f"Drift of {document['model']['name']} version {document['model']['version']}"
    kind = "drifted" if document["drifted"] else "sound"
    features = [m for m in measures if m["group"] == "feature"]
    parts = [
        '<!DOCTYPE html>\n<html lang="en">\n<head><meta charset="UTF-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style></head>\n<body>\n<h1>{escape(title)}</h1>",
        f'<div class="verdict {kind}">{escape(_capital(document["verdict"]))}</div>',
        *(f'<div class="caution">{escape(_capital(text))}.</div>' for text in document["cautions"]),
        _facts(document),
        f"<h2>Features, the {min(FIRST, len(features))} farthest first</h2>",
        '<p class="key small"><span class="was">expected</span> → <span class="now">this batch</span>; the heights'
        " are square roots, so that a tail beside a peak can be seen</p>",
        *(_change(m, _column(expected, m), _column(batch, m)) for m in features[:FIRST]),
    ]
    for group, heading in _SECTIONS.items():
        if chosen := [m for m in measures if m["group"] == group]:
            parts += [f"<h2>{heading}</h2>", *(_change(m, _column(expected, m), _column(batch, m)) for m in chosen)]
    parts += ["<h2>Everything</h2>", _everything(measures), "</body>\n</html>\n"]
    return "\n".join(parts)


def _facts(document: Mapping[str, Any]) -> str:
    batch, reference, model = document["batch"], document["reference"], document["model"]
    against = {
        "reference": "the reference that travels with the model",
        "previous": "the batch before",
        "same-time-last-week": "the same time a week earlier",
    }[document["against"]]
    facts = [
        ("Batch", f"{_period(batch)}: {batch['events']:,} events of {batch['clients']:,} clients, worth "
         f"{batch['worth']:.0f} independent ones; this version scored {batch['scored']:,}, "
         f"of which {batch['compared']:,} were read"),
        ("Compared with", f"{against}, {_period(reference)}"),
        ("Model", f"{model['name']} version {model['version']} ({model['algorithm']}), "
         f"baseline {model['baseline'][:12]}"),
        ("Distance", f"{document['method']}, in standard deviations of what is compared with"),
        ("Checked", _time(document["checked_at"])),
    ]  # fmt: skip
    rows = "".join(f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>\n" for name, value in facts)
    return f'<table class="plain">\n{rows}</table>'


def _change(measure: Mapping[str, Any], expected: pl.Series | None, batch: pl.Series | None) -> str:
    plot = ""
    if expected is not None and batch is not None:
        title = f"{escape(measure['name'])}: expected, and this batch"
        plot = distribution_svg(expected, batch, title=title, show=partial(in_words, measure["name"]))
    said = f'<p>{_unbroken(_capital(measure["sentence"]))}.</p><p class="small">{_unbroken(_size(measure))}</p>'
    return (
        f'<div class="change{" past" if measure["drifted"] else ""}"><div><b>{escape(measure["name"])}</b>'
        f"{said}</div><div>{plot}</div></div>"
    )


def _size(measure: Mapping[str, Any]) -> str:
    """The effect beside its limit.

    >>> _size({"name": "dominance", "effect": -0.6, "limit": 0.45, "unit": "h", "drifted": False, "note": ""})
    "-0.6 Cohen's h, within its limit of 0.45, which is upwards only"
    >>> _size({"name": "pending", "effect": 0.25, "limit": 0.012, "unit": "share", "drifted": True, "note": ""})
    '25 %, past its limit of 1.2 %'
    >>> _size({"name": "score", "effect": None, "limit": 0.4, "unit": "sd", "drifted": False, "note": "told above"})
    'not judged'
    """
    effect, limit, unit = measure["effect"], measure["limit"], measure["unit"]
    if effect is None:  # why is in the sentence
        return "past any limit" if measure["drifted"] else "not judged"
    show = percent if unit == "share" else _number
    told = f"{show(effect)}" + ("" if unit == "share" else f" {_UNITS[unit]}")
    told += f", {'past' if measure['drifted'] else 'within'} its limit of {show(limit)}"
    return f"{told}, which is upwards only" if measure["name"] in UPWARDS else told


def _unbroken(text: str) -> str:
    """Escaped, with an arrow and no line's end between what was, what is, and their units.

    >>> _unbroken("median 2 % -> 9 %").replace(chr(0xA0), "_")
    'median 2_%_→_9_%'
    """
    text = text.replace(" -> ", "\u00a0→\u00a0").replace(" %", "\u00a0%").replace("1 in ", "1\u00a0in\u00a0")
    return escape(text)


def _everything(measures: Sequence[Mapping[str, Any]]) -> str:
    rows = []
    for m in measures:
        cells = "".join(
            f'<td class="number">{_number(m[field])}</td>' for field in ("effect", "limit", "value", "expected")
        )
        said = "drifted" if m["drifted"] else m["note"]
        rows.append(
            f"<tr{' class=past' if m['drifted'] else ''}><td>{escape(m['name'])}</td>{cells}"
            f"<td>{escape(_UNITS[m['unit']])}</td><td>{escape(said)}</td></tr>\n"
        )
    heads = "".join(f'<th class="number">{head}</th>' for head in ("Effect", "Limit", "Value", "Expected"))
    return f"<table>\n<tr><th>Measure</th>{heads}<th>Effect in</th><th></th></tr>\n{''.join(rows)}</table>"


def _column(points: pl.DataFrame | None, measure: Mapping[str, Any]) -> pl.Series | None:
    return points[measure["name"]] if points is not None and measure["name"] in points.columns else None


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:,.3g}" if abs(value) < 1_000 else f"{value:,.0f}"


def _period(period: Mapping[str, Any]) -> str:
    return f"{_time(period['since'])} to {_time(period['until'])}"


def _time(text: str) -> str:
    """ISO-8601 for people, to the second.

    >>> _time("2024-03-01T10:00:00.000Z")
    '2024-03-01 10:00:00 UTC'
    """
    return text[:19].replace("T", " ") + " UTC"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
