"""The challenger's way through real parts: an alias in MLflow, a `bentoml serve`, Kafka, Elasticsearch; then it is
promoted. What is promised of the shadow over any store is in tests/contract/test_shadow.py.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from oddlog.connectors.by_url import open_registry
from oddlog.connectors.elastic import ElasticStore
from oddlog.connectors.kafka import KafkaSource
from oddlog.connectors.kafka_producer import ensure_topic
from oddlog.connectors.registry import CHALLENGER, CHAMPION
from oddlog.connectors.shipping import ship
from oddlog.connectors.store import EventQuery
from oddlog.events.schema import EVENT_SCHEMA, FEATURE_PREFIX
from oddlog.features.compute import FeatureComputer
from oddlog.features.declaration import FEATURE_NAMES
from oddlog.scoring.model import Model
from oddlog.settings import EnrichSettings, RegistrySettings, ScorerSettings, ServeSettings, Settings, SourceSettings
from oddlog.simulation.traffic import simulate
from oddlog.stack.process import free_port
from serving.child import start_service
from serving.client import HttpScorer
from serving.consumer_metrics import ConsumerMetrics
from serving.enrich import Enricher
from tests.elastic_place import elastic_place
from tests.small_model import small_model
from tests.small_registry import register
from tests.waiting import until

pytestmark = [pytest.mark.kafka, pytest.mark.elasticsearch, pytest.mark.timeout(300)]

LINES = [line.encode() for line in simulate(seed=12, lines=3_000, days=1.0).lines]
FEATURES = [FEATURE_PREFIX + name for name in FEATURE_NAMES]


@pytest.fixture
def settings(kafka_url: str, elasticsearch_url: str, tmp_path: Path) -> Iterator[Settings]:
    name = uuid.uuid4().hex[:10]
    with elastic_place(elasticsearch_url) as place:
        port = free_port()
        chosen = Settings(
            source=SourceSettings(url=f"{kafka_url}/{name}", group=f"shadow-{name}"),
            store=place,
            registry=RegistrySettings(
                url=f"sqlite:///{tmp_path}/mlflow.db", artifacts=f"{tmp_path}/artifacts", cache_dir=tmp_path / "cache"
            ),
            scorer=ScorerSettings(url=f"http://127.0.0.1:{port}"),
            serve=ServeSettings(poll_seconds=0.2),
            enrich=EnrichSettings(batch_rows=500, batch_seconds=0.1, shadow_share=1.0, shadow_after_seconds=0.5),
        )
        ensure_topic(chosen.source, partitions=2)
        yield chosen


def metric(metrics: ConsumerMetrics, name: str, **labels: str) -> float:
    return metrics.registry.get_sample_value(name, labels) or 0.0


def test_a_challenger_is_shadowed_and_then_promoted_warm(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.shadow.LOOK_SECONDS", 0.2)
    models: dict[str, Model] = {}
    for number, lines in enumerate((LINES[:2_000], LINES[1_000:])):
        model = small_model(tmp_path / f"model {number}", lines)
        models[register(settings.registry, tmp_path / f"model {number}")] = model
    assert list(models) == ["1", "2"]
    registry = open_registry(settings.registry)
    registry.set_alias(CHAMPION, "1")
    metrics = ConsumerMetrics(live_seconds=60)
    with start_service(settings, int(settings.scorer.url.rsplit(":", 1)[1]), folder=tmp_path / "service"):
        store, scorer, source = ElasticStore(settings.store), HttpScorer(settings.scorer), KafkaSource(settings.source)
        enricher = Enricher(settings.enrich, source, store, scorer, observe=metrics)
        thread = threading.Thread(target=enricher.run)
        thread.start()
        try:
            arrive(settings, LINES[:1_000])
            until(lambda: enricher.counts.records == 1_000, "the first thousand")
            assert metric(metrics, "oddlog_consumer_shadow_events_total", outcome="scored") == 0
            registry.set_alias(CHALLENGER, "2")
            digest = models["2"].baseline.digest
            lane = {"version": "2", "baseline": digest}
            until(lambda: metric(metrics, "oddlog_consumer_shadow_lane_info", **lane) == 1, "the challenger's lane")
            for start in (1_000, 1_500):
                arrive(settings, LINES[start : start + 500])
                until(lambda end=start + 500: enricher.counts.records == end, "five hundred more")
                until(lambda end=start - 500: accounted(metrics) == end, "them in the shadow")
            replayed = enricher.counts.replayed
            registry.set_alias(CHAMPION, "2")
            until(lambda: scorer.champion() == "2", "the promotion")
            until(lambda: metric(metrics, "oddlog_consumer_lane_info", **lane) == 1, "the champion's lane")
            arrive(settings, LINES[2_000:])
            until(lambda: enricher.counts.records == 3_000, "all")
            assert enricher.counts.replayed == replayed, "the lane was warm"
        finally:
            enricher.stop()
            thread.join()
            source.close()
            scorer.close()
        events = read(store)
        store.close()
    is_sound(events, models)
    shadowed = events["anomaly.shadow.version"].count()
    assert 0 < shadowed == enricher.counts.shadow_scored
    assert shadowed + enricher.counts.shadow_dropped >= 1_000


def read(store: ElasticStore) -> pl.DataFrame:
    store.refresh()
    columns = [*EVENT_SCHEMA, "anomaly.model.version", "anomaly.shadow.version", "anomaly.shadow.score", *FEATURES]
    return pl.concat(store.read_events(EventQuery(), columns=columns, order="position"))


def is_sound(events: pl.DataFrame, models: dict[str, Model]) -> None:
    """Both versions scored what they were to score, from the features of one pass."""
    assert events.height == 3_000
    features = {version: FeatureComputer(model.baseline).compute(events) for version, model in models.items()}
    for version in models:
        mine = (events["anomaly.model.version"] == version).to_numpy()
        assert mine.sum() == {"1": 2_000, "2": 1_000}[version]
        np.testing.assert_allclose(events.filter(mine).select(FEATURES), features[version][mine], rtol=1e-5)
    shadowed = events["anomaly.shadow.version"].is_not_null().to_numpy()
    assert set(events.filter(shadowed)["anomaly.shadow.version"]) == {"2"}
    np.testing.assert_allclose(
        events.filter(shadowed)["anomaly.shadow.score"],
        models["2"].score(features["2"][shadowed]),
        rtol=1e-4,
        atol=1e-5,
    )


def accounted(metrics: ConsumerMetrics) -> float:
    return sum(
        metric(metrics, "oddlog_consumer_shadow_events_total", outcome=outcome) for outcome in ("scored", "dropped")
    )


def arrive(settings: Settings, lines: list[bytes]) -> None:
    ship(lines, settings.source.url, labels=None, path="access.log")
