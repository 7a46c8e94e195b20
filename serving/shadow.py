"""The challenger beside the champion: a lane of its own for a sample of clients, scored after the main write.

The consumer's thread computes the challenger's features (in order, batch by batch, as client state asks for) and warms
its lane a little each round. A thread of its own asks who is challenger, scores, and adds `anomaly.shadow.*` to
documents that are committed. Nothing here delays or fails the main path: a number of events may wait, more are dropped
and counted, and so is what the scorer or the store does not take.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from oddlog.connectors.source import Source
from oddlog.connectors.store import Store
from oddlog.errors import OddlogError
from oddlog.events.parse import parse
from oddlog.events.privacy import Parser
from oddlog.events.record import Partition
from oddlog.events.schema import BESIDE_SCHEMA
from oddlog.features.baseline import Baseline
from oddlog.scoring.scorer import Scorer
from oddlog.settings import EnrichSettings
from serving.consumer_metrics import ConsumerObserver
from serving.lane import Lane
from serving.snapshots import Snapshot

log = logging.getLogger(__name__)

LOOK_SECONDS = 5.0
"""How often the scorer is asked for the challenger; and how soon after a failure a lane is warmed again."""

WARM_SECONDS = 0.05
"""How long one round of the consumer may spend on warming the lane; a part of a replay once begun is ended."""

CLOSE_SECONDS = 5.0
"""How long what is under way is waited for at the end."""

PASS_EVENTS = 5_000
"""Most events that are scored and updated in one request: a few large ones cost Elasticsearch less than many small."""

ABSENT_LOOKS = 2
"""A challenger is gone when so many looks in a row name none: one that is promoted keeps its lane until the champion
that it is has been noticed, too."""


@dataclass(frozen=True, slots=True)
class ShadowRows:
    """Events of one batch that the challenger is to score, once they are committed."""

    version: str
    keys: pl.DataFrame
    """`_id`, `@timestamp`."""
    features: npt.NDArray[np.float32]
    """[n, d], the columns of Lane.names, under the challenger's baseline."""


class Shadow:
    """The challenger's lane of one consumer. Every method is for the consumer's thread, but `look` and what scores."""

    def __init__(
        self,
        settings: EnrichSettings,
        source: Source,
        store: Store,
        scorer: Scorer,
        observe: ConsumerObserver,
        *,
        parser: Parser = parse,
    ) -> None:
        self.scored = 0
        self.dropped = 0
        self._share = settings.shadow_share
        self._max_clients = settings.max_clients
        self._source = source
        self._store = store
        self._scorer = scorer
        self._observe = observe
        self._parse = parser
        self._lane: Lane | None = None
        self._warm: set[Partition] = set()
        self._warming: dict[Partition, _Warming] = {}
        self._whole = False
        """Whether every partition that is ours is warm, so that no event has to be left out."""
        self._again_at = float("-inf")
        self._failed: str | None = None
        self._changed = threading.Condition()
        self._found: _Challenger | None = None
        self._after = settings.shadow_after_seconds
        self._most = settings.shadow_waiting
        self._waiting: deque[tuple[float, ShadowRows]] = deque()
        """With the moment from which each is due."""
        self._busy: ShadowRows | None = None
        self._ending = False
        self._absent = 0
        self._troubles: set[str] = set()
        self._thread = threading.Thread(target=self._run, name="shadow", daemon=True)

    def start(self) -> None:
        """Begin to look for a challenger; nothing where `enrich.shadow_share` is 0."""
        if self._share > 0:
            self._thread.start()

    @property
    def version(self) -> str | None:
        """The challenger whose lane is warm in every partition that it was given; None while there is none."""
        return self._lane.version if self._lane is not None and self._whole and self._warm else None

    # The lane.

    def follow(self, champion: str | None, stands: Mapping[Partition, int]) -> None:
        """Have the lane of the challenger of now, and warm it a little more. Raises nothing.

        `stands`: the offset that memory stands at, by partition that is ours."""
        found = self._found
        wanted = None if found is None or champion in {None, found.version} else found
        if wanted is None or wanted.version == self._failed:
            self._let_go()
            return
        if self._lane is None or self._lane.version != wanted.version:
            self._let_go()
            self._lane = Lane(
                wanted.version, wanted.baseline, share=self._share, max_clients=self._max_clients, parser=self._parse
            )
        try:
            self._warm_up(self._lane, stands)
        except OddlogError as error:
            self._trouble("warm", f"the lane of challenger {wanted.version} is tried again: {error.found}")
            self._warming.clear()
            self._again_at = time.monotonic() + LOOK_SECONDS
        except Exception:
            self._give_up(wanted.version)
        self._whole = self._warm.issuperset(stands)

    def compute(self, events: pl.DataFrame) -> ShadowRows | None:
        """The sampled ones of a batch's events, with their features; None where there are none. Raises nothing."""
        lane = self._lane
        if lane is None or not self._warm:
            return None
        try:
            with self._observe.stage("shadow"):
                if not self._whole:
                    events = events.filter(_within(self._warm))
                events = lane.sampled(events)
                if not events.height:
                    return None
                return ShadowRows(lane.version, events.select("_id", "@timestamp"), lane.compute(events))
        except Exception:
            self._give_up(lane.version)
            return None

    def forget(self, partition: Partition) -> None:
        """A partition is not ours any more, or memory does not stand where it stood: it is warmed anew if it is."""
        self._warm.discard(partition)
        self._warming.pop(partition, None)
        if self._lane is not None:
            self._lane.drop(partition)

    def snapshots(self, stands: Mapping[Partition, int]) -> list[Snapshot]:
        """The client state of every partition that is warm, at the offset where memory stands."""
        if self._lane is None:
            return []
        return [self._lane.snapshot(partition, stands[partition]) for partition in self._warm if stands.get(partition)]

    def take(self, version: str, stands: Mapping[Partition, int]) -> Lane | None:
        """The lane of `version`, which is champion now, if it knows every client and is warm in every partition."""
        lane = self._lane
        if lane is None or lane.version != version or lane.share < 1.0 or not self._warm.issuperset(stands):
            return None
        self._let_go()
        return lane

    def offer(self, rows: ShadowRows) -> None:
        """Have committed events scored. Where others wait, and they would be too many together, these are dropped."""
        with self._changed:
            waiting = sum(one.keys.height for _, one in self._waiting)
            if self._ending or (waiting and waiting + rows.keys.height > self._most):
                self._drop(rows)
                return
            self._waiting.append((time.monotonic() + self._after, rows))
            self._changed.notify()

    def close(self) -> None:
        """End, after what is under way and what waits; what takes longer than CLOSE_SECONDS is dropped."""
        with self._changed:
            self._ending = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(CLOSE_SECONDS)
        with self._changed:
            for rows in [*filter(None, [self._busy]), *(one for _, one in self._waiting)]:
                self._drop(rows)
            self._waiting.clear()
            self._busy = None
        self._let_go()

    def _warm_up(self, lane: Lane, stands: Mapping[Partition, int]) -> None:
        deadline = time.monotonic() + WARM_SECONDS
        if time.monotonic() < self._again_at:
            return
        for partition, offset in stands.items():
            if partition not in self._warm and partition not in self._warming:
                parts = lane.restoring(self._source, self._store, partition, offset)
                self._warming[partition] = _Warming(parts, offset)
        if not self._warming:
            return
        for partition, warming in list(self._warming.items()):
            while time.monotonic() < deadline:
                with self._observe.stage("shadow"):
                    if next(warming.parts, None) is not None:
                        continue
                if warming.until < stands[partition]:
                    # The main lane has moved on meanwhile: after it, from where this one stands now.
                    parts = lane.replaying(self._source, partition, warming.until, stands[partition])
                    warming.parts, warming.until = parts, stands[partition]
                    continue
                del self._warming[partition]
                self._warm.add(partition)
                break
        if not self._warming:
            self._troubles.discard("warm")
            log.info("the lane of challenger %s is warm, for %.0f %% of the clients", lane.version, 100 * lane.share)
            self._observe.shadow_lane(lane.version, lane.baseline.digest)

    def _let_go(self) -> None:
        if self._lane is None:
            return
        log.info("the lane of challenger %s ends", self._lane.version)
        self._observe.shadow_lane(None)
        self._lane, self._whole = None, False
        self._warm.clear()
        self._warming.clear()

    def _give_up(self, version: str) -> None:
        log.exception("the lane of challenger %s fails; it is not shadowed by this consumer any more", version)
        self._failed = version
        self._let_go()

    # The thread.

    def _run(self) -> None:
        look_at = 0.0
        while True:
            if time.monotonic() >= look_at:
                self.look()
                look_at = time.monotonic() + LOOK_SECONDS
            with self._changed:
                until = min(look_at, self._waiting[0][0]) if self._waiting else look_at
                self._changed.wait_for(lambda: self._is_due() or self._ending, max(0.0, until - time.monotonic()))
                rows = self._busy = self._take()
                if rows is None and self._ending:
                    return
            if rows is None:
                continue
            done = self._score(rows)
            with self._changed:
                if self._busy is None:  # given up by `close`
                    return
                self._busy = None
                self.scored += done
                self.dropped += rows.keys.height - done
            self._observe.shadow(scored=done, dropped=rows.keys.height - done)

    def _is_due(self) -> bool:
        return bool(self._waiting) and (self._ending or self._waiting[0][0] <= time.monotonic())

    def _take(self) -> ShadowRows | None:
        """The oldest events that are due, as one batch of one challenger; None where there are none."""
        taken: list[ShadowRows] = []
        rows = 0
        while self._is_due():
            following = self._waiting[0][1]
            rows += following.keys.height
            if taken and (following.version != taken[0].version or rows > PASS_EVENTS):
                break
            taken.append(self._waiting.popleft()[1])
        if len(taken) < 2:
            return taken[0] if taken else None
        keys = pl.concat([one.keys for one in taken])
        return ShadowRows(taken[0].version, keys, np.concatenate([one.features for one in taken]))

    def look(self) -> None:
        """Ask who is challenger, and for the baseline of a new one. Raises nothing."""
        try:
            version = self._scorer.challenger()
            if version is None:
                self._absent += 1
                if self._absent >= ABSENT_LOOKS:
                    self._found = None
            else:
                self._absent = 0
                if self._found is None or self._found.version != version:
                    self._found = _Challenger(version, self._scorer.baseline(version))
            self._troubles.discard("look")
        except Exception as error:
            self._trouble("look", f"who is challenger is not known: {_found(error)}")

    def _score(self, rows: ShadowRows) -> int:
        """How many documents were given the challenger's score."""
        try:
            with self._observe.stage("shadow"):
                scores = self._scorer.score(rows.features, Lane.names, version=rows.version)
                given = rows.keys.with_columns(
                    pl.lit(scores.model_version, dtype=BESIDE_SCHEMA["anomaly.shadow.version"]).alias(
                        "anomaly.shadow.version"
                    ),
                    pl.Series("anomaly.shadow.score", scores.score, dtype=BESIDE_SCHEMA["anomaly.shadow.score"]),
                )
                versions = self._store.current_versions(rows.keys).select("_id", "_version")
                updated = self._store.update_events(given.join(versions, on="_id", how="inner"))
            self._troubles.discard("score")
            return updated
        except Exception as error:
            self._trouble("score", f"challenger {rows.version} does not score, events are dropped: {_found(error)}")
        return 0

    def _drop(self, rows: ShadowRows) -> None:
        self.dropped += rows.keys.height
        self._observe.shadow(scored=0, dropped=rows.keys.height)

    def _trouble(self, kind: str, what: str) -> None:
        """Log the first of a row of failures; the rest are counted."""
        if kind not in self._troubles and not self._ending:
            log.warning("shadow: %s", what)
        self._troubles.add(kind)


@dataclass(frozen=True, slots=True)
class _Challenger:
    version: str
    baseline: Baseline


@dataclass(slots=True)
class _Warming:
    """A replay under way, and the offset that it goes to."""

    parts: Iterator[int]
    until: int


def _found(error: Exception) -> str:
    return error.found if isinstance(error, OddlogError) else f"{type(error).__name__}: {error}"


def _within(partitions: set[Partition]) -> pl.Expr:
    """Whether an event is of one of these partitions."""
    epoch, topic, number = (pl.col(f"oddlog.position.{name}") for name in ("epoch", "topic", "partition"))
    return pl.any_horizontal(
        [(epoch == one.epoch) & (topic == one.topic) & (number == one.number) for one in partitions]
    )
