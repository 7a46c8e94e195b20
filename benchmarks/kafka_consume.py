"""How fast KafkaSource reads, beside kafka-python alone on the same topic. Needs a broker (`oddlog stack up`).

    python benchmarks/kafka_consume.py kafka://127.0.0.1:9092 --records 200000

Prints records per second of both, read in turns, and their ratio (1 = the port costs nothing).
"""

from __future__ import annotations

import argparse
import statistics
import time
import uuid

from kafka import KafkaAdminClient, KafkaConsumer

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
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("url", help="kafka://host:port")
    arguments.add_argument("--records", type=int, default=100_000)
    arguments.add_argument("--bytes", type=int, default=500)
    arguments.add_argument("--rounds", type=int, default=3)
    given = arguments.parse_args()
    topic = f"bench-{uuid.uuid4().hex[:8]}"
    settings = SourceSettings(url=f"{given.url.rstrip('/')}/{topic}")
    with KafkaWriter(settings, settings.url, partitions=4) as writer:
        begun = time.perf_counter()
        for number in range(given.records):
            writer.send(b"%d" % (number % 1000), b"%0*d" % (given.bytes, number))
        writer.flush()
        print(f"written:  {given.records / (time.perf_counter() - begun):9,.0f} records/s of {given.bytes} bytes")
    server = settings.url.removeprefix("kafka://").partition("/")[0]
    try:
        rates = [(bare(server, topic, given.records), port(settings, given.records)) for _ in range(given.rounds)]
    finally:
        admin = KafkaAdminClient(bootstrap_servers=server)
        admin.delete_topics([topic])
        admin.close()
    ratio = statistics.median(ours / theirs for theirs, ours in rates)
    print(f"library:  {statistics.median(theirs for theirs, _ in rates):9,.0f} records/s")
    print(f"source:   {statistics.median(ours for _, ours in rates):9,.0f} records/s, committed by batch")
    print(f"ratio:    {ratio:9.2f}")


if __name__ == "__main__":
    main()
