"""KafkaSource on a real broker: what the contract suite cannot ask of files too. Rebalances are in a file of theirs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from kafka import KafkaConsumer, KafkaProducer, OffsetAndMetadata, TopicPartition
from kafka.errors import KafkaTimeoutError

from oddlog.connectors.kafka import KafkaSource
from oddlog.errors import SourceEpochError, SourceError
from oddlog.events.record import Partition, Records
from oddlog.settings import SourceSettings
from tests.kafka_topic import Topic
from tests.waiting import at_once, until

pytestmark = pytest.mark.kafka


class Lab(Topic):
    """One topic of our own, and the sources that a test opens on it."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.sources: list[KafkaSource] = []

    def commit(self, offset: int, metadata: str = "") -> None:
        """Commit as another tool does, that knows nothing of ours."""
        consumer = KafkaConsumer(group_id=self.group, bootstrap_servers=self.server, enable_auto_commit=False)
        try:
            consumer.commit({TopicPartition(self.name, 0): OffsetAndMetadata(offset, metadata, -1)})
        finally:
            consumer.close()

    def open(self, **settings: object) -> KafkaSource:
        self.sources.append(KafkaSource(self.settings(**settings)))
        return self.sources[-1]

    def close(self) -> None:
        for source in self.sources:
            source.close()
        super().close()


@pytest.fixture
def lab(kafka_url: str) -> Iterator[Lab]:
    lab = Lab(kafka_url)
    yield lab
    lab.close()


def read(source: KafkaSource, count: int, *, commit: bool = False) -> Records:
    """At least `count` records, starting what is assigned."""
    got = Records()

    def enough() -> bool:
        poll = source.poll(1000, 0.5)
        for partition in poll.assigned:
            source.start(partition)
        for name in ("value", "epoch", "topic", "partition", "offset", "timestamp_ms"):
            getattr(got, name).extend(getattr(poll.records, name))
        got.next_offset.update(poll.records.next_offset)
        if commit and len(poll.records):
            source.commit(poll.records.next_offset)
        return len(got) >= count

    until(enough, f"{count} records", each=at_once, told=lambda: f"{len(got)} came")
    return got


def replayed(source: KafkaSource, partition: Partition, until_offset: int, since: int | None = None) -> list[int]:
    return [offset for batch in source.replay(partition, until_offset, since) for offset in batch.offset]


def part(lab: Lab, number: int = 0, epoch: str = "e1") -> Partition:
    return Partition(epoch, lab.name, number)


def test_records_keep_bytes_position_and_the_brokers_timestamp(lab: Lab) -> None:
    lab.make()
    large = bytes(range(256)) * 40_960  # 10 MB that do not compress to nothing
    lab.write(b"\xff\x00 not text", None, b"", large, at=1_400_000_000_123)
    records = read(lab.open(), 4)
    assert records.value == [b"\xff\x00 not text", None, b"", large]
    assert records.offset == [0, 1, 2, 3]
    assert set(records.timestamp_ms) == {1_400_000_000_123}
    assert records.next_offset == {part(lab): 4}
    assert (records.epoch[0], records.topic[0], records.partition[0]) == part(lab)


def test_offsets_in_transactions_have_gaps_and_aborted_records_are_none(lab: Lab) -> None:
    lab.make()
    producer = KafkaProducer(bootstrap_servers=lab.server, transactional_id=lab.group)
    producer.init_transactions()
    for number in range(6):
        producer.begin_transaction()
        producer.send(lab.name, b"%d" % number)
        producer.flush()
        if number % 2:
            producer.abort_transaction()
        else:
            producer.commit_transaction()
    producer.close()
    source = lab.open()
    records = read(source, 3)
    assert records.value == [b"0", b"2", b"4"]
    assert records.offset == [0, 4, 8]
    # The log ends in an aborted record and its marker: a replay must come to an end there, and before it.
    assert replayed(source, part(lab), 12) == [0, 4, 8]
    assert replayed(source, part(lab), 8) == [0, 4]
    assert replayed(source, part(lab), 10**9) == [0, 4, 8]


def test_replay_of_a_compacted_topic_ends(lab: Lab) -> None:
    lab.make(cleanup_policy="compact", segment_ms="100", min_cleanable_dirty_ratio="0.01", max_compaction_lag_ms="100")
    lab.write(*[b"%d" % number for number in range(20)], key=b"same")
    source = lab.open()
    read(source, 20)

    def compacted() -> bool:
        lab.write(b"later", key=b"other")  # rolls the segment, so that it may be cleaned
        return len(replayed(source, part(lab), 20)) < 20

    until(compacted, "compaction")
    assert all(offset < 20 for offset in replayed(source, part(lab), 20))


def test_replay_from_a_time_touches_neither_position_nor_commit(lab: Lab) -> None:
    lab.make()
    for second in range(5):
        lab.write(b"%d" % second, at=1_700_000_000_000 + 1000 * second)
    source = lab.open()
    records = read(source, 5)
    source.commit({part(lab): 2})
    assert replayed(source, part(lab), 4, 1_700_000_000_000 + 1500) == [2, 3]
    assert replayed(source, part(lab), 4, 1_700_000_000_000 + 2000) == [2, 3]
    assert replayed(source, part(lab), 4, 1_800_000_000_000) == []
    assert replayed(source, part(lab), 4, -5) == [0, 1, 2, 3]
    assert replayed(source, part(lab), 0) == []
    assert source.committed(part(lab)) == 2
    assert records.next_offset == {part(lab): 5}
    assert source.lag() == {part(lab): 0}


def test_a_missing_topic_is_named_with_the_command_that_makes_it(lab: Lab) -> None:
    with pytest.raises(SourceError, match=f"no topic '{lab.name}'") as caught:
        lab.open()
    assert "oddlog ship" in str(caught.value.mend)


def test_no_broker_is_an_error_with_its_address(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oddlog.connectors.kafka_connection.CONNECT_MS", 500)
    with pytest.raises(SourceError, match=r"127\.0\.0\.1:1"):
        KafkaSource(SourceSettings(url="kafka://127.0.0.1:1/logs.raw"))


def test_a_topic_that_goes_away_while_we_read_is_an_error(lab: Lab) -> None:
    lab.make()
    lab.write(b"a")
    source = lab.open()
    read(source, 1)
    lab.admin.delete_topics([lab.name])

    def fails() -> bool:
        try:
            source.poll(10, 0.5)
        except SourceError:
            return True
        return False

    until(fails, "an error", each=at_once)


def test_a_position_beyond_the_end_is_a_topic_made_anew(lab: Lab) -> None:
    lab.make()
    lab.write(b"a", b"b")
    lab.commit(70)
    source = lab.open()
    with pytest.raises(SourceEpochError, match="made anew") as caught:
        read(source, 1)
    assert "ODDLOG_SOURCE__EPOCH=e2" in str(caught.value.mend)
    with pytest.raises(SourceEpochError):
        source.committed(part(lab))


def test_a_position_of_the_topics_former_life_is_refused_even_where_it_would_fit(lab: Lab) -> None:
    lab.make()
    lab.write(b"a", b"b")
    lab.commit(1, "oddlog e1 00000000-0000-0000-0000-00000000beef")
    with pytest.raises(SourceEpochError, match="made anew"):
        read(lab.open(), 1)


def test_a_topic_made_anew_under_a_running_consumer_is_noticed(lab: Lab) -> None:
    lab.make()
    lab.write(b"a", b"b")
    source = lab.open()
    read(source, 2, commit=True)
    lab.remake()
    lab.write(b"c", b"d", b"e", b"f")

    def noticed() -> bool:
        try:
            poll = source.poll(10, 0.5)
        except SourceEpochError:
            return True
        assert not len(poll.records), "records of the new topic came under the old epoch"
        return False

    until(noticed, "an error", each=at_once)


def test_what_no_broker_vouches_for_is_fetched_again(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.make()
    lab.write(b"a", b"b")
    source = lab.open()
    ask, refused = source._topic.check_fetched, []

    def silent_once() -> None:
        if not refused:
            refused.append(True)
            raise KafkaTimeoutError("no answer")
        ask()

    monkeypatch.setattr(source._topic, "check_fetched", silent_once)
    assert read(source, 2).value == [b"a", b"b"]
    assert refused


def test_another_epoch_begins_at_the_start_and_commits_for_itself(lab: Lab) -> None:
    lab.make()
    lab.write(b"a", b"b")
    first = lab.open()
    read(first, 2, commit=True)
    first.close()
    second = lab.open(epoch="e2")
    assert second.committed(part(lab, epoch="e2")) is None
    records = read(second, 2, commit=True)
    assert records.epoch == ["e2", "e2"]
    assert second.committed(part(lab, epoch="e2")) == 2


def test_records_that_retention_took_are_counted_not_skipped(lab: Lab) -> None:
    lab.make()
    lab.write(*[b"%d" % number for number in range(10)])
    lab.commit(2)
    lab.admin.delete_records({TopicPartition(lab.name, 0): 7})
    with pytest.raises(SourceEpochError, match=r"5 records of .* are lost") as caught:
        read(lab.open(), 1)
    assert "source.group" in str(caught.value.mend)


def test_retention_that_overtakes_a_running_consumer_is_noticed(lab: Lab) -> None:
    lab.make()
    lab.write(*[b"%d" % number for number in range(10)])
    source = lab.open()
    read(source, 10)
    source.commit({part(lab): 3})
    lab.admin.delete_records({TopicPartition(lab.name, 0): 8})
    with pytest.raises(SourceEpochError, match="5 records"):
        source.rewind()


def test_a_rewind_without_a_commit_does_not_step_over_what_retention_took(lab: Lab) -> None:
    lab.make()
    lab.write(*[b"%d" % number for number in range(10)])
    source = lab.open()
    read(source, 10)
    lab.admin.delete_records({TopicPartition(lab.name, 0): 4})
    source.rewind()
    with pytest.raises(SourceError):
        read(source, 6)


def test_a_new_group_begins_at_what_is_kept(lab: Lab) -> None:
    lab.make()
    lab.write(*[b"%d" % number for number in range(5)])
    lab.admin.delete_records({TopicPartition(lab.name, 0): 3})
    assert read(lab.open(), 2).offset == [3, 4]


def test_the_clients_settings_refuse_the_classic_mistakes(lab: Lab) -> None:
    lab.make()
    config = lab.open()._consumer.config
    assert config["enable_auto_commit"] is False
    assert config["auto_offset_reset"] == "none"
    assert [assignor.name for assignor in config["partition_assignment_strategy"]] == ["cooperative-sticky"]
