"""KafkaSource among other members of its group: joining, being thrown out, staying while busy, losing a race."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from kafka import errors

from oddlog.connectors import kafka as kafka_module
from oddlog.connectors.kafka import KafkaSource
from oddlog.connectors.source import Poll
from oddlog.events.record import Partition, Records
from tests.kafka_topic import Topic
from tests.waiting import at_once, rest, until

pytestmark = pytest.mark.kafka

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


class Group(Topic):
    """A topic with records in it, and members of one group."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.members: list[Member] = []
        self.written = 0
        self.make(PARTITIONS)
        self.fill()

    def fill(self) -> None:
        """As many records more in every partition."""
        for partition in range(PARTITIONS):
            self.write(*(b"%d" % number for number in range(PER_PARTITION)), partition=partition)
        self.written += PER_PARTITION

    def join(self, **settings: object) -> Member:
        self.members.append(Member(KafkaSource(self.settings(**settings))))
        return self.members[-1]

    def state(self) -> str:
        """What the broker calls it: Stable, or a step of a rebalance."""
        return str(self.admin.describe_groups([self.group])[self.group]["group_state"])

    def committed(self) -> dict[int, int]:
        offsets = self.admin.list_group_offsets({self.group: None})[self.group]
        return {tp.partition: found.offset for tp, found in offsets.items()}

    def all_committed(self) -> bool:
        return self.committed() == dict.fromkeys(range(PARTITIONS), self.written)

    def close(self) -> None:
        try:
            for member in self.members:
                member.close()
        finally:
            super().close()


@pytest.fixture
def group(kafka_url: str) -> Iterator[Group]:
    group = Group(kafka_url)
    yield group
    group.close()


def holds(member: Member, partitions: int = PARTITIONS) -> Callable[[], bool]:
    """Whether it holds so many."""
    return lambda: len(member.held) == partitions


def some(poll: Poll) -> Poll | None:
    """The poll, if it brought records."""
    return poll if len(poll.records) else None


def shared(one: Member, other: Member) -> Callable[[], bool]:
    """Whether each has its half."""
    return lambda: len(one.held) == len(other.held) == PARTITIONS // 2


def test_nothing_flows_before_start(group: Group) -> None:
    member = group.join()
    until(holds(member), "all partitions", each=lambda: member.poll(start=False))
    for _ in range(5):
        assert not len(member.poll(start=False).records)
    (first, *_) = sorted(member.held)
    member.source.start(first)
    until(lambda: len(member.read) == PER_PARTITION, "one partition", each=lambda: member.poll(start=False))
    assert {partition for partition, _ in member.read} == {first.number}


def test_members_share_and_hand_over_without_loss_or_repetition(group: Group) -> None:
    first = group.join()
    first.run()
    until(lambda: len(first.read) >= PER_PARTITION, "the first records")
    second = group.join()
    second.run()
    until(shared(first, second), "a half for each")
    group.fill()
    until(group.all_committed, "every commit")
    second.close()
    group.members.remove(second)
    until(holds(first), "all partitions again")
    group.fill()
    until(group.all_committed, "every commit")
    counts = Counter(first.read) + Counter(second.read)
    assert set(counts) == {(p, o) for p in range(PARTITIONS) for o in range(group.written)}
    # Every batch was committed before the next poll, and partitions change hands inside of polls.
    assert set(counts.values()) == {1}


def test_a_member_that_was_silent_too_long_is_told_and_cannot_turn_back_the_commit(group: Group) -> None:
    slow = group.join(max_poll_interval_ms=1_500)
    until(holds(slow), "all partitions", each=slow.poll)
    batch = until(lambda: some(slow.poll(commit=False)), "a batch", each=at_once)
    other = group.join()
    other.run()
    # `slow` does something slow; the group gives its partitions to the other, who reads and commits them all.
    until(group.all_committed, "every commit")
    held = slow.held
    slow.source.commit(batch.records.next_offset)
    assert group.all_committed(), "a member that had lost its partitions turned the group's position back"
    slow.run()
    until(lambda: slow.revoked >= held, "the news that its partitions are gone")
    until(shared(slow, other), "a half for each")
    group.fill()
    until(group.all_committed, "every commit")


def test_a_member_that_died_is_replaced(group: Group) -> None:
    dead = group.join(session_timeout_ms=1_500)
    until(lambda: dead.read, "records", each=lambda: dead.poll(commit=False))
    # As `kill -9` leaves it: no goodbye, and no heartbeat any more.
    dead.source._consumer._net.stop()
    group.members.remove(dead)
    heir = group.join()
    heir.run()
    until(group.all_committed, "every commit")
    assert set(heir.read) == {(p, o) for p in range(PARTITIONS) for o in range(group.written)}


def test_a_coordinator_that_refuses_for_a_while_is_looked_for_again(
    group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    member = group.join()
    until(holds(member), "all partitions", each=lambda: member.poll(start=False))
    coordinator = member.source._consumer._coordinator
    look, refused = coordinator.poll, 0

    def away(*given: object, **named: object) -> object:
        nonlocal refused
        refused += 1
        if refused <= 5:  # as with brokers that restart: nobody listens
            raise errors.KafkaConnectionError("111 ECONNREFUSED")
        return look(*given, **named)

    monkeypatch.setattr(coordinator, "poll", away)
    member.source.keep_alive()
    assert len(member.poll().records) == 0
    for partition in member.held:
        member.source.start(partition)
    until(group.all_committed, "every commit", each=member.poll)
    assert refused > 5


def test_a_member_that_only_keeps_alive_lets_the_group_settle(group: Group) -> None:
    busy = group.join()
    until(holds(busy), "all partitions", each=lambda: busy.poll(start=False))
    other = group.join()
    other.run()

    def work() -> None:
        busy.source.keep_alive()
        time.sleep(0.3)  # longer than a join takes: its outcome comes while nobody waits for it

    until(holds(other, PARTITIONS // 2), "half of the partitions", each=work)
    until(lambda: len(other.read) == PARTITIONS // 2 * PER_PARTITION, "their records", each=work)


def test_keep_alive_keeps_membership_longer_than_the_poll_interval_and_loses_no_record(group: Group) -> None:
    member = group.join(max_poll_interval_ms=2_000)
    until(lambda: member.read, "records", each=member.poll)
    read, later = len(member.read), time.monotonic() + 5.0

    def work() -> None:
        member.source.keep_alive()
        rest()

    until(lambda: time.monotonic() > later, "more than two poll intervals", each=work)
    assert len(member.read) == read
    polls: list[Poll] = []
    until(group.all_committed, "every commit", each=lambda: polls.append(member.poll()))
    assert not any(poll.revoked for poll in polls), "membership was lost"
    assert sorted(member.read) == [(p, o) for p in range(PARTITIONS) for o in range(group.written)]


def test_a_long_replay_keeps_membership(group: Group, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_module, "REPLAY_RECORDS", 6)
    member = group.join(max_poll_interval_ms=2_000)
    until(holds(member), "all partitions", each=lambda: member.poll(start=False))
    replayed = Records()
    for batch in member.source.replay(min(member.held), PER_PARTITION):
        replayed.offset += batch.offset
        time.sleep(0.6)  # the caller's own work: nine batches take more than two poll intervals
    assert replayed.offset == list(range(PER_PARTITION))
    polls = [member.poll(start=False) for _ in range(5)]
    assert not any(poll.revoked or poll.assigned for poll in polls), "membership was lost"


def test_a_commit_in_the_middle_of_a_rebalance_is_kept_or_left_to_the_new_owner(group: Group) -> None:
    first = group.join()
    batch = until(lambda: some(first.poll(commit=False)), "a batch", each=at_once)
    second = group.join()
    second.run()
    until(lambda: group.state() != "Stable", "a rebalance")
    first.source.commit(batch.records.next_offset)
    first.run()
    until(shared(first, second), "a half for each")
    until(group.all_committed, "every commit")
    everything = {(p, o) for p in range(PARTITIONS) for o in range(group.written)}
    assert set(first.read) | set(second.read) == everything


def test_rewind_reads_again_what_was_not_committed(group: Group) -> None:
    member = group.join()
    until(lambda: len(member.read) == PARTITIONS * PER_PARTITION, "all", each=lambda: member.poll(commit=False))
    one = min(member.held)
    member.source.commit({one: 20})
    member.read.clear()
    member.source.rewind()
    expected = {(p, o) for p in range(PARTITIONS) for o in range(20 if p == one.number else 0, PER_PARTITION)}
    until(lambda: len(member.read) >= len(expected), "the rest again", each=lambda: member.poll(commit=False))
    assert sorted(member.read) == sorted(expected)
