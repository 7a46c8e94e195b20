"""`oddlog ship` as people run it: a file, a pipe, a file that grows; into Kafka and into a file."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaConsumer, TopicPartition

from oddlog.events.parse import parse
from oddlog.events.record import Records
from tests.verbs import run_verb
from tests.waiting import DEADLINE, at_once, until

pytestmark = pytest.mark.e2e

LINES = [
    b'192.0.2.%d - - [17/May/2025:10:05:%02d +0000] "GET /%d HTTP/1.1" 200 11 "-" "curl/8"\n' % (n % 7, n % 60, n)
    for n in range(120)
]


def oddlog(*arguments: str | Path, stdin: bytes = b"", cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cli.main", *map(str, arguments)]
    done = subprocess.run(command, input=stdin, capture_output=True, cwd=cwd, timeout=DEADLINE * 2, check=False)
    return subprocess.CompletedProcess(command, done.returncode, done.stdout.decode(), done.stderr.decode())


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts `oddlog` beside the test; what still runs at the end is killed."""
    children: list[subprocess.Popen[bytes]] = []

    def start(*arguments: str | Path) -> subprocess.Popen[bytes]:
        child = subprocess.Popen(
            [sys.executable, "-m", "cli.main", *map(str, arguments)], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )  # fmt: skip
        children.append(child)
        return child

    yield start
    for child in children:
        child.kill()
        child.communicate()


def shipped(path: Path, count: int) -> None:
    """Wait for so many envelopes in a file."""
    until(lambda: len(envelopes(path)) >= count, f"{count} envelopes", told=lambda: f"{len(envelopes(path))} came")
    assert len(envelopes(path)) == count


def envelopes(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []


def messages(path: Path) -> list[str]:
    return [document["message"] for document in envelopes(path)]


def texts(lines: list[bytes]) -> list[str]:
    return [line.decode().rstrip("\n") for line in lines]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "access.log"
    path.write_bytes(b"".join(LINES))
    return path


@pytest.mark.kafka
def test_a_file_goes_to_kafka_keyed_by_client_and_in_order(log: Path, kafka_url: str) -> None:
    topic = f"t-{uuid.uuid4().hex[:12]}"
    done = oddlog("ship", log, "--to", f"{kafka_url}/{topic}", "--partitions", "3", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"shipped": 120, "to": f"{kafka_url}/{topic}", "stopped": False}

    consumer = KafkaConsumer(bootstrap_servers=kafka_url.removeprefix("kafka://"), auto_offset_reset="earliest")
    parts = [TopicPartition(topic, number) for number in range(3)]
    consumer.assign(parts)
    records: list[Any] = []
    try:
        assert sum(consumer.end_offsets(parts).values()) == 120

        def all_came() -> bool:
            records.extend(record for batch in consumer.poll(500).values() for record in batch)
            return len(records) >= 120

        until(all_came, "120 records", each=at_once)
    finally:
        consumer.close()
    homes: dict[bytes, set[int]] = {}
    for record in records:
        document = json.loads(record.value)
        assert record.key == document["message"].split()[0].encode()
        homes.setdefault(record.key, set()).add(record.partition)
    assert len(homes) == 7
    assert all(len(partitions) == 1 for partitions in homes.values())
    for client in homes:
        mine = [json.loads(r.value)["log"]["offset"] for r in records if r.key == client]
        assert mine == sorted(mine), "a client's lines changed their order"

    again = oddlog("ship", log, "--to", f"{kafka_url}/{topic}", "--partitions", "5")
    assert again.returncode == 2
    assert "has 3 partitions" in again.stderr


def test_what_is_shipped_to_a_file_is_what_the_parser_reads(log: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "envelopes.json"
    labels = tmp_path / "access.log.labels"
    labels.write_text("".join("attack:scan\n" if n % 10 == 0 else "benign\n" for n in range(len(LINES))))
    assert oddlog("ship", log, "--to", f"file://{out}").returncode == 0
    assert messages(out) == texts(LINES)
    offsets = [document["log"]["offset"] for document in envelopes(out)]
    assert log.read_bytes()[offsets[7] : offsets[8]] == LINES[7]
    values: list[bytes | None] = list(out.read_bytes().splitlines())
    count = len(values)
    parsed = parse(
        Records(values, ["e1"] * count, ["t"] * count, [0] * count, list(range(count)), [1_900_000_000_000] * count)
    )
    assert parsed.dead.height == 0
    assert parsed.events["labels.truth"].to_list()[:2] == ["attack:scan", "benign"]
    assert parsed.events["log.file.path"].unique().to_list() == [str(log)]


def test_a_pipe_and_a_compressed_file_are_read_to_their_ends(log: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    out.write_bytes(b'{"message": "half a line"}')  # as a crash leaves it: what follows begins a line of its own
    piped = oddlog("ship", "-", "--to", f"file://{out}", stdin=b"".join(LINES)[:-1])
    assert piped.returncode == 0, piped.stderr
    packed = tmp_path / "old.log.gz"
    packed.write_bytes(gzip.compress(b"".join(LINES[:3])))
    assert oddlog("ship", packed, "--to", f"file://{out}").returncode == 0
    assert messages(out) == ["half a line", *texts(LINES), *texts(LINES[:3])]


def test_labels_that_do_not_fit_the_lines_are_refused_before_anything_is_sent(log: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels"
    labels.write_text("benign\n" * 119)
    out = tmp_path / "out.json"
    refused = oddlog("ship", log, "--labels", labels, "--to", f"file://{out}")
    assert refused.returncode == 2
    assert "119 labels for the 120 lines" in refused.stderr.replace("\n", " ")
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["ship", "absent.log"], 2, "no file"),
        (["ship", "access.log", "--to", "ftp://somewhere/x"], 2, "cannot ship to"),
        (["ship", "access.log", "--to", "kafka://127.0.0.1:9092"], 2, "names no topic"),
        (["ship", "access.log", "--to", "kafka://me:secret@127.0.0.1:9092/t"], 2, "user name or password"),
        (["ship", "-", "--follow", "--to", "file:///dev/null"], 2, "--follow"),
        (["ship", "access.log", "--from-start", "--to", "file:///dev/null"], 2, "--from-start"),
        (["ship", "access.log", "--to", "file:///proc/no/such/file"], 3, "cannot be written"),
    ],
)
def test_errors_say_what_was_found(
    log: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, said: str
) -> None:
    monkeypatch.chdir(log.parent)
    done = run_verb(*arguments)
    assert done.exit_code == code
    assert said in done.stderr.replace("\n", " ")
    assert "secret" not in done.output


def test_a_growing_file_is_followed_and_its_place_remembered(
    log: Path, tmp_path: Path, started: Callable[..., subprocess.Popen[bytes]]
) -> None:
    out = tmp_path / "out.json"
    follow = ["ship", log, "--follow", "--to", f"file://{out}", "--json"]
    child = started(*follow)
    shipped(out, 120)
    with log.open("ab") as file:
        file.write(LINES[0])
    shipped(out, 121)
    child.send_signal(signal.SIGTERM)
    told, complaints = child.communicate(timeout=DEADLINE)
    assert child.returncode == 0, complaints
    assert json.loads(told) == {"shipped": 121, "to": f"file://{out}", "stopped": True}

    with log.open("ab") as file:
        file.write(LINES[1])
    child = started(*follow)
    shipped(out, 122)
    child.send_signal(signal.SIGINT)
    assert child.wait(DEADLINE) == 0
    assert messages(out) == texts([*LINES, LINES[0], LINES[1]])
    begins = [document["log"]["offset"] for document in envelopes(out)]
    assert begins[-1] == len(b"".join([*LINES, LINES[0]]))

    child = started(*follow, "--from-start")
    shipped(out, 122 + 122)
    child.send_signal(signal.SIGTERM)
    assert child.wait(DEADLINE) == 0


def test_a_stop_in_the_middle_flushes_and_the_next_run_goes_on_from_there(
    log: Path, tmp_path: Path, started: Callable[..., subprocess.Popen[bytes]]
) -> None:
    out = tmp_path / "out.json"
    follow = ["ship", log, "--follow", "--to", f"file://{out}"]
    child = started(*follow, "--rate", "2")
    until(lambda: len(envelopes(out)) >= 2, "the first lines")
    child.send_signal(signal.SIGTERM)
    assert child.wait(DEADLINE) == 0
    sent = len(envelopes(out))
    assert sent < 120
    child = started(*follow)
    shipped(out, 120)
    child.send_signal(signal.SIGTERM)
    assert child.wait(DEADLINE) == 0
    assert messages(out) == texts(LINES)


def test_a_pipe_that_stays_open_is_left_on_a_signal(
    tmp_path: Path, started: Callable[..., subprocess.Popen[bytes]]
) -> None:
    out = tmp_path / "out.json"
    child = started("ship", "-", "--to", f"file://{out}", "--rate", "50", "--json")
    assert child.stdin is not None
    child.stdin.write(LINES[0] + LINES[1])
    child.stdin.flush()
    until(out.exists, "the file")
    child.send_signal(signal.SIGINT)
    told, complaints = child.communicate(timeout=DEADLINE)
    assert child.returncode == 0, complaints
    assert json.loads(told)["shipped"] == len(envelopes(out))
