"""The bare limit, by hand: kafka-python's poll, orjson, one regex, raw bulk requests, a thread that writes.

It writes documents of the product's shape with constant features and scores, in two batches at once (one is prepared
while the other is written), and commits what is acknowledged. It knows the one format of this traffic; what else may
come, what a store may refuse, retries, rebalances and stopping in good order are left out.
"""

from __future__ import annotations

import http.client
import queue
import re
import threading
from typing import Any
from urllib.parse import urlsplit

import orjson
from kafka import KafkaConsumer, OffsetAndMetadata, TopicPartition

from benchmarks.throughput.asked import Asked, asked
from oddlog.features.declaration import FEATURE_NAMES

BATCH = 4_096
NAMES = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
MONTHS = {name: f"{number:02}" for number, name in enumerate(NAMES, 1)}
LINE = re.compile(
    r'(\S+) \S+ (\S+) \[([^\]]+)\] "((?:[^"\\]|\\.)*)" (\d+) (\d+|-) "((?:[^"\\]|\\.)*)" "((?:[^"\\]|\\.)*)"'
)
REQUEST = re.compile(r"([A-Z]+) (\S+) HTTP/([0-9.]+)$")

FEATURES = {name: 0.12345679 + number for number, name in enumerate(FEATURE_NAMES)}
ANOMALY = {
    "status": "scored",
    "score": -1.234567,
    "severity": 0.301029995,
    "is_anomaly": False,
    "threshold": 5.4321,
    "threshold_version": "1",
    "model": {"name": "oddlog", "version": "1"},
    "baseline": "0" * 64,
}


def body(prefix: str, partition: TopicPartition, records: list[Any]) -> bytes:
    """A bulk request of some records of one partition."""
    lines = []
    topic, number = partition.topic, partition.partition
    for record in records:
        envelope = orjson.loads(record.value)
        line = envelope["message"]
        found = LINE.match(line)
        assert found is not None, line
        client, user, time, request, status, size, referrer, agent = found.groups()
        sound = REQUEST.match(request)
        method, target, version = sound.groups() if sound else ("", request, None)
        path, _, query = target.partition("?")
        day = f"{time[7:11]}-{MONTHS[time[3:6]]}-{time[:2]}"
        url = {"original": target, "path": path}
        if query:
            url["query"] = query
        asked_for = {"method": method}
        if referrer != "-":
            asked_for["referrer"] = referrer
        document = {
            "@timestamp": f"{day}T{time[12:20]}.000Z",
            "source": {"address": client, "ip": client},
            "http": {
                "request": asked_for,
                "version": version,
                "response": {"status_code": int(status), "body": {"bytes": int(size) if size != "-" else None}},
            },
            "url": url,
            "user_agent": {"original": agent},
            "host": envelope["host"],
            "log": {"file": {"path": envelope["log"]["file"]["path"]}},
            "event": {"original": line},
            "oddlog": {"position": {"epoch": "e1", "topic": topic, "partition": number, "offset": record.offset}},
            "features": FEATURES,
            "anomaly": ANOMALY,
        }
        if user != "-":
            document["user"] = {"name": user}
        if agent == "-":
            del document["user_agent"]
        index = f"{prefix}-events-{day.replace('-', '.')}"
        lines.append(orjson.dumps({"create": {"_index": index, "_id": f"e1-{topic}-{number}-{record.offset}"}}))
        lines.append(orjson.dumps(document))
    lines.append(b"")
    return b"\n".join(lines)


def write(elastic: str, bodies: queue.Queue[Any], written: queue.Queue[Any]) -> None:
    """Post every body; tell the offset behind it once it is acknowledged."""
    address = urlsplit(elastic)
    connection = http.client.HTTPConnection(address.hostname or "", address.port)
    while True:
        data, offsets = bodies.get()
        connection.request("POST", "/_bulk?filter_path=errors", data, {"content-type": "application/x-ndjson"})
        answer = orjson.loads(connection.getresponse().read())
        assert answer == {"errors": False}, answer
        written.put(offsets)


def main(where: Asked) -> None:
    """Consume until killed."""
    consumer = KafkaConsumer(
        where.topic,
        bootstrap_servers=where.servers,
        group_id=where.group,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        max_partition_fetch_bytes=4 * 1024 * 1024,
    )
    bodies: queue.Queue[Any] = queue.Queue(1)
    written: queue.Queue[Any] = queue.Queue()
    threading.Thread(target=write, args=(where.elastic, bodies, written), daemon=True).start()
    while True:
        for partition, records in consumer.poll(200, max_records=BATCH).items():
            offset = OffsetAndMetadata(records[-1].offset + 1, "", -1)
            bodies.put((body(where.prefix, partition, records), {partition: offset}))
        while not written.empty():
            consumer.commit_async(written.get())


if __name__ == "__main__":
    main(asked(__doc__))
