"""One side, once: started, watched from outside until every document is there, checked, and cleared away.

The watch is the same for all sides: what Elasticsearch says it has indexed, asked ten times a second. A rate is taken
from the first documents on, so that neither start-up nor the filling of the way counts.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from benchmarks.machine import cpu_seconds
from benchmarks.place import Place, running, still_running
from benchmarks.throughput.sides import Side

LOOK_SECONDS = 0.1
STALLED_SECONDS = 180.0
SAMPLE = 40
"""Documents of each partition that are held against the product's."""


@dataclass(slots=True)
class Round:
    """What one run of one side gave."""

    side: str
    model: str
    records: int
    seconds: float
    rate: float
    """Events a second."""
    cpu: dict[str, float] = field(default_factory=dict)
    """Processor microseconds an event took, by process."""
    problems: list[str] = field(default_factory=list)


class Rounds:
    """Runs sides over the records of a topic each; remembers the product's documents to hold others against."""

    def __init__(self, place: Place, topics: dict[int, str]) -> None:
        self._place = place
        self._topics = topics
        """By number of records."""
        self._number = 0
        self._known: dict[str, dict[str, Any]] = {}

    def run(self, side: Side, model: str) -> Round:
        """Measure one side. Raises SystemExit where its process ends, or gets no further."""
        place = self._place
        self._number += 1
        prefix = f"{place.name}_{self._number}_{side.name}"
        topic = self._topics[side.records]
        state = place.folder / prefix
        state.mkdir()
        (state / "tables.json").symlink_to(place.folder / f"tables-{model}.json")
        log = place.folder / f"{prefix}.log"
        place.make_indices(prefix)
        command = side.command(place, topic, prefix, state)
        with running(place, command, place.consumer_variables(topic, prefix), log) as process:
            seconds, counted, cpu = self._watch(side, process, log, prefix)
        found = Round(side.name, model, side.records, seconds, counted / seconds if seconds else 0.0, cpu)
        found.problems = self._check(side, prefix, topic)
        place.remove_indices(prefix)
        return found

    def _watch(self, side: Side, process: Any, log: Any, prefix: str) -> tuple[float, int, dict[str, float]]:
        """Seconds from the first documents seen to the last, how many came in between, and CPU by process."""
        first: tuple[float, int, dict[str, float]] | None = None
        seen, moved_at = 0, time.monotonic()
        while True:
            now, count = time.monotonic(), self._place.indexed(prefix)
            if count > seen:
                seen, moved_at = count, now
                if first is None:
                    first = now, count, self._cpu(process)
            if first is not None and count >= side.records:
                counted = count - first[1]
                cpu = {
                    name: 1e6 * (spent - first[2][name]) / max(1, counted) for name, spent in self._cpu(process).items()
                }
                return now - first[0], counted, cpu
            still_running(process, log)
            if now - moved_at > STALLED_SECONDS:
                raise SystemExit(
                    f"{side.name} stays at {seen:,} of {side.records:,} documents: {log.read_text()[-800:]}"
                )
            time.sleep(LOOK_SECONDS)

    def _cpu(self, process: Any) -> dict[str, float]:
        return {"consumer": cpu_seconds(process.pid), **self._place.cpu()}

    def _check(self, side: Side, prefix: str, topic: str) -> list[str]:
        """What is wrong with a side's documents: their number, and a sample against the product's."""
        problems = []
        count = self._place.count(prefix)
        if count != side.records:
            problems.append(f"{count:,} documents of {side.records:,}")
        if side.shape == "whole":
            scored_alone = {"query": {"term": {"anomaly.status": "scored"}}}
            scored = self._place.ask("POST", f"/{prefix}-events-*/_count", scored_alone)["count"]
            if scored != count:
                problems.append(f"{scored:,} of {count:,} are scored")
        wanted = [f"e1-{topic}-{partition}-{offset}" for partition in range(64) for offset in range(SAMPLE)]
        body = {"size": 10_000, "query": {"ids": {"values": wanted}}}
        hits = self._place.ask("POST", f"/{prefix}-events-*/_search", body)["hits"]["hits"]
        documents = {hit["_id"].removeprefix(f"e1-{topic}-"): flat(hit["_source"]) for hit in hits}
        if side.name == "product":
            self._known = documents
        common = documents.keys() & self._known.keys()
        if self._known and not common:  # it is empty where the product is not among the sides
            problems.append("no documents to hold against the product's")
        for id in sorted(common):
            if differ := differences(self._known[id], documents[id], side):
                problems.append(f"document {id}: {differ}")
                break
        return problems


def flat(document: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted names to values; nulls are left out, as Elasticsearch does.

    >>> flat({"url": {"path": "/", "query": None}, "a": 1})
    {'url.path': '/', 'a': 1}
    """
    found: dict[str, Any] = {}
    for name, value in document.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{name}.")
        elif value is not None:
            found[prefix + name] = value
    return found


def differences(known: dict[str, Any], other: dict[str, Any], side: Side) -> str:
    """What tells a document from the product's document of the same record; "" where nothing may.

    Features and verdicts have values to compare only where both sides compute them; some stand on anomalies alone.
    """
    if side.shape == "event":
        of_event = ("source.address", "url.original", "event.original")
        return ", ".join(name for name in of_event if name in known and known[name] != other.get(name))
    on_anomalies = {"reasons", "channel", "novelty.score", "novelty.severity", "novelty.threshold"}
    said = {"oddlog.position.topic", *(f"anomaly.{name}" for name in on_anomalies)}
    names = sorted((known.keys() ^ other.keys()) - said)
    if names:
        return f"only one side has {', '.join(names)}"
    own = [name for name in known if not name.startswith(("anomaly.", "features.")) and name not in said]
    wrong = [name for name in own if known[name] != other[name]]
    if side.features:
        wrong += [name for name in known if name.startswith("features.") and abs(known[name] - other[name]) > 1e-4]
    return ", ".join(f"{name}: {known[name]!r} and {other[name]!r}" for name in wrong[:5])
