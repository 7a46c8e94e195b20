"""`python -m benchmarks.training_scale`: time and peak memory of `oddlog train` by stage and size, and how they grow.

Each size is a simulated week of one site, written to a store of its own by a process of its own, in bulk and without
scoring; that is not counted. Then `oddlog train` as users run it: its stages are told by what it prints, and the
memory of each is the peak that the system gives for the process, begun anew at every stage. `train.memory_mb` is the
limit; of more events than fit it a sample of clients is trained on, and the table says so. Exit code 1 where a peak
was above its limit.
"""

from __future__ import annotations

import argparse
import datetime as dt
import itertools
import json
import math
import re
import subprocess
import sys
import tempfile
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.child import peak, result_of
from benchmarks.machine import machine
from benchmarks.program import end_when_asked, told_by_the_clock
from benchmarks.tables import markdown, publish

if TYPE_CHECKING:
    import polars as pl

    from oddlog.connectors.store import Store

SIZES = (100_000, 1_000_000)
START = dt.datetime(2024, 3, 4, tzinfo=dt.UTC)
PARTITIONS = 4
WRITTEN_ROWS = {"sqlite": 50_000, "elasticsearch": 5_000}
WRITERS = 2
TRIES = 20

STAGES = {
    "start": None,
    "pull": r"reading events from the store",
    "check": r"checking the period",
    "baseline": r"fitting the baseline",
    "features": r"computing features",
    "plant": r"planting attack scenarios",
    "fit": r"fitting (surprise|iforest|autoencoder)$",
    "calibrate": r"calibrating ",
    "compile": r"compiling ",
    "evaluate": r"evaluating ",
    "log": r"logging ",
}
"""By what line of standard error each begins; `start` is the interpreter and its imports."""
TOLD = re.compile(r"version \d+ of \S+ \S+ on (?P<events>[\d,]+) events")
SHARE = re.compile(r"trained on (?P<share>[\d.]+) %")

Say = Callable[[str], None]


def stage_of(line: str) -> str | None:
    """The stage that a printed line begins; None where it begins none. Indented lines tell how far one has come.

    >>> stage_of("fitting surprise"), stage_of("fitting the baseline on 9 of 12 events"), stage_of("  9 of 12 events")
    ('fit', 'baseline', None)
    """
    for name, begins in STAGES.items():
        if begins is not None and re.match(begins, line):
            return name
    return None


def train(url: str, prefix: str, folder: Path, algorithm: str, limit_mb: int, say: Say) -> dict[str, Any]:
    """Run `oddlog train`; seconds and peak bytes by stage, events trained on and their share of the clients."""
    from benchmarks.place import environment

    command = [sys.executable, "-c", "from cli.main import main; main()", "train", "--algorithm", algorithm]
    variables = {
        "ODDLOG_STORE__URL": url, "ODDLOG_STORE__PREFIX": prefix, "ODDLOG_TRAIN__MEMORY_MB": str(limit_mb),
        "ODDLOG_TRAIN__PULLS": str(folder / "pulls"), "ODDLOG_REGISTRY__URL": f"sqlite:///{folder / 'mlflow.db'}",
        "ODDLOG_REGISTRY__ARTIFACTS": str(folder / "artifacts"), "ODDLOG_REGISTRY__CACHE_DIR": str(folder / "cache"),
        "COLUMNS": "200",
    }  # fmt: skip
    told = folder / "train.out"
    seconds: dict[str, float] = {}
    peaks: dict[str, int] = {}
    printed: list[str] = []
    stage, began = "start", time.perf_counter()
    with (
        told.open("w") as output,
        subprocess.Popen(
            command, env=environment(folder, variables), cwd=folder, stdout=output, stderr=subprocess.PIPE, text=True
        ) as child,
    ):
        assert child.stderr is not None
        try:
            with _watched(child.pid) as highest:
                for line in child.stderr:
                    printed.append(line.rstrip())
                    if (found := stage_of(line.rstrip())) is None or found == stage:
                        continue
                    now = time.perf_counter()
                    seconds[stage] = seconds.get(stage, 0.0) + now - began
                    peaks[stage] = max(peaks.get(stage, 0), highest())
                    say(f"  {stage} {seconds[stage]:.1f} s, {peaks[stage] / 1e6:,.0f} MB; then {found}")
                    stage, began = found, now
                seconds[stage] = seconds.get(stage, 0.0) + time.perf_counter() - began
                peaks[stage] = max(peaks.get(stage, 0), highest())
        except BaseException:
            child.terminate()
            raise
    if child.returncode:
        raise SystemExit("\n".join(["oddlog train failed", *printed[-20:]]))
    words = told.read_text()
    result = TOLD.search(words)
    if result is None or set(seconds) != set(STAGES):
        raise SystemExit("\n".join([f"oddlog train told other stages than {', '.join(STAGES)}", *printed[-20:], words]))
    share = SHARE.search(" ".join(words.split()))
    return {
        "limit_mb": limit_mb, "trained_on": int(result["events"].replace(",", "")),
        "share": float(share["share"]) / 100 if share else 1.0,
        "seconds": seconds, "peaks": peaks, "printed": printed,
    }  # fmt: skip


@contextmanager
def _watched(pid: int) -> Iterator[Callable[[], int]]:
    """Gives the peak of a process since the last look, in bytes; each look begins it anew.

    A process that has ended tells nothing any more, so it is looked at from aside, too, ten times a second.
    """
    import threading

    seen, ended, lock = [0], threading.Event(), threading.Lock()

    def look() -> None:
        while not ended.wait(0.1):
            with lock:
                _raise_to(seen, pid)

    def highest() -> int:
        with lock:
            _raise_to(seen, pid)
            found, seen[0] = seen[0], 0
            try:
                Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak is what is resident now
            except OSError:
                if Path(f"/proc/{pid}/status").exists() and "VmHWM" in Path(f"/proc/{pid}/status").read_text():
                    raise
            return found

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield highest
    finally:
        ended.set()
        watcher.join()


def _raise_to(seen: list[int], pid: int) -> None:
    try:
        seen[0] = max(seen[0], peak(pid))
    except OSError:  # it has ended
        return


def fill(url: str, prefix: str, events: int, days: float) -> dict[str, Any]:
    """Write a simulated site's events; how many there are, of how many clients, URLs and user agents."""
    from oddlog.connectors.store import EventQuery

    begun = time.perf_counter()
    store, rows = _store(url, prefix), WRITTEN_ROWS["sqlite" if url.startswith("sqlite") else "elasticsearch"]
    store.setup()

    def write(frame: pl.DataFrame) -> None:
        for _ in range(TRIES):
            outcome = store.write_events(frame)
            if outcome.rejected:
                break
            if not outcome.retry:
                return
            time.sleep(1)
        raise SystemExit(f"not written: {next(iter((outcome.retry | outcome.rejected).values()))}")

    with ThreadPoolExecutor(WRITERS if rows < 10_000 else 1) as aside:  # some are written while the next is made
        writing: deque[Future[None]] = deque()
        for frame in documents(events, days, rows):
            writing.append(aside.submit(write, frame))
            if len(writing) > WRITERS:
                writing.popleft().result()
        for one in writing:
            one.result()
    store.refresh()
    found = store.count_events(EventQuery())
    store.close()
    if found != events:
        raise SystemExit(f"{found:,} events are stored, {events:,} were written")
    return {"events": events, "days": days, "seconds": time.perf_counter() - begun}


def documents(events: int, days: float, rows: int) -> Iterator[pl.DataFrame]:
    """Events as the consumer stores them before a champion is there, a client's in one of PARTITIONS partitions."""
    import polars as pl

    from oddlog.events.parse import parse
    from oddlog.events.record import Records
    from oddlog.simulation import simulate
    from serving.documents import pending_events

    lines = (
        simulate(seed=4, start=START, lines=events, days=days)
        .frame.select("line", partition=pl.col("client").rank("dense") % PARTITIONS)
        .with_columns(offset=pl.int_range(pl.len()).over("partition"))
    )
    for part in lines.iter_slices(rows):
        count, values = part.height, [line.encode() for line in part["line"].to_list()]
        records = Records(
            list(values), ["e1"] * count, ["logs.raw"] * count,
            part["partition"].to_list(), part["offset"].to_list(), [-1] * count,
        )  # fmt: skip
        yield pending_events(parse(records).events, None, None)


def _store(url: str, prefix: str) -> Store:
    from oddlog.connectors.by_url import open_store
    from oddlog.settings import load

    return open_store(load({"store": {"url": url, "prefix": prefix}}).store)


def run(arguments: argparse.Namespace) -> int:
    """Write, train, print; 1 where a limit was not held."""
    where, say = machine(), told_by_the_clock()
    end_when_asked()
    found: list[dict[str, Any]] = []
    with _where(arguments.store) as (url, folder):
        for events in arguments.events:
            prefix, place = f"t{uuid.uuid4().hex[:8]}", folder / str(events)
            place.mkdir()
            own = url or f"sqlite:///{place / 'store.sqlite'}"
            say(f"writing {events:,} events")
            wrote = result_of(
                "benchmarks.training_scale",
                ["--fill", str(events), "--days", str(arguments.days), "--url", own, "--prefix", prefix],
            )
            say(f"written in {wrote['seconds']:.0f} s")
            for limit in arguments.memory_mb:
                say(f"oddlog train on {events:,} events within {limit:,} MB")
                one = {"events": events, "written": wrote, **train(own, prefix, place, arguments.algorithm, limit, say)}
                found.append(one)
                say(f"took {sum(one['seconds'].values()):.0f} s, {max(one['peaks'].values()) / 1e6:,.0f} MB at most")
                if one["share"] == 1:  # a higher limit changes nothing
                    break
            if url:
                from benchmarks.pull import _remove

                _remove(url, prefix)
            else:
                for file in place.glob("store.sqlite*"):
                    file.unlink()
    figures = {"store": arguments.store, "algorithm": arguments.algorithm, "days": arguments.days, "runs": found}
    publish(f"training_scale_{arguments.store}", where, figures, [table(found, "seconds"), table(found, "peaks")],
            arguments.json)  # fmt: skip
    above = [one for one in found if max(one["peaks"].values()) > one["limit_mb"] * 1e6]
    for one in above:
        print(f"{one['events']:,} events: {max(one['peaks'].values()) / 1e6:,.0f} MB of {one['limit_mb']:,}")
    return 1 if above else 0


@contextmanager
def _where(store: str) -> Iterator[tuple[str | None, Path]]:
    """URL of a store that all sizes share (None: each has its own), and a folder that is removed in the end."""
    with tempfile.TemporaryDirectory(prefix="oddlog-benchmark-", ignore_cleanup_errors=True) as name:
        if store == "sqlite":
            yield None, Path(name)
            return
        from benchmarks.pull import elasticsearch

        with elasticsearch() as url:
            yield url, Path(name)


def table(runs: Sequence[Mapping[str, Any]], what: str) -> str:
    """Markdown: seconds or MB by stage, a column a run, and how they grow from each size to the next, as a power."""
    heads = [
        f"{one['events']:,}" + (f", {100 * one['share']:.0f} % of the clients" if one["share"] < 1 else "")
        for one in runs
    ]
    grown = [(a, b) for a, b in itertools.pairwise(range(len(runs))) if runs[a]["trained_on"] < runs[b]["trained_on"]]

    def row(name: str, values: Sequence[float], unit: float) -> list[str]:
        powers = [
            math.log(values[b] / values[a]) / math.log(runs[b]["trained_on"] / runs[a]["trained_on"]) for a, b in grown
        ]
        shown = [f"{value / unit:,.0f}" if what == "peaks" else f"{value:,.1f}" for value in values]
        return [name, *shown, *(f"{power:.2f}" for power in powers)]

    total = sum if what == "seconds" else max
    unit = 1e6 if what == "peaks" else 1.0
    whole = [float(total(one[what].values())) for one in runs]
    rows = [
        ["trained on", *(f"{one['trained_on']:,}" for one in runs), *[""] * len(grown)],
        *(row(stage, [float(one[what][stage]) for one in runs], unit) for stage in STAGES),
        row("**all**", whole, unit),
    ]
    if what == "peaks":
        rows.append(["limit", *(f"{one['limit_mb']:,}" for one in runs), *[""] * len(grown)])
    else:
        rate = [f"{one['trained_on'] / seconds:,.0f}" for one, seconds in zip(runs, whole, strict=True)]
        rows.append(["events/s", *rate, *[""] * len(grown)])
    return markdown(
        [
            "events stored: s" if what == "seconds" else "events stored: peak MB", *heads,
            *(f"power {a + 1} to {b + 1}" for a, b in grown),
        ],
        rows,
    )  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """The tables on standard output."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training_scale", description=__doc__)
    parser.add_argument("--events", type=int, nargs="+", default=list(SIZES), help="sizes, rising")
    parser.add_argument("--days", type=float, default=7.0, help="days that they are spread over")
    parser.add_argument("--store", choices=["sqlite", "elasticsearch"], default="sqlite")
    parser.add_argument("--algorithm", default="surprise")
    parser.add_argument(
        "--memory-mb", type=int, nargs="+", default=[4096],
        help="limits (train.memory_mb), rising; the next where the one before made a sample",
    )  # fmt: skip
    parser.add_argument("--json", type=Path, help="where the figures go; default: benchmarks/results/")
    parser.add_argument("--fill", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    parser.add_argument("--prefix", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.fill is not None:
        print(json.dumps(fill(arguments.url, arguments.prefix, arguments.fill, arguments.days)))
        return 0
    return run(arguments)


if __name__ == "__main__":
    sys.exit(main())
