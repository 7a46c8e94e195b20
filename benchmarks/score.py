"""`python -m benchmarks.score`: time and peak memory of `oddlog score FILE` on a simulated log of a million lines.

The verb as users run it, each time in a process of its own, started anew: the log plain, compressed and from standard
input; by each algorithm; with the page. The log is a week of one simulated site. Output goes into files.
"""

from __future__ import annotations

import argparse
import gzip
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.machine import machine
from benchmarks.program import end_when_asked, told_by_the_clock
from benchmarks.tables import markdown, publish

SCORE = [sys.executable, "-c", "from cli.main import main; main()", "score"]
TARGET = 60.0
"""Seconds for a million lines on two cores, about."""

WAYS: dict[str, list[str]] = {
    "plain": ["{log}"],
    ".gz": ["{log}.gz"],
    ".zst": ["{log}.zst"],
    "standard input": ["-"],
    "plain, `--html`": ["{log}", "--html", "{folder}/odd.html"],
    "plain, `--csv --every`": ["{log}", "--csv", "--every"],
    "plain, `--algorithm iforest`": ["{log}", "--algorithm", "iforest"],
    "plain, `--algorithm autoencoder`": ["{log}", "--algorithm", "autoencoder"],
}
"""Arguments of the verb."""


def write_log(folder: Path, lines: int, days: float) -> Path:
    """A simulated log below `folder`: `access.log`, the same as `.gz` and `.zst`."""
    import pyarrow as pa

    from oddlog.simulation import simulate

    log = folder / "access.log"
    content = "\n".join(simulate(seed=4, lines=lines, days=days).lines).encode() + b"\n"
    log.write_bytes(content)
    (folder / "access.log.gz").write_bytes(gzip.compress(content, compresslevel=6))
    with pa.CompressedOutputStream(str(folder / "access.log.zst"), "zstd") as packed:
        packed.write(content)
    return log


def scored(arguments: Sequence[str], log: Path) -> dict[str, float]:
    """Run the verb to its end: `seconds`, processor seconds `cpu`, `peak` bytes. Raises SystemExit where it fails."""
    out, err = log.parent / "score.out", log.parent / "score.err"
    with log.open("rb") as source, out.open("wb") as output, err.open("wb") as errors:
        begun = time.perf_counter()
        child = subprocess.Popen(
            [*SCORE, *arguments], stdin=source, stdout=output, stderr=errors,
            env={name: value for name, value in os.environ.items() if not name.startswith("ODDLOG_")},
        )  # fmt: skip
        _, status, used = os.wait4(child.pid, 0)  # what this one child took, no other
        seconds = time.perf_counter() - begun
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode or not out.stat().st_size:
        raise SystemExit(f"oddlog score {' '.join(arguments)} ended with {child.returncode}\n{err.read_text()}")
    return {"seconds": seconds, "cpu": used.ru_utime + used.ru_stime, "peak": used.ru_maxrss * 1024}


def run(arguments: argparse.Namespace) -> int:
    """Simulate, score every way, print; 1 where the plain log took longer than the target."""
    where, say = machine(), told_by_the_clock()
    end_when_asked()
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="oddlog-benchmark-") as name:
        folder = Path(name)
        # The log is made by a process of its own: what that took is nobody's peak.
        subprocess.run(
            [sys.executable, "-m", "benchmarks.score", "--write", str(folder),
             "--lines", str(arguments.lines), "--days", str(arguments.days)], check=True,
        )  # fmt: skip
        log = folder / "access.log"
        say(f"{arguments.lines:,} lines, {log.stat().st_size / 1e6:,.0f} MB")
        for way, words in WAYS.items():
            found[way] = scored([word.format(log=log, folder=folder) for word in words], log)
            say(f"{way}: {found[way]['seconds']:.1f} s, {found[way]['peak'] / 1e6:,.0f} MB")
        megabytes = log.stat().st_size / 1e6
    figures: dict[str, Any] = {"lines": arguments.lines, "days": arguments.days, "ways": found}
    publish("score", where, figures, [table(found, arguments.lines, megabytes)], arguments.json)
    return 1 if found["plain"]["seconds"] > TARGET * max(1.0, arguments.lines / 1e6) else 0


def table(found: dict[str, dict[str, float]], lines: int, megabytes: float) -> str:
    """Markdown, a row a way."""
    return markdown(
        [f"{lines:,} lines, {megabytes:,.0f} MB", "s", "lines/s", "CPU s", "peak MB"],
        [
            [way, f"{one['seconds']:.1f}", f"{lines / one['seconds']:,.0f}", f"{one['cpu']:.1f}",
             f"{one['peak'] / 1e6:,.0f}"]
            for way, one in found.items()
        ],
    )  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """The table on standard output."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.score", description=__doc__)
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument("--days", type=float, default=7.0, help="days that they are spread over")
    parser.add_argument("--json", type=Path, help="where the figures go; default: benchmarks/results/score.json")
    parser.add_argument("--write", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.write is not None:
        write_log(arguments.write, arguments.lines, arguments.days)
        return 0
    return run(arguments)


if __name__ == "__main__":
    sys.exit(main())
