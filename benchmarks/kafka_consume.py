"""How fast KafkaSource reads, beside kafka-python alone on the same topic. Needs a broker (`oddlog stack up`).

    python -m benchmarks.kafka_consume kafka://127.0.0.1:9092 --records 200000

Prints records per second of both, read in turns, and their ratio (1 = the port costs nothing).
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import uuid
from typing import Any

from kafka import KafkaAdminClient, KafkaConsumer

from benchmarks.machine import machine, one_line
from oddlog.connectors.kafka import KafkaSource
from oddlog.connectors.kafka_producer import KafkaWriter
from oddlog.settings import SourceSettings


def bare(server: str, topic: str, count: int) -> float:
    """Records per second of the library, with the defaults of its documentation."""
    consumer = KafkaConsumer(topic, bootstrap_servers=server, auto_offset_reset="earliest", group_id=None)
    try:
        seen = len(next(iter(consumer.poll(10_000, max_records=1).values()), []))
        begun = time.perf_counter()
        while seen < count:
            seen += sum(len(batch) for batch in consumer.poll(1000, max_records=4096).values())
        return count / (time.perf_counter() - begun)
    finally:
        consumer.close()


def port(settings: SourceSettings, count: int) -> float:
    """Records per second of the source, in columns, with a commit after every batch."""
    source = KafkaSource(settings.model_copy(update={"group": f"bench-{uuid.uuid4().hex[:8]}"}))
    try:
        seen, begun = 0, 0.0
        while seen < count:
            poll = source.poll(4096, 1.0)
            for partition in poll.assigned:
                source.start(partition)
                begun = time.perf_counter()
            if len(poll.records):
                seen += len(poll.records)
                source.commit(poll.records.next_offset)
        return count / (time.perf_counter() - begun)
    finally:
        source.close()


def main() -> None:
    """Write, read in turns, print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.kafka_consume", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("url", help="kafka://host:port")
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--bytes", type=int, default=500, help="of one record")
    parser.add_argument("--rounds", type=int, default=3, help="turns; the median counts")
    parser.add_argument("--json", action="store_true", help="one JSON document on one line, with the machine")
    given = parser.parse_args()
    found: dict[str, Any] = {"machine": machine(), "records": given.records, "bytes": given.bytes}
    topic = f"bench-{uuid.uuid4().hex[:8]}"
    settings = SourceSettings(url=f"{given.url.rstrip('/')}/{topic}")
    with KafkaWriter(settings, settings.url, partitions=4) as writer:
        begun = time.perf_counter()
        for number in range(given.records):
            writer.send(b"%d" % (number % 1000), b"%0*d" % (given.bytes, number))
        writer.flush()
        found["written_per_s"] = given.records / (time.perf_counter() - begun)
    server = settings.url.removeprefix("kafka://").partition("/")[0]
    try:
        rates = [(bare(server, topic, given.records), port(settings, given.records)) for _ in range(given.rounds)]
    finally:
        admin = KafkaAdminClient(bootstrap_servers=server)
        admin.delete_topics([topic])
        admin.close()
    found["library_per_s"] = statistics.median(theirs for theirs, _ in rates)
    found["source_per_s"] = statistics.median(ours for _, ours in rates)
    found["ratio"] = statistics.median(ours / theirs for theirs, ours in rates)
    if given.json:
        print(json.dumps(found))
        return
    print(f"written:  {found['written_per_s']:9,.0f} records/s of {given.bytes} bytes")
    print(f"library:  {found['library_per_s']:9,.0f} records/s")
    print(f"source:   {found['source_per_s']:9,.0f} records/s, committed by batch")
    print(f"ratio:    {found['ratio']:9.2f}")
    print(one_line(found["machine"]))


if __name__ == "__main__":
    main()
