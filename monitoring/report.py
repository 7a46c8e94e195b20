"""The HTML page of a drift check: what was compared and the verdict, above Evidently's own report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

_STYLE = """
#oddlog { font: 15px/1.5 system-ui, sans-serif; color: #1b1f24; background: #fff; max-width: 1240px;
  margin: 24px auto 8px; padding: 0 24px; }
#oddlog h1 { font-size: 24px; margin: 0 0 4px; }
#oddlog .verdict { display: inline-block; margin: 8px 0 12px; padding: 6px 12px; border-radius: 4px;
  font-weight: 600; }
#oddlog .sound { background: #e3f4e5; color: #14532d; }
#oddlog .drifted { background: #fde7e4; color: #7f1d1d; }
#oddlog .caution { color: #7a4b00; font-weight: 600; margin: 0 0 8px; }
#oddlog table { border-collapse: collapse; width: 100%; margin: 8px 0 20px; }
#oddlog th, #oddlog td { text-align: left; padding: 3px 12px 3px 0; border-bottom: 1px solid #e4e7eb; }
#oddlog td.number, #oddlog th.number { text-align: right; font-variant-numeric: tabular-nums; }
#oddlog tr.past td { font-weight: 600; color: #7f1d1d; }
#oddlog .plain td:first-child { width: 12em; color: #57606a; }
@media print { #oddlog { margin: 0; } }
"""


def render(document: Mapping[str, Any], evidently: str) -> str:
    """The page of a result (`DriftResult.document`), with Evidently's page below; that may be empty."""
    title = f"Drift of {document['model']['name']} version {document['model']['version']}"
    head = f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n"
    body = f'<div id="oddlog">\n{_summary(title, document)}</div>\n'
    if "<body>" not in evidently or "</head>" not in evidently:
        evidently = '<!DOCTYPE html>\n<html lang="en">\n<head><meta charset="UTF-8"></head>\n<body>\n</body>\n</html>\n'
    page = evidently.strip().replace("</head>", f"{head}</head>", 1)
    return page.replace("<body>", f"<body>\n{body}", 1) + "\n"


def _summary(title: str, document: Mapping[str, Any]) -> str:
    batch, reference, model = document["batch"], document["reference"], document["model"]
    facts = [
        ("Batch", f"{_period(batch)}: {batch['events']:,} events of {batch['clients']:,} clients, "
         f"{batch['compared']:,} of them compared"),
        ("Reference", f"{_period(reference)}, as {reference['points']:,} quantile points a column"),
        ("Model", f"{model['name']} version {model['version']} ({model['algorithm']}), "
         f"baseline {model['baseline'][:12]}"),
        ("Distance", f"{document['method']}: standard deviations of the reference; past {document['limit']:g} a "
         "column has drifted"),
        ("Checked", _time(document["@timestamp"])),
    ]  # fmt: skip
    kind = "drifted" if document["drifted"] else "sound"
    return (
        f"<h1>{escape(title)}</h1>\n"
        f'<div class="verdict {kind}">{escape(_capital(document["verdict"]))}</div>\n'
        + "".join(f'<div class="caution">{escape(_capital(text))}.</div>\n' for text in document["cautions"])
        + '<table class="plain">\n'
        + "".join(f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>\n" for name, value in facts)
        + "</table>\n"
        + _columns(document["columns"])
    )


def _columns(columns: Sequence[Mapping[str, Any]]) -> str:
    rows = []
    for column in columns:
        cells = [_number(column["distance"]), _number(column["mean"]), _number(column["reference_mean"])]
        rows.append(
            f"<tr{' class=past' if column['drifted'] else ''}><td>{escape(column['name'])}</td>"
            + "".join(f'<td class="number">{cell}</td>' for cell in cells)
            + f"<td>{'drifted' if column['drifted'] else ''} {escape(column['note'])}</td></tr>\n"
        )
    return (
        '<table>\n<tr><th>Column</th><th class="number">Distance</th><th class="number">Mean of the batch</th>'
        '<th class="number">Mean of the reference</th><th></th></tr>\n' + "".join(rows) + "</table>\n"
    )


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"


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
