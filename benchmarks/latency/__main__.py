"""Latency from produced to acknowledged by Elasticsearch, at a steady rate.

    python -m benchmarks.latency                          1,000 events/s for a minute
    python -m benchmarks.latency --rate 4000 --seconds 30

Real Kafka and Elasticsearch (started here, or TEST_KAFKA_URL and TEST_ELASTICSEARCH_URL), a real `bentoml serve`, the
real consumer with its default settings. Produced: the moment the record is handed to a producer that does not linger.
Producer, servers, scorer and consumer share the machine. Beside it, what each stage of the consumer took of a batch, as
its own metrics tell, and how much of the machine each process had. Exit code 1 when a document is missing.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from kafka import KafkaProducer

from benchmarks.machine import cpu_seconds, machine
from benchmarks.place import Place, place, running, still_running
from benchmarks.program import end_when_asked, told_by_the_clock
from benchmarks.tables import markdown, publish
from benchmarks.traffic import PARTITIONS, envelopes, traffic
from benchmarks.warm import warm_up
from oddlog.connectors.kafka_producer import ensure_topic
from oddlog.settings import SourceSettings
from oddlog.stack.process import free_port

WARM_SECONDS = 60.0
"""Of traffic that is sent before and not counted."""
QUANTILES = (50.0, 90.0, 99.0, 99.9, 100.0)
AIM_MS = 250.0
_STAGE = re.compile(r'^oddlog_consumer_stage_seconds_(sum|count)\{stage="(\w+)"\} (\S+)$', re.MULTILINE)

Moments = dict[tuple[int, int], float]
"""Seconds of the clock by (partition, offset)."""


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=1_000.0, help="events a second")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--models", default="surprise,iforest", help="one after the other")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="where the figures go; default: benchmarks/results/latency.json")
    given = parser.parse_args()
    say = told_by_the_clock()
    end_when_asked()
    about = machine()
    count = round(given.rate * (given.seconds + WARM_SECONDS))
    made = traffic(given.seed, 20_000, count)
    models = given.models.split(",")
    found = {}
    with place(made.fitted, models, say) as where:
        warm_up(where, made.consumed, say)
        for model in models:
            where.promote(model)
            say(f"{model}: {given.rate:,.0f} events/s for {given.seconds:g} s")
            found[model] = measure(where, model, made.consumed, given.rate)
    document = {"rate": given.rate, "seconds": given.seconds, "models": found}
    publish("latency", about, document, [table(document), stage_table(document), cores_table(document)], given.json)
    raise SystemExit(1 if any(one["missing"] for one in found.values()) else 0)


def measure(where: Place, model: str, lines: Sequence[str], rate: float) -> dict[str, Any]:
    """Milliseconds at QUANTILES, batches, and the rate that was really produced."""
    topic = prefix = f"{where.name}_{model}"
    source = SourceSettings(url=f"{where.kafka}/{topic}")
    ensure_topic(source, partitions=PARTITIONS)
    where.make_indices(prefix)
    log, notes = where.folder / f"{prefix}.log", where.folder / f"{prefix}.notes"
    notes.touch()
    command = [sys.executable, "-m", "benchmarks.latency.noted", str(notes)]
    port = free_port(*range(29_300, 29_400))
    variables = where.consumer_variables(topic, prefix) | {"ODDLOG_ENRICH__METRICS_PORT": str(port)}
    with running(where, command, variables, log) as process:

        def cpu() -> dict[str, float]:
            return {"producer": time.process_time(), "consumer": cpu_seconds(process.pid), **where.cpu()}

        before = cpu()
        sent, took = _produce(where, topic, lines, rate, lambda: still_running(process, log))
        busy = {name: (seconds - before[name]) / took for name, seconds in cpu().items()}
        deadline = time.monotonic() + 60
        while len(acknowledged := _acknowledged(notes)) < len(sent) and time.monotonic() < deadline:
            still_running(process, log)
            time.sleep(0.2)
        stages = _stages(port)
    where.remove_indices(prefix)
    warm = min(sent.values()) + WARM_SECONDS
    measured = {at: moment for at, moment in sent.items() if moment >= warm}
    taken = np.array([acknowledged[at] - moment for at, moment in measured.items() if at in acknowledged]) * 1e3
    with notes.open() as batches:
        sizes = [line.count(":") for line in batches]
    return {
        "events": len(measured),
        "missing": len(sent) - len(acknowledged),
        "produced_rate": len(sent) / took,
        "batch_median": float(np.median(sizes)),
        "milliseconds": {f"{q:g}": float(np.percentile(taken, q)) for q in QUANTILES},
        "stages": stages,
        "cores": busy,
    }


def _stages(port: int) -> dict[str, tuple[int, float]]:
    """How often each stage of a consumer ran, and its mean in milliseconds, by what the consumer's port tells."""
    text = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=5, trust_env=False).text
    found = {(kind, stage): float(value) for kind, stage, value in _STAGE.findall(text)}
    times = {stage: round(value) for (kind, stage), value in found.items() if kind == "count" and value}
    return {stage: (count, 1e3 * found["sum", stage] / count) for stage, count in times.items()}


def _produce(where: Place, topic: str, lines: Sequence[str], rate: float, watch: Any) -> tuple[Moments, float]:
    """Send every line at its moment; when each was sent, by its place in the topic, and the seconds it took."""
    producer = KafkaProducer(
        bootstrap_servers=where.kafka.removeprefix("kafka://"), acks="all", linger_ms=0, compression_type="lz4"
    )
    records = list(envelopes(lines))
    producer.send(topic, key=b"-", value=None).get(timeout=30)  # a tombstone: connects, and is a dead letter
    _until_consumed(where, topic, watch)
    futures = []
    begun = time.monotonic()
    for number, (key, value) in enumerate(records):
        wait = begun + number / rate - time.monotonic()
        if wait > 0:
            time.sleep(wait)
        futures.append((time.time(), producer.send(topic, key=key, value=value)))
        if number % 1_000 == 0:
            watch()
    took = time.monotonic() - begun
    sent = {}
    for moment, future in futures:
        place_of = future.get(timeout=60)
        sent[place_of.partition, place_of.offset] = moment
    producer.close()
    return sent, took


def _until_consumed(where: Place, topic: str, watch: Any) -> None:
    """Wait until the consumer has begun: its first dead letter is there."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        watch()
        if where.indexed(topic, "dead"):
            return
        time.sleep(0.2)
    raise SystemExit("the consumer does not consume")


def _acknowledged(notes: Path) -> Moments:
    found: Moments = {}
    with notes.open() as lines:
        for line in lines:
            if line.endswith("\n"):
                moment, *places = line.split()
                for one in places:
                    partition, _, offset = one.partition(":")
                    found.setdefault((int(partition), int(offset)), float(moment))
    return found


def table(document: dict[str, Any]) -> str:
    """Markdown."""
    names = ["p50", "p90", "p99", "p99.9", "longest"]
    lines = [
        f"| model | events | produced/s | {' | '.join(f'{name}, ms' for name in names)} | median batch "
        f"| p99 < {AIM_MS:g} ms |",
        f"| --- | ---: | ---: |{' ---: |' * len(names)} ---: | --- |",
    ]
    for model, one in document["models"].items():
        values = " | ".join(f"{value:,.0f}" for value in one["milliseconds"].values())
        met = "met" if one["milliseconds"]["99"] < AIM_MS else "not met"
        missing = f" ({one['missing']} missing)" if one["missing"] else ""
        lines.append(
            f"| {model} | {one['events']:,}{missing} | {one['produced_rate']:,.0f} | {values} "
            f"| {one['batch_median']:.0f} | {met} |"
        )
    return "\n".join(lines)


def stage_table(document: dict[str, Any]) -> str:
    """Markdown: the consumer's stages, warm-up included."""
    models = document["models"]
    stages = dict.fromkeys(stage for one in models.values() for stage in one["stages"])
    rows = []
    for stage in stages:
        row = [stage]
        for one in models.values():
            count, mean = one["stages"].get(stage, (0, 0.0))
            row += [f"{count:,}", f"{mean:.1f}"]
        rows.append(row)
    head = [text for model in models for text in (f"{model}: times", "mean, ms")]
    return markdown(["stage of the consumer", *head], rows)


def cores_table(document: dict[str, Any]) -> str:
    """Markdown: processor seconds a second of each process, while the records were produced."""
    models = document["models"]
    names = dict.fromkeys(name for one in models.values() for name in one["cores"])
    rows = [[name, *(f"{one['cores'][name]:.2f}" for one in models.values())] for name in names]
    rows.append(["together", *(f"{sum(one['cores'].values()):.2f}" for one in models.values())])
    return markdown(["cores busy", *models], rows)


if __name__ == "__main__":
    main()
