"""What a Kafka URL names, and which settings reach the client."""

from __future__ import annotations

from pathlib import Path

import pytest

from oddlog.connectors.kafka_connection import KafkaAddress, connection, kafka_address
from oddlog.errors import UsageError
from oddlog.settings import SourceSettings


@pytest.mark.parametrize(
    ("url", "servers"),
    [
        ("kafka://broker/logs.raw", ("broker:9092",)),
        ("kafka://one:1,two,10.0.0.3:65535/logs.raw", ("one:1", "two:9092", "10.0.0.3:65535")),
        ("kafka://[::1]:9093,[fe80::1]/logs.raw/", ("[::1]:9093", "[fe80::1]:9092")),
    ],
)
def test_a_url_names_brokers_and_topic(url: str, servers: tuple[str, ...]) -> None:
    address = kafka_address(url)
    assert address == KafkaAddress(servers, "logs.raw")
    assert kafka_address(address.url) == address


@pytest.mark.parametrize(
    "url",
    [
        "kafka:///logs.raw", "kafka://broker", "kafka://broker/", "kafka://broker/a/b", "kafka://broker/a b",
        "kafka://broker:0/t", "kafka://broker:99999/t", "kafka://broker:port/t", "kafka://a:1:2/t",
        "kafka://broker/..", "kafka://broker/t?x=1", "kafka://broker/t#x", "http://broker/t", f"kafka://b/{'t' * 250}",
    ],
)  # fmt: skip
def test_what_is_no_kafka_url_is_refused_with_an_example(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        kafka_address(url)
    assert "kafka://broker:9092/logs.raw" in str(caught.value.expected)


def test_a_password_in_the_url_is_refused_and_not_repeated() -> None:
    with pytest.raises(UsageError) as caught:
        kafka_address("kafka://me:hunter2@broker/t")
    assert "hunter2" not in str(caught.value)
    assert "ODDLOG_SOURCE__PASSWORD" in str(caught.value.mend)


def test_credentials_and_authorities_reach_the_client(tmp_path: Path) -> None:
    authorities = tmp_path / "ca.pem"
    authorities.write_text("")
    settings = SourceSettings.model_validate({
        "url": "kafka://broker/t", "security_protocol": "SASL_SSL", "sasl_mechanism": "SCRAM-SHA-512",
        "username": "me", "password": "hunter2", "ca_file": authorities,
    })  # fmt: skip
    arguments = connection(settings, kafka_address(settings.url))
    assert arguments["security_protocol"] == "SASL_SSL"
    assert arguments["sasl_mechanism"] == "SCRAM-SHA-512"
    assert (arguments["sasl_plain_username"], arguments["sasl_plain_password"]) == ("me", "hunter2")
    assert arguments["ssl_cafile"] == str(authorities)
    assert "hunter2" not in repr(settings)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"security_protocol": "SASL_PLAINTEXT"}, "without username and password"),
        ({"security_protocol": "SASL_PLAINTEXT", "username": "me"}, "without password"),
        ({"security_protocol": "SSL", "ca_file": "/no/such/ca.pem"}, "no file /no/such/ca.pem"),
    ],
)
def test_half_a_configuration_is_refused(values: dict[str, str], said: str) -> None:
    settings = SourceSettings.model_validate({"url": "kafka://broker/t", **values})
    with pytest.raises(UsageError, match=said):
        connection(settings, kafka_address(settings.url))
