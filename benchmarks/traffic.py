"""Traffic to measure speed with: simulated lines in the whole envelope that Filebeat sends, produced to a topic."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import orjson

from oddlog.connectors.kafka_producer import KafkaWriter
from oddlog.events.envelope import client_key
from oddlog.settings import SourceSettings
from oddlog.simulation.traffic import simulate

START = dt.datetime(2024, 3, 4, tzinfo=dt.UTC)
"""When the traffic begins: long before any broker's clock, so that no event is dated ahead of it."""
PARTITIONS = 4


@dataclass(frozen=True, slots=True)
class Traffic:
    """One site's lines in order: what models are fitted on, then what is consumed."""

    fitted: list[str]
    consumed: list[str]


def traffic(seed: int, fitted: int, consumed: int, *, days: float = 2.0) -> Traffic:
    """`fitted` + `consumed` lines of one simulated site, attacks among them."""
    lines = simulate(seed=seed, start=START, lines=fitted + consumed, days=days).frame["line"].to_list()
    return Traffic(lines[:fitted], lines[fitted:])


def filebeat(line: str, at: dt.datetime, offset: int) -> bytes:
    """The envelope of Filebeat 8's `filestream` input with its default fields: some 450 bytes around the line."""
    return orjson.dumps(
        {
            "@timestamp": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "@metadata": {"beat": "filebeat", "type": "_doc", "version": "8.19.4"},
            "log": {"offset": offset, "file": {"path": "/var/log/nginx/access.log", "inode": "1835187"}},
            "message": line,
            "input": {"type": "filestream"},
            "ecs": {"version": "8.0.0"},
            "host": {"name": "web1"},
            "agent": {
                "id": "8c5ba3a1-6d31-4c5e-9a39-7c2f2e5d1b60",
                "name": "web1",
                "type": "filebeat",
                "version": "8.19.4",
                "ephemeral_id": "e1f9a5c2-0f0b-4e6a-9a55-0b7f3f1f2c11",
            },
        }
    )


def envelopes(lines: Iterable[str]) -> Iterable[tuple[bytes | None, bytes]]:
    """Key (the client, so that one stays in one partition) and value of each record."""
    offset = 0
    now = dt.datetime.now(dt.UTC)
    for line in lines:
        yield client_key(line.encode()), filebeat(line, now, offset)
        offset += len(line) + 1


def produce(kafka_url: str, topic: str, lines: Sequence[str], *, partitions: int = PARTITIONS) -> int:
    """Make the topic and write every line's record, acknowledged; mean bytes of a value."""
    source = SourceSettings(url=f"{kafka_url}/{topic}")
    total = 0
    with KafkaWriter(source, source.url, partitions=partitions) as writer:
        for key, value in envelopes(lines):
            writer.send(key, value)
            total += len(value)
    return round(total / max(1, len(lines)))
