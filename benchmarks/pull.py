"""`python -m benchmarks.pull`: events for training out of Elasticsearch, our way and that of most tutorials.

Both read the same columns of the same documents, each in a process of its own. Ours is what `oddlog train` does: pages
in record order of one point in time into Parquet, joined and digested, ready to be resumed at any moment. Theirs:
`elasticsearch.helpers.scan` with the same source filtering, each hit to a flat dict, all of them to a pandas frame.
Elasticsearch is the one that TEST_ELASTICSEARCH_URL names, else one of its own that is removed in the end.
"""

from __future__ import annotations

import argparse
import datetime as dt
import hashlib
import json
import os
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.child import peak, resident, result_of
from benchmarks.machine import machine
from benchmarks.tables import markdown, publish

if TYPE_CHECKING:
    import polars as pl

    from oddlog.connectors.store import Store

TARGET = 4.0
"""Times as fast as `helpers.scan` into a pandas frame."""
START = dt.datetime(2024, 3, 4, tzinfo=dt.UTC)
WRITTEN_ROWS = 5_000
MADE_ROWS = 100_000


def ours(url: str, prefix: str) -> dict[str, Any]:
    """What `oddlog train` does to have its events: `training.pull.pull`; `read_seconds` until the parts are there."""
    import training.pull as pulling
    from training.dataset import COLUMNS, Selection

    store, before = _store(url, prefix), resident()
    read_seconds = 0.0
    pull_partition = pulling._pull_partition

    def timed(*arguments: Any) -> list[Path]:
        nonlocal read_seconds
        begun = time.perf_counter()
        parts = pull_partition(*arguments)
        read_seconds += time.perf_counter() - begun
        return parts

    module: Any = pulling
    module._pull_partition = timed
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        found = pulling.pull(store, Selection(), url=url, folder=Path(folder))
        seconds, highest = time.perf_counter() - begun, peak()
        size = found.snapshot.stat().st_size
        ids = found.events(["_id"])["_id"].to_list()
    return {
        "rows": found.rows, "seconds": seconds, "read_seconds": read_seconds, "before": before, "peak": highest,
        "parquet_bytes": size, "ids": _digest(ids), "columns": len(COLUMNS),
    }  # fmt: skip


def theirs(url: str, prefix: str) -> dict[str, Any]:
    """`elasticsearch.helpers.scan` into a pandas frame."""
    import pandas as pd
    from elasticsearch import Elasticsearch, helpers

    from training.dataset import COLUMNS

    fields = [name for name in COLUMNS if name != "_id"]
    paths = [(name, name.split(".")) for name in fields]
    client, before = Elasticsearch(url, request_timeout=120), resident()
    begun = time.perf_counter()
    rows = []
    query = {"query": {"match_all": {}}, "_source": fields}
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
    seconds = time.perf_counter() - begun
    highest = peak()
    return {
        "rows": len(frame), "seconds": seconds, "scan_seconds": scanned, "before": before, "peak": highest,
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
        outcome = store.write_events(frame)
        if outcome.retry or outcome.rejected:
            raise SystemExit(f"not written: {next(iter((outcome.retry | outcome.rejected).values()))}")

    with ThreadPoolExecutor(1) as aside:  # one is written while the next is made
        writing = None
        for frame in _documents(count, days):
            if writing is not None:
                writing.result()
            writing = aside.submit(write, frame)
        if writing is not None:
            writing.result()
    store.refresh()
    return store.count_events(EventQuery())


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
    with elasticsearch() as url:
        if arguments.prefix is None:
            print(f"writing {arguments.documents:,} documents", file=sys.stderr)
            load_documents(url, prefix, arguments.documents, arguments.days)
        found = {
            part: result_of("benchmarks.pull", ["--part", part, "--url", url, "--prefix", prefix])
            for part in ("ours", "theirs")
        }
        if arguments.prefix is None and "TEST_ELASTICSEARCH_URL" in os.environ:
            _remove(url, prefix)
    mine, other = found["ours"], found["theirs"]
    if (mine["rows"], mine["ids"], mine["columns"]) != (other["rows"], other["ids"], other["columns"]):
        raise SystemExit(f"the two ways read other documents: {mine} {other}")
    ratio = other["seconds"] / mine["seconds"]

    def row(name: str, seconds: float, highest: int, before: int) -> list[str]:
        rate = mine["rows"] / seconds
        return [name, f"{seconds:.1f}", f"{rate:,.0f}", f"{highest / 1e6:,.0f}", f"{(highest - before) / 1e6:,.0f}"]

    table = markdown(
        [f"{mine['rows']:,} documents, {mine['columns']} columns", "s", "documents/s", "peak MB", "of it added MB"],
        [
            row("`helpers.scan`, pandas frame", other["seconds"], other["peak"], other["before"]),
            ["- of it: the scan", f"{other['scan_seconds']:.1f}", "", "", ""],
            row("`oddlog train`'s pull into Parquet", mine["seconds"], mine["peak"], mine["before"]),
            ["- of it: read, in parts", f"{mine['read_seconds']:.1f}", "", "", ""],
            [f"**times as fast** (target {TARGET:g})", f"**{ratio:.1f}**", "", "", ""],
            ["times as fast, reading alone", f"{other['scan_seconds'] / mine['read_seconds']:.1f}", "", "", ""],
        ],
    )
    publish("pull", where, {**found, "ratio": ratio}, [table], arguments.json)


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
    parser.add_argument("--prefix", help="read the events of these indices instead, written before")
    parser.add_argument("--json", type=Path, help="where the figures go; default: benchmarks/results/pull.json")
    parser.add_argument("--part", choices=["ours", "theirs", "load"], help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.part is None:
        run(arguments)
    elif arguments.part == "load":
        print(load_documents(arguments.url, arguments.prefix, arguments.documents, arguments.days))
    else:
        print(json.dumps((ours if arguments.part == "ours" else theirs)(arguments.url, arguments.prefix)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
