"""The campaign in its order: build, load and faults side by side, calm, backfill, verdict."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, cast

from benchmarks.campaign.consumers import Exit, consumer_environment
from benchmarks.campaign.load import Load, prepare_conflict
from benchmarks.campaign.plan import INDICES, POINTS, PROMOTION, Fault
from benchmarks.campaign.verdict import Verdict, judge
from benchmarks.campaign.watch import Watch, Watched
from benchmarks.campaign.world import World, build
from benchmarks.fault_proxy import ProxyFault
from oddlog.connectors.by_url import open_store
from oddlog.connectors.store import EventQuery

NAMES = ("consumer-1", "consumer-2")
CALM_SECONDS = 300.0
"""After the last fault everything has to be consumed within this time, and 2 s for each thousand records more."""
MEET_SECONDS = 60.0
"""How much longer than planned a fault lasts when nothing has met it yet: the other lane may have a server down."""

Say = Callable[[str], None]


@dataclass(slots=True)
class Outcome:
    """All that a campaign found."""

    seed: int
    produced: int = 0
    poisoned: dict[str, int] = field(default_factory=dict)
    injected: dict[str, int] = field(default_factory=dict)
    """Faults carried out, by kind."""
    met: dict[str, int] = field(default_factory=dict)
    """Requests that met a fault of the proxy, by kind."""
    missed: list[str] = field(default_factory=list)
    """Faults that could not be carried out as planned, with the reason."""
    exits: list[Exit] = field(default_factory=list)
    consumers_started: int = 0
    watched: Watched = field(default_factory=Watched)
    verdict: Verdict = field(default_factory=Verdict)
    stuck: str = ""
    """What was not consumed in time after the last fault; "" when all was."""
    seconds: float = 0.0
    folder: str = ""
    """Where logs and data were left, when they were kept."""

    @property
    def broken(self) -> dict[str, Any]:
        """The properties that do not hold; empty for a campaign that was passed."""
        found: dict[str, Any] = dict(self.verdict.broken)
        if self.watched.ahead:
            found["commits ahead of documents"] = len(self.watched.ahead)
        if self.watched.checks == 0:
            found["checks of committed offsets"] = "none could be made"
        if bad := [one for one in self.exits if not one.expected]:
            found["consumers that ended"] = "; ".join(sorted({f"{one.code}: {one.error}" for one in bad}))
        if self.stuck:
            found["stuck"] = self.stuck
        return found


def run_campaign(
    faults: list[Fault], *, seed: int, records: int, rate: float, keep: bool = False, say: Say = lambda _: None
) -> Outcome:
    """Carry out a plan. `rate`: records produced per second while faults go on; the rest comes after the last one."""
    begun = time.monotonic()
    outcome = Outcome(seed)
    with build(seed, keep=keep, say=say) as world, ExitStack() as ending:
        prepare_conflict(world)
        runner = _Faults(world, faults, outcome, say)
        load = Load(world, seed, records, rate, lambda: runner.share_done)
        watch = Watch(world, lambda: list(runner.going_on))
        runner.watch = watch
        world.consumers.start(*NAMES)
        ending.callback(load.stop)
        ending.callback(runner.stop)
        load.start()
        watch.start()
        ending.callback(watch.stop)
        say("load and faults")
        runner.run()
        say("faults are over")
        if not load.wait(120.0 + records / 500):
            raise RuntimeError("the load could not be produced") from load.error
        _calm(watch, outcome, CALM_SECONDS + records / 500)
        _settled(world)
        world.consumers.stop()
        watch.stop()
        if watch.failed is not None:
            raise RuntimeError("the watch itself failed") from watch.failed
        if not outcome.stuck:
            say("backfill")
            left = _pending(world)
            _backfill(world)
            say("verdict")
            outcome.verdict = judge(world, left)
        outcome.produced, outcome.poisoned = load.produced, dict(load.poisoned)
        outcome.exits, outcome.watched = world.consumers.exits, watch.seen
        outcome.consumers_started = sum(world.consumers.started.values())
        outcome.met = dict(world.proxy.hits)
        outcome.folder = str(world.folder) if keep else ""
    outcome.seconds = time.monotonic() - begun
    return outcome


def _calm(watch: Watch, outcome: Outcome, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not watch.caught_up and watch.failed is None:
        if time.monotonic() > deadline:
            outcome.stuck = f"after {seconds:.0f} s committed {watch.committed}, ends {watch.ends}"
            return
        time.sleep(0.2)


def _settled(world: World, seconds: float = 12.0) -> None:
    """Give the consumers the time to score what they can of the pending themselves; backfill has the rest."""
    deadline = time.monotonic() + seconds
    while _pending(world) and time.monotonic() < deadline:
        time.sleep(1.0)


def _pending(world: World) -> int:
    store = open_store(world.settings.store)
    try:
        store.refresh()
        return store.count_events(EventQuery(status="pending"))
    finally:
        store.close()


def _backfill(world: World) -> None:
    """As people do it, past the proxy."""
    settings = world.settings
    variables = {
        "ODDLOG_STORE__URL": settings.store.url,
        "ODDLOG_STORE__PREFIX": settings.store.prefix,
        "ODDLOG_SCORER__URL": settings.scorer.url,
    }
    command = [sys.executable, "-c", "from cli.main import main; main()", "backfill"]
    environment = consumer_environment(variables, world.folder)
    subprocess.run(command, env=environment, cwd=world.folder, check=True, capture_output=True, timeout=3_600)


class _Faults:
    """Two lanes of faults, each in its thread."""

    def __init__(self, world: World, faults: list[Fault], outcome: Outcome, say: Say) -> None:
        self.watch: Watch | None = None
        self.going_on: list[str] = []
        self._world = world
        self._faults = faults
        self._outcome = outcome
        self._say = say
        self._stop = threading.Event()
        self._done = 0
        self._lock = threading.Lock()
        self._injected: Counter[str] = Counter()
        self._joined = 0
        self._failed: list[BaseException] = []

    @property
    def share_done(self) -> float:
        """Of the faults, 0 to 1."""
        return self._done / max(1, len(self._faults))

    def stop(self) -> None:
        """After the faults that are under way."""
        self._stop.set()

    def run(self) -> None:
        """All of them. Raises what a fault itself failed with: a server that did not come back."""
        self._wait_for_progress(0, 120.0)  # the first fault meets consumers at work
        lanes = [
            threading.Thread(target=self._lane, args=(lane,), name=f"faults-{lane}", daemon=True)
            for lane in ("servers", "others")
        ]
        for lane in lanes:
            lane.start()
        for lane in lanes:
            while lane.is_alive():
                lane.join(1.0)
        self._outcome.injected = dict(sorted(self._injected.items()))
        if self._failed:
            raise RuntimeError("a fault could not be carried out") from self._failed[0]

    def _lane(self, lane: str) -> None:
        for number, fault in enumerate(self._faults):
            if fault.lane != lane or self._stop.is_set():
                continue
            self._stop.wait(fault.pause)
            with self._lock:
                self.going_on.append(fault.kind)
            self._say(f"fault {number + 1} of {len(self._faults)}: {fault.kind}")
            before = self.watch.consumed if self.watch else 0
            try:
                with self._fault(fault, number):
                    self._stop.wait(fault.seconds)
                self._injected[fault.kind] += 1
            except BaseException as error:
                self._failed.append(error)
                self._stop.set()
            finally:
                with self._lock:
                    self.going_on.remove(fault.kind)
            self._wait_for_progress(before, 20.0)
            with self._lock:
                self._done += 1

    def _wait_for_progress(self, before: int, seconds: float) -> None:
        """The next fault comes when something moved again, so that each meets a consumer at work; or anyway."""
        self._wait(lambda: self.watch is None or self.watch.consumed > before, seconds)

    def _wait(self, condition: Callable[[], bool], seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while not (met := condition()) and time.monotonic() < deadline:
            if self._stop.wait(0.1):
                break
        return met

    @contextmanager
    def _fault(self, fault: Fault, number: int) -> Iterator[None]:
        """Hurt at the start, heal at the end of the block."""
        world = self._world
        what, _, of = fault.kind.partition(" ")
        if of in {"elasticsearch", "kafka"} or fault.kind == "freeze scorer":
            with world.killed(of) if what == "kill" else world.frozen(of):
                yield
        elif fault.kind == "kill scorer":
            with world.scorer_killed():
                yield
        elif fault.kind in INDICES:
            with world.index_fault(fault.kind):
                yield
        elif what == "proxy":
            with self._proxied(cast(ProxyFault, of)):
                yield
        elif fault.kind == PROMOTION:
            world.promote()
            yield
        else:
            with self._to_consumers(fault, NAMES[number % len(NAMES)]):
                yield

    @contextmanager
    def _proxied(self, kind: ProxyFault) -> Iterator[None]:
        world = self._world
        met = world.proxy.hits[kind]
        world.proxy.inject(kind)
        try:
            yield
            if not self._wait(lambda: world.proxy.hits[kind] > met, MEET_SECONDS):
                self._outcome.missed.append(f"proxy {kind}: no request met it in {MEET_SECONDS:g} s")
        finally:
            world.proxy.inject(None)

    @contextmanager
    def _to_consumers(self, fault: Fault, victim: str) -> Iterator[None]:
        consumers = self._world.consumers
        if fault.kind == "kill consumer":
            consumers.kill(victim, away=fault.seconds)
            yield
        elif fault.kind == "freeze consumer":
            consumers.freeze(victim, fault.seconds)
            yield
        elif fault.kind == "join and leave":
            self._joined += 1
            name = f"joined-{self._joined}"
            consumers.add(name)
            self._wait(lambda: consumers.at_work(name), MEET_SECONDS)
            yield
            if consumers.leave(name) is None:
                self._outcome.missed.append(f"{fault.kind}: {name} did not end in a minute after SIGTERM")
        else:
            point = fault.kind.removeprefix("kill consumer ")
            assert point in POINTS, fault.kind
            if not consumers.kill_at(victim, point):
                self._outcome.missed.append(f"{fault.kind}: the point was not reached in a minute")
            yield


def as_json(outcome: Outcome) -> str:
    """For programs, with the machine's cores."""
    document = asdict(outcome) | {"broken": outcome.broken, "cores": os.cpu_count()}
    return json.dumps(document, default=str, indent=2)
