"""`python -m benchmarks.pull`: events for training out of Elasticsearch, our way and that of most tutorials.

Both read the same columns of the same documents, each in a process of its own. Ours is what `oddlog train` does: pages
in record order of one point in time into Parquet, joined and digested, ready to be resumed at any moment. Theirs:
`elasticsearch.helpers.scan` with source filtering for the same fields, each hit to a flat dict, all to a pandas frame.
Before, uncounted, both read the first day, for the memory that it takes, and all, to warm Elasticsearch's Java; then
all, in rounds of changing order.
Elasticsearch is the one that TEST_ELASTICSEARCH_URL names, else one of its own that is removed in the end.
"""

from __future__ import annotations

import argparse
import datetime as dt
import hashlib
import json
import os
import statistics
import sys
import tempfile
import time
import uuid
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.child import peak, resident, result_of
from benchmarks.machine import machine
from benchmarks.program import end_when_asked, told_by_the_clock
from benchmarks.tables import markdown, publish

if TYPE_CHECKING:
    import polars as pl

    from oddlog.connectors.store import Store

PARTS = ("ours", "theirs")
TARGET = 4.0
"""Times as fast as `helpers.scan` into a pandas frame."""
START = dt.datetime(2024, 3, 4, tzinfo=dt.UTC)
WRITTEN_ROWS = 5_000
WRITERS = 2
TRIES = 20
MERGED_SECONDS = 120.0
"""Longest wait for the merges that writing left behind: they are neither side's."""


def ours(url: str, prefix: str, until: dt.datetime | None = None) -> dict[str, Any]:
    """What `oddlog train` does to have its events: `training.pull.pull`."""
    from training.dataset import COLUMNS, Selection
    from training.pull import pull

    store, before = _store(url, prefix), resident()
    with tempfile.TemporaryDirectory() as folder:
        begun, cpu_before = time.perf_counter(), time.process_time()
        found = pull(store, Selection(until=until), url=url, folder=Path(folder))
        seconds, cpu, highest = time.perf_counter() - begun, time.process_time() - cpu_before, peak()
        size = found.snapshot.stat().st_size
        ids = found.events(["_id"])["_id"].to_list()
    return {
        "rows": found.rows, "seconds": seconds, "cpu": cpu,
        "before": before, "peak": highest, "parquet_bytes": size, "ids": _digest(ids), "columns": len(COLUMNS),
    }  # fmt: skip


def theirs(url: str, prefix: str, until: dt.datetime | None = None) -> dict[str, Any]:
    """`elasticsearch.helpers.scan` into a pandas frame."""
    import pandas as pd
    from elasticsearch import Elasticsearch, helpers

    from training.dataset import COLUMNS

    fields = [name for name in COLUMNS if name != "_id"]
    paths = [(name, name.split(".")) for name in fields]
    client, before = Elasticsearch(url, request_timeout=120), resident()
    begun, cpu_before = time.perf_counter(), time.process_time()
    rows = []
    wanted: dict[str, Any] = {"match_all": {}}
    if until is not None:
        wanted = {"range": {"@timestamp": {"lt": until.isoformat()}}}
    query = {"query": wanted, "_source": fields}
    for hit in helpers.scan(client, query=query, index=f"{prefix}-events-*", size=1_000):
        row = {"_id": hit["_id"]}
        for name, path in paths:
            value = hit["_source"]
            for part in path:
                value = value.get(part) if value else None
            row[name] = value
        rows.append(row)
    scanned = time.perf_counter() - begun
    frame = pd.DataFrame(rows)
    frame["@timestamp"] = pd.to_datetime(frame["@timestamp"])
    seconds, cpu, highest = time.perf_counter() - begun, time.process_time() - cpu_before, peak()
    return {
        "rows": len(frame), "seconds": seconds, "cpu": cpu, "scan_seconds": scanned, "before": before, "peak": highest,
        "ids": _digest(frame["_id"].tolist()), "columns": len(frame.columns),
    }  # fmt: skip


def _digest(ids: list[str]) -> str:
    return hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest()


def _store(url: str, prefix: str) -> Store:
    from oddlog.connectors.by_url import open_store
    from oddlog.settings import load

    return open_store(load({"store": {"url": url, "prefix": prefix}}).store)


def _documents(count: int, days: float) -> Iterator[pl.DataFrame]:
    """Enriched events as the consumer writes them: simulated traffic, features and verdicts of plausible values."""
    import numpy as np
    import polars as pl

    from oddlog.events.envelope import envelope
    from oddlog.events.parse import parse
    from oddlog.events.record import Partition, Records
    from oddlog.features.declaration import FEATURE_NAMES
    from oddlog.scoring.scorer import Scores
    from oddlog.simulation import simulate
    from serving.documents import scored_events

    texts = simulate(seed=4, start=START, lines=count, days=days).frame["line"]
    chance = np.random.default_rng(4)
    for start in range(0, count, WRITTEN_ROWS):
        values: list[bytes | None] = [
            envelope(text, at=START, path="/var/log/nginx/access.log", offset=200 * n, host="web-1")
            for n, text in enumerate(texts[start : start + WRITTEN_ROWS].to_list(), start)
        ]
        n = len(values)
        partitions = [(start + row) % 4 for row in range(n)]
        offsets = [(start + row) // 4 for row in range(n)]
        ends = {Partition("e1", "logs.raw", number): start // 4 + n for number in range(4)}
        records = Records(values, ["e1"] * n, ["logs.raw"] * n, partitions, offsets, [-1] * n, ends)
        events = parse(records).events
        scores = Scores(
            "oddlog", "1", "b" * 64, 5.0, "1", "1", chance.normal(0, 1, events.height).astype(np.float32),
            chance.exponential(0.4, events.height), np.zeros(events.height, dtype=np.bool_),
        )  # fmt: skip
        features = chance.random((events.height, len(FEATURE_NAMES)), dtype=np.float32)
        frame = scored_events(events, features, list(FEATURE_NAMES), scores)
        assert isinstance(frame, pl.DataFrame)
        yield frame


def load_documents(url: str, prefix: str, count: int, days: float) -> int:
    """Write `count` documents; how many are there then."""
    from oddlog.connectors.store import EventQuery

    store = _store(url, prefix)
    store.setup()

    def write(frame: pl.DataFrame) -> None:
        for _ in range(TRIES):
            outcome = store.write_events(frame)
            if not outcome.retry and not outcome.rejected:
                return
            if outcome.rejected:
                break
            time.sleep(1)
        raise SystemExit(f"not written: {next(iter((outcome.retry | outcome.rejected).values()))}")

    with ThreadPoolExecutor(WRITERS) as aside:  # some are written while the next is made
        writing: deque[Future[None]] = deque()
        for frame in _documents(count, days):
            writing.append(aside.submit(write, frame))
            if len(writing) > WRITERS:
                writing.popleft().result()
        for one in writing:
            one.result()
    store.refresh()
    _let_merges_end(url, prefix)
    return store.count_events(EventQuery())


def _let_merges_end(url: str, prefix: str) -> None:
    import httpx

    deadline = time.monotonic() + MERGED_SECONDS
    while time.monotonic() < deadline:
        found = httpx.get(f"{url}/{prefix}-events-*/_stats/merge", timeout=60, trust_env=False).json()
        if not found["_all"]["total"]["merges"]["current"]:
            return
        time.sleep(0.5)


def _elastic_cpu(url: str) -> float:
    """Processor seconds that Elasticsearch has taken since it started, as it says itself once a second."""
    import httpx

    time.sleep(1.1)
    nodes = httpx.get(f"{url}/_nodes/stats/process", timeout=60, trust_env=False).json()["nodes"].values()
    return float(sum(node["process"]["cpu"]["total_in_millis"] for node in nodes)) / 1e3


@contextmanager
def elasticsearch() -> Iterator[str]:
    """The URL of a real Elasticsearch."""
    from oddlog import stack

    if given := os.environ.get("TEST_ELASTICSEARCH_URL"):
        yield given.rstrip("/")
        return
    if lacking := stack.missing_tools():
        raise SystemExit(f"a real Elasticsearch needs {' and '.join(lacking)}")
    with tempfile.TemporaryDirectory(prefix="oddlog-benchmark-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)  # Elasticsearch may run as another user
        try:
            yield stack.up(folder / "stack", kafka=False).urls["elasticsearch"]
        finally:
            stack.down(folder / "stack", purge=True)


def run(arguments: argparse.Namespace) -> None:
    """Load, read both ways in turns, print, write."""
    where, prefix = machine(), arguments.prefix or f"p{uuid.uuid4().hex[:8]}"
    say = told_by_the_clock()
    end_when_asked()
    rounds: list[dict[str, dict[str, Any]]] = []
    with elasticsearch() as url:
        if arguments.prefix is None:
            say(f"writing {arguments.documents:,} documents")
            load_documents(url, prefix, arguments.documents, arguments.days)
        day = (START + dt.timedelta(days=1)).isoformat()
        small = {part: _part(part, url, prefix, "--until", day) for part in PARTS}
        for part in PARTS:
            _part(part, url, prefix)
        say("read all both ways, uncounted")
        for number in range(arguments.rounds):
            rounds.append({part: _part(part, url, prefix) for part in (PARTS if number % 2 == 0 else PARTS[::-1])})
            mine, other = rounds[-1]["ours"], rounds[-1]["theirs"]
            say(f"round {number + 1}: {mine['seconds']:.1f} s against {other['seconds']:.1f} s")
            if (mine["rows"], mine["ids"], mine["columns"]) != (other["rows"], other["ids"], other["columns"]):
                raise SystemExit(f"the two ways read other documents: {mine} {other}")
        if arguments.prefix is None and "TEST_ELASTICSEARCH_URL" in os.environ:
            _remove(url, prefix)
    figures = {"rounds": rounds, "first_day": small, "ratio": ratio(rounds)}
    publish("pull", where, figures, [table(rounds, small)], arguments.json)


def _part(part: str, url: str, prefix: str, *more: str) -> dict[str, Any]:
    before = _elastic_cpu(url)
    found = result_of("benchmarks.pull", ["--part", part, "--url", url, "--prefix", prefix, *more])
    return {**found, "elasticsearch_cpu": _elastic_cpu(url) - before}


def ratio(rounds: Sequence[dict[str, dict[str, Any]]]) -> float:
    """Their seconds over ours, the median of the rounds."""
    return float(statistics.median(one["theirs"]["seconds"] / one["ours"]["seconds"] for one in rounds))


def table(rounds: Sequence[dict[str, dict[str, Any]]], small: dict[str, dict[str, Any]]) -> str:
    """Markdown: medians of the rounds."""
    rows, columns = rounds[0]["ours"]["rows"], rounds[0]["ours"]["columns"]

    def median(part: str, name: str) -> float:
        return float(statistics.median(one[part][name] for one in rounds))

    def row(name: str, part: str) -> list[str]:
        seconds = median(part, "seconds")
        memory = [max(one[part]["peak"] for one in rounds), small[part]["peak"]]
        return [
            name, f"{seconds:.1f}", f"{rows / seconds:,.0f}", f"{median(part, 'cpu'):.1f}",
            f"{median(part, 'elasticsearch_cpu'):.1f}", *(f"{one / 1e6:,.0f}" for one in memory),
        ]  # fmt: skip

    found = ratio(rounds)
    blank = [""] * 5
    return markdown(
        [
            f"{rows:,} documents, {columns} columns", "s", "documents/s", "own CPU s", "Elasticsearch CPU s", "peak MB",
            f"peak MB of {small['ours']['rows']:,}",
        ],
        [
            row("`helpers.scan`, pandas frame", "theirs"),
            ["- of it: the scan", f"{median('theirs', 'scan_seconds'):.1f}", *blank],
            row("`oddlog train`'s pull into Parquet", "ours"),
            [f"**times as fast** (target {TARGET:g})", f"**{found:.1f}**", *blank],
        ],
    )  # fmt: skip


def _remove(url: str, prefix: str) -> None:
    import httpx

    with httpx.Client(base_url=url, trust_env=False, timeout=60) as client:
        for name in client.get(f"/{prefix}-*/_settings").json():
            client.delete(f"/{name}").raise_for_status()


def main(argv: Sequence[str] | None = None) -> int:
    """The table on standard output."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pull", description=__doc__)
    parser.add_argument("--documents", type=int, default=1_000_000)
    parser.add_argument("--days", type=float, default=7.0, help="days, hence indices, that they are spread over")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--prefix", help="read the events of these indices instead, written before")
    parser.add_argument("--json", type=Path, help="where the figures go; default: benchmarks/results/pull.json")
    parser.add_argument("--part", choices=["ours", "theirs", "load"], help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    parser.add_argument("--until", type=dt.datetime.fromisoformat, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.part is None:
        run(arguments)
    elif arguments.part == "load":
        print(load_documents(arguments.url, arguments.prefix, arguments.documents, arguments.days))
    else:
        read = ours if arguments.part == "ours" else theirs
        print(json.dumps(read(arguments.url, arguments.prefix, arguments.until)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
