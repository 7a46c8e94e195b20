"""Source of records from a Kafka topic, as a member of a consumer group. Producing is in `kafka_producer.py`, what
the group changes in `kafka_assignment.py`, whether the topic is there and the same in `kafka_topic.py`.

Delivery: at least once. Nothing is committed but by `commit`; a record is read again after a restart, a lost
membership or a `rewind` unless it was committed. Nothing is skipped in silence: a committed position that the
topic does not hold any more ends in SourceEpochError. One thread at a time may use a source.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from kafka import KafkaConsumer, OffsetAndMetadata, TopicPartition, errors
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor

from oddlog.connectors.kafka_assignment import AssignmentChanges, RebalanceListener
from oddlog.connectors.kafka_connection import connecting, connection, failing, kafka_address
from oddlog.connectors.kafka_position import resume_point
from oddlog.connectors.kafka_topic import ConsumedTopic
from oddlog.connectors.source import Poll
from oddlog.errors import SourceError
from oddlog.events.record import Partition, Records

if TYPE_CHECKING:
    from oddlog.settings import SourceSettings

log = logging.getLogger(__name__)

T = TypeVar("T")

SLICE_SECONDS = 0.1
"""How long one call of the client may wait, so that a new assignment is reported soon."""
COMMIT_SECONDS = 30.0
"""How long a commit is tried again while the group rebalances."""
ASK_SECONDS = 60.0
"""How long a question about positions is asked again while brokers are away: they may be restarting."""
STALLED_SECONDS = 60.0
"""A replay that gets no further for so long gives up."""
REPLAY_RECORDS = 8_192
CALL_MS = 5_000
"""Longest wait of a single call for the group's coordinator."""


class KafkaSource:
    """The port Source over one topic."""

    def __init__(self, settings: SourceSettings) -> None:
        """Connect and subscribe. Raises UsageError for a wrong URL, SourceError where brokers or topic are missing."""
        self._address = kafka_address(settings.url)
        self._epoch = settings.epoch
        self._client = connection(settings, self._address) | {
            "enable_auto_commit": False,
            # Neither latest nor earliest: a position that the topic does not hold must be an error. Where there
            # is no committed position, `start` seeks to the earliest record itself.
            "auto_offset_reset": "none",
            "isolation_level": "read_committed",
            "allow_auto_create_topics": False,
            # How long a topic made anew may go unnoticed while nothing else makes the client ask.
            "metadata_max_age_ms": 10_000,
            # Some thousand records a partition and fetch; a single larger record is fetched all the same.
            "max_partition_fetch_bytes": 4 * 1024 * 1024,
            "fetch_max_bytes": 32 * 1024 * 1024,
        }
        with connecting(settings, self._address):
            self._consumer = KafkaConsumer(
                group_id=settings.group,
                partition_assignment_strategy=[CooperativeStickyAssignor],
                max_poll_interval_ms=settings.max_poll_interval_ms,
                session_timeout_ms=settings.session_timeout_ms,
                heartbeat_interval_ms=settings.session_timeout_ms // 3,
                **self._client,
            )
        self._changes = AssignmentChanges()
        self._flowing: set[TopicPartition] = set()
        self._began: dict[TopicPartition, int] = {}
        self._alive_at = time.monotonic()
        try:
            self._topic = ConsumedTopic(self._consumer, self._address, self._epoch)
            with failing(self._address, "subscribing to"):
                self._consumer.subscribe(
                    [self._address.topic], listener=RebalanceListener(self._consumer, self._changes)
                )
        except BaseException:
            self._consumer.close(autocommit=False)
            raise

    def poll(self, max_records: int, timeout: float) -> Poll:
        """Up to `max_records` records; waits at most `timeout` seconds for the first of them.

        While the group rebalances it may take 5 seconds more. Raises SourceError and SourceEpochError."""
        deadline = time.monotonic() + timeout
        self._consumer.resume(*(self._flowing & self._consumer.assignment()))
        while True:
            left = deadline - time.monotonic()
            batches = self._step(max_records, min(max(left, 0.0), SLICE_SECONDS))
            revoked, assigned = self._changes.take(self._consumer.assignment())
            self._flowing.difference_update(revoked)
            for tp in revoked:
                self._began.pop(tp, None)
            if batches or revoked or assigned or left <= 0:
                break
            self._topic.watch()
        return Poll(
            records=self._records({tp: batch for tp, batch in batches.items() if tp in self._flowing}),
            assigned=[self._partition(tp) for tp in sorted(assigned)],
            revoked=[self._partition(tp) for tp in sorted(revoked)],
        )

    def start(self, partition: Partition) -> None:
        """Let a newly assigned partition flow, from its committed position, or the earliest record without one.

        A partition that was revoked in the meantime is left alone: the next poll tells. Raises SourceError, and
        SourceEpochError where the position does not fit the topic."""
        tp = self._tp(partition)
        if not self._owned(tp):
            return
        self._seek_to_committed(tp)
        self._flowing.add(tp)
        self._consumer.resume(tp)

    def commit(self, next_offsets: Mapping[Partition, int]) -> None:
        """Remember that everything before these offsets is stored.

        Partitions that are not ours any more are left out: their new owner reads those records again. Raises
        SourceError when the group does not take the commit within 30 seconds, SourceEpochError when the topic
        was deleted and made anew meanwhile."""
        self._topic.check()
        offsets = {self._tp(partition): offset for partition, offset in next_offsets.items()}
        deadline = time.monotonic() + COMMIT_SECONDS
        while offsets := {tp: offset for tp, offset in offsets.items() if self._owned(tp)}:
            marked = {tp: OffsetAndMetadata(offset, str(self._topic.stamp), -1) for tp, offset in offsets.items()}
            with failing(self._address, "committing to"):
                try:
                    self._consumer.commit(marked, timeout_ms=CALL_MS)
                    return
                except _REBALANCING as error:
                    # The group is being rearranged, or its coordinator is away: take part in it, then commit what
                    # is still ours.
                    if time.monotonic() > deadline:
                        raise
                    log.info("the group does not take the commit yet, it is tried again: %s", type(error).__name__)
            self.keep_alive()
            time.sleep(SLICE_SECONDS)

    def committed(self, partition: Partition) -> int | None:
        """The committed offset, or None before the first commit (of this epoch).

        Raises SourceEpochError where it does not fit what the topic holds now."""
        self._topic.check()
        tp = self._tp(partition)
        return self._asked(
            "asking for the committed position in",
            lambda: resume_point(self._consumer, tp, self._topic.stamp, self._address),
        )

    def replay(
        self, partition: Partition, until_offset: int, since_ms: int | None = None, *, from_offset: int = 0
    ) -> Iterator[Records]:
        """Records before `until_offset` in order, from the earliest kept at or after `from_offset` (and, by the
        broker's timestamp, `since_ms`); touches neither position nor assignment.

        Keeps the membership alive from batch to batch, however long it takes. Raises SourceError."""
        tp = self._tp(partition)
        with failing(self._address, "replaying"):
            reader = KafkaConsumer(group_id=None, **self._client)
            try:
                reader.assign([tp])
                first, end = reader.beginning_offsets([tp])[tp], reader.end_offsets([tp])[tp]
                first = max(first, from_offset)
                until = min(until_offset, end)
                if since_ms is not None:
                    found = reader.offsets_for_times({tp: max(since_ms, 0)})[tp]
                    first = until if found is None else max(first, found.offset)
                if first < until:
                    reader.seek(tp, first)
                    yield from self._read(reader, tp, until)
            finally:
                reader.close(autocommit=False)

    def _read(self, reader: Any, tp: TopicPartition, until: int) -> Iterator[Records]:
        # The end is known by position, not by the last record: offsets have gaps where a topic is compacted or
        # written in transactions, and the record before `until` may not exist.
        position, moved_at = reader.position(tp), time.monotonic()
        while position < until:
            try:
                batch = reader.poll(timeout_ms=500, max_records=REPLAY_RECORDS).get(tp, [])
            except errors.OffsetOutOfRangeError:  # retention overtook us; what it left is all there is
                reader.seek(tp, reader.beginning_offsets([tp])[tp])
                batch = []
            if kept := [record for record in batch if record.offset < until]:
                yield self._records({tp: kept})
            before, position = position, reader.position(tp)
            if position != before:
                moved_at = time.monotonic()
            elif time.monotonic() - moved_at > STALLED_SECONDS:
                raise SourceError(
                    f"replaying {self._address.url}, partition {tp.partition}: nothing comes after offset {position}",
                    expected=f"records up to offset {until}",
                )
            if time.monotonic() - self._alive_at > 1.0:
                self.keep_alive()

    def keep_alive(self) -> None:
        """Keep membership while the caller is busy with something slow; fetches nothing."""
        self._consumer.pause(*self._consumer.assignment())
        self._step(1, 0.01)

    def rewind(self) -> None:
        """Throw away what was read and not committed: the next poll starts at the committed positions."""
        for tp in self._flowing:
            if self._owned(tp):
                self._seek_to_committed(tp)

    def lag(self) -> dict[Partition, int]:
        """Records not yet read, by assigned partition; asked of the brokers now. Raises SourceError."""
        mine = [tp for tp in self._consumer.assignment() if self._owned(tp)]
        if not mine:
            return {}
        with failing(self._address, "asking for the end of"):
            ends = self._consumer.end_offsets(mine)
            positions = {tp: self._consumer.position(tp, timeout_ms=CALL_MS) for tp in mine}
        return {self._partition(tp): max(0, ends[tp] - (positions[tp] or 0)) for tp in mine}

    def close(self) -> None:
        """Leave; commits nothing."""
        with failing(self._address, "leaving"):
            self._consumer.close(autocommit=False, timeout_ms=5_000)

    # positions

    def _step(self, max_records: int, seconds: float) -> dict[TopicPartition, list[Any]]:
        """One round of the client: heartbeat, rebalance, fetch. Nothing while the brokers are away."""
        self._alive_at = time.monotonic()
        with failing(self._address, "reading"):
            try:
                self._take_part_in_rebalance()
                fetched: dict[TopicPartition, list[Any]] = self._consumer.poll(
                    timeout_ms=int(seconds * 1000), max_records=max_records
                )
                return self._of_this_topic(fetched)
            except errors.NoOffsetForPartitionError as error:
                # Just assigned and never committed. The client wants some position; `start` sets the right one.
                missing = [tp for tp in error.args[0] if tp in self._consumer.assignment()]
                begin = self._asked("asking for the beginning of", lambda: self._consumer.beginning_offsets(missing))
                for tp, offset in begin.items():
                    self._consumer.seek(tp, offset)
            except (errors.OffsetOutOfRangeError, errors.LogTruncationError):
                # Read on to nowhere: retention or deletion has passed us while we ran.
                self._topic.check()
                for tp in self._flowing & self._consumer.assignment():
                    resume_point(self._consumer, tp, self._topic.stamp, self._address)
                raise
            except (errors.KafkaConnectionError, errors.KafkaTimeoutError, errors.NodeNotReadyError) as error:
                # Fetching waits for brokers by itself; looking for the group's coordinator is refused at once.
                log.debug("reading %s: tried again: %s", self._address.url, error)
                time.sleep(min(seconds, SLICE_SECONDS))
        return {}

    def _of_this_topic(self, fetched: dict[TopicPartition, list[Any]]) -> dict[TopicPartition, list[Any]]:
        """What was fetched, or nothing as long as no broker says whose it is: it is fetched again then."""
        if fetched:
            try:
                self._topic.check_fetched()
            except errors.KafkaError as error:
                if not error.retriable:
                    raise
                for tp, batch in fetched.items():
                    self._consumer.seek(tp, batch[0].offset)
                return {}
        return fetched

    def _take_part_in_rebalance(self) -> None:
        """Wait for a rebalance to come to its end, where one is on.

        kafka-python 3.0.12 throws away the outcome of a join that ends between two calls of poll, and joins
        anew, which begins a rebalance for everybody: with short polls and work between them a group may never
        settle. It fetches nothing meanwhile, so waiting inside loses nothing.
        """
        coordinator = self._consumer._coordinator
        if coordinator.rebalance_in_progress():
            # A second join that overlaps the end of a first can leave the client between joined and synced, with
            # nothing asked of it any more: it would refuse every commit from then on.
            coordinator.request_rejoin()
        if coordinator.need_rejoin():
            coordinator.poll(timeout_ms=CALL_MS)

    def _seek_to_committed(self, tp: TopicPartition) -> None:
        offset = self.committed(self._partition(tp))
        if offset is None:
            # Where we began without a commit is remembered: a rewind must not skip what retention took since.
            earliest = self._asked("asking for the beginning of", lambda: self._consumer.beginning_offsets([tp])[tp])
            offset = self._began.setdefault(tp, earliest)
        self._consumer.seek(tp, offset)

    def _asked(self, doing: str, ask: Callable[[], T]) -> T:
        """An answer of the brokers; asked again, for a while, where they are away. Raises SourceError."""
        deadline, told = time.monotonic() + ASK_SECONDS, False
        with failing(self._address, doing):
            while True:
                try:
                    return ask()
                except errors.KafkaError as error:
                    # One that restarts refuses connections at once: waiting is not the client's own then.
                    if not error.retriable or time.monotonic() > deadline:
                        raise
                    if not told:
                        log.warning("%s %s: tried again: %s", doing, self._address.url, type(error).__name__)
                        told = True
                time.sleep(SLICE_SECONDS)

    def _owned(self, tp: TopicPartition) -> bool:
        """Whether the caller holds it: assigned, reported, and not revoked since."""
        return tp in self._consumer.assignment() and self._changes.holds(tp)

    # records

    def _records(self, batches: Mapping[TopicPartition, list[Any]]) -> Records:
        records = Records()
        for tp, batch in batches.items():
            if not batch:
                continue
            records.value += [record.value for record in batch]
            records.offset += [record.offset for record in batch]
            records.timestamp_ms += [record.timestamp for record in batch]
            records.epoch += [self._epoch] * len(batch)
            records.topic += [tp.topic] * len(batch)
            records.partition += [tp.partition] * len(batch)
            records.next_offset[self._partition(tp)] = batch[-1].offset + 1
        return records

    def _partition(self, tp: TopicPartition) -> Partition:
        return Partition(self._epoch, tp.topic, tp.partition)

    @staticmethod
    def _tp(partition: Partition) -> TopicPartition:
        return TopicPartition(partition.topic, partition.number)


_REBALANCING = (
    errors.CommitFailedError,
    errors.RebalanceInProgressError,
    errors.IllegalGenerationError,
    errors.UnknownMemberIdError,
    errors.KafkaTimeoutError,
)
