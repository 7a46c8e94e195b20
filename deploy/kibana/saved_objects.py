"""Writes `oddlog.ndjson`, which Kibana imports, from `panels.py`: `python -m deploy.kibana.saved_objects`.

The form is that of Kibana's own sample dashboards: version 8.8 of the outer document, by-value Lens panels of 8.11.
Later Kibanas, 9 included, bring it up to date as they import it. The same declaration gives the same bytes.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson

from deploy.kibana.panels import (
    ROWS,
    SEARCHES,
    VIEWS,
    Buckets,
    Graph,
    Listing,
    Metric,
    Number,
    Panel,
    Search,
    Table,
    Text,
    Time,
    Top,
    View,
)
from oddlog.connectors.elastic_template import templates

CORE_VERSION = "8.8.0"
TYPE_VERSIONS = {"index-pattern": "7.11.0", "search": "7.9.3", "dashboard": "8.7.0"}
"""What the objects are written for; Kibana migrates from there. Without them it would migrate from its oldest form."""

PANEL_VERSION = "8.11.0"
"""Of the Lens panels inside the dashboard."""

LENS_TYPES = {
    "keyword": "string", "ip": "ip", "boolean": "boolean", "date": "date",
    "integer": "number", "long": "number", "float": "number", "double": "number",
}  # fmt: skip
"""Lens' name for an Elasticsearch type that can be aggregated."""

Json = dict[str, Any]


def saved_objects(prefix: str = "oddlog") -> list[Json]:
    """Every object, data views first, for a store with that prefix (`store.prefix`).

    Raises KeyError where a panel names a field that the index template has not, or one that cannot be aggregated.

    >>> [found["id"] for found in saved_objects("logs")][:2]
    ['logs-events', 'logs-dead']
    """
    writer = _Writer(prefix)
    return [
        *(writer.data_view(view) for view in VIEWS),
        *(writer.search(search) for search in SEARCHES),
        writer.dashboard(),
    ]


def ndjson(prefix: str = "oddlog") -> bytes:
    """The objects as Kibana's import takes them: one a line."""
    return b"".join(_bytes(found) + b"\n" for found in saved_objects(prefix))


def fields_of(mapping: Mapping[str, Any], parent: str = "") -> Iterator[tuple[str, str]]:
    """Names and types of the fields of a mapping's `properties`.

    >>> list(fields_of({"a": {"properties": {"b": {"type": "ip"}}}}))
    [('a.b', 'ip')]
    """
    for name, found in mapping.items():
        if "properties" in found:
            yield from fields_of(found["properties"], f"{parent}{name}.")
        else:
            yield parent + name, found["type"]


class _Writer:
    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._times = {view.name: view.time for view in VIEWS}
        made = templates(prefix)
        self._types = {
            view.name: dict(fields_of(made[f"{prefix}-{view.name}"]["template"]["mappings"]["properties"]))
            for view in VIEWS
        }

    def data_view(self, view: View) -> Json:
        attributes = {
            "title": f"{self._prefix}-{view.pattern or view.name}",
            "name": f"{self._prefix}: {view.title}",
            "timeFieldName": view.time,
            "fields": "[]",
            "fieldAttrs": "{}",
            "fieldFormatMap": "{}",
            "runtimeFieldMap": "{}",
            "typeMeta": "{}",
            # Before the first dead letter, or drift check, there is no such index, and that is no error.
            "allowNoIndex": True,
        }
        return _object("index-pattern", f"{self._prefix}-{view.name}", attributes, [])

    def search(self, search: Search) -> Json:
        reference = "kibanaSavedObjectMeta.searchSourceJSON.index"
        source = {**_query(search.where), "filter": [], "highlightAll": True, "indexRefName": reference}
        attributes = {
            "title": f"{self._prefix}: {search.title}",
            "description": search.about,
            "columns": list(search.columns),
            "sort": [[self._times[search.view], "desc"]],
            "hits": 0,
            "kibanaSavedObjectMeta": {"searchSourceJSON": _text({**source, "version": True})},
            "version": 1,
        }
        return _object("search", f"{self._prefix}-{search.id}", attributes, [self._view(search.view, reference)])

    def dashboard(self) -> Json:
        panels: list[Json] = []
        references: list[Json] = []
        top = 0
        for row in ROWS:
            left = 0
            for width, panel in row.panels:
                id = f"panel-{len(panels)}"
                made, used = self._panel(panel, id)
                place = {"x": left, "y": top, "w": width, "h": row.height, "i": id}
                panels.append({"version": PANEL_VERSION, "gridData": place, "panelIndex": id, **made})
                references += [{**one, "name": f"{id}:{one['name']}"} for one in used]
                left += width
            top += row.height
        attributes = {
            "title": self._prefix,
            "description": "Events by severity, alerts by client, drift, and what the pipeline left.",
            "kibanaSavedObjectMeta": {"searchSourceJSON": _text({**_query(""), "filter": []})},
            "optionsJSON": _text(
                {"useMargins": True, "syncColors": False, "syncCursor": True, "syncTooltips": False,
                 "hidePanelTitles": False}
            ),
            "panelsJSON": _text(panels),
            "timeRestore": True,
            "timeFrom": "now-24h",
            "timeTo": "now",
            "refreshInterval": {"pause": False, "value": 60_000},
            "version": 1,
        }  # fmt: skip
        return _object("dashboard", self._prefix, attributes, references)

    def _panel(self, panel: Panel, id: str) -> tuple[Json, list[Json]]:
        """A panel without its place, and the objects that it refers to."""
        if isinstance(panel, Text):
            shown = {
                "type": "markdown", "title": "", "description": "", "uiState": {},
                "params": {"fontSize": 12, "openLinksInNewTab": False, "markdown": panel.markdown},
                "data": {"aggs": [], "searchSource": {**_query(""), "filter": []}},
            }  # fmt: skip
            embedded = {"savedVis": shown, "enhancements": {}, "hidePanelTitles": True}
            return {"type": "visualization", "embeddableConfig": embedded}, []
        if isinstance(panel, Listing):
            name = f"panel_{id}"
            reference = {"type": "search", "id": f"{self._prefix}-{panel.search}", "name": name}
            return {"type": "search", "embeddableConfig": {"enhancements": {}}, "panelRefName": name}, [reference]
        layer = _Layer(id, self._types[panel.view], self._times[panel.view])
        kind, visualization = layer.show(panel)
        references = [self._view(panel.view, f"indexpattern-datasource-layer-{id}")]
        state = {
            "visualization": visualization, **_query(panel.where), "filters": [],
            "datasourceStates": {"formBased": {"layers": {id: layer.json()}}},
            "internalReferences": [], "adHocDataViews": {},
        }  # fmt: skip
        attributes = {
            "title": panel.title, "description": "", "visualizationType": kind, "type": "lens",
            "references": references, "state": state,
        }  # fmt: skip
        return {
            "type": "lens",
            "title": panel.title,
            "embeddableConfig": {"attributes": attributes, "enhancements": {}, "hidePanelTitles": False},
        }, references

    def _view(self, view: str, name: str) -> Json:
        return {"type": "index-pattern", "id": f"{self._prefix}-{view}", "name": name}


class _Layer:
    """The columns of one Lens panel: buckets first, then metrics."""

    def __init__(self, id: str, types: Mapping[str, str], time: str) -> None:
        self._id, self._types, self._time = id, types, time
        self._columns: dict[str, Json] = {}

    def json(self) -> Json:
        return {"columns": self._columns, "columnOrder": list(self._columns), "incompleteColumns": {}}

    def show(self, panel: Number | Graph | Table) -> tuple[str, Json]:
        """Lens' name of the kind of chart, and its state, which names the columns that are made here."""
        match panel:
            case Number():
                metric = self._metrics((panel.metric,))[0]
                return "lnsMetric", {"layerId": self._id, "layerType": "data", "metricAccessor": metric}
            case Table():
                first = self._name(len(panel.rows))
                rows = [self._buckets(row, ordered_by=first) for row in panel.rows]
                columns = [*rows, *self._metrics(panel.metrics)]
                return "lnsDatatable", {
                    "layerId": self._id,
                    "layerType": "data",
                    "columns": [{"columnId": column, "isTransposed": False} for column in columns],
                }
            case Graph():
                return "lnsXY", self._graph(panel)

    def _graph(self, graph: Graph) -> Json:
        first = self._name(1 if graph.split is None else 2)
        # Lens nests buckets in the order of columns: the split outside, so that its top values are of the whole time.
        split = None if graph.split is None else self._buckets(graph.split, ordered_by=first)
        over = self._buckets(graph.over, ordered_by=first)
        layer = {
            "layerId": self._id,
            "layerType": "data",
            "seriesType": graph.chart,
            "accessors": self._metrics(graph.metrics),
            "xAccessor": over,
            "position": "top",
            "showGridlines": False,
            **({} if split is None else {"splitAccessor": split}),
        }
        seen = {"x": True, "yLeft": True, "yRight": True}
        return {
            "layers": [layer],
            "preferredSeriesType": graph.chart,
            "legend": {"isVisible": split is not None or len(graph.metrics) > 1, "position": "bottom"},
            "valueLabels": "hide",
            "fittingFunction": "None",
            "axisTitlesVisibilitySettings": {"x": False, "yLeft": False, "yRight": True},
            "tickLabelsVisibilitySettings": seen,
            "gridlinesVisibilitySettings": seen,
            "yLeftExtent": {"mode": "full"},
            "yRightExtent": {"mode": "full"},
            "yLeftScale": "log" if graph.logarithmic else "linear",
        }

    def _name(self, number: int) -> str:
        return f"{self._id}-column-{number}"

    def _add(self, column: Json) -> str:
        name = self._name(len(self._columns))
        self._columns[name] = column
        return name

    def _type(self, field: str) -> str:
        return LENS_TYPES[self._types[field]]

    def _buckets(self, buckets: Buckets, *, ordered_by: str) -> str:
        match buckets:
            case Time():
                return self._add({
                    "label": self._time, "dataType": self._type(self._time), "isBucketed": True,
                    "operationType": "date_histogram", "scale": "interval", "sourceField": self._time,
                    "params": {"interval": buckets.interval, "includeEmptyRows": True, "dropPartials": False},
                })  # fmt: skip
            case Top():
                return self._add({
                    "label": buckets.label, "customLabel": True, "dataType": self._type(buckets.field),
                    "isBucketed": True, "operationType": "terms", "scale": "ordinal", "sourceField": buckets.field,
                    "params": {
                        "size": buckets.size, "orderBy": {"type": "column", "columnId": ordered_by},
                        "orderDirection": "desc", "otherBucket": False, "missingBucket": False,
                        "parentFormat": {"id": "terms"},
                    },
                })  # fmt: skip
            case _:
                filters = [{"label": label, "input": _query(where)["query"]} for label, where in buckets.of.items()]
                return self._add({
                    "label": "Filters", "dataType": "string", "isBucketed": True, "operationType": "filters",
                    "scale": "ordinal", "params": {"filters": filters},
                })  # fmt: skip

    def _metrics(self, metrics: tuple[Metric, ...]) -> list[str]:
        return [self._metric(metric) for metric in metrics]

    def _metric(self, metric: Metric) -> str:
        counts = metric.operation in {"count", "unique_count"}
        if not counts and self._type(metric.field) != "number":
            raise KeyError(f"{metric.operation} of {metric.field}, which is no number")
        if metric.operation == "unique_count":
            self._type(metric.field)  # raises where it cannot be aggregated
        return self._add({
            "label": metric.label, "customLabel": True, "dataType": "number", "isBucketed": False,
            "operationType": metric.operation, "scale": "ratio",
            "sourceField": metric.field or "___records___",
            "params": {"emptyAsNull": False} if counts else {},
            **({"filter": _query(metric.where)["query"]} if metric.where else {}),
        })  # fmt: skip


def _query(kql: str) -> Json:
    return {"query": {"query": kql, "language": "kuery"}}


def _object(type: str, id: str, attributes: Json, references: list[Json]) -> Json:
    return {
        "type": type,
        "id": id,
        "attributes": attributes,
        "references": references,
        "coreMigrationVersion": CORE_VERSION,
        "typeMigrationVersion": TYPE_VERSIONS[type],
        "managed": False,
    }


def _bytes(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def _text(value: Any) -> str:
    """JSON inside of JSON, as Kibana keeps most of an object."""
    return _bytes(value).decode()


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description="Write Kibana's saved objects for oddlog's indices.")
    parser.add_argument("--prefix", default="oddlog", help="The store's prefix (store.prefix).")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("oddlog.ndjson"))
    arguments = parser.parse_args()
    arguments.out.write_bytes(ndjson(arguments.prefix))


if __name__ == "__main__":
    main()
