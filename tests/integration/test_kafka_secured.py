"""A broker that asks for a password, TLS, or both: source and shipper give what is asked for, and what is wrong with
it is an error that says so. One broker with a listener for each.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from kafka import KafkaAdminClient
from kafka.admin import ScramMechanism, UserScramCredentialUpsertion

from oddlog import stack
from oddlog.connectors.by_url import source_state
from oddlog.connectors.kafka import KafkaSource
from oddlog.connectors.kafka_producer import KafkaWriter
from oddlog.errors import SourceError
from oddlog.settings import SourceSettings
from oddlog.stack import process
from tests.certificates import Authority
from tests.children import QUICK_START

pytestmark = [pytest.mark.kafka, pytest.mark.usefixtures("own_servers")]

PASSWORD = "hunter2"
LISTENERS = ("SASL_PLAINTEXT", "SSL", "SASL_SSL")
"""With SASL PLAIN, TLS, and SASL SCRAM over TLS."""


@dataclass(frozen=True)
class Guarded:
    """A broker; every listener leads to the same topics."""

    ports: dict[str, int]
    ca_file: Path

    def settings(self, protocol: str, topic: str, **changed: object) -> SourceSettings:
        """Of somebody who has all that this listener asks for."""
        values: dict[str, object] = {
            "url": f"kafka://127.0.0.1:{self.ports[protocol]}/{topic}",
            "group": topic,
            "security_protocol": protocol,
        }
        if protocol.startswith("SASL"):
            values |= {"username": "me", "password": PASSWORD}
        if protocol.endswith("SSL"):
            values["ca_file"] = self.ca_file
        if protocol == "SASL_SSL":
            values["sasl_mechanism"] = "SCRAM-SHA-512"
        return SourceSettings.model_validate(values | changed)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """User `me`, password PASSWORD."""
    if lacking := stack.missing_tools():
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI lacks {' and '.join(lacking)}")
        pytest.skip(f"needs {' and '.join(lacking)}")
    folder = tmp_path_factory.mktemp("guarded")
    authority = Authority()
    certificate = authority.certificate()
    (ca_file := folder / "ca.pem").write_text(authority.pem)
    (keystore := folder / "broker.pem").write_text(certificate.key + certificate.chain)
    ports: dict[str, int] = {}
    for name in ("PLAINTEXT", *LISTENERS, "CONTROLLER"):
        ports[name] = process.free_port(taken=list(ports.values()))
    urls = {name: f"{name}://127.0.0.1:{port}" for name, port in ports.items()}
    outside = ",".join(url for name, url in urls.items() if name != "CONTROLLER")
    login = "org.apache.kafka.common.security"
    settings = {
        "listeners": ",".join(urls.values()),
        "advertised.listeners": outside,
        "controller.quorum.voters": f"1@127.0.0.1:{ports['CONTROLLER']}",
        "listener.security.protocol.map": ",".join(
            f"{name}:{'PLAINTEXT' if name == 'CONTROLLER' else name}" for name in urls
        ),
        "sasl.enabled.mechanisms": "PLAIN",
        "listener.name.sasl_plaintext.plain.sasl.jaas.config": (
            f'{login}.plain.PlainLoginModule required user_me="{PASSWORD}";'
        ),
        "listener.name.sasl_ssl.sasl.enabled.mechanisms": "SCRAM-SHA-512",
        "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config": f"{login}.scram.ScramLoginModule required;",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(keystore),
    }
    try:
        stack.up(
            folder,
            elasticsearch=False,
            kafka_options=stack.KafkaOptions(port=ports["PLAINTEXT"], settings=settings, java_options=QUICK_START),
        )
        admin = KafkaAdminClient(bootstrap_servers=f"127.0.0.1:{ports['PLAINTEXT']}")
        user = UserScramCredentialUpsertion("me", ScramMechanism.SCRAM_SHA_512, PASSWORD, iterations=4096)
        assert admin.alter_user_scram_credentials([user]) == {"me": None}
        admin.close()
        yield Guarded(ports, ca_file)
    finally:
        stack.down(folder, purge=True)


@pytest.mark.parametrize("protocol", LISTENERS)
def test_who_has_what_is_asked_for_writes_reads_and_commits(guarded: Guarded, topic: str, protocol: str) -> None:
    settings = guarded.settings(protocol, topic)
    with KafkaWriter(settings, settings.url, partitions=1) as writer:
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
    (state,) = source_state(settings)
    assert (state.end, state.committed) == (1, 1)


@pytest.mark.parametrize("protocol", ["SASL_PLAINTEXT", "SASL_SSL"])
def test_a_wrong_password_is_an_error_that_points_at_it(
    guarded: Guarded, topic: str, protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("oddlog.connectors.kafka_connection.CONNECT_MS", 2_000)
    settings = guarded.settings(protocol, topic, password="wrong-one")
    for attempt in (lambda: KafkaSource(settings), lambda: KafkaWriter(settings, settings.url)):
        with pytest.raises(SourceError) as caught:
            attempt()
        assert "source.password" in str(caught.value.mend)
        assert "wrong-one" not in str(caught.value)


@pytest.mark.parametrize("trusting", ["another", None])
def test_a_certificate_of_an_unknown_authority_is_named(
    guarded: Guarded, topic: str, trusting: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("oddlog.connectors.kafka_connection.CONNECT_MS", 2_000)
    if trusting:
        (tmp_path / "another.pem").write_text(Authority("another").pem)
    settings = guarded.settings("SSL", topic, ca_file=tmp_path / "another.pem" if trusting else None)
    for attempt in (lambda: KafkaSource(settings), lambda: KafkaWriter(settings, settings.url)):
        with pytest.raises(SourceError, match="is not trusted: ") as caught:
            attempt()
        assert "ODDLOG_SOURCE__CA_FILE" in str(caught.value.mend)


def test_tls_to_a_port_that_speaks_none_is_named(guarded: Guarded, topic: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oddlog.connectors.kafka_connection.CONNECT_MS", 2_000)
    settings = guarded.settings("SSL", topic, url=f"kafka://127.0.0.1:{guarded.ports['PLAINTEXT']}/{topic}")
    with pytest.raises(SourceError, match="no TLS connection to 127") as caught:
        KafkaSource(settings)
    assert "source.security_protocol" in str(caught.value.mend)
