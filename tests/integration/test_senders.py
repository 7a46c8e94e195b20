"""Senders that no one here wrote: rsyslog (imfile -> omkafka) and kcat, from a growing file to scored documents.

The configuration of rsyslog is the one of deploy/rsyslog/, with this test's file, broker and topic put in.
"""

from __future__ import annotations

import datetime as dt
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl
import pytest

from oddlog.connectors.by_url import open_registry, open_store
from oddlog.connectors.kafka_producer import ensure_topic
from oddlog.connectors.registry import CHAMPION
from oddlog.connectors.store import EventQuery, Store
from oddlog.errors import StoreUnavailable
from oddlog.features.declaration import FEATURE_NAMES
from oddlog.settings import RegistrySettings, Settings, load
from oddlog.simulation.traffic import simulate
from tests.children import ODDLOG, running
from tests.elastic_place import elastic_place
from tests.small_model import small_model
from tests.small_registry import register, registry_in
from tests.waiting import until

pytestmark = [pytest.mark.kafka, pytest.mark.elasticsearch, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]
RSYSLOG = shutil.which("rsyslogd") or shutil.which("rsyslogd", path="/usr/sbin:/usr/local/sbin")
OMKAFKA = [*Path("/usr/lib").glob("*/rsyslog/omkafka.so"), *Path("/usr/lib/rsyslog").glob("omkafka.so")]
KCAT = shutil.which("kcat")

DAY = dt.datetime(2026, 3, 2, tzinfo=dt.UTC)
TRAFFIC = [line.encode() for line in simulate(seed=23, start=DAY, lines=3_000).lines]
HEAD = "[02/Mar/2026:11:00:00 +0000]"
ODD = [
    rf'2001:db8::7 - - {HEAD} "GET /a\"b\" c HTTP/2.0" 404 12 "-" "say \"hi\" \\"'.encode(),
    rf'198.51.100.9 - - {HEAD} "\x16\x03\x01\x02\x00\x01\x00\x01\xFC\x03\x03" 400 150 "-" "-"'.encode(),
    f'198.51.100.9 - - {HEAD} "-" 408 0 "-" "-"'.encode(),
    f'198.51.100.10 - - {HEAD} "GET /caf'.encode() + b'\xe9 HTTP/1.1" 200 5 "-" "a\tb \x1b[0m" 0.004 0.003',
    f'198.51.100.11 - - {HEAD} "GET /?'.encode() + b"q" * 20_000 + b' HTTP/1.1" 414 1 "-" "-"',
]
"""Lines that a sender could bend: escapes, TLS bytes, no request, no UTF-8, control characters, a long one."""


@pytest.fixture(scope="module")
def champion(tmp_path_factory: pytest.TempPathFactory) -> RegistrySettings:
    """A registry with a promoted model."""
    folder = tmp_path_factory.mktemp("champion")
    registry = registry_in(folder)
    small_model(folder / "model", TRAFFIC[:2_000])
    open_registry(registry).set_alias(CHAMPION, register(registry, folder / "model"))
    return registry


@pytest.fixture
def settings(kafka_url: str, elasticsearch_url: str, topic: str, champion: RegistrySettings) -> Iterator[Settings]:
    """The champion, a topic with three partitions, and indices of this test's own."""
    with elastic_place(elasticsearch_url) as place:
        chosen = load(
            {
                "source": {"url": f"{kafka_url}/{topic}", "group": topic},
                "store": {"url": elasticsearch_url, "prefix": place.prefix},
                "scorer": {"url": "local:"},
                "registry": champion,
            }
        )
        ensure_topic(chosen.source, partitions=3)
        yield chosen


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    opened = open_store(settings.store)
    opened.setup()
    yield opened
    opened.close()


@contextmanager
def enrich(settings: Settings, folder: Path) -> Iterator[None]:
    """The real consumer."""
    environment = os.environ | {
        "ODDLOG_SOURCE__URL": settings.source.url,
        "ODDLOG_SOURCE__GROUP": settings.source.group,
        "ODDLOG_STORE__URL": settings.store.url,
        "ODDLOG_STORE__PREFIX": settings.store.prefix,
        "ODDLOG_SCORER__URL": settings.scorer.url,
        "ODDLOG_REGISTRY__URL": settings.registry.url,
        "ODDLOG_REGISTRY__ARTIFACTS": settings.registry.artifacts,
        "ODDLOG_REGISTRY__CACHE_DIR": str(settings.registry.cache_dir),
    }
    with running([ODDLOG, "enrich"], folder / "enrich.log", env=environment):
        yield


def wait_for(count: int, store: Store, folder: Path) -> None:
    """Until so many lines are documents, scored or dead."""

    def logs() -> str:
        return "\n".join(f"{path.name}:\n{path.read_text()[-1_500:]}" for path in sorted(folder.glob("*.log*")))

    until(lambda: stored(store) >= count, f"{count} documents", seconds=120, told=logs)


def grow(log: Path, lines: list[bytes]) -> None:
    """Append as a server does, through a buffer that ends in the middle of a line."""
    text = b"".join(line + b"\n" for line in lines)
    with log.open("ab", buffering=0) as file:
        for start in range(0, len(text), 4_096):
            file.write(text[start : start + 4_096])


def stored(store: Store) -> int:
    store.refresh()
    try:
        return store.count_events(EventQuery()) + store.count_dead()
    except StoreUnavailable:
        return 0  # an index that is being made at this moment cannot be searched yet


def read(store: Store) -> pl.DataFrame:
    columns = [
        "event.original", "source.address", "log.file.path", "host.name", "oddlog.position.partition",
        "anomaly.status", "anomaly.model.version", "anomaly.score", f"features.{FEATURE_NAMES[0]}",
    ]  # fmt: skip
    return pl.concat(list(store.read_events(EventQuery(), columns=columns, order="position")))


def check(store: Store, lines: list[bytes]) -> pl.DataFrame:
    """Every line is one scored document, as it was written; a client's lines are in one partition, in order."""
    found = read(store)
    assert store.count_dead() == 0, store.read_dead()["reason"].to_list()[:3]
    texts = [line.decode(errors="replace") for line in lines]
    assert sorted(found["event.original"]) == sorted(texts)
    assert set(found["anomaly.status"]) == {"scored"}
    assert found["anomaly.score"].null_count() == 0
    assert found["anomaly.model.version"].n_unique() == 1
    assert found[f"features.{FEATURE_NAMES[0]}"].null_count() == 0
    by_client = found.group_by("source.address", maintain_order=True).agg("event.original", "oddlog.position.partition")
    for client, originals, partitions in by_client.iter_rows():
        assert len(set(partitions)) == 1, client
        sent = [text for text in texts if text.split(" ", 1)[0] == client]
        assert originals == sent
    assert found["oddlog.position.partition"].n_unique() == 3
    return found


def rsyslog_configuration(settings: Settings, log: Path, folder: Path) -> Path:
    """deploy/rsyslog/'s, with file, broker, topic and working folder of this test."""
    servers, topic = settings.source.url.removeprefix("kafka://").split("/")
    text = (ROOT / "deploy" / "rsyslog" / "access-to-kafka.conf").read_text()
    for ours, here in (
        ("/var/log/nginx/access.log", str(log)),
        ("kafka:9092", servers),
        ('"logs.raw"', f'"{topic}"'),
        ("/var/spool/rsyslog", str(folder)),
        ("oddlog_failed.data", str(folder / "failed.data")),
    ):
        assert text.count(ours) == 1, ours
        text = text.replace(ours, here)
    path = folder / "rsyslog.conf"
    path.write_text(text)
    return path


@pytest.mark.skipif(not RSYSLOG or not OMKAFKA, reason="needs rsyslogd with omkafka (apt install rsyslog-kafka)")
def test_a_growing_file_reaches_elasticsearch_scored_by_way_of_rsyslog(
    settings: Settings, store: Store, tmp_path: Path
) -> None:
    assert RSYSLOG is not None
    log, folder = tmp_path / "access.log", tmp_path / "rsyslog"
    folder.mkdir()
    configuration = rsyslog_configuration(settings, log, folder)
    subprocess.run([RSYSLOG, "-N1", "-f", str(configuration)], check=True, capture_output=True)
    daemon = [RSYSLOG, "-n", "-f", str(configuration), "-i", str(folder / "rsyslogd.pid")]
    lines = [*TRAFFIC[2_000:2_600], *ODD, *TRAFFIC[2_600:]]
    grow(log, lines[:300])
    with enrich(settings, tmp_path):
        with running(daemon, tmp_path / "rsyslogd.log"):
            wait_for(300, store, tmp_path)
            grow(log, lines[300:800])
            wait_for(800, store, tmp_path)
        # What is written while rsyslog is not there is read from where it stood.
        grow(log, lines[800:])
        with running(daemon, tmp_path / "rsyslogd.log"):
            wait_for(len(lines), store, tmp_path)
    found = check(store, lines)
    assert set(found["log.file.path"]) == {str(log)}
    assert found["host.name"].null_count() == 0


@pytest.mark.skipif(not KCAT, reason="needs kcat (apt install kcat)")
def test_a_growing_file_reaches_elasticsearch_scored_by_way_of_kcat(
    settings: Settings, store: Store, tmp_path: Path
) -> None:
    log = tmp_path / "access.log"
    log.touch()
    servers, topic = settings.source.url.removeprefix("kafka://").split("/")
    send = [str(ROOT / "deploy" / "kcat" / "send-new-lines.sh"), str(log), servers, topic]
    lines = [*TRAFFIC[2_000:2_600], *ODD, *TRAFFIC[2_600:]]
    with enrich(settings, tmp_path):
        subprocess.run(send, check=True)  # nothing to send yet
        for start, end in ((0, 300), (300, 800), (800, len(lines))):
            grow(log, lines[start:end])
            with log.open("ab") as file:  # the beginning of the next line: not a record before its end is there
                file.write(lines[end][:20] if end < len(lines) else b"")
            subprocess.run(send, check=True)
            wait_for(end, store, tmp_path)
            with log.open("r+b") as file:
                file.truncate(sum(len(line) + 1 for line in lines[:end]))
    check(store, lines)
