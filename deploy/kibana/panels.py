"""What Kibana shows: data views, saved searches, and the panels of the dashboard, declared. How Kibana writes such
things down is `saved_objects.py`'s."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Operation = Literal["count", "unique_count", "max", "average", "sum"]
Chart = Literal["line", "bar_stacked", "bar_percentage_stacked", "bar_horizontal"]


@dataclass(frozen=True)
class View:
    """A data view: the store's index `<prefix>-<name>`, or all that begin so where it has a `*`."""

    name: str
    title: str
    pattern: str = ""
    """What follows `<prefix>-`, where it is not `name`."""
    time: str = "@timestamp"
    """The field by which a period is looked at."""


@dataclass(frozen=True)
class Search:
    """A saved search: documents of a view, newest first."""

    id: str
    title: str
    view: str
    columns: tuple[str, ...]
    where: str = ""
    """KQL."""
    about: str = ""


@dataclass(frozen=True)
class Metric:
    """A number: of documents, or of a field's values."""

    label: str
    operation: Operation = "count"
    field: str = ""
    where: str = ""
    """KQL, beside the panel's."""


@dataclass(frozen=True)
class Time:
    """Buckets of time; Kibana chooses their width where none is named."""

    interval: str = "auto"


@dataclass(frozen=True)
class Top:
    """The values of a field with the most of the panel's first metric."""

    field: str
    label: str
    size: int = 10


@dataclass(frozen=True)
class Cases:
    """Buckets by conditions: KQL by label."""

    of: dict[str, str] = field(hash=False)


Buckets = Time | Top | Cases


@dataclass(frozen=True)
class Number:
    """A panel with one number."""

    title: str
    view: str
    metric: Metric
    where: str = ""


@dataclass(frozen=True)
class Graph:
    """Lines or bars of metrics over buckets, split by others."""

    title: str
    view: str
    metrics: tuple[Metric, ...]
    over: Buckets
    split: Buckets | None = None
    chart: Chart = "bar_stacked"
    where: str = ""
    logarithmic: bool = False


@dataclass(frozen=True)
class Table:
    """Metrics by the values of fields."""

    title: str
    view: str
    rows: tuple[Top, ...]
    metrics: tuple[Metric, ...]
    where: str = ""


@dataclass(frozen=True)
class Text:
    """Markdown."""

    markdown: str


@dataclass(frozen=True)
class Listing:
    """A saved search in the dashboard."""

    search: str


Panel = Number | Graph | Table | Text | Listing


@dataclass(frozen=True)
class Row:
    """Panels side by side, each as wide as its number says; Kibana's grid has 48 columns."""

    height: int
    panels: tuple[tuple[int, Panel], ...]


VIEWS = (
    View("events", "events", "events-*"),
    View("dead", "dead letters"),
    View("drift", "drift"),
    View("incidents", "incidents", time="last_seen"),  # one that began long ago may be open still
    View("marks", "marks"),
)

ODD = "anomaly.is_anomaly: true"
BATCH = 'kind: "batch"'
MEASURE = 'kind: "measure"'

SEARCHES = (
    Search(
        "odd-events", "odd events", "events",
        ("source.address", "anomaly.severity", "http.request.method", "url.original", "http.response.status_code",
         "user_agent.original", "anomaly.reasons.text", "anomaly.model.version"),
        ODD, "Events over a threshold, with what carried the score.",
    ),
    Search(
        "pending-events", "events that wait for a score", "events",
        ("source.address", "url.original", "oddlog.position.partition", "oddlog.position.offset"),
        'anomaly.status: "pending"', "`oddlog backfill` scores them.",
    ),
    Search(
        "hushed-events", "events that a mark hushes", "events",
        ("source.address", "anomaly.severity", "url.original", "anomaly.hushed"), "anomaly.hushed: *",
        "Over a threshold, and expected by a mark of that id: no alert.",
    ),
    Search(
        "dead-letters", "dead letters", "dead",
        ("kind", "reason", "oddlog.position.partition", "oddlog.position.offset"), "",
        "Records that no event was made of. `oddlog dead show ID` tells what the parser says now.",
    ),
    Search(
        "drifted-measures", "measures past their limit", "drift",
        ("name", "sentence", "effect", "limit", "unit", "model.version"), f"{MEASURE} and drifted: true",
        "A sentence on each; the whole report is HTML.",
    ),
    Search(
        "incidents", "incidents", "incidents",
        ("status", "title", "severity", "alerts", "events", "client_count", "first_seen", "last_seen"), "",
        "Alerts that belong together, one document each, updated while it lasts.",
    ),
    Search(
        "marks", "marks", "marks",
        ("verdict", "by", "client", "path", "path_prefix", "since", "until", "note"), "",
        "What people have said of events.",
    ),
)  # fmt: skip

BY_SEVERITY = Cases(
    {
        "rarer than 1 in 10,000": "anomaly.severity >= 4",
        "rarer than 1 in 1,000": "anomaly.severity >= 3 and anomaly.severity < 4",
        "rarer than 1 in 100": "anomaly.severity >= 2 and anomaly.severity < 3",
        "rarer than 1 in 10": "anomaly.severity >= 1 and anomaly.severity < 2",
        "ordinary": "anomaly.severity < 1",
        "not scored yet": 'anomaly.status: "pending"',
    }
)
BY_STATUS_CLASS = Cases(
    {
        f"{first}xx": f"http.response.status_code >= {first}00 and http.response.status_code < {first + 1}00"
        for first in range(1, 6)
    }
)
EVENTS = Metric("events")
CLIENTS = Metric("clients", "unique_count", "source.address")

ROWS = (
    Row(5, (
        (8, Number("Events", "events", EVENTS)),
        (8, Number("Odd events", "events", EVENTS, ODD)),
        (8, Number("Clients with odd events", "events", CLIENTS, ODD)),
        (8, Number("Open incidents", "incidents", Metric("incidents"), 'status: "open"')),
        (8, Number("Dead letters", "dead", Metric("dead letters"))),
        (8, Number("Batches that drifted", "drift", Metric("batches"), f"{BATCH} and drifted: true")),
    )),
    Row(3, ((48, Text("## Events and alerts\nAn alert is a client in an hour with at least one odd event.")),)),
    Row(12, (
        (24, Graph("Events by severity", "events", (EVENTS,), Time(), BY_SEVERITY, "line", logarithmic=True)),
        (24, Graph("Alerts an hour", "events", (Metric("alerts", "unique_count", "source.address"),), Time("1h"),
                   where=ODD)),
    )),
    Row(14, (
        (24, Table(
            "Alerts by client", "events", (Top("source.address", "client", 20),),
            (Metric("highest severity", "max", "anomaly.severity"), EVENTS,
             Metric("paths", "unique_count", "url.path"), Metric("failed", where="http.response.status_code >= 400")),
            ODD)),
        (12, Graph("What carried them", "events", (EVENTS,), Top("anomaly.reasons.feature", "reason", 12),
                   chart="bar_horizontal", where=ODD)),
        (12, Graph("By channel", "events", (EVENTS,), Time(), Top("anomaly.channel", "channel", 3), where=ODD)),
    )),
    Row(14, (
        (24, Listing("incidents")),
        (24, Table("Paths of odd events", "events", (Top("url.path", "path", 20),), (EVENTS, CLIENTS), ODD)),
    )),
    Row(16, ((48, Listing("odd-events")),)),
    Row(3, ((48, Text("## Drift\nWhether what comes is still what the champion was made for.")),)),
    Row(12, (
        (16, Graph("Share of the features past their limit", "drift",
                   (Metric("share", "max", "share"), Metric("limit", "max", "max_share")), Time(), chart="line",
                   where=BATCH)),
        (16, Graph("Measures past their limit", "drift", (Metric("batches"),), Time(), Top("name", "measure", 12),
                   where=f"{MEASURE} and drifted: true")),
        (16, Graph("Events of a batch", "drift",
                   (Metric("events", "max", "batch.events"), Metric("scored", "max", "batch.scored")), Time(),
                   chart="line", where=BATCH)),
    )),
    Row(14, ((48, Listing("drifted-measures")),)),
    Row(3, ((48, Text("## The pipeline\nThe health of its processes is in Prometheus; this is what they left.")),)),
    Row(12, (
        (16, Graph("Scored and pending", "events", (EVENTS,), Time(), Top("anomaly.status", "status", 2))),
        (16, Graph("Model version that scored", "events", (EVENTS,), Time(), Top("anomaly.model.version", "version", 5),
                   where='anomaly.status: "scored"')),
        (16, Graph("Dead letters", "dead", (Metric("dead letters"),), Time(), Top("kind", "kind", 5))),
    )),
    Row(12, (
        (24, Graph("Status classes", "events", (EVENTS,), Time(), BY_STATUS_CLASS, "bar_percentage_stacked")),
        (24, Graph("Events by partition", "events", (EVENTS,), Time(),
                   Top("oddlog.position.partition", "partition", 12), "line")),
    )),
    Row(14, ((48, Listing("dead-letters")),)),
)  # fmt: skip
"""The dashboard, from top to bottom."""
