"""Kibana cannot be run here. Its saved objects are held against the index templates, against what Kibana's schemas
know, and against each other; and the program that imports them against a server that answers as Kibana does."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.kibana.panels import ROWS, SEARCHES, VIEWS
from deploy.kibana.saved_objects import LENS_TYPES, fields_of, ndjson, saved_objects
from oddlog.connectors.elastic_template import templates

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "deploy" / "kibana" / "oddlog.ndjson"
OBJECTS: list[dict[str, Any]] = [json.loads(line) for line in FILE.read_text().splitlines()]
PANELS: list[dict[str, Any]] = json.loads(
    next(o for o in OBJECTS if o["type"] == "dashboard")["attributes"]["panelsJSON"]
)
LENS = [panel for panel in PANELS if panel["type"] == "lens"]

# Of Kibana 8.19's schemas: another attribute is refused, or lost.
ATTRIBUTES = {
    "index-pattern": {
        "title", "name", "type", "timeFieldName", "fields", "fieldAttrs", "fieldFormatMap", "sourceFilters",
        "runtimeFieldMap", "typeMeta", "allowNoIndex", "allowHidden",
    },
    "search": {
        "title", "description", "columns", "sort", "grid", "rowHeight", "rowsPerPage", "hideChart", "breakdownField",
        "kibanaSavedObjectMeta", "isTextBasedQuery", "usesAdHocDataView", "timeRestore", "timeRange",
        "refreshInterval", "viewMode", "hideAggregatedPreview", "hits", "version",
    },
    "dashboard": {
        "title", "description", "kibanaSavedObjectMeta", "timeRestore", "timeFrom", "timeTo", "refreshInterval",
        "controlGroupInput", "panelsJSON", "optionsJSON", "hits", "version",
    },
}  # fmt: skip

FIELD = re.compile(r"([\w@.]+)\s*(:|>=|<=|>|<)\s*(\"[^\"]*\"|[\w.*]+)")
"""A condition of KQL: field, comparison, value."""


def title_of(panel: dict[str, Any]) -> str:
    return str(panel["title"])


def fields(view: str) -> dict[str, str]:
    """Names and types of the fields of a data view, by the template that makes its indices."""
    pattern = next(found["attributes"]["title"] for found in OBJECTS if found["id"] == view)
    made = [found for found in templates("oddlog").values() if found["index_patterns"] == [pattern]]
    assert len(made) == 1, f"no template makes indices of {pattern}"
    return dict(fields_of(made[0]["template"]["mappings"]["properties"]))


def conditions_hold(kql: str, known: dict[str, str]) -> None:
    """Every field of the query exists, can be searched by that comparison, and is compared with its own type."""
    found = FIELD.findall(kql)
    assert bool(found) == bool(kql)
    assert set(FIELD.sub("", kql).split()) <= {"and", "or", "not", "(", ")"}, "all of the query is understood here"
    for field, comparison, value in found:
        kind = LENS_TYPES[known[field]]
        if comparison != ":":
            assert kind in {"number", "date"}, f"{field} is a {kind}"
        if value == "*":
            continue
        assert value.startswith('"') == (kind == "string"), f"{field} is a {kind}, compared with {value}"
        assert kind != "boolean" or value in {"true", "false"}
        assert kind != "number" or float(value) >= 0


def test_the_file_is_what_the_program_writes() -> None:
    """Else: python -m deploy.kibana.saved_objects"""
    assert FILE.read_bytes() == ndjson()
    assert ndjson() == ndjson()


def test_another_prefix_is_in_every_name() -> None:
    found = saved_objects("site")
    assert "oddlog-" not in json.dumps([[o["id"], o["references"], o["attributes"].get("title")] for o in found])
    assert len(found) == len(OBJECTS)


@pytest.mark.parametrize("found", OBJECTS, ids=lambda found: f"{found['type']}/{found['id']}")
def test_an_object_says_its_version_and_has_attributes_that_kibana_knows(found: dict[str, Any]) -> None:
    assert found["coreMigrationVersion"] == "8.8.0"
    assert re.fullmatch(r"\d+\.\d+\.\d+", found["typeMigrationVersion"])
    assert set(found["attributes"]) <= ATTRIBUTES[found["type"]]
    for reference in found["references"]:
        assert set(reference) == {"type", "id", "name"}
        assert (reference["type"], reference["id"]) in {(other["type"], other["id"]) for other in OBJECTS}
    names = [reference["name"] for reference in found["references"]]
    assert len(set(names)) == len(names)


def test_ids_are_unique_and_every_view_search_and_panel_is_there() -> None:
    assert len({(found["type"], found["id"]) for found in OBJECTS}) == len(OBJECTS)
    count = {kind: sum(found["type"] == kind for found in OBJECTS) for kind in ATTRIBUTES}
    assert count == {"index-pattern": len(VIEWS), "search": len(SEARCHES), "dashboard": 1}
    assert len(PANELS) == sum(len(row.panels) for row in ROWS)


@pytest.mark.parametrize("found", [o for o in OBJECTS if o["type"] == "index-pattern"], ids=lambda found: found["id"])
def test_a_data_view_has_the_field_of_time_and_the_indices_of_a_template(found: dict[str, Any]) -> None:
    assert fields(found["id"])[found["attributes"]["timeFieldName"]] == "date"


@pytest.mark.parametrize("found", [o for o in OBJECTS if o["type"] == "search"], ids=lambda found: found["id"])
def test_a_search_names_fields_that_exist(found: dict[str, Any]) -> None:
    source = json.loads(found["attributes"]["kibanaSavedObjectMeta"]["searchSourceJSON"])
    (view,) = [one["id"] for one in found["references"] if one["name"] == source["indexRefName"]]
    known = fields(view)
    assert set(found["attributes"]["columns"]) <= set(known)
    assert known[found["attributes"]["sort"][0][0]] == "date"
    conditions_hold(source["query"]["query"], known)


@pytest.mark.parametrize("panel", LENS, ids=title_of)
def test_a_panel_names_fields_that_exist_and_aggregates_them_by_their_type(panel: dict[str, Any]) -> None:
    attributes = panel["embeddableConfig"]["attributes"]
    ((layer_id, layer),) = attributes["state"]["datasourceStates"]["formBased"]["layers"].items()
    (reference,) = attributes["references"]
    assert reference["name"] == f"indexpattern-datasource-layer-{layer_id}"
    known = fields(reference["id"])
    conditions_hold(attributes["state"]["query"]["query"], known)
    columns = layer["columns"]
    assert sorted(layer["columnOrder"]) == sorted(columns)
    buckets = [name for name in layer["columnOrder"] if columns[name]["isBucketed"]]
    assert layer["columnOrder"][: len(buckets)] == buckets, "buckets come before metrics"
    assert len(buckets) < len(columns)
    for column in columns.values():
        operation, field = column["operationType"], column.get("sourceField")
        conditions_hold(column.get("filter", {"query": ""})["query"], known)
        if operation == "filters":
            for case in column["params"]["filters"]:
                conditions_hold(case["input"]["query"], known)
        elif operation == "count":
            assert field == "___records___"
        else:
            kind = LENS_TYPES[known[field]]
            assert column["dataType"] == (kind if column["isBucketed"] else "number")
            needs = {"max": {"number"}, "average": {"number"}, "sum": {"number"}, "date_histogram": {"date"}}
            assert kind in needs.get(operation, {"string", "ip", "number", "boolean"})
        if operation == "terms":
            assert not columns[column["params"]["orderBy"]["columnId"]]["isBucketed"]


@pytest.mark.parametrize("panel", LENS, ids=title_of)
def test_a_chart_shows_each_of_its_columns_once(panel: dict[str, Any]) -> None:
    attributes = panel["embeddableConfig"]["attributes"]
    (layer_id,) = attributes["state"]["datasourceStates"]["formBased"]["layers"]
    shown = attributes["state"]["visualization"]
    match attributes["visualizationType"]:
        case "lnsMetric":
            layers, used = [shown], [shown["metricAccessor"]]
        case "lnsDatatable":
            layers, used = [shown], [column["columnId"] for column in shown["columns"]]
        case _:
            layers = shown["layers"]
            used = [*layers[0]["accessors"], layers[0]["xAccessor"]]
            used += [layers[0]["splitAccessor"]] if "splitAccessor" in layers[0] else []
    assert [layer["layerId"] for layer in layers] == [layer_id]
    columns = attributes["state"]["datasourceStates"]["formBased"]["layers"][layer_id]["columns"]
    assert sorted(used) == sorted(columns)


def test_the_grid_has_no_holes_and_nothing_lies_on_anything_else() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in PANELS:
        place = panel["gridData"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not taken & cells
        assert place["x"] + place["w"] <= 48
        assert place["i"] == panel["panelIndex"]
        taken |= cells
    assert len(taken) == 48 * sum(row.height for row in ROWS)


def test_the_dashboard_refers_to_what_its_panels_use() -> None:
    dashboard = next(found for found in OBJECTS if found["type"] == "dashboard")
    wanted = []
    for panel in PANELS:
        inner = panel["embeddableConfig"].get("attributes", {}).get("references", [])
        wanted += [(f"{panel['panelIndex']}:{one['name']}", one["id"]) for one in inner]
        if "panelRefName" in panel:
            wanted.append((f"{panel['panelIndex']}:{panel['panelRefName']}", None))
    found = {one["name"]: one["id"] for one in dashboard["references"]}
    assert sorted(found) == sorted(name for name, _ in wanted)
    assert all(found[name] == id for name, id in wanted if id is not None)
    listed = {one["id"] for one in dashboard["references"] if one["type"] == "search"}
    assert {"oddlog-odd-events", "oddlog-dead-letters", "oddlog-drifted-measures", "oddlog-incidents"} == listed


def test_severities_and_status_classes_leave_no_event_out() -> None:
    """Every severity, status code and pending event is in exactly one bucket."""
    from deploy.kibana.panels import BY_SEVERITY, BY_STATUS_CLASS

    for cases, field, values in (
        (BY_SEVERITY, "anomaly.severity", [0.0, 0.99, 1.0, 2.5, 3.0, 3.99, 4.0, 9.0]),
        (BY_STATUS_CLASS, "http.response.status_code", [100, 200, 299, 304, 404, 500, 599]),
    ):
        for value in values:
            hits = 0
            for kql in cases.of.values():
                tests = [(op, float(limit)) for name, op, limit in FIELD.findall(kql) if name == field]
                hits += bool(tests) and all({">=": value >= limit, "<": value < limit}[op] for op, limit in tests)
            assert hits == 1, (field, value)


class _Kibana(BaseHTTPRequestHandler):
    """The import route of Kibana: what it demands, and its answers."""

    refuses = False

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if not self.headers.get("kbn-xsrf") or not self.headers["Content-Type"].startswith("multipart/form-data"):
            return self._answer(400, {"message": "Request must contain a kbn-xsrf header."})
        if "Basic" not in self.headers.get("Authorization", ""):
            return self._answer(401, {"message": "unable to authenticate user"})
        if not re.search(rb'name="file"; filename="[^"]+\.ndjson"', body):
            return self._answer(400, {"message": "Invalid file extension"})
        count = body.count(b'"coreMigrationVersion"')
        if self.refuses:
            error = {"id": "oddlog", "type": "dashboard", "error": {"type": "missing_references"}}
            return self._answer(200, {"successCount": count - 1, "success": False, "errors": [error]})
        assert self.path == "/api/saved_objects/_import?overwrite=true"
        return self._answer(200, {"successCount": count, "success": True, "warnings": []})

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        text = json.dumps(body, separators=(",", ":")).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *what: Any) -> None:
        pass


@pytest.fixture
def kibana() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), _Kibana)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl")
def test_the_import_says_what_kibana_did(kibana: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(url: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "ELASTIC_PASSWORD": "secret", "KIBANA_URL": url, "no_proxy": "*"}
        script = ROOT / "deploy" / "kibana" / "import.sh"
        return subprocess.run(["bash", script], capture_output=True, text=True, check=False, env=environment)

    done = run(kibana)
    assert (done.returncode, done.stdout) == (0, f"{len(OBJECTS)} objects are in Kibana\n"), done.stderr
    monkeypatch.setattr(_Kibana, "refuses", True)
    done = run(kibana)
    assert done.returncode == 1
    assert "missing_references" in done.stderr
    away = run("http://127.0.0.1:9")
    assert away.returncode == 1
    assert "secret" not in away.stderr


def test_compose_imports_the_file_once_kibana_is_up() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    service = services["dashboard"]
    assert service["depends_on"] == {"kibana": {"condition": "service_healthy"}}
    assert service["volumes"] == ["./deploy/kibana:/setup:ro"]
    assert service["entrypoint"] == ["bash", "/setup/import.sh"]
    assert service["environment"]["KIBANA_URL"] == "http://kibana:5601"
