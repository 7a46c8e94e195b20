"""The alert rules against what is exported, against the runbook, and, where there is a promtool, run by it."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import prometheus_client
import pytest
import typer
import yaml

from monitoring.gauges import DriftGauges
from monitoring.incidents_gauges import IncidentGauges
from oddlog.connectors.documents import STORED_SCHEMA
from oddlog.events.record import Partition
from serving.consumer_metrics import ConsumerMetrics
from serving.counts import Counts
from serving.metrics import service_metrics

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "deploy" / "prometheus"
TESTS = sorted(FOLDER.glob("*.test.yml"))
RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"] for rule in group["rules"]
]
OF_PROMETHEUS = {"job", "instance"}
"""Labels that Prometheus adds to what it scrapes."""

each = pytest.mark.parametrize("rule", RULES, ids=[rule["alert"] for rule in RULES])
has_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool (Debian: package prometheus)")

Series = tuple[str, dict[str, str]]


def of(registry: prometheus_client.CollectorRegistry) -> list[Series]:
    return [(sample.name, sample.labels) for family in registry.collect() for sample in family.samples]


@pytest.fixture(scope="module")
def exported() -> list[Series]:
    """Every series that consumer, service, monitor and watch export once something has happened, by the code itself."""
    consumer = ConsumerMetrics(live_seconds=60)
    partition = Partition("e1", "logs.raw", 0)
    consumer.assigned([partition])
    consumer.lag({partition: 1})
    consumer.lane("1", "0f")
    consumer.batch(Counts(), {})
    monitor = DriftGauges()
    measure = SimpleNamespace(name="volume", unit="times", effect=1.0, limit=2.0, drifted=False)
    batch: Any = SimpleNamespace(
        drifted=False,
        check=SimpleNamespace(
            verdict=SimpleNamespace(measures=[measure], share=0.0),
            batch=SimpleNamespace(figures=SimpleNamespace(events=1), until=SimpleNamespace(timestamp=lambda: 1.0)),
        ),
    )
    monitor.checked(batch)
    incidents = IncidentGauges(("webhook",))
    service_metrics().swapped("1", None)
    served = [series for series in of(prometheus_client.REGISTRY) if series[0].startswith("oddlog_")]
    ours = [series for registry in (consumer, monitor, incidents) for series in of(registry.registry)]
    return [("up", {"job": job}) for job in jobs()] + ours + served


def jobs() -> list[str]:
    config = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    return [job["job_name"] for job in config["scrape_configs"]]


def selectors(text: str) -> list[tuple[str, list[tuple[str, str, str]]]]:
    """Metrics with their matchers (label, operator, value) in an expression or a series.

    >>> selectors('sum(up{job="a"}) > 0 and oddlog_x == 1')
    [('up', [('job', '=', 'a')]), ('oddlog_x', [])]
    """
    found = re.findall(r"\b(up|oddlog_\w+)\b(?:\{([^}]*)\})?", text)
    return [(name, re.findall(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"', matchers)) for name, matchers in found]


def matches(labels: dict[str, str], matchers: Iterable[tuple[str, str, str]]) -> bool:
    for label, operator, value in matchers:
        if label not in labels:
            return False  # a typing error, or `!=` of what is nowhere
        equal = re.fullmatch(value, labels[label]) is not None if "~" in operator else labels[label] == value
        if equal == operator.startswith("!"):
            return False
    return True


@each
def test_every_metric_and_label_in_a_rule_is_exported(rule: dict[str, Any], exported: list[Series]) -> None:
    queries = re.findall(r'query "((?:[^"\\]|\\.)*)"', rule["annotations"]["summary"])
    expressions = " ".join([rule["expr"], *queries])
    used = selectors(expressions)
    assert used
    labels = set(OF_PROMETHEUS)
    for name, matchers in used:
        own = [found for metric, found in exported if metric == name]
        assert own, f"nobody exports {name}; there are {sorted({metric for metric, _ in exported})}"
        assert any(matches(found, matchers) for found in own), f"no series of {name} has {matchers}"
        labels |= {label for found in own for label in found}
    for names in re.findall(r"\b(?:by|on|without|ignoring|group_left|group_right) \(([^)]*)\)", expressions):
        assert {label.strip() for label in names.split(",") if label.strip()} <= labels
    for text in rule["annotations"].values():
        assert set(re.findall(r"\.?[Ll]abels\.(\w+)", text)) <= labels


@each
def test_every_alert_has_its_paragraph(rule: dict[str, Any]) -> None:
    heading = re.search(rf"^## {rule['alert']}\n\n(.+?)(?=\n## |\Z)", _runbook(), re.MULTILINE | re.DOTALL)
    assert heading is not None
    assert re.findall(r"^\*\*(\w+):\*\*", heading[1], re.MULTILINE) == ["Means", "Look", "Mend"]
    assert "`" in heading[1].split("**Mend:**")[1], "a command, or a setting"
    assert rule["annotations"]["runbook"] == f"docs/runbook.md#{rule['alert'].lower()}"
    assert rule["labels"]["severity"] in {"page", "ticket"}
    assert "for" in rule  # no alert for a single look


def test_the_runbook_has_no_paragraph_of_an_alert_that_is_not_there() -> None:
    assert re.findall(r"^## (\w+)$", _runbook(), re.MULTILINE) == [rule["alert"] for rule in RULES]


def test_links_of_the_runbook_lead_somewhere() -> None:
    anchors = {heading.lower() for heading in re.findall(r"^## (\w+)$", _runbook(), re.MULTILINE)}
    for target in re.findall(r"\]\(([^)]+)\)", _runbook()):
        assert target.removeprefix("#") in anchors if target.startswith("#") else (ROOT / "docs" / target).exists()


def test_commands_of_the_runbook_exist() -> None:
    from cli.main import app

    spans = " ; ".join(re.findall(r"`([^`\n]+)`", _runbook()))
    used = set(re.findall(r"\boddlog ([a-z]+)\b", spans))
    assert {"doctor", "rollback"} <= used <= set(typer.main.get_group(app).commands)
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    named = re.findall(r"docker compose (?:--profile metrics )?(?:restart|exec|logs --tail \d+) ([a-z]+)", _runbook())
    assert named
    assert set(named) <= set(services)


def test_settings_of_the_runbook_exist() -> None:
    from oddlog.settings import Settings

    settings = Settings().model_dump()
    for group, field in re.findall(r"`([a-z]+)\.([a-z_]+)`", _runbook()):
        named = f"{group}.{field}"
        a_setting = group in settings and named not in STORED_SCHEMA and not (ROOT / named).exists()
        assert not a_setting or field in settings[group], named
    for group, field in re.findall(r"ODDLOG_([A-Z]+)__([A-Z_]+)", _runbook()):
        assert field.lower() in settings[group.lower()]


def test_every_alert_is_tested_to_be_sent_and_to_be_silent(exported: list[Series]) -> None:
    """In the files that promtool runs; and with series that are exported, labels and all."""
    sent: set[str] = set()
    silent: set[str] = set()
    for path in TESTS:
        for test in yaml.safe_load(path.read_text())["tests"]:
            for check in test["alert_rule_test"]:
                (sent if check["exp_alerts"] else silent).add(check["alertname"])
            for name, matchers in (one for given in test["input_series"] for one in selectors(given["series"])):
                given_labels = {label for label, _, _ in matchers} - OF_PROMETHEUS
                assert given_labels in [set(labels) - OF_PROMETHEUS for metric, labels in exported if metric == name]
    alerts = {rule["alert"] for rule in RULES}
    assert sent == alerts
    assert silent == alerts


def test_prometheus_evaluates_the_rules_and_is_given_the_file() -> None:
    config = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    assert config["rule_files"] == ["alerts.yml"]
    mounts = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["prometheus"]["volumes"]
    for name in ("prometheus.yml", "alerts.yml"):
        assert f"./deploy/prometheus/{name}:/etc/prometheus/{name}:ro" in mounts


@has_promtool
def test_promtool_takes_the_configuration_and_the_rules() -> None:
    done = subprocess.run(
        ["promtool", "check", "config", FOLDER / "prometheus.yml"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert f"SUCCESS: {len(RULES)} rules found" in done.stdout


@has_promtool
def test_promtool_finds_no_fault_in_what_is_exported() -> None:
    """Names, types and help texts, by the conventions of Prometheus."""
    service_metrics()
    ours = (ConsumerMetrics(live_seconds=60), DriftGauges(), IncidentGauges(("webhook",)))
    for registry in (*(metrics.registry for metrics in ours), prometheus_client.REGISTRY):
        lines = prometheus_client.generate_latest(registry).splitlines(keepends=True)
        text = b"".join(line for line in lines if b"oddlog_" in line)  # others register in the same process
        assert text.count(b"# TYPE") > 8
        done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


@has_promtool
@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.name)
def test_promtool_sends_each_alert_when_it_should(path: Path) -> None:
    done = subprocess.run(["promtool", "test", "rules", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def _runbook() -> str:
    return (ROOT / "docs" / "runbook.md").read_text()
