"""What is produced: simulated traffic in Filebeat's envelope, paced by the faults, with poison of every kind in it."""

from __future__ import annotations

import datetime as dt
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

from kafka import KafkaProducer

from benchmarks.campaign.world import START, World
from oddlog.connectors.kafka_connection import LARGEST_RECORD, kafka_address
from oddlog.connectors.kafka_producer import KafkaWriter
from oddlog.errors import SourceError
from oddlog.events.envelope import client_key, envelope
from oddlog.simulation.traffic import simulate

MEGABYTES = 10
CONFLICT_DAY = dt.date(2019, 5, 17)
"""The index of this day takes no user names but numbers: `prepare_conflict`."""


def prepare_conflict(world: World) -> None:
    """An index whose mapping refuses some documents for good."""
    mapping = {"properties": {"user": {"properties": {"name": {"type": "long"}}}}}
    world.elastic("PUT", f"/{world.settings.store.prefix}-events-{CONFLICT_DAY:%Y.%m.%d}", {"mappings": mapping})


def poison(chance: random.Random) -> dict[str, tuple[bytes | None, bytes | None]]:
    """Key and value of one record of each kind."""
    line = b'198.51.100.%d - - [05/Mar/2024:10:00:00 +0000] "GET /a HTTP/1.1" 200 5 "-" "a"' % chance.randrange(255)
    conflict = f'198.51.100.7 - bob [{CONFLICT_DAY:%d/%b/%Y}:10:00:00 +0000] "GET / HTTP/1.1" 200 5 "-" "a"'.encode()
    # Hexadecimal digits: neither lz4 nor the inverted index make it small.
    long = chance.randbytes(MEGABYTES * 500_000).hex().encode()
    return {
        "empty": (b"198.51.100.1", b""),
        "tombstone": (b"198.51.100.1", None),
        "binary": (None, chance.randbytes(2_000)),
        "broken json": (b"198.51.100.2", b'{"message": "cut'),
        "json of others": (None, b'{"level": "info", "msg": "started"}'),
        "year 9999": (b"198.51.100.3", line.replace(b"05/Mar/2024", b"31/Dec/9999")),
        "invalid utf-8": (b"198.51.100.4", line.replace(b"/a ", b"/caf\xe9\xff ")),
        "600-byte key": (b"k" * 600, line),
        "600-byte client": (
            b"198.51.100.5",
            b"h" * 600 + b" - - [05/Mar/2024:10:00:00 +0000] " + line[line.index(b'"') :],
        ),
        "mapping conflict": (b"198.51.100.7", conflict),
        f"{MEGABYTES} MB line": (b"198.51.100.6", line.replace(b"/a ", b"/a?" + long + b" ")),
    }


class Load:
    """Produces `records` records in its own thread; never further ahead than the faults are (`share_done`)."""

    def __init__(self, world: World, seed: int, records: int, rate: float, share_done: Callable[[], float]) -> None:
        self.produced = 0
        self.poisoned: Counter[str] = Counter()
        self.failures = 0
        """Times the producer itself was given up by its client, and begun anew."""
        self._world = world
        self._seed = seed
        self._records = records
        self._rate = rate
        self._share_done = share_done
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)
        self.error: BaseException | None = None

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def wait(self, seconds: float) -> bool:
        """Whether all of it is produced."""
        self._thread.join(seconds)
        return not self._thread.is_alive() and self.error is None

    def stop(self) -> None:
        """End now."""
        self._stop.set()
        self._thread.join(60)

    def _run(self) -> None:
        try:
            self._produce()
        except BaseException as error:
            self.error = error

    def _produce(self) -> None:
        chance = random.Random(self._seed)
        kinds = list(poison(chance))
        each = max(1, self._records // 100_000)
        poison_at = sorted(
            (chance.randrange(self._records // 20, self._records), kind) for kind in kinds for _ in range(each)
        )
        traffic = simulate(seed=self._seed, start=START, lines=self._records - len(poison_at), days=4)
        lines = iter(traffic.frame["line"])
        begun = time.monotonic()
        while self.produced < self._records and not self._stop.is_set():
            try:
                with KafkaWriter(self._world.settings.source, self._world.settings.source.url) as writer:
                    while self.produced < self._records and not self._stop.is_set():
                        if poison_at and poison_at[0][0] <= self.produced:
                            self._send_poison(poison_at.pop(0)[1], chance)
                        elif (line := next(lines, None)) is not None:
                            text = line.encode()
                            now = dt.datetime.now(dt.UTC)
                            writer.send(
                                client_key(text), envelope(text, at=now, path="/var/log/access.log", host="web1")
                            )
                        elif poison_at:
                            self._send_poison(poison_at.pop(0)[1], chance)
                        else:
                            return
                        self.produced += 1
                        if self.produced % 20 == 0:
                            self._pace(begun)
            except SourceError:
                # Kafka was away for longer than the client is patient. What it had not acknowledged may be there
                # or not: what counts is what the topic holds in the end.
                self.failures += 1
                self._stop.wait(1.0)

    def _pace(self, begun: float) -> None:
        while not self._stop.wait(0.005):
            share = min(1.0, 0.05 + 0.95 * self._share_done())
            if self.produced < min(self._rate * (time.monotonic() - begun), self._records * share) or share >= 1.0:
                return

    def _send_poison(self, kind: str, chance: random.Random) -> None:
        key, value = poison(chance)[kind]
        address = kafka_address(self._world.settings.source.url)
        for _ in range(10):
            producer = None
            with suppress(Exception):  # any error of the client means: Kafka is away, once more
                producer = KafkaProducer(
                    bootstrap_servers=list(address.servers), acks="all", max_request_size=LARGEST_RECORD
                )
                producer.send(address.topic, key=key, value=value).get(timeout=30)
                self.poisoned[kind] += 1
                producer.close(timeout=5)
                return
            if producer is not None:
                with suppress(Exception):
                    producer.close(timeout=1)
            if self._stop.wait(1.0):
                return
        raise SourceError(f"poison of the kind {kind!r} could not be produced")
