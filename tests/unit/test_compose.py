"""docker-compose.yml cannot be run here; this checks what can be known without running it."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from xml.etree import ElementTree

import pytest
import yaml

from oddlog.connectors import elastic_privileges
from oddlog.settings import RegistrySettings, Settings

ROOT = Path(__file__).resolve().parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
BENTO: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["bentoml"]["build"]
OURS = {name for name, service in SERVICES.items() if service["image"].startswith(("oddlog:", "oddlog-scorer:"))}

names = pytest.mark.parametrize("name", sorted(SERVICES))


@names
def test_service_has_a_health_check_or_a_stated_reason(name: str) -> None:
    service = SERVICES[name]
    reason = service.get("labels", {}).get("oddlog.no-healthcheck", "")
    assert "healthcheck" in service or len(reason) > 20


@names
def test_image_is_pinned_to_a_version(name: str) -> None:
    assert re.fullmatch(r"[a-z/-]+:v?\d+\.\d+\.\d+", SERVICES[name]["image"])


@names
def test_dependencies_exist_and_can_be_waited_for(name: str) -> None:
    for dependency, how in SERVICES[name].get("depends_on", {}).items():
        if how["condition"] == "service_healthy":
            assert "healthcheck" in SERVICES[dependency]
        if how["condition"] == "service_completed_successfully":
            assert SERVICES[dependency]["restart"] == "no"


@names
def test_mounted_files_exist_and_volumes_are_declared(name: str) -> None:
    for mount in SERVICES[name].get("volumes", []):
        source = re.sub(r"\$\{\w+:-([^}]+)\}", r"\1", mount).split(":")[0]
        if source.startswith("."):
            assert (ROOT / source).exists(), source
        else:
            assert source in COMPOSE["volumes"]


@names
def test_ports_are_published_on_loopback_alone(name: str) -> None:
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[name].get("ports", []))


def test_no_password_is_in_the_file() -> None:
    for service in SERVICES.values():
        for key, value in service.get("environment", {}).items():
            if "PASSWORD" in key or "SECRET" in key or "API_KEY" in key:
                assert re.fullmatch(r"\$\{[A-Z_]+:\?[^}]+\}", value), key


def test_who_is_told_and_their_secrets_are_in_a_file_of_their_own() -> None:
    (file,) = SERVICES["incidents"]["env_file"]
    assert file["required"] is False
    for ignored in (".gitignore", ".dockerignore"):
        assert file["path"] in (ROOT / ignored).read_text().splitlines()
    assert not any(key.startswith("ODDLOG_NOTIFY") for key in SERVICES["incidents"]["environment"])


def test_every_variable_that_must_be_set_is_in_the_example() -> None:
    needed = set(re.findall(r"\$\{([A-Z_]+):\?", (ROOT / "docker-compose.yml").read_text()))
    offered = set(re.findall(r"^([A-Z_]+)=$", (ROOT / ".env.example").read_text(), re.MULTILINE))
    assert needed == offered


def test_our_environment_is_made_of_known_settings() -> None:
    for name in OURS:
        for key in SERVICES[name]["environment"]:
            if key.startswith("ODDLOG_"):
                group, field = key.removeprefix("ODDLOG_").lower().split("__")
                annotation = Settings.model_fields[group].annotation
                assert annotation is not None
                assert field in annotation.model_fields


def test_telemetry_is_off() -> None:
    for name in OURS:
        assert SERVICES[name]["environment"]["MLFLOW_DISABLE_TELEMETRY"] == "true"
        assert SERVICES[name]["environment"]["DO_NOT_TRACK"] == "1"
    assert yaml.safe_load((ROOT / "deploy/kibana/kibana.yml").read_text())["telemetry.optIn"] is False


def test_ports_group_and_topic_agree_with_each_other_and_with_the_defaults() -> None:
    environment = SERVICES["enrich"]["environment"]
    defaults = Settings()
    source = urlsplit(environment["ODDLOG_SOURCE__URL"])
    assert f"INSIDE://{source.netloc}" in SERVICES["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"]
    assert environment["ODDLOG_SOURCE__GROUP"] == defaults.source.group
    assert urlsplit(environment["ODDLOG_SCORER__URL"]).port == urlsplit(defaults.scorer.url).port
    for part, port in (("STORE", 9200), ("REGISTRY", 5000), ("SCORER", 3000)):
        url = urlsplit(environment[f"ODDLOG_{part}__URL"])
        assert url.port == port
        assert f"127.0.0.1:{port}:{port}" in SERVICES[str(url.hostname)]["ports"]
    command = SERVICES["mlflow"]["command"]
    assert any(f"--allowed-hosts=mlflow,mlflow:{5000}" in part for part in command)

    filebeat = yaml.safe_load((ROOT / "deploy/filebeat/filebeat.yml").read_text())["output.kafka"]
    assert filebeat["topic"] == source.path.lstrip("/")
    assert filebeat["hosts"] == [source.netloc]
    assert filebeat["required_acks"] == -1


def test_prometheus_scrapes_ports_that_are_served() -> None:
    jobs = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())["scrape_configs"]
    targets = [target for job in jobs for one in job["static_configs"] for target in one["targets"]]
    enrich = SERVICES["enrich"]
    port = enrich["environment"]["ODDLOG_ENRICH__METRICS_PORT"]
    monitor = SERVICES["monitor"]["environment"]
    watch = monitor["ODDLOG_MONITOR__METRICS_PORT"]
    assert monitor["ODDLOG_MONITOR__METRICS_HOST"] == "0.0.0.0"
    assert f":{watch}/metrics" in SERVICES["monitor"]["healthcheck"]["test"][-1]
    incidents = SERVICES["incidents"]["environment"]
    grouped = incidents["ODDLOG_INCIDENTS__METRICS_PORT"]
    assert incidents["ODDLOG_INCIDENTS__METRICS_HOST"] == "0.0.0.0"
    assert f":{grouped}/metrics" in SERVICES["incidents"]["healthcheck"]["test"][-1]
    scorer = urlsplit(Settings().scorer.url).port
    assert sorted(targets) == [f"enrich:{port}", f"incidents:{grouped}", f"monitor:{watch}", f"scorer:{scorer}"]
    assert enrich["environment"]["ODDLOG_ENRICH__METRICS_HOST"] == "0.0.0.0"  # or nobody outside the container
    assert f":{port}/livez" in enrich["healthcheck"]["test"][-1]
    assert enrich["environment"].items() >= SERVICES["setup"]["environment"].items()


def test_filebeat_keys_by_client_in_order() -> None:
    config = yaml.safe_load((ROOT / "deploy/filebeat/filebeat.yml").read_text())
    dissect = config["processors"][0]["dissect"]
    assert dissect["tokenizer"].startswith("%{client} ")
    field = f"{dissect['target_prefix']}.client"
    assert config["output.kafka"]["key"] == f"%{{[{field}]}}"
    assert config["output.kafka"]["partition.hash"] == {"hash": [field], "reachable_only": False}


def test_logstash_counts_nothing_twice() -> None:
    pipeline = (ROOT / "deploy/logstash/pipeline.conf").read_text()
    settings = Settings()
    assert SERVICES["logstash"]["profiles"] == ["logstash"]
    group = re.search(r'group_id => "([^"]+)"', pipeline)
    index = re.search(r'index => "([^"]+)"', pipeline)
    assert group is not None
    assert index is not None
    assert group[1] != settings.source.group
    assert not index[1].startswith((settings.store.prefix, "logs-"))
    role = json.loads((ROOT / "deploy/elasticsearch/role.json").read_text())
    assert tuple(role["cluster"]) == elastic_privileges.CLUSTER
    assert tuple(role["indices"][0]["privileges"]) == elastic_privileges.INDICES
    allowed = [name.rstrip("*") for entry in role["indices"] for name in entry["names"]]
    assert any(index[1].startswith(name) for name in allowed)
    assert f"{settings.store.prefix}-" in allowed


def test_versions_are_those_of_the_servers_the_tests_run_on() -> None:
    pom = ElementTree.parse(ROOT / "oddlog/stack/pom.xml").getroot()
    text = ElementTree.tostring(pom, encoding="unicode")
    for service in ("kafka", "elasticsearch"):
        version = SERVICES[service]["image"].split(":")[1]
        assert f">{version}<" in text
    elastic = {SERVICES[name]["image"].split(":")[1] for name in ("elasticsearch", "kibana", "filebeat", "logstash")}
    assert len(elastic) == 1


def test_the_image_copies_what_exists_and_every_room() -> None:
    dockerfile = (ROOT / "deploy/images/oddlog.Dockerfile").read_text()
    copied = {part for line in re.findall(r"^COPY (.+) \S+$", dockerfile, re.MULTILINE) for part in line.split()}
    assert {
        "oddlog",
        "training",
        "serving",
        "monitoring",
        "cli",
        "requirements.lock",
        "pyproject.toml",
        "gates.toml",
        "drift.toml",
    } <= copied
    for path in copied:
        assert (ROOT / path).exists(), path


def test_the_scorers_image_is_its_bento_and_holds_no_secret_of_the_store() -> None:
    scorer = SERVICES["scorer"]
    dockerfile = (ROOT / scorer["build"]["dockerfile"]).read_text()
    # What goes into the image comes from the bento and its lock alone; the sources only into the stage that builds it.
    stages = dockerfile.split("FROM ")[1:]
    build, last = stages[-2:]
    assert "bentoml build --version image ." in build
    assert re.findall(r"^COPY .+$", last, re.MULTILINE) == ["COPY --from=build /built/bentos/oddlog/image /opt/bento"]
    copied = set(re.findall(r"^COPY (\S+) \S+$", stages[0] + build, re.MULTILINE))
    taken = [pattern.removeprefix("/") for pattern in BENTO["include"]] + [BENTO["python"]["requirements_txt"]]
    assert not [path for path in taken if not any(path == one or path.startswith(f"{one}/") for one in copied)]
    command = json.loads(re.findall(r"^CMD (.+)$", last, re.MULTILINE)[0])
    assert command[:3] == ["bentoml", "serve", "/opt/bento"]
    assert f"--port {urlsplit(Settings().scorer.url).port}" in " ".join(command)
    cache = re.findall(r"ODDLOG_REGISTRY__CACHE_DIR=(\S+)", last)
    assert "cache_dir" in RegistrySettings.model_fields
    assert scorer["volumes"] == [f"scorer-cache:{cache[0]}"]
    assert not any("STORE" in key for key in scorer["environment"])


def test_our_commands_are_verbs_that_exist() -> None:
    from cli.main import VERBS

    scripts = " ".join(path.read_text() for path in (ROOT / "deploy/images").glob("*.sh"))
    commands = " ".join(" ".join(SERVICES[name].get("command", [])) for name in OURS)
    used = set(re.findall(r"\boddlog (\w+)", scripts + " " + commands))
    assert {"setup", "enrich", "train", "promote", "monitor", "incidents"} <= used <= set(VERBS)
