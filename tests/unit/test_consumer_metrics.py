"""What the consumer tells about itself: counts, liveness and readiness, and the port that hands them out."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from oddlog.connectors.sqlite import SqliteStore
from oddlog.errors import StoreUnavailable, UsageError
from oddlog.events.record import Partition
from oddlog.events.schema import DEAD_KINDS
from oddlog.settings import EnrichSettings, StoreSettings
from serving.batch_writer import BatchWriter
from serving.consumer_metrics import LAG_SECONDS, ConsumerMetrics, ConsumerObserver
from serving.consumer_port import consumer_port
from serving.counts import Counts
from serving.snapshots import Snapshot

ONE, TWO = Partition("e1", "logs.raw", 0), Partition("e1", "logs.raw", 1)


@dataclass
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def metrics(clock: Clock) -> ConsumerMetrics:
    return ConsumerMetrics(live_seconds=60, clock=clock)


@pytest.fixture
def port(metrics: ConsumerMetrics) -> Iterator[str]:
    with consumer_port(metrics, "127.0.0.1", 0) as port:
        yield f"http://127.0.0.1:{port}"


def samples(text: str) -> dict[tuple[str, tuple[str, ...]], float]:
    """Values by name, and by the labels' values in the order of the labels' names."""
    return {
        (sample.name, tuple(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_counts_are_those_of_the_consumer(metrics: ConsumerMetrics, port: str) -> None:
    totals = Counts(
        records=12, scored=8, pending=3, settled=1, anomalies=2, hushed=6, batches=2, retries=5, replayed=40
    )
    metrics.batch(totals, {"empty": 1})
    totals.scored += 1  # the consumer's own object: asked for when Prometheus asks
    metrics.batch(totals, {"empty": 1, "bad_json": 4})
    metrics.lag({ONE: 7, TWO: 0})
    metrics.lane("3", "0f")
    metrics.lane("4", "1e")
    with metrics.stage("parse"):
        pass
    found = samples(httpx.get(f"{port}/metrics").text)
    assert found["oddlog_consumer_events_total", ("scored",)] == 9
    assert found["oddlog_consumer_events_total", ("pending",)] == 3
    for name in ("records", "anomalies", "hushed", "batches", "settled", "replayed"):
        assert found[f"oddlog_consumer_{name}_total", ()] == getattr(totals, name)
    assert found["oddlog_consumer_dead_letters_total", ("empty",)] == 2
    assert found["oddlog_consumer_dead_letters_total", ("bad_json",)] == 4
    assert found["oddlog_consumer_lag", ("e1", "0", "logs.raw")] == 7
    assert found["oddlog_consumer_lane_info", ("1e", "4")] == 1
    assert ("oddlog_consumer_lane_info", ("0f", "3")) not in found
    assert found["oddlog_consumer_stage_seconds_count", ("parse",)] == 1
    assert found["process_resident_memory_bytes", ()] > 0
    metrics.revoked([ONE])
    assert ("oddlog_consumer_lag", ("e1", "0", "logs.raw")) not in samples(httpx.get(f"{port}/metrics").text)


def test_it_is_ready_when_every_partition_flows_and_nothing_waits(metrics: ConsumerMetrics, port: str) -> None:
    def ready() -> tuple[int, str]:
        answer = httpx.get(f"{port}/readyz")
        return answer.status_code, answer.text.strip()

    assert ready() == (503, "no partition is assigned")
    metrics.assigned([ONE, TWO])
    metrics.restored(ONE)
    assert ready() == (503, "1 of 2 partitions are being restored")
    metrics.restored(TWO)
    assert ready() == (200, "yes")
    metrics.waiting("429 too many requests")
    assert ready() == (503, "a batch waits: 429 too many requests")
    assert httpx.get(f"{port}/livez").status_code == 200
    metrics.batch(Counts(), {})
    assert ready() == (200, "yes")
    metrics.waiting("the commit was refused")
    metrics.idle()  # its records went to another consumer, and nothing new came
    assert ready() == (200, "yes")
    metrics.revoked([ONE, TWO])
    assert ready()[0] == 503


def test_what_is_waited_for_before_any_partition_is_told(metrics: ConsumerMetrics, port: str) -> None:
    metrics.waiting("Elasticsearch does not answer")
    answer = httpx.get(f"{port}/readyz")
    assert (answer.status_code, answer.text) == (503, "waiting: Elasticsearch does not answer\n")
    assert httpx.get(f"{port}/livez").status_code == 200


def test_retries_move_while_the_batch_still_waits(metrics: ConsumerMetrics, port: str) -> None:
    for sent in (1, 2):
        metrics.retried()
        assert samples(httpx.get(f"{port}/metrics").text)["oddlog_consumer_retries_total", ()] == sent


def test_the_shadow_is_counted_apart(metrics: ConsumerMetrics, port: str) -> None:
    metrics.shadow(scored=3, dropped=0)
    metrics.shadow(scored=0, dropped=2)
    metrics.shadow_lane("8", "0f")
    metrics.shadow_lane("9", "1e")
    found = samples(httpx.get(f"{port}/metrics").text)
    assert found["oddlog_consumer_shadow_events_total", ("scored",)] == 3
    assert found["oddlog_consumer_shadow_events_total", ("dropped",)] == 2
    assert found["oddlog_consumer_shadow_lane_info", ("1e", "9")] == 1
    metrics.shadow_lane(None)
    assert not [one for one in samples(httpx.get(f"{port}/metrics").text) if one[0].endswith("shadow_lane_info")]


def test_it_is_live_while_the_loop_moves(metrics: ConsumerMetrics, clock: Clock, port: str) -> None:
    metrics.assigned([ONE])
    metrics.restored(ONE)
    clock.now += 60
    assert httpx.get(f"{port}/livez").status_code == 200
    clock.now += 1
    stuck = httpx.get(f"{port}/livez")
    assert (stuck.status_code, stuck.text) == (
        503,
        "the loop has not moved for 61 s (enrich.live_seconds: 60)\n",
    )
    assert httpx.get(f"{port}/readyz").text == stuck.text
    assert samples(httpx.get(f"{port}/metrics").text)["oddlog_consumer_ready", ()] == 0
    metrics.moved()
    assert httpx.get(f"{port}/livez").status_code == 200


def test_lag_is_asked_for_now_and_then(metrics: ConsumerMetrics, clock: Clock) -> None:
    assert metrics.lag_due()
    metrics.lag({})
    assert not metrics.lag_due()
    clock.now += LAG_SECONDS
    assert metrics.lag_due()


def test_a_stage_that_fails_is_counted_and_fails(metrics: ConsumerMetrics, port: str) -> None:
    with pytest.raises(ZeroDivisionError), metrics.stage("score"):
        _ = 1 / 0
    assert samples(httpx.get(f"{port}/metrics").text)["oddlog_consumer_stage_seconds_count", ("score",)] == 1


def test_other_paths_and_methods_are_answered(port: str) -> None:
    answer = httpx.get(f"{port}/")
    assert (answer.status_code, "/readyz" in answer.text) == (404, True)
    assert httpx.head(f"{port}/livez").status_code == 200
    assert httpx.post(f"{port}/livez").status_code == 501
    assert httpx.get(f"{port}/livez?verbose=1").status_code == 200


def test_a_port_that_is_taken_is_named(metrics: ConsumerMetrics, port: str) -> None:
    taken = int(port.rpartition(":")[2])
    with pytest.raises(UsageError, match=str(taken)), consumer_port(metrics, "127.0.0.1", taken):
        pass


def test_snapshots_are_counted_by_what_became_of_them(metrics: ConsumerMetrics, tmp_path: Path) -> None:
    store = SqliteStore(StoreSettings(url=f"sqlite:///{tmp_path}/events.sqlite"))
    store.setup()
    clients = pl.DataFrame({"client": ["203.0.113.1"]})
    snapshots = [Snapshot(partition, 10, "b" * 64, clients) for partition in (ONE, TWO)]

    class Full(SqliteStore):
        def put_document(self, *what: Any) -> None:
            raise StoreUnavailable("no space left")

    full = Full(StoreSettings(url=f"sqlite:///{tmp_path}/events.sqlite"))
    for into in (store, full):
        writer = BatchWriter(into, EnrichSettings(), threading.Event(), metrics)
        writer.submit_snapshots(snapshots[: 1 if into is full else 2]).result()
        writer.close()
        into.close()
    found = {sample.labels["outcome"]: sample.value for sample in _counted(metrics, "oddlog_consumer_snapshots")}
    assert found == {"written": 2, "failed": 1}


def test_a_first_dead_letter_is_a_rise(metrics: ConsumerMetrics) -> None:
    """Prometheus sees no rise in a series that begins above 0."""
    found = {sample.labels["kind"]: sample.value for sample in _counted(metrics, "oddlog_consumer_dead_letters")}
    assert found == dict.fromkeys(DEAD_KINDS, 0)


def _counted(metrics: ConsumerMetrics, name: str) -> list[Sample]:
    return [
        sample for family in metrics.registry.collect() for sample in family.samples if sample.name == f"{name}_total"
    ]


def test_an_observer_that_only_listens_is_told_everything_and_does_nothing() -> None:
    silent = ConsumerObserver()
    with silent.stage("write"):
        silent.batch(Counts(), {"empty": 1})
        silent.snapshot(written=True)
    assert not silent.lag_due()


def test_the_documented_metrics_are_those_that_are_served(metrics: ConsumerMetrics, port: str) -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "operating.md").read_text()
    documented = set(re.findall(r"oddlog_consumer_[a-z_]+[a-z]", text))
    documented |= {f"oddlog_consumer{rest}" for rest in re.findall(r"`(_[a-z]+_total)`", text)}
    metrics.batch(Counts(), {"empty": 1})
    served = {family.name for family in text_string_to_metric_families(httpx.get(f"{port}/metrics").text)}
    served = {name for name in served if name.startswith("oddlog_consumer") and not name.endswith("_created")}
    assert {name.removesuffix("_total") for name in documented} == served
