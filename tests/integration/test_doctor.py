"""`oddlog doctor` on parts that are well, and on each fault that it is there for: what it says, and its exit code."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import polars as pl
import pytest
from pydantic import SecretStr

from oddlog.connectors.by_url import open_registry, open_store
from oddlog.connectors.elastic_connection import ElasticConnection
from oddlog.connectors.kafka import KafkaSource
from oddlog.connectors.kafka_producer import KafkaWriter, ensure_topic
from oddlog.connectors.privacy_stamp import claim_store
from oddlog.connectors.registry import CHAMPION
from oddlog.events.logfile import records_from_lines
from oddlog.events.parse import parse
from oddlog.events.privacy import reader_of
from oddlog.settings import Settings, load
from oddlog.settings_privacy import PrivacySettings
from oddlog.simulation.traffic import simulate
from oddlog.stack.process import free_port
from serving.child import start_service
from serving.doctor import Check, examine, exit_code
from serving.documents import pending_events
from tests.elastic_place import elastic_place
from tests.small_model import small_model
from tests.small_registry import register
from tests.waiting import at_once, until

LINES = [line.encode() for line in simulate(seed=5, lines=2_000, days=2).lines]


def look(settings: Settings, **changed: object) -> dict[str, Check]:
    """The checks by part, of settings with some groups replaced."""
    return {check.part: check for check in examine(settings.model_copy(update=changed))}


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A site on the embedded column with two registered versions, of which the first is champion."""
    folder = tmp_path_factory.mktemp("site")
    log = folder / "access.log"
    log.write_bytes(b"".join(line + b"\n" for line in LINES))
    settings = load(
        {
            "source": {"url": f"file://{log}", "state_dir": str(folder / "places")},
            "store": {"url": f"sqlite:///{folder / 'events.sqlite'}"},
            "registry": {
                "url": f"sqlite:///{folder / 'mlflow.db'}",
                "artifacts": str(folder / "artifacts"),
                "cache_dir": str(folder / "cache"),
            },
            "scorer": {"url": "local:"},
        }
    )
    store = open_store(settings.store)
    store.setup()
    store.write_events(pending_events(parse(records_from_lines(LINES)).events, None, None))
    store.close()
    for name, seed in (("one", 0), ("two", 1)):
        small_model(folder / name, LINES[: 1_000 + 500 * seed], seed=seed)
        register(settings.registry, folder / name)
    open_registry(settings.registry).set_alias(CHAMPION, "1")
    return settings


def test_all_is_well(embedded: Settings) -> None:
    found = look(embedded)
    assert {part: check.verdict for part, check in found.items()} == {
        **dict.fromkeys(
            ("source", "topic", "offsets", "store", "privileges", "mappings", "clients", "privacy", "registry",
             "champion", "artifact", "features", "scorer"), "ok",
        ),
        "ready": "skipped",
        "same champion": "skipped",
    }  # fmt: skip
    assert exit_code(list(found.values())) == 0
    assert "2,000 recent events" in found["clients"].text


def test_what_is_not_there_is_named_with_its_remedy(tmp_path: Path) -> None:
    nothing = load(
        {
            "source": {"url": f"file://{tmp_path / 'no.log'}", "state_dir": str(tmp_path)},
            "store": {"url": f"sqlite:///{tmp_path / 'no.sqlite'}"},
            "registry": {"url": f"sqlite:///{tmp_path / 'no.db'}"},
            "scorer": {"url": f"http://127.0.0.1:{free_port()}", "attempts": 1},
        }
    )
    found = look(nothing)
    said_no = {part for part, check in found.items() if check.verdict == "no"}
    assert said_no == {"topic", "mappings", "champion"}
    assert found["mappings"].mend == "oddlog setup"
    assert found["champion"].mend == "oddlog train && oddlog promote"
    assert found["scorer"].verdict == "failed"
    assert all(check.mend for check in found.values() if check.verdict in {"no", "failed"})
    assert exit_code(list(found.values())) == 3
    assert exit_code([check for check in found.values() if check.part != "scorer"]) == 1
    assert list(tmp_path.iterdir()) == []  # looking makes nothing


def test_a_broken_artifact_and_other_features_are_found(
    embedded: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from oddlog.connectors.mlflow_registry import MlflowRegistry

    download = MlflowRegistry.download

    def damaged(self: MlflowRegistry, version: str, into: Path) -> Path:
        folder = download(self, version, into)
        (folder / "model.onnx").write_bytes((folder / "model.onnx").read_bytes()[:-1])
        return folder

    with monkeypatch.context() as patch:
        patch.setattr(MlflowRegistry, "download", damaged)
        found = look(embedded)
    assert (found["artifact"].verdict, found["features"].verdict) == ("no", "ok")
    assert "digest" in found["artifact"].text

    def older(self: MlflowRegistry, version: str, into: Path) -> Path:
        folder = download(self, version, into)
        card = json.loads((folder / "card.json").read_text())
        (folder / "card.json").write_text(json.dumps({**card, "feature_digest": "0" * 64}))
        return folder

    with monkeypatch.context() as patch:
        patch.setattr(MlflowRegistry, "download", older)
        found = look(embedded)
    assert (found["artifact"].verdict, found["features"].verdict) == ("skipped", "no")
    assert found["features"].mend == "oddlog train && oddlog promote, or run that version of oddlog"


def test_a_client_in_two_partitions_is_named(embedded: Settings, tmp_path: Path) -> None:
    events = parse(records_from_lines(LINES)).events.with_columns(
        pl.lit("logs.raw").alias("oddlog.position.topic"), pl.lit("e1").alias("oddlog.position.epoch")
    )
    client = events["source.address"][-1]
    last = pl.col("oddlog.position.offset") == events["oddlog.position.offset"].max()
    second = events.filter(last).with_columns(
        pl.lit(3, pl.Int32).alias("oddlog.position.partition"), pl.lit("e1-logs.raw-3-0").alias("_id")
    )
    place = embedded.store.model_copy(update={"url": f"sqlite:///{tmp_path / 'split.sqlite'}"})
    store = open_store(place)
    store.write_events(pending_events(pl.concat([events, second]), None, None))
    store.close()
    found = look(embedded, store=place)["clients"]
    assert found.verdict == "no"
    assert f"1 of {events['source.address'].n_unique():,} clients" in found.text
    assert f"{client} in logs.raw 0, 3" in found.text


def test_privacy_without_its_key_or_other_than_the_store_s_is_named(embedded: Settings, tmp_path: Path) -> None:
    def asked(key: str | None, store: Path | None = None) -> Check:
        privacy = PrivacySettings(clients="pseudonymise", key=None if key is None else SecretStr(key))
        place = embedded.store if store is None else embedded.store.model_copy(update={"url": f"sqlite:///{store}"})
        return look(embedded, privacy=privacy, store=place)["privacy"]

    assert look(embedded)["privacy"].text == "clients and query strings are kept as they come, as in the store"
    found = asked(None)
    assert (found.verdict, found.text) == ("no", "privacy is on, and there is no key")
    found = asked("k" * 32)  # its events are plain
    assert (found.verdict, "events are plain" in found.text) == ("no", True)
    assert "oddlog privacy --adopt" in str(found.mend)
    fresh = tmp_path / "fresh.sqlite"
    assert asked("k" * 32, fresh).text.endswith("the store was not asked whether it was begun so")
    store = open_store(embedded.store.model_copy(update={"url": f"sqlite:///{fresh}"}))
    store.setup()
    assert asked("k" * 32, fresh).text.endswith("from the first event on")
    claim_store(store, reader_of(PrivacySettings(clients="pseudonymise", key=SecretStr("k" * 32))).stamp)
    store.close()
    assert asked("k" * 32, fresh).text.endswith("as in the store")
    found = asked("l" * 32, fresh)
    assert (found.verdict, exit_code([found])) == ("no", 1)


@pytest.mark.elasticsearch
def test_templates_and_mappings_are_held_to_this_version(embedded: Settings, elasticsearch_url: str) -> None:
    with elastic_place(elasticsearch_url) as place:
        found = look(embedded, store=place)
        assert (found["mappings"].verdict, found["mappings"].mend) == ("no", "oddlog setup")
        # an index that Elasticsearch made by itself, before there was a template
        connection = ElasticConnection(place)
        index = f"{place.prefix}-events-2026.03.01"
        connection.json("PUT", f"/{index}/_doc/1", {"source": {"ip": "192.0.2.1"}, "@timestamp": "2026-03-01"})
        store = open_store(place)
        store.setup()
        found = look(embedded, store=place)
        assert found["mappings"].verdict == "no"
        assert f"{index} has source.ip as text (expected ip)" in found["mappings"].text
        connection.json("DELETE", f"/{index}")
        assert look(embedded, store=place)["mappings"].verdict == "ok"
        template = connection.json("GET", f"/_index_template/{place.prefix}-dead")
        older = template["index_templates"][0]["index_template"] | {"_meta": {"digest": "older"}}
        connection.json("PUT", f"/_index_template/{place.prefix}-dead", older)
        assert "another version of oddlog" in look(embedded, store=place)["mappings"].text
        connection.close()
        store.close()


@pytest.mark.kafka
class TestKafka:
    @pytest.fixture
    def settings(self, embedded: Settings, kafka_url: str, topic: str) -> Iterator[Settings]:
        source = embedded.source.model_copy(
            update={"url": f"{kafka_url}/{topic}", "group": f"g-{uuid.uuid4().hex[:8]}"}
        )
        yield embedded.model_copy(update={"source": source})
        self.remove(kafka_url, topic)

    @staticmethod
    def remove(kafka_url: str, topic: str) -> None:
        from kafka import KafkaAdminClient, errors

        admin = KafkaAdminClient(bootstrap_servers=kafka_url.removeprefix("kafka://"))
        try:
            admin.delete_topics([topic])
        except errors.UnknownTopicOrPartitionError:
            pass
        finally:
            admin.close()

    def commit(self, settings: Settings, offset: int) -> None:
        """As a consumer of the group would."""
        with closing(KafkaSource(settings.source)) as source:
            assigned = until(lambda: source.poll(10, 0.5).assigned, "an assignment", each=at_once)
            source.commit({partition: offset for partition in assigned if partition.number == 0})

    def test_a_missing_topic_is_named(self, settings: Settings) -> None:
        found = look(settings)
        assert (found["source"].verdict, found["topic"].verdict, found["offsets"].verdict) == ("ok", "no", "skipped")
        assert str(found["topic"].mend).startswith("oddlog setup")

    def test_positions_are_compared_with_the_topic(self, settings: Settings) -> None:
        ensure_topic(settings.source, partitions=2)
        with KafkaWriter(settings.source, settings.source.url) as writer:
            for number in range(50):
                writer.send(b"%d" % number, LINES[number])
        found = look(settings)
        assert found["topic"].text == "2 partitions, 50 records kept"
        assert "nothing yet" in found["offsets"].text
        self.commit(settings, 5)
        found = look(settings)
        assert (found["offsets"].verdict, "45 records behind" in found["offsets"].text) == ("ok", True)
        self.commit(settings, 5_000)  # as after the topic was deleted and made anew
        found = look(settings)
        assert found["offsets"].verdict == "no"
        assert "ODDLOG_SOURCE__EPOCH=e2" in str(found["offsets"].mend)
        assert exit_code(list(found.values())) == 1

    def test_brokers_that_are_away_fail(self, embedded: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("oddlog.connectors.kafka_connection.CONNECT_MS", 500)
        source = embedded.source.model_copy(update={"url": f"kafka://127.0.0.1:{free_port()}/logs.raw"})
        found = look(embedded, source=source)
        assert found["source"].verdict == "failed"
        assert found["offsets"].verdict == "skipped"
        assert exit_code(list(found.values())) == 3


@pytest.mark.timeout(300)
def test_the_scorer_is_held_to_the_registry(embedded: Settings, tmp_path: Path) -> None:
    port = free_port()
    key = SecretStr("a-key-of-this-test")
    scorer = embedded.scorer.model_copy(update={"url": f"http://127.0.0.1:{port}", "attempts": 1, "api_key": key})
    serve = embedded.serve.model_copy(update={"poll_seconds": 3_600.0, "api_key": key})
    served = embedded.model_copy(update={"scorer": scorer, "serve": serve})
    with start_service(served, port, folder=tmp_path / "service"):
        found = look(served)
        assert {found[part].verdict for part in ("scorer", "ready", "same champion")} == {"ok"}
        assert exit_code(list(found.values())) == 0
        open_registry(served.registry).set_alias(CHAMPION, "2")
        try:
            found = look(served)
        finally:
            open_registry(served.registry).set_alias(CHAMPION, "1")
        assert found["same champion"].verdict == "no"
        assert "serves version 1, the registry names 2" in found["same champion"].text
        stranger = look(served, scorer=scorer.model_copy(update={"api_key": None}))
        assert (stranger["scorer"].verdict, stranger["ready"].verdict) == ("failed", "skipped")
        assert "no key" in stranger["scorer"].text
        assert "set ODDLOG_SCORER__API_KEY" in str(stranger["scorer"].mend)
