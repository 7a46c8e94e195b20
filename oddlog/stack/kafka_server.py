"""Kafka: one KRaft node that is broker and controller. Configuration, start, and whether it answers."""

from __future__ import annotations

import base64
import os
import socket
import struct
import subprocess
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from oddlog.errors import OutsideError
from oddlog.stack import artifacts, process

MAX_MESSAGE_BYTES = 16 * 1024 * 1024
"""Largest record batch the broker takes; a 10 MB log record passes."""


@dataclass(frozen=True, slots=True)
class KafkaOptions:
    """How Kafka is run."""

    heap: str = "512m"
    """Java heap, as `-Xmx` takes it."""
    java_options: tuple[str, ...] = ()
    """Further options of its Java."""
    port: int = 9092
    """Wished port; another free one is taken when somebody listens there."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Lines of `server.properties` beside or instead of ours."""


def launch(folder: Path, options: KafkaOptions, cache: Path, port: int, inner_port: int) -> tuple[int, Path]:
    """Start the broker on `port` (its controller on `inner_port`); gives its pid and its log.

    The data in `folder` is kept from start to start; a folder without any is formatted first. Raises
    OutsideError.
    """
    java = str(artifacts.java_home() / "bin" / "java")
    libs = str(artifacts.program("kafka", cache) / "libs" / "*")
    data, logs = folder / "data", folder / "logs"
    for path in (data, logs):
        path.mkdir(parents=True, exist_ok=True)
    properties = folder / "server.properties"
    properties.write_text(_properties(data, options, port, inner_port))
    logging = folder / "log4j2.properties"
    logging.write_text(_logging(logs / "kafka.log"))
    base = [
        java,
        f"-Xmx{options.heap}",
        f"-Xms{options.heap}",
        *options.java_options,
        "-cp",
        libs,
        f"-Dlog4j2.configurationFile={logging}",
    ]
    env = {name: value for name, value in os.environ.items() if name not in {"JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS"}}

    if not (data / "meta.properties").exists():
        # It lives for a second: what is compiled well comes too late for it.
        tool = [base[0], "-XX:TieredStopAtLevel=1", *base[1:], "kafka.tools.StorageTool"]
        formatted = subprocess.run(
            [*tool, "format", "-t", _cluster_id(), "-c", str(properties)],
            capture_output=True, text=True, env=env, check=False,
        )  # fmt: skip
        if formatted.returncode != 0:
            raise OutsideError(
                f"Kafka's data folder {data} cannot be formatted:\n{formatted.stdout}{formatted.stderr}",
                expected="an empty or a formatted folder",
                mend=f"remove {folder}, then oddlog stack up",
            )
    console = logs / "console.log"
    console.write_bytes(b"")
    child = process.start([*base, "kafka.Kafka", str(properties)], log=console, env=env, cwd=folder)
    return child.pid, logs / "kafka.log"


def _cluster_id() -> str:
    """A random one, as Kafka writes its UUIDs: 16 bytes in base64 for URLs, without padding or a leading dash.

    >>> len(_cluster_id())
    22
    """
    while (name := base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")).startswith("-"):
        pass
    return name


def _properties(data: Path, options: KafkaOptions, port: int, inner_port: int) -> str:
    host = process.HOST
    lines = {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@{host}:{inner_port}",
        "controller.listener.names": "CONTROLLER",
        "listeners": f"PLAINTEXT://{host}:{port},CONTROLLER://{host}:{inner_port}",
        "advertised.listeners": f"PLAINTEXT://{host}:{port}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": str(data),
        # A misspelt topic is an error, not a new topic; `oddlog ship` makes its own.
        "auto.create.topics.enable": "false",
        "num.partitions": "1",
        "message.max.bytes": str(MAX_MESSAGE_BYTES),
        "replica.fetch.max.bytes": str(MAX_MESSAGE_BYTES),
        # One node: nobody to replicate the inner topics to.
        "offsets.topic.replication.factor": "1",
        "offsets.topic.num.partitions": "8",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "transaction.state.log.num.partitions": "4",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        # Nobody else will join in the first three seconds: let a consumer have its partitions at once.
        "group.initial.rebalance.delay.ms": "0",
        "group.min.session.timeout.ms": "1000",
        **options.settings,
    }
    return "".join(f"{name}={value}\n" for name, value in lines.items())


def _logging(log: Path) -> str:
    return f"""\
appender.file.type = RollingFile
appender.file.name = file
appender.file.fileName = {log}
appender.file.filePattern = {log}.%i
appender.file.layout.type = PatternLayout
appender.file.layout.pattern = [%d] %p %m (%c)%n
appender.file.policies.type = Policies
appender.file.policies.size.type = SizeBasedTriggeringPolicy
appender.file.policies.size.size = 10MB
appender.file.strategy.type = DefaultRolloverStrategy
appender.file.strategy.max = 3
rootLogger.level = INFO
rootLogger.appenderRef.file.ref = file
"""


def healthy(port: int, timeout: float = 2.0) -> bool:
    """Whether a broker answers there and counts itself in: a metadata request that lists a broker.

    Spoken by hand (https://kafka.apache.org/protocol, Metadata v1): the client library belongs to connectors.
    """
    client = b"oddlog-stack"
    body = struct.pack(">hhih", 3, 1, 1, len(client)) + client + struct.pack(">i", 0)  # no topics wished
    try:
        with socket.create_connection((process.HOST, port), timeout=timeout) as link:
            link.sendall(struct.pack(">i", len(body)) + body)
            answer = link.makefile("rb")
            (size,) = struct.unpack(">i", answer.read(4))
            correlation, brokers = struct.unpack(">ii", answer.read(size)[:8])
    except (OSError, struct.error):
        return False
    return bool(correlation == 1 and brokers >= 1)
