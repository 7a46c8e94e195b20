"""What the Kafka consumer and producer share: the URL, the connection's settings, errors in our own terms."""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from kafka import errors

from oddlog.errors import SourceError, UsageError

if TYPE_CHECKING:
    from oddlog.settings import SourceSettings

LARGEST_RECORD = 16 * 1024 * 1024
"""Largest record that is produced, in bytes; consumers take one of any size."""

CONNECT_MS = 15_000
REQUEST_MS = 15_000

_TOPIC = re.compile(r"[a-zA-Z0-9._-]{1,249}")
_EXAMPLE = "kafka://broker:9092/logs.raw, or kafka://one:9092,two:9092/logs.raw"


@dataclass(frozen=True, slots=True)
class KafkaAddress:
    """What a `kafka://` URL names."""

    servers: tuple[str, ...]
    """`host:port` of some brokers; they name the others."""
    topic: str

    @property
    def url(self) -> str:
        """The URL again."""
        return f"kafka://{','.join(self.servers)}/{self.topic}"


def kafka_address(url: str) -> KafkaAddress:
    """Read `kafka://host[:port][,host[:port]]/topic`. Raises UsageError.

    >>> kafka_address("kafka://one:9093,two/logs.raw")
    KafkaAddress(servers=('one:9093', 'two:9092'), topic='logs.raw')
    """
    parts = urlsplit(url)
    topic = parts.path.strip("/")
    mend = "set ODDLOG_SOURCE__URL, or [source] url in oddlog.toml"
    if "@" in parts.netloc:
        # The URL is not repeated here: it holds a password.
        raise UsageError(
            "the Kafka URL carries a user name or password",
            expected=_EXAMPLE,
            mend="set ODDLOG_SOURCE__USERNAME and ODDLOG_SOURCE__PASSWORD instead",
        )
    servers = [server for server in parts.netloc.split(",") if server]
    if parts.scheme != "kafka" or not servers or parts.query or parts.fragment:
        raise UsageError(f"{url!r} is no Kafka URL", expected=_EXAMPLE, mend=mend)
    if not _TOPIC.fullmatch(topic) or topic in {".", ".."}:
        found = f"the Kafka URL {url!r} names no topic" if not topic else f"{topic!r} is no name of a Kafka topic"
        raise UsageError(found, expected=_EXAMPLE, mend=mend)
    return KafkaAddress(tuple(_with_port(server, url) for server in servers), topic)


def _with_port(server: str, url: str) -> str:
    match = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^:\[\]]+)(?::(\d{1,5}))?", server)
    if match is None or int(match.group(2) or 9092) not in range(1, 65536):
        raise UsageError(f"{server!r} in {url!r} is no host and port", expected=_EXAMPLE)
    return f"{match.group(1)}:{match.group(2) or 9092}"


def connection(settings: SourceSettings, address: KafkaAddress) -> dict[str, Any]:
    """Keyword arguments for any client of kafka-python: brokers, TLS, SASL. Raises UsageError."""
    arguments: dict[str, Any] = {
        "bootstrap_servers": list(address.servers),
        "client_id": "oddlog",
        "bootstrap_timeout_ms": CONNECT_MS,
        "request_timeout_ms": REQUEST_MS,
        "security_protocol": settings.security_protocol,
    }
    if settings.ca_file is not None:
        if not settings.ca_file.is_file():
            raise UsageError(f"no file {settings.ca_file}, which source.ca_file names", expected="a PEM file")
        arguments["ssl_cafile"] = str(settings.ca_file)
    if settings.security_protocol.startswith("SASL"):
        missing = [name for name in ("username", "password") if getattr(settings, name) is None]
        if missing:
            raise UsageError(
                f"source.security_protocol is {settings.security_protocol}, without {' and '.join(missing)}",
                expected="user name and password",
                mend="set ODDLOG_SOURCE__USERNAME and ODDLOG_SOURCE__PASSWORD",
            )
        assert settings.password is not None
        arguments["sasl_mechanism"] = settings.sasl_mechanism or "PLAIN"
        arguments["sasl_plain_username"] = settings.username
        arguments["sasl_plain_password"] = settings.password.get_secret_value()
    return arguments


def _text(error: Exception) -> str:
    """The error in one line, with its name, which the library puts in front of some and not of others."""
    text, name = " ".join(str(error).split()), type(error).__name__
    return text if text.startswith(name) else f"{name}: {text}"


@contextmanager
def failing(address: KafkaAddress, doing: str) -> Iterator[None]:
    """Turn the client library's errors into SourceError, and its complaints about settings into UsageError."""
    try:
        yield
    except errors.KafkaConfigurationError as error:
        raise UsageError(f"Kafka's client refuses its settings: {error}", mend="oddlog config") from error
    except (errors.AuthorizationError, errors.SaslAuthenticationFailedError) as error:
        raise SourceError(
            f"{doing} {address.url}: refused by the brokers: {_text(error)}",
            expected="credentials with the right to do this",
            mend="correct source.username and source.password, or the brokers' access lists",
        ) from error
    except (errors.KafkaError, OSError) as error:
        raise SourceError(
            f"{doing} {address.url}: {_text(error)}",
            expected=f"brokers that answer at {', '.join(address.servers)}",
            # A broker that refuses a password closes the connection, which the client takes for a broker away.
            mend="look whether the broker runs (oddlog stack status), at source.url, and, where it asks for a "
            "password, at source.username and source.password",
        ) from error


@contextmanager
def connecting(settings: SourceSettings, address: KafkaAddress, doing: str = "connecting to") -> Iterator[None]:
    """`failing` around a first contact. Where it is TLS that fails, the error says so: to the client library a
    certificate that is not trusted is a broker that is away."""
    try:
        with failing(address, doing):
            yield
    except SourceError as error:
        if settings.security_protocol.endswith("SSL") and (problem := _tls_problem(settings, address)):
            raise SourceError(
                f"{doing} {address.url}: {problem}",
                expected="brokers that speak TLS there, with a certificate for the name they are addressed by, signed "
                "by an authority that is trusted here",
                mend="set ODDLOG_SOURCE__CA_FILE to the PEM file of that authority; look at source.security_protocol",
            ) from error
        raise


def _tls_problem(settings: SourceSettings, address: KafkaAddress) -> str | None:
    """Why no connection to the first broker that is there is trusted; None where one is, or none is there."""
    try:
        context = ssl.create_default_context(cafile=settings.ca_file)
    except (OSError, ssl.SSLError) as error:
        return f"{settings.ca_file} holds no certificate: {error}"
    for server in address.servers:
        host, _, port = server.rpartition(":")
        host = host.strip("[]")
        try:
            with (
                socket.create_connection((host, int(port)), timeout=CONNECT_MS / 1000) as link,
                context.wrap_socket(link, server_hostname=host),
            ):
                return None
        except ssl.SSLCertVerificationError as error:
            return f"the certificate of {server} is not trusted: {error.verify_message}"
        except ssl.SSLError as error:
            return f"no TLS connection to {server}: {error.reason or error}"
        except OSError:
            continue
    return None
