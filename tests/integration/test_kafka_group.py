"""KafkaSource among other members of its group: joining, being thrown out, staying while busy, losing a race."""

from __future__ import annotations

import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from kafka import KafkaAdminClient, KafkaProducer
from kafka.admin import NewTopic

from oddlog.connectors import kafka as kafka_module
from oddlog.connectors.kafka import KafkaSource
from oddlog.connectors.source import Poll
from oddlog.events.record import Partition, Records
from oddlog.settings import SourceSettings

pytestmark = pytest.mark.kafka

DEADLINE = 60.0
PARTITIONS = 4
PER_PARTITION = 50


class Member:
    """A source with what it holds, as its caller would know it. Used by hand, or, after `run`, by its own thread."""

    def __init__(self, source: KafkaSource) -> None:
        self.source = source
        self.held: set[Partition] = set()
        self.read: list[tuple[int, int]] = []
        self.revoked: set[Partition] = set()
        self._done = threading.Event()
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def run(self) -> None:
        self._thread = threading.Thread(target=self._loop)
        self._thread.start()

    def _loop(self) -> None:
        try:
            while not self._done.is_set():
                self.poll()
        except BaseException as error:
            self._error = error

    def close(self) -> None:
        """Stop its thread and leave; raises what went wrong in the thread."""
        self._done.set()
        if self._thread is not None:
            self._thread.join()
        self.source.close()
        if self._error is not None:
            raise self._error

    def poll(self, *, commit: bool = True, start: bool = True) -> Poll:
        poll = self.source.poll(10, 0.2)
        self.held = self.held - set(poll.revoked)
        self.revoked |= set(poll.revoked)
        for partition in poll.assigned:
            if start:
                self.source.start(partition)
            self.held = self.held | {partition}
        assert set(poll.records.next_offset) <= self.held, "records of a partition that is not held"
        self.read += zip(poll.records.partition, poll.records.offset, strict=True)
        if commit and len(poll.records):
            self.source.commit(poll.records.next_offset)
        return poll


class Group:
    """A topic with records in it, and members of one group."""

    def __init__(self, url: str) -> None:
        self.server = url.removeprefix("kafka://")
        self.topic = f"t-{uuid.uuid4().hex[:12]}"
        self.name = f"g-{uuid.uuid4().hex[:12]}"
        self.admin = KafkaAdminClient(bootstrap_servers=self.server)
        self.admin.create_topics([NewTopic(self.topic, PARTITIONS, 1)])
        self.admin.wait_for_topics([self.topic])
        self.members: list[Member] = []
        self.written = 0
        self.write()

    def write(self) -> None:
        producer = KafkaProducer(bootstrap_servers=self.server)
        for number in range(PER_PARTITION):
            for partition in range(PARTITIONS):
                producer.send(self.topic, b"%d" % number, partition=partition)
        producer.flush(timeout=DEADLINE)
        producer.close()
        self.written += PER_PARTITION

    def join(self, **settings: object) -> Member:
        values = {"url": f"kafka://{self.server}/{self.topic}", "group": self.name, **settings}
        member = Member(KafkaSource(SourceSettings.model_validate(values)))
        self.members.append(member)
        return member

    def committed(self) -> dict[int, int]:
        offsets = self.admin.list_group_offsets({self.name: None})[self.name]
        return {tp.partition: found.offset for tp, found in offsets.items()}

    def all_committed(self) -> bool:
        return self.committed() == dict.fromkeys(range(PARTITIONS), self.written)

    def close(self) -> None:
        for member in self.members:
            member.close()
        self.admin.delete_topics([self.topic])
        self.admin.close()


@pytest.fixture
def group(kafka_url: str) -> Iterator[Group]:
    group = Group(kafka_url)
    yield group
    group.close()


def until(condition: Callable[[], bool], each: Callable[[], object] = lambda: time.sleep(0.05)) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, "the condition was not reached in time"
        each()


def test_nothing_flows_before_start(group: Group) -> None:
    member = group.join()
    until(lambda: len(member.held) == PARTITIONS, lambda: member.poll(start=False))
    for _ in range(5):
        assert not len(member.poll(start=False).records)
    (first, *_) = sorted(member.held)
    member.source.start(first)
    until(lambda: len(member.read) == PER_PARTITION, lambda: member.poll(start=False))
    assert {partition for partition, _ in member.read} == {first.number}


def test_members_share_and_hand_over_without_loss_or_repetition(group: Group) -> None:
    first = group.join()
    first.run()
    until(lambda: len(first.read) >= PER_PARTITION)
    second = group.join()
    second.run()
    until(lambda: len(first.held) == len(second.held) == PARTITIONS // 2)
    group.write()
    until(group.all_committed)
    second.close()
    group.members.remove(second)
    until(lambda: len(first.held) == PARTITIONS)
    group.write()
    until(group.all_committed)
    counts = Counter(first.read) + Counter(second.read)
    assert set(counts) == {(p, o) for p in range(PARTITIONS) for o in range(group.written)}
    # Every batch was committed before the next poll, and partitions change hands inside of polls.
    assert set(counts.values()) == {1}


def test_a_member_that_was_silent_too_long_is_told_and_cannot_turn_back_the_commit(group: Group) -> None:
    slow = group.join(max_poll_interval_ms=1_500)
    until(lambda: len(slow.held) == PARTITIONS, slow.poll)
    batch: list[Poll] = []
    until(lambda: bool(batch) and len(batch[-1].records) > 0, lambda: batch.append(slow.poll(commit=False)))
    other = group.join()
    other.run()
    # `slow` does something slow; the group gives its partitions to the other, who reads and commits them all.
    until(group.all_committed)
    held = slow.held
    slow.source.commit(batch[-1].records.next_offset)
    assert group.all_committed(), "a member that had lost its partitions turned the group's position back"
    slow.run()
    until(lambda: slow.revoked >= held)
    until(lambda: len(slow.held) == len(other.held) == PARTITIONS // 2)
    group.write()
    until(group.all_committed)


def test_a_member_that_died_is_replaced(group: Group) -> None:
    dead = group.join(session_timeout_ms=1_500)
    until(lambda: len(dead.read) > 0, lambda: dead.poll(commit=False))
    # As `kill -9` leaves it: no goodbye, and no heartbeat any more.
    dead.source._consumer._net.stop()
    heir = group.join()
    heir.run()
    until(group.all_committed)
    assert set(heir.read) == {(p, o) for p in range(PARTITIONS) for o in range(group.written)}
    group.members.remove(dead)


def test_a_member_that_only_keeps_alive_lets_the_group_settle(group: Group) -> None:
    busy = group.join()
    until(lambda: len(busy.held) == PARTITIONS, lambda: busy.poll(start=False))
    other = group.join()
    other.run()

    def work() -> None:
        busy.source.keep_alive()
        time.sleep(0.3)  # longer than a join takes: its outcome comes while nobody waits for it

    until(lambda: len(other.held) == PARTITIONS // 2, work)
    until(lambda: len(other.read) == PARTITIONS // 2 * PER_PARTITION, work)


def test_keep_alive_keeps_membership_longer_than_the_poll_interval_and_loses_no_record(group: Group) -> None:
    member = group.join(max_poll_interval_ms=3_000)
    until(lambda: len(member.read) > 0, member.poll)
    read = len(member.read)
    end = time.monotonic() + 8.0
    while time.monotonic() < end:
        member.source.keep_alive()
        time.sleep(0.1)
    assert len(member.read) == read
    polls: list[Poll] = []
    until(group.all_committed, lambda: polls.append(member.poll()))
    assert not any(poll.revoked for poll in polls), "membership was lost"
    assert sorted(member.read) == [(p, o) for p in range(PARTITIONS) for o in range(group.written)]


def test_a_long_replay_keeps_membership(group: Group, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_module, "REPLAY_RECORDS", 6)
    member = group.join(max_poll_interval_ms=3_000)
    until(lambda: len(member.held) == PARTITIONS, lambda: member.poll(start=False))
    replayed = Records()
    for batch in member.source.replay(min(member.held), PER_PARTITION):
        replayed.offset += batch.offset
        time.sleep(1.0)  # the caller's own work: nine batches take three times the poll interval
    assert replayed.offset == list(range(PER_PARTITION))
    polls = [member.poll(start=False) for _ in range(5)]
    assert not any(poll.revoked or poll.assigned for poll in polls), "membership was lost"


def test_a_commit_in_the_middle_of_a_rebalance_is_kept_or_left_to_the_new_owner(group: Group) -> None:
    first = group.join()
    polls: list[Poll] = []
    until(lambda: bool(polls) and len(polls[-1].records) > 0, lambda: polls.append(first.poll(commit=False)))
    second = group.join()
    second.run()
    until(lambda: group.admin.describe_groups([group.name])[group.name]["group_state"] != "Stable")
    first.source.commit(polls[-1].records.next_offset)
    first.run()
    until(lambda: len(first.held) == len(second.held) == PARTITIONS // 2)
    until(group.all_committed)
    everything = {(p, o) for p in range(PARTITIONS) for o in range(group.written)}
    assert set(first.read) | set(second.read) == everything


def test_rewind_reads_again_what_was_not_committed(group: Group) -> None:
    member = group.join()
    until(lambda: len(member.read) == PARTITIONS * PER_PARTITION, lambda: member.poll(commit=False))
    one = min(member.held)
    member.source.commit({one: 20})
    member.read.clear()
    member.source.rewind()
    expected = {(p, o) for p in range(PARTITIONS) for o in range(20 if p == one.number else 0, PER_PARTITION)}
    until(lambda: len(member.read) >= len(expected), lambda: member.poll(commit=False))
    assert sorted(member.read) == sorted(expected)
