"""A scored log as one HTML page that needs no other file and no network. Words: `words.py`; drawing: `charts.py`.

Log lines are hostile input: every text is escaped, and a policy in the page forbids every script but the page's own,
every request, and every form.
"""

from __future__ import annotations

import base64
import hashlib
import re
from html import escape

from oddlog.events.printable import printable
from oddlog.scoring.explanation import rarer_than
from training.charts import distribution, timeline
from training.filescore import ScoredLog
from training.findings import Findings, OddClient, OddEvent
from training.words import alike, counted, headline, judged_by, request_of, share_odd, unread

_TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d(:\d\d)?")

_STYLE = """
:root { color-scheme: light dark; --back: #fff; --ink: #1c1f23; --soft: #5d6671; --rule: #dfe3e8; --odd: #b3261e;
  --bar: #7d93ad; --panel: #f6f7f9; --link: #0b57a4; }
@media (prefers-color-scheme: dark) { :root { --back: #15181c; --ink: #e6e8eb; --soft: #9aa4b0; --rule: #333a43;
  --odd: #ff8a80; --bar: #6b82a0; --panel: #1d2127; --link: #8ab8ef; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem; max-width: 76rem; background: var(--back); color: var(--ink);
  font: 15px/1.45 system-ui, sans-serif; }
h1 { font-size: 1.35rem; margin: 0 0 .3rem; overflow-wrap: anywhere; }
h2 { font-size: 1.05rem; margin: 2rem 0 .5rem; }
p { margin: .2rem 0; color: var(--soft); }
p.warn { color: var(--odd); overflow-wrap: anywhere; }
.charts { display: grid; grid-template-columns: minmax(0, 2fr) minmax(0, 1fr); gap: 1rem; }
@media (max-width: 50rem) { .charts { grid-template-columns: minmax(0, 1fr); } }
figure { margin: 0; padding: .8rem; background: var(--panel); border-radius: 6px; }
figcaption { font-weight: 600; margin-bottom: .4rem; }
svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--soft); font: 11px system-ui, sans-serif; }
svg .all { fill: var(--bar); } svg .odd { fill: var(--odd); }
svg .axis { stroke: var(--rule); } svg .limit { stroke: var(--odd); stroke-dasharray: 4 3; }
.table { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 14px; }
th, td { text-align: left; vertical-align: top; padding: .4rem .6rem; border-bottom: 1px solid var(--rule); }
th { position: sticky; top: 0; background: var(--back); white-space: nowrap; }
th button { all: unset; cursor: pointer; font-weight: 600; }
th button:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; }
th[aria-sort=ascending] button::after { content: " ▲"; }
th[aria-sort=descending] button::after { content: " ▼"; }
td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td.time { white-space: nowrap; font-variant-numeric: tabular-nums; }
code { font: 13px/1.4 ui-monospace, monospace; overflow-wrap: anywhere; }
td.client { min-width: 9.5rem; }
.when { white-space: nowrap; }
td.why { min-width: 21rem; }
td.odd { color: var(--odd); }
ul { margin: .2rem 0 0; padding-left: 1.1rem; color: var(--soft); }
input { font: inherit; padding: .3rem .5rem; width: 20rem; max-width: 100%; color: inherit; background: var(--panel);
  border: 1px solid var(--rule); border-radius: 4px; }
"""

_SCRIPT = """
for (const table of document.querySelectorAll("table")) {
  const body = table.tBodies[0];
  table.querySelectorAll("th button").forEach((button) => button.addEventListener("click", () => {
    const head = button.closest("th"), column = head.cellIndex;
    const down = head.getAttribute("aria-sort") !== "descending";
    table.querySelectorAll("th").forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const value = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
    const numeric = head.dataset.kind === "number";
    const rows = [...body.rows].sort((a, b) => numeric
      ? Number(value(a)) - Number(value(b)) : value(a).localeCompare(value(b)));
    body.append(...(down ? rows.reverse() : rows));
  }));
}
for (const input of document.querySelectorAll("input[data-table]")) {
  const rows = [...document.getElementById(input.dataset.table).tBodies[0].rows];
  input.addEventListener("input", () => {
    const wanted = input.value.toLowerCase();
    for (const row of rows) row.hidden = !row.textContent.toLowerCase().includes(wanted);
  });
}
"""


def page(scored: ScoredLog, findings: Findings) -> str:
    """The whole document: summary, timeline, distribution, and sortable tables of clients and requests."""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_policy()}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{_text(f"oddlog: {scored.log.name}")}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>{escape(headline(scored, findings))}</h1>
<p>{escape(judged_by(scored, findings))}</p>
{f'<p class="warn">{escape(unread(scored.log))}</p>' if scored.log.unread else ""}
<div class="charts">
<figure><figcaption>Requests over time, odd ones below (log scales)</figcaption>{timeline(scored)}</figure>
<figure><figcaption>How often each score occurs (log scale)</figcaption>{distribution(scored)}</figure>
</div>
<h2>The oddest clients</h2>
{_filter("clients", "Filter clients")}
<div class="table"><table id="clients"><thead><tr>{
        _heads(("client", ""), ("rarer than one in", "number"), ("requests", "number"), ("odd", "number"),
               ("hours", "number"), ("alike", "number"), ("oddest request, and why", ""))
    }</tr></thead><tbody>
{"".join(_client(client) for client in findings.oddest_clients)}
</tbody></table></div>
<h2>The oddest requests</h2>
<p>Each path once, at most three of a client.</p>
{_filter("requests", "Filter requests")}
<div class="table"><table id="requests"><thead><tr>{
        _heads(("line", "number"), ("time (UTC)", ""), ("client", ""), ("rarer than one in", "number"),
               ("request", ""), ("why", ""))
    }</tr></thead><tbody>
{"".join(_event(event) for event in findings.oddest_events)}
</tbody></table></div>
<h2>Requests odd in themselves, though their clients look sound</h2>
<p>New paths and words of clients whose other requests are usual; each path once, about one alert a day.</p>
{_filter("novel", "Filter requests")}
<div class="table"><table id="novel"><thead><tr>{
        _heads(("line", "number"), ("time (UTC)", ""), ("client", ""), ("request", ""), ("why", ""))
    }</tr></thead><tbody>
{"".join(_event(event, novel=True) for event in findings.novel_events)}
</tbody></table></div>
<script>{_SCRIPT}</script>
</body>
</html>
"""  # fmt: skip


def _policy() -> str:
    digest = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()
    return (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _text(text: str) -> str:
    return escape(printable(text))


def _request(event: OddEvent) -> str:
    """The request and its answer; the arrow is one character, which no line breaks in."""
    text = request_of(event)
    if event.status is None:
        return escape(text)
    return f"{escape(text.removesuffix(f' -> {event.status}'))} \N{RIGHTWARDS ARROW} {event.status}"


def _filter(table: str, label: str) -> str:
    return f'<p><input type="search" data-table="{table}" placeholder="{label}" aria-label="{label}"></p>'


def _heads(*columns: tuple[str, str]) -> str:
    return "".join(
        f'<th scope="col" data-kind="{kind}"><button type="button">{name}</button></th>' for name, kind in columns
    )


def _number(value: float, shown: str | None = None, style: str = "number") -> str:
    return f'<td class="{style}" data-value="{value:.6g}">{shown if shown is not None else f"{value:,.0f}"}</td>'


def _severity(event: OddEvent) -> str:
    shown = rarer_than(event.severity).removeprefix("rarer than one event in ")
    return _number(event.severity, escape(shown), "number odd" if event.is_anomaly else "number")


def _reasons(event: OddEvent) -> str:
    said = "".join(f"<li>{escape(reason['text'].split(': ', 1)[-1])}</li>" for reason in event.reasons)
    return f"<ul>{said}</ul>" if said else ""


def _unbroken(html: str) -> str:
    """The same with no line broken within a time: a hyphen is where one would be."""
    return _TIME.sub(r'<span class="when">\g<0></span>', html)


def _client(client: OddClient) -> str:
    odd = client.oddest
    return (
        f'<tr><td class="client"><code>{_text(client.client)}</code></td>{_severity(odd)}'
        f"{_number(client.requests)}"
        f"{_number(client.anomalies)}{_number(client.alerts)}{_number(client.alike)}"
        f"<td><code>{_request(odd)}</code><br>line {odd.line:,}, "
        f"{_unbroken(f'{odd.time:%Y-%m-%d %H:%M:%S}; {escape(share_odd(client))}')}{escape(alike(client))}"
        f"{_reasons(odd)}</td></tr>\n"
    )


def _event(event: OddEvent, *, novel: bool = False) -> str:
    more = f"<br>{counted(event.alike, 'odd request')} for this path" if event.alike > 1 else ""
    return (
        f'<tr>{_number(event.line)}<td class="time">{event.time:%Y-%m-%d %H:%M:%S}</td>'
        f'<td class="client"><code>{_text(event.client)}</code></td>{"" if novel else _severity(event)}'
        f'<td><code>{_request(event)}</code>{more}</td><td class="why">{_reasons(event)}</td></tr>\n'
    )
