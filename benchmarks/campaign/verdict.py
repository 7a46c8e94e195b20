"""The properties that can be judged at the end: every record once, scores and features as undisturbed ones are.

The undisturbed computation is the library itself, run here over the topic's records in order, under each version's
baseline: no consumer, no batch limits of a consumer, no restart.
"""

from __future__ import annotations

import base64
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from kafka import KafkaConsumer, TopicPartition

from benchmarks.campaign.world import PARTITIONS, World
from oddlog.connectors.by_url import open_store
from oddlog.connectors.kafka_connection import kafka_address
from oddlog.connectors.store import EventQuery
from oddlog.events.parse import parse
from oddlog.events.record import Partition, Records
from oddlog.events.schema import FEATURE_PREFIX
from oddlog.features.compute import FeatureComputer
from oddlog.features.declaration import FEATURE_NAMES
from oddlog.scoring.model import Model

FEATURES = [FEATURE_PREFIX + name for name in FEATURE_NAMES]
RTOL, ATOL = 1e-5, 1e-6
BATCH = 5_000

Floats = npt.NDArray[np.float32]


@dataclass(slots=True)
class Verdict:
    """Counts; every one of the first six has to be 0. `examples` has some of each."""

    lost: int = 0
    duplicated: int = 0
    misplaced: int = 0
    """An event that is a dead letter without the store's refusal, or the other way round; dead letters changed."""
    mis_scored: int = 0
    """The score is not that of the version that the document names, or the baseline is not that version's."""
    features_differ: int = 0
    pending: int = 0
    """Left after the backfill."""
    records: int = 0
    documents: int = 0
    dead_letters: int = 0
    dead_by_kind: dict[str, int] = field(default_factory=dict)
    scored_by_version: dict[str, int] = field(default_factory=dict)
    tellable: int = 0
    """Documents whose score by the other version is another one: those on which a mixed-up version would show."""
    pending_before_backfill: int = 0
    examples: dict[str, list[str]] = field(default_factory=dict)

    @property
    def broken(self) -> dict[str, int]:
        """The properties that do not hold."""
        names = ("lost", "duplicated", "misplaced", "mis_scored", "features_differ", "pending")
        return {name: count for name in names if (count := getattr(self, name))}

    def note(self, name: str, ids: list[str]) -> None:
        """Count a breach, with some examples."""
        if ids:
            setattr(self, name, getattr(self, name) + len(ids))
            self.examples.setdefault(name, []).extend(ids[: 5 - len(self.examples.get(name, []))])


@dataclass(slots=True)
class Truth:
    """What the topic holds, and what an undisturbed computation makes of it."""

    events: pl.DataFrame
    """`_id`, `row`."""
    dead: dict[str, tuple[str, bytes]]
    """Kind and original bytes by id."""
    features: dict[str, Floats]
    """By baseline digest, float32 [n, 16], by `row`."""
    originals: dict[str, bytes]
    """Of events, for those that the store may refuse."""


def judge(world: World, pending_before_backfill: int) -> Verdict:
    """Compare what is stored with what was produced."""
    truth = _truth(world)
    verdict = Verdict(pending_before_backfill=pending_before_backfill)
    verdict.records = truth.events.height + len(truth.dead)
    documents, dead = _documents(world), list(_dead_letters(world))
    judge_once(verdict, truth, documents, dead)
    judge_features(verdict, truth, documents)
    judge_scores(verdict, world.models, documents)
    verdict.pending = int((documents["anomaly.status"] != "scored").sum())
    return verdict


def _topic(world: World) -> Iterator[Records]:
    """Every record, partition by partition, in order; read without the connector under test."""
    address, epoch = kafka_address(world.settings.source.url), world.settings.source.epoch
    reader = KafkaConsumer(
        bootstrap_servers=list(address.servers), group_id=None, auto_offset_reset="earliest", enable_auto_commit=False
    )
    try:
        for number in range(PARTITIONS):
            tp = TopicPartition(address.topic, number)
            reader.assign([tp])
            reader.seek_to_beginning(tp)
            end, moved_at = reader.end_offsets([tp])[tp], time.monotonic()
            while reader.position(tp) < end:
                batch = reader.poll(1_000, max_records=BATCH).get(tp, [])
                if batch:
                    moved_at = time.monotonic()
                    yield Records(
                        value=[record.value for record in batch],
                        epoch=[epoch] * len(batch),
                        topic=[tp.topic] * len(batch),
                        partition=[number] * len(batch),
                        offset=[record.offset for record in batch],
                        timestamp_ms=[record.timestamp for record in batch],
                        next_offset={Partition(epoch, tp.topic, number): batch[-1].offset + 1},
                    )
                elif time.monotonic() - moved_at > 60:
                    raise RuntimeError(f"the topic's partition {number} cannot be read to its end")
    finally:
        reader.close(autocommit=False)


def _truth(world: World) -> Truth:
    computers = {model.baseline.digest: FeatureComputer(model.baseline) for model in world.models.values()}
    features: dict[str, list[Floats]] = {digest: [] for digest in computers}
    ids: list[pl.Series] = []
    dead: dict[str, tuple[str, bytes]] = {}
    originals: dict[str, bytes] = {}
    for records in _topic(world):
        parsed = parse(records)
        ids.append(parsed.events["_id"])
        for digest, computer in computers.items():
            features[digest].append(computer.compute(parsed.events))
        dead.update({id: (kind, bytes(original)) for id, kind, original in
                     parsed.dead.select("_id", "kind", "original").iter_rows()})  # fmt: skip
        # Those with a user: one day's index refuses them.
        for id in parsed.events.filter(pl.col("user.name").is_not_null())["_id"]:
            row = records.offset.index(int(id.rpartition("-")[2]))
            originals[id] = records.value[row] or b""
    frame = pl.DataFrame({"_id": pl.concat(ids)}).with_row_index("row")
    return Truth(frame, dead, {digest: np.concatenate(parts) for digest, parts in features.items()}, originals)


def _documents(world: World) -> pl.DataFrame:
    store = open_store(world.settings.store)
    try:
        store.refresh()
        columns = ["_id", "anomaly.status", "anomaly.score", "anomaly.model.version", "anomaly.baseline", "features.*"]
        return pl.concat(list(store.read_events(EventQuery(), columns=columns)), how="diagonal")
    finally:
        store.close()


def _dead_letters(world: World) -> Iterator[tuple[str, str, bytes]]:
    """Id, kind and bytes; a few at a time, for one of them may have many megabytes."""
    after: list[Any] | None = None
    while True:
        body: dict[str, Any] = {
            "size": 5,
            "sort": [{"oddlog.position.partition": "asc"}, {"oddlog.position.offset": "asc"}],
            "_source": ["kind", "original"],
        } | ({"search_after": after} if after else {})
        hits = world.elastic("POST", f"/{world.settings.store.prefix}-dead/_search", body)["hits"]["hits"]
        if not hits:
            return
        for hit in hits:
            yield hit["_id"], hit["_source"]["kind"], base64.b64decode(hit["_source"].get("original") or "")
        after = hits[-1]["sort"]


def judge_once(verdict: Verdict, truth: Truth, documents: pl.DataFrame, dead: list[tuple[str, str, bytes]]) -> None:
    """Property 1."""
    found = Counter(documents["_id"].to_list()) + Counter(id for id, _, _ in dead)
    expected = {*truth.events["_id"].to_list(), *truth.dead}
    verdict.documents, verdict.dead_letters = documents.height, len(dead)
    verdict.dead_by_kind = dict(sorted(Counter(kind for _, kind, _ in dead).items()))
    verdict.note("lost", sorted(expected - found.keys()))
    verdict.note("duplicated", sorted(id for id, count in found.items() if count > 1 or id not in expected))
    wrong = [
        id
        for id, kind, original in dead
        if (truth.dead[id] != (kind, original) if id in truth.dead
            else kind != "refused" or truth.originals.get(id) != original)
    ]  # fmt: skip
    verdict.note("misplaced", sorted({*wrong, *(set(documents["_id"].to_list()) & truth.dead.keys())}))


def judge_features(verdict: Verdict, truth: Truth, documents: pl.DataFrame) -> None:
    """Property 4."""
    placed = documents.join(truth.events, on="_id", how="inner")
    for (digest,), part in placed.group_by("anomaly.baseline"):
        if digest is None:
            continue  # pending, without a lane: it has no features, and counts as pending
        if digest not in truth.features:
            verdict.note("features_differ", part["_id"].to_list())
            continue
        expected = truth.features[str(digest)][part["row"].to_numpy()]
        same = np.isclose(part.select(FEATURES).to_numpy(), expected, rtol=RTOL, atol=ATOL).all(axis=1)
        verdict.note("features_differ", part.filter(~pl.Series(same))["_id"].to_list())


def judge_scores(verdict: Verdict, models: Mapping[str, Model], documents: pl.DataFrame) -> None:
    """Property 3."""
    scored = documents.filter(pl.col("anomaly.status") == "scored")
    for (version,), part in scored.group_by("anomaly.model.version"):
        verdict.scored_by_version[str(version)] = part.height
        if version not in models:
            verdict.note("mis_scored", part["_id"].to_list())
            continue
        model = models[str(version)]
        matrix = part.select(FEATURES).to_numpy().astype(np.float32)
        stored = part["anomaly.score"].to_numpy()
        right = np.isclose(stored, model.score(matrix), rtol=RTOL, atol=ATOL)
        right &= (part["anomaly.baseline"] == model.card.baseline_digest).fill_null(False).to_numpy()
        verdict.note("mis_scored", part.filter(~pl.Series(right))["_id"].to_list())
        for other in models.values():
            if other is not model:
                verdict.tellable += int((~np.isclose(stored, other.score(matrix), rtol=RTOL, atol=ATOL)).sum())
    verdict.scored_by_version = dict(sorted(verdict.scored_by_version.items()))
