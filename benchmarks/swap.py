"""Models that change hands under load: `python -m benchmarks.swap`, three minutes.

Two workers of `bentoml serve`, 32 clients that ask for a score again when they are answered: half of them name no
version, half name the champion that an answer told last, as the consumer does. Meanwhile 20 times another version
becomes champion: ten that were never served before (fetched, checked and warmed beside the load), and ten rollbacks,
each by the code that `oddlog promote` and `oddlog rollback` move aliases with, in a process of its own. Every answer
is held against what the version that it names scores; answers while a swap is under way are told apart from those at
rest.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from bisect import bisect
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.http_load import Load, load, post
from benchmarks.machine import machine
from benchmarks.place import Say
from benchmarks.program import end_when_asked, told_by_the_clock
from benchmarks.served import Served, served
from benchmarks.tables import markdown, publish
from oddlog.connectors.by_url import open_registry
from oddlog.connectors.registry import CHAMPION
from oddlog.errors import ScorerError
from oddlog.features.declaration import FEATURE_NAMES
from oddlog.settings import Settings
from serving.wire import ARROW, decode_scores, encode_matrix
from training.promote import _move as move
from training.promote import rollback

CLIENTS = 32
SWAPS = 20
WORKERS = 2
ROWS = 16
REST_SECONDS = 3.0
"""Between two swaps, when the last is over."""
SWAP_SECONDS = 60.0
"""Longest that a swap may take to be seen by every worker."""
AIM = 2.0
"""p99 during swaps, in times of that at rest."""


class Judge:
    """Holds each answer against the version that it names; answers of one version are alike to the byte."""

    def __init__(self, where: Served) -> None:
        rows = where.features[:ROWS]
        self.rows = rows
        self.expected = {version: model.score(rows) for version, model in where.models.items()}
        self.champions: list[tuple[float, str]] = []
        """What answers said of who is champion, by time."""
        self.wrong: list[str] = []
        self.by_version: dict[str, int] = {}
        self._known: dict[bytes, tuple[str, str]] = {}

    def __call__(self, status: int, body: bytes) -> str | None:
        """The check of benchmarks/http_load.py."""
        if status != 200:
            return f"status {status}: {body[:300]!r}"
        if body not in self._known:
            try:
                scores = decode_scores(body)
            except ScorerError as error:
                return str(error)
            if not np.array_equal(scores.score, self.expected[scores.model_version]):
                self.wrong.append(f"an answer names version {scores.model_version} and is not its")
            self._known[body] = scores.model_version, scores.champion
        version, champion = self._known[body]
        self.by_version[version] = self.by_version.get(version, 0) + 1
        self.champions.append((time.monotonic(), champion))
        return None

    def all_say(self, champion: str, since: float, least: int) -> bool:
        """Whether the last `least` answers since then name that champion, and no other."""
        last = self.champions[-least:]
        return len(last) == least and last[0][0] >= since and all(named == champion for _, named in last)


async def run(
    where: Served, swaps: int, mover: ProcessPoolExecutor, say: Say
) -> tuple[Load, Judge, list[tuple[float, float]]]:
    """Load, its judge, and when each swap began and was seen by every worker."""
    judge = Judge(where)
    done = False
    body = encode_matrix(judge.rows, list(FEATURE_NAMES))
    anonymous = post(where.service.url + "/v1/score", body, ARROW)
    # A client that names its version: each version that is champion at some time is held to the end.
    named = [post(f"{where.service.url}/v1/score?version={version}", body, ARROW) for version in where.models]
    asking = [
        asyncio.create_task(load(where.service.url, [anonymous], CLIENTS // 2, lambda: done, judge)),
        asyncio.create_task(_naming(where.service.url, named, list(where.models), judge, lambda: done)),
    ]
    windows: list[tuple[float, float]] = []
    try:
        await asyncio.sleep(2 * REST_SECONDS)
        fresh = iter(list(where.models)[1:])
        for number in range(swaps):
            begun = time.monotonic()
            version = None if number % 2 else next(fresh)
            champion = await asyncio.wrap_future(mover.submit(_swap, where.settings, version))
            while not judge.all_say(champion, begun, 20 * CLIENTS):
                if time.monotonic() - begun > SWAP_SECONDS:
                    raise SystemExit(f"version {champion} is not champion after {SWAP_SECONDS:g} s")
                await asyncio.sleep(0.02)
            windows.append((begun, time.monotonic()))
            say(f"swap {number + 1}: version {champion} after {windows[-1][1] - begun:.1f} s")
            await asyncio.sleep(REST_SECONDS)
    finally:
        done = True
        parts = await asyncio.gather(*asking)
    whole = Load(lasted=parts[0].lasted)
    for part in parts:
        whole.begun += part.begun
        whole.seconds += part.seconds
        whole.failed += part.failed
    return whole, judge, windows


async def _naming(url: str, named: list[bytes], versions: list[str], judge: Judge, until: Any) -> Load:
    """CLIENTS / 2 clients that ask for the champion which an answer told last, by its version."""
    request = dict(zip(versions, named, strict=True))
    whole = Load()
    begun = time.monotonic()

    async def one() -> None:
        while not until():
            champion = judge.champions[-1][1] if judge.champions else versions[0]
            left = 50

            def enough() -> bool:
                nonlocal left
                left -= 1
                return left < 0 or until()

            part = await load(url, [request[champion]], 1, enough, judge)
            whole.begun += part.begun
            whole.seconds += part.seconds
            whole.failed += part.failed

    await asyncio.gather(*(one() for _ in range(CLIENTS // 2)))
    whole.lasted = time.monotonic() - begun
    return whole


def _swap(settings: Settings, version: str | None) -> str:
    """Another champion: a version, or for None the one before; who it is."""
    if version is None:
        return rollback(settings).champion
    registry = open_registry(settings.registry)
    move(registry, version, registry.by_alias(CHAMPION))
    return version


def _ready(settings: Settings) -> None:
    """Import what a swap needs."""
    open_registry(settings.registry).by_alias(CHAMPION)


def figures(whole: Load, judge: Judge, windows: list[tuple[float, float]]) -> dict[str, Any]:
    """p50, p99 at rest and while a swap was under way; what failed."""
    begins = [begun for begun, _ in windows]
    during, rest = Load(), Load()
    for begun, seconds in zip(whole.begun, whole.seconds, strict=True):
        at = bisect(begins, begun + seconds) - 1  # the last swap that had begun when the answer came
        (during if at >= 0 and begun <= windows[at][1] else rest).seconds.append(seconds)
    return {
        "requests": len(whole.seconds),
        "rate": whole.rate,
        "failed": len(whole.failed),
        "first_failures": whole.failed[:5],
        "wrong": len(judge.wrong),
        "first_wrong": judge.wrong[:5],
        "by_version": judge.by_version,
        "swaps": len(windows),
        "swap_seconds": [end - begun for begun, end in windows],
        "rest": {"requests": len(rest.seconds), "p50": rest.milliseconds(50), "p99": rest.milliseconds(99)},
        "during": {"requests": len(during.seconds), "p50": during.milliseconds(50), "p99": during.milliseconds(99)},
    }


def table(found: dict[str, Any]) -> str:
    """Markdown."""
    rows = [
        [name, f"{one['requests']:,}", f"{one['p50']:.1f}", f"{one['p99']:.1f}"]
        for name, one in (("at rest", found["rest"]), (f"during {found['swaps']} swaps", found["during"]))
    ]
    ratio = found["during"]["p99"] / found["rest"]["p99"]
    rows.append(["p99, during against at rest (aim at most 2)", "", "", f"**{ratio:.2f}**"])
    rows.append(["failed requests", f"**{found['failed']}**", "", ""])
    rows.append(["answers whose score is not that of the version named", f"**{found['wrong']}**", "", ""])
    slowest, median = max(found["swap_seconds"]), float(np.median(found["swap_seconds"]))
    rows.append([f"until every worker answers by the new one: {median:.1f} s, at most {slowest:.1f} s", "", "", ""])
    head = [f"{CLIENTS} clients, {WORKERS} workers, {found['rate']:,.0f} requests/s", "requests", "p50 ms", "p99 ms"]
    return markdown(head, rows)


def main(argv: Sequence[str] | None = None) -> int:
    """The table on standard output. Exit code 1 where a request failed or a score is another version's."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.swap", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--swaps", type=int, default=SWAPS, help="promotions and rollbacks in turn")
    parser.add_argument("--json", type=Path, help="where the figures go; default: benchmarks/results/swap.json")
    given = parser.parse_args(argv)
    say = told_by_the_clock()
    end_when_asked()
    about = machine()
    seeds = range(1 + (given.swaps + 1) // 2)
    with (
        served(say, rows=ROWS, lines=6_000, seeds=seeds, workers=WORKERS, poll_seconds=1.0) as where,
        # A process beside this one: moving aliases would keep the clients from looking at their answers.
        ProcessPoolExecutor(1, mp_context=get_context("spawn")) as mover,
    ):
        mover.submit(_ready, where.settings).result()
        found = figures(*asyncio.run(run(where, given.swaps, mover, say)))
    publish("swap", about, found, [table(found)], given.json)
    for problem in [*found["first_failures"], *found["first_wrong"]]:
        print(f"problem: {problem}")
    return int(bool(found["failed"] or found["wrong"]))


if __name__ == "__main__":
    sys.exit(main())
