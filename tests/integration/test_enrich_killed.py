"""A consumer that is killed by -9, again and again, loses nothing, doubles nothing, and computes the same features.

Real Kafka, real Elasticsearch, a real `bentoml serve`. Properties, stated first:

1. every produced position is in exactly one document, over all event indices;
2. features and scores equal those of a consumer that ran unbroken (float32, rtol 1e-5).
"""

from __future__ import annotations

import datetime as dt
import os
import random
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from oddlog.connectors.by_url import open_registry, open_store
from oddlog.connectors.kafka_producer import ensure_topic
from oddlog.connectors.registry import CHAMPION
from oddlog.connectors.shipping import ship
from oddlog.connectors.store import EventQuery, Store
from oddlog.events.schema import FEATURE_PREFIX, POSITION_ORDER
from oddlog.features.declaration import FEATURE_NAMES
from oddlog.settings import Settings, load
from oddlog.simulation.traffic import simulate
from oddlog.stack.process import free_port
from serving.child import start_service
from tests.children import ODDLOG, running
from tests.elastic_place import elastic_place
from tests.small_model import small_model
from tests.small_registry import register, registry_in
from tests.waiting import until

pytestmark = [pytest.mark.kafka, pytest.mark.elasticsearch, pytest.mark.timeout(540)]

LINES = 50_000
RATE = 1_500.0
"""Lines a second that are sent: those that the kills leave behind are still many, and more keep coming."""

KILLS = 10
HELD = 4
"""Kills of the ten that come between write and commit."""

PROGRAM = Path(__file__).with_name("enrich_that_can_be_stopped.py")


@pytest.fixture(scope="module")
def lines() -> list[bytes]:
    traffic = simulate(seed=7, start=dt.datetime(2026, 3, 2, tzinfo=dt.UTC), lines=LINES)
    return [line.encode() for line in traffic.lines]


@pytest.fixture(scope="module")
def settings(
    kafka_url: str, elasticsearch_url: str, lines: list[bytes], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Settings]:
    """A topic with four partitions, and a champion behind a real service."""
    folder = tmp_path_factory.mktemp("killed")
    places = ExitStack()
    place = places.enter_context(elastic_place(elasticsearch_url))
    name = uuid.uuid4().hex[:10]
    registry = registry_in(folder)
    small_model(folder / "model", lines[:6_000])
    open_registry(registry).set_alias(CHAMPION, register(registry, folder / "model"))
    port = free_port()
    chosen = load(
        {
            # A short session: the next consumer is given its predecessor's partitions as soon as it has started.
            "source": {"url": f"{kafka_url}/{name}", "group": f"killed-{name}", "session_timeout_ms": 3_000},
            "store": {"url": elasticsearch_url, "prefix": place.prefix},
            "registry": registry,
            "scorer": {"url": f"http://127.0.0.1:{port}"},
            "enrich": {"batch_rows": 1_000},
        }
    )
    ensure_topic(chosen.source, partitions=4)
    with places, start_service(chosen, port, folder=folder / "service"):
        yield chosen


def reached(process: subprocess.Popen[bytes], marker: Path) -> bool:
    return marker.exists() or process.poll() is not None


def environment(settings: Settings, prefix: str, group: str) -> dict[str, str]:
    return os.environ | {
        "ODDLOG_SOURCE__URL": settings.source.url,
        "ODDLOG_SOURCE__GROUP": group,
        "ODDLOG_SOURCE__SESSION_TIMEOUT_MS": str(settings.source.session_timeout_ms),
        "ODDLOG_STORE__URL": settings.store.url,
        "ODDLOG_STORE__PREFIX": prefix,
        "ODDLOG_SCORER__URL": settings.scorer.url,
        "ODDLOG_ENRICH__BATCH_ROWS": str(settings.enrich.batch_rows),
    }


def read_all(settings: Settings, prefix: str) -> pl.DataFrame:
    store: Store = open_store(settings.store.model_copy(update={"prefix": prefix}))
    store.refresh()
    columns = [*POSITION_ORDER, "anomaly.status", "anomaly.score", "anomaly.model.version", "features.*"]
    frames = list(store.read_events(EventQuery(), columns=columns))
    store.close()
    return pl.concat(frames).sort(POSITION_ORDER)


@pytest.fixture
def unbroken_prefix(elasticsearch_url: str) -> Iterator[str]:
    with elastic_place(elasticsearch_url) as place:
        yield place.prefix


def test_nothing_is_lost_doubled_or_changed_by_ten_kills(
    settings: Settings, unbroken_prefix: str, lines: list[bytes], tmp_path: Path
) -> None:
    chance = random.Random(11)
    points = ["between-write-and-commit"] * HELD
    points += [f"after-{chance.randrange(12)}-steps" for _ in range(KILLS - HELD)]
    chance.shuffle(points)
    log = tmp_path / "enrich.log"
    broken = environment(settings, settings.store.prefix, settings.source.group)
    with ThreadPoolExecutor(1) as pool:
        # Paced, so that lines keep arriving all through the kills.
        sending = pool.submit(ship, lines, settings.source.url, labels=None, path="access.log", rate=RATE)
        for number, point in enumerate(points):
            marker = tmp_path / f"marker-{number}"
            with running([sys.executable, PROGRAM, point, marker, "enrich"], log, env=broken) as process:
                until(partial(reached, process, marker), f"kill point {number} ({point})", seconds=90)
                assert process.poll() is None, log.read_text()[-3_000:]
                process.send_signal(signal.SIGKILL)
                assert process.wait(30) == -signal.SIGKILL, "it had ended before it was killed"
        sending.result()
    unbroken = environment(settings, unbroken_prefix, f"{settings.source.group}-u")
    for name, variables in (("rest", broken), ("unbroken", unbroken)):
        with running([ODDLOG, "enrich", "--until-idle", "4"], tmp_path / f"{name}.log", env=variables) as process:
            assert process.wait(200) == 0, (tmp_path / f"{name}.log").read_text()[-3_000:]

    killed = read_all(settings, settings.store.prefix)
    whole = read_all(settings, unbroken_prefix)
    assert killed.height == LINES
    assert killed.select(POSITION_ORDER).n_unique() == LINES
    assert killed.select(POSITION_ORDER).equals(whole.select(POSITION_ORDER))
    assert set(killed["anomaly.status"]) == {"scored"}
    for name in FEATURE_NAMES:
        np.testing.assert_allclose(killed[FEATURE_PREFIX + name], whole[FEATURE_PREFIX + name], rtol=1e-5)
    np.testing.assert_allclose(killed["anomaly.score"], whole["anomaly.score"], rtol=1e-4, atol=1e-5)
