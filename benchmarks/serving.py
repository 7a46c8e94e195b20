"""The service over HTTP: `python -m benchmarks.serving`, five minutes; `--no-peers` leaves the others out.

One forest of 200 trees in a `bentoml serve` with one worker.

1. Arrow against an empty route of the same service, which takes the same body and answers nothing; and against the
   scoring itself, in this process. One connection; blocks of BLOCK calls, in an order that changes: a single call right
   after one of another kind would find its data and code driven out of the processor's caches.
2. The same forest in `mlflow models serve` and in MLServer, in environments of their own, one process each, one after
   the other: 1 and 1,000 rows, with 1, 8 and 32 clients that ask again when they are answered.
3. What a worker takes: memory, and seconds until it is ready.

Clients and servers share the machine.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from itertools import cycle, permutations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from benchmarks.child import resident
from benchmarks.http_load import Connection, load_for, post
from benchmarks.machine import machine
from benchmarks.peers import Peer, mlflow_serves, mlserver_serves, save_forest
from benchmarks.place import Say
from benchmarks.program import end_when_asked, told_by_the_clock
from benchmarks.served import Served, served
from benchmarks.tables import markdown, publish
from benchmarks.tools import NoEnvironment
from oddlog.connectors.by_url import open_registry
from oddlog.connectors.registry import CHALLENGER, PREVIOUS
from oddlog.features.declaration import FEATURE_NAMES
from serving.wire import ARROW, decode_scores, encode_matrix

EMPTY = "/v1/empty"
"""The route of empty_route.py, whose import would start a service here."""
LARGE = 4_096
ONE_LIMIT, LARGE_LIMIT = 1.3, 1.5
BLOCK = 25
CLIENTS = (1, 8, 32)
PEER_ROWS = (1, 1_000)


def over_http(where: Served, repeats: int) -> dict[str, Any]:
    """Milliseconds of one row and of LARGE rows: by Arrow, by the empty route with the same body, in this process."""
    connection = Connection(where.service.url)
    model = next(iter(where.models.values()))
    found: dict[str, Any] = {}
    for rows, times in ((1, repeats), (LARGE, max(150, repeats // 10))):
        matrix = where.features[:rows]
        body = encode_matrix(matrix, list(FEATURE_NAMES))
        score, empty = (post(where.service.url + path, body, ARROW) for path in ("/v1/score", EMPTY))
        status, content = connection.ask(score)
        if status != 200 or not np.array_equal(decode_scores(content).score, model.score(matrix)):
            raise SystemExit(f"the service does not score as its model does: {status}")
        sides: dict[str, Callable[[], object]] = {
            "arrow": lambda ask=score: connection.ask(ask),
            "empty": lambda ask=empty: connection.ask(ask),
            "scoring": lambda matrix=matrix: model.judge(matrix),
        }
        taken: dict[str, list[float]] = {name: [] for name in sides}
        orders = cycle(permutations(sides))
        for number in range(-1, max(len(sides) * 2, times // BLOCK)):  # the first block warms up
            for name in next(orders):
                for _ in range(min(BLOCK, times)):
                    begun = time.perf_counter()
                    sides[name]()
                    if number >= 0:
                        taken[name].append(time.perf_counter() - begun)
        found[str(rows)] = {
            name: {"p50": 1e3 * statistics.median(some), "p99": 1e3 * float(np.percentile(some, 99))}
            for name, some in taken.items()
        }
    connection.close()
    return found


def beside_peers(where: Served, seconds: float, say: Say, left_out: dict[str, str]) -> list[dict[str, Any]]:
    """p50, p99 and requests a second of each server, by rows and clients."""
    own = where.service.url + "/v1/score"

    def arrow(rows: npt.NDArray[np.float32]) -> bytes:
        return post(own, encode_matrix(rows, list(FEATURE_NAMES)), ARROW)

    def as_json(rows: npt.NDArray[np.float32]) -> bytes:
        document = {"columns": list(FEATURE_NAMES), "rows": rows.tolist()}
        return post(own, orjson.dumps(document), "application/json")

    found = _loaded("oddlog, Arrow", where.service.url, arrow, where, seconds, say)
    found += _loaded("oddlog, JSON", where.service.url, as_json, where, seconds, say)
    save_forest(where.detector, where.folder)
    peers: dict[str, Callable[[Path], AbstractContextManager[Peer]]] = {
        "mlflow models serve": mlflow_serves,
        "MLServer": mlserver_serves,
    }
    for name, serve in peers.items():
        say(f"{name}: making its environment, once, and starting it")
        try:
            with serve(where.folder) as peer:
                found += _loaded(name, peer.url, peer.request, where, seconds, say)
        except NoEnvironment as error:
            left_out[name] = str(error)
    return found


def _loaded(
    name: str, url: str, request: Callable[[npt.NDArray[np.float32]], bytes], where: Served, seconds: float, say: Say
) -> list[dict[str, Any]]:
    found = []
    for rows in PEER_ROWS:
        asked = [request(where.features[n * rows : (n + 1) * rows]) for n in range(4)]
        load_for(url, asked, 4, min(2.0, seconds))  # warm
        for clients in CLIENTS:
            done = load_for(url, asked, clients, seconds)
            if done.failed:
                raise SystemExit(f"{name} fails: {done.failed[0]}")
            one = {
                "server": name, "rows": rows, "clients": clients, "requests": len(done.seconds), "rate": done.rate,
                "p50": done.milliseconds(50), "p99": done.milliseconds(99),
            }  # fmt: skip
            say(f"{name}: {rows:,} rows, {clients} clients: {done.rate:,.0f} requests/s")
            found.append(one)
    return found


def worker(where: Served, at_first: int) -> dict[str, Any]:
    """Bytes of a worker when it was ready (`at_first`), after the load, and with three models; its start in seconds."""
    (pid,) = where.workers()
    loaded = resident(pid)
    registry = open_registry(where.settings.registry)
    versions = list(where.models)
    registry.set_alias(PREVIOUS, versions[1])
    registry.set_alias(CHALLENGER, versions[2])
    deadline = time.monotonic() + 60
    while len(where.service.get("/v1/models").json()["held"]) < 3:
        if time.monotonic() > deadline:
            raise SystemExit("the service does not hold three versions")
        time.sleep(0.2)
    return {
        "cold_start_seconds": where.cold_start,
        "rss_ready": at_first,
        "rss_loaded": loaded,
        "rss_three_models": resident(pid),
    }


def tables(document: dict[str, Any]) -> list[str]:
    """Markdown."""
    http = document["http"]
    one, large = http["1"], http[str(LARGE)]
    ratio_one = one["arrow"]["p50"] / one["empty"]["p50"]
    ratio_large = large["arrow"]["p50"] / large["scoring"]["p50"]
    measured = [
        [
            f"{int(rows):,}",
            *(f"{some[side]['p50']:.2f} / {some[side]['p99']:.2f}" for side in ("arrow", "empty", "scoring")),
            f"**{ratio:.2f}** {what}",
            f"{limit:g} ({'met' if ratio <= limit else 'not met'})",
        ]
        for rows, some, ratio, what, limit in (
            ("1", one, ratio_one, "x empty", ONE_LIMIT),
            (str(LARGE), large, ratio_large, "x scoring", LARGE_LIMIT),
        )
    ]
    head = ["rows", "Arrow, p50 / p99 ms", "empty route", "scoring in process", "ratio of p50", "at most"]
    found = [markdown(head, measured)]
    if document["peers"]:
        shown = [
            [
                one["server"], f"{one['rows']:,}", str(one["clients"]), f"{one['p50']:.2f}", f"{one['p99']:.2f}",
                f"{one['rate']:,.0f}",
            ]
            for one in document["peers"]
        ]  # fmt: skip
        found.append(markdown(["server", "rows", "clients", "p50 ms", "p99 ms", "requests/s"], shown))
    taken = document["worker"]
    found.append(
        markdown(
            ["a worker", ""],
            [
                ["seconds from start to ready", f"{taken['cold_start_seconds']:.1f}"],
                ["resident MB when it is ready, one model", f"{taken['rss_ready'] / 1e6:.0f}"],
                ["resident MB after the load", f"{taken['rss_loaded'] / 1e6:.0f}"],
                ["resident MB with three models", f"{taken['rss_three_models'] / 1e6:.0f}"],
            ],
        )
    )
    return found


def misses(document: dict[str, Any]) -> list[str]:
    """What was asked for and is not so."""
    http, large = document["http"], document["http"][str(LARGE)]
    found = []
    if http["1"]["arrow"]["p50"] > ONE_LIMIT * http["1"]["empty"]["p50"]:
        found.append(f"one event takes more than {ONE_LIMIT} times as long as an empty route")
    if large["arrow"]["p50"] > LARGE_LIMIT * large["scoring"]["p50"]:
        found.append(f"{LARGE:,} rows take more than {LARGE_LIMIT} times as long as the scoring")
    own = {(one["rows"], one["clients"]): one for one in document["peers"] if one["server"] == "oddlog, Arrow"}
    for one in document["peers"]:
        mine = own[one["rows"], one["clients"]]
        for figure, better in (("p50", mine["p50"] <= one["p50"]), ("p99", mine["p99"] <= one["p99"]),
                               ("rate", mine["rate"] >= one["rate"])):  # fmt: skip
            if not one["server"].startswith("oddlog") and not better:
                found.append(f"{one['server']} has the better {figure}: {one['rows']} rows, {one['clients']} clients")
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """The tables on standard output. Exit code 1 where a target is missed, or a peer is ahead."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.serving", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=2_000, help="of one request by one connection")
    parser.add_argument("--seconds", type=float, default=5.0, help="of load by the clients, each time")
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--json", type=Path, help="where the figures go; default: benchmarks/results/serving.json")
    given = parser.parse_args(argv)
    say = told_by_the_clock()
    end_when_asked()
    about = machine()
    left_out: dict[str, str] = {}
    with served(say, rows=LARGE, seeds=(0, 1, 2), service="benchmarks.empty_route:OddlogScorer") as where:
        at_first = resident(where.workers()[0])
        say("over HTTP, and beside an empty route")
        http = over_http(where, given.repeats)
        peers = [] if given.no_peers else beside_peers(where, given.seconds, say, left_out)
        document: dict[str, Any] = {
            "http": http,
            "peers": peers,
            "left_out": left_out,
            "worker": worker(where, at_first),
        }
    document["misses"] = misses(document)
    publish("serving", about, document, tables(document), given.json)
    for name, reason in left_out.items():
        print(f"without {name}: {reason}")
    for miss in document["misses"]:
        print(f"missed: {miss}")
    return int(bool(document["misses"]))


if __name__ == "__main__":
    sys.exit(main())
