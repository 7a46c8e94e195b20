"""A broker that asks for a password: source and shipper give theirs, and a wrong one is an error that says so."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from oddlog import stack
from oddlog.connectors.kafka import KafkaSource
from oddlog.connectors.kafka_producer import KafkaWriter
from oddlog.errors import SourceError
from oddlog.settings import SourceSettings
from oddlog.stack import process

pytestmark = pytest.mark.kafka


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a listener with SASL PLAIN, user `me`, password `hunter2`."""
    if lacking := stack.missing_tools():
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI lacks {' and '.join(lacking)}")
        pytest.skip(f"needs {' and '.join(lacking)}")
    folder = tmp_path_factory.mktemp("guarded")
    plain = process.free_port()
    guarded = process.free_port(taken=[plain])
    inner = process.free_port(taken=[plain, guarded])
    login = "org.apache.kafka.common.security.plain.PlainLoginModule required"
    listeners = {"PLAINTEXT": plain, "SASL_PLAINTEXT": guarded}
    both = ",".join(f"{name}://127.0.0.1:{port}" for name, port in listeners.items())
    settings = {
        "listeners": f"{both},CONTROLLER://127.0.0.1:{inner}",
        "advertised.listeners": both,
        "controller.quorum.voters": f"1@127.0.0.1:{inner}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT",
        "sasl.enabled.mechanisms": "PLAIN",
        "listener.name.sasl_plaintext.plain.sasl.jaas.config": f'{login} user_me="hunter2";',
    }
    try:
        stack.up(folder, elasticsearch=False, kafka_options=stack.KafkaOptions(port=plain, settings=settings))
        yield f"kafka://127.0.0.1:{guarded}/guarded"
    finally:
        stack.down(folder, purge=True)


def _settings(url: str, password: str) -> SourceSettings:
    return SourceSettings.model_validate({
        "url": url, "security_protocol": "SASL_PLAINTEXT", "username": "me", "password": password,
    })  # fmt: skip


def test_the_password_opens_the_broker(guarded: str) -> None:
    settings = _settings(guarded, "hunter2")
    with KafkaWriter(settings, guarded, partitions=1) as writer:
        writer.send(None, b"a line")
    source = KafkaSource(settings)
    try:
        read: list[bytes | None] = []
        while not read:
            poll = source.poll(10, 1.0)
            for partition in poll.assigned:
                source.start(partition)
                assert sum(len(batch) for batch in source.replay(partition, 10)) == 1
            read += poll.records.value
        assert read == [b"a line"]
        source.commit(poll.records.next_offset)
    finally:
        source.close()


def test_a_wrong_password_is_an_error_that_points_at_it(guarded: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oddlog.connectors.kafka_connection.CONNECT_MS", 3_000)
    settings = _settings(guarded, "wrong-one")
    for attempt in (lambda: KafkaSource(settings), lambda: KafkaWriter(settings, guarded)):
        with pytest.raises(SourceError) as caught:
            attempt()
        assert "source.password" in str(caught.value.mend)
        assert "wrong-one" not in str(caught.value)
