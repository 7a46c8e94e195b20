"""A measurement in a process of its own: what it prints, the memory it has, the one core it may be kept to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

ONE_THREAD = dict.fromkeys(
    ("POLARS_MAX_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"), "1"
)
"""Variables of every library that would start more threads; they are read when the library is imported."""


def pin_to_one_core() -> None:
    """Keep this process on one of the cores that it may use: the last, since interrupts like the first."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def resident(pid: int | str = "self") -> int:
    """Bytes of a process that are in memory now. Raises OSError where it has ended."""
    return _status(pid, "VmRSS")


def peak(pid: int | str = "self") -> int:
    """Most bytes of a process that were in memory at once, since it began. Raises OSError where it has ended."""
    return _status(pid, "VmHWM")


def lines_of(
    module: str, arguments: Sequence[str], environment: Mapping[str, str] | None = None
) -> Iterator[dict[str, Any]]:
    """Run `python -m module arguments...` and give the JSON objects that it prints, one a line, as they come.

    Raises RuntimeError where it fails."""
    command = [sys.executable, "-m", module, *arguments]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, env={**os.environ, **(environment or {})}, text=True
    ) as child:
        assert child.stdout is not None
        try:
            for line in child.stdout:
                yield json.loads(line)
        except BaseException:
            child.terminate()
            raise
    if child.returncode:
        raise RuntimeError(f"{' '.join(command[1:])} ended with exit code {child.returncode}")


def result_of(module: str, arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The one JSON object that `python -m module arguments...` prints. Raises RuntimeError where it fails."""
    (found,) = lines_of(module, arguments, environment)
    return found


def _status(pid: int | str, field: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"no {field} of process {pid}: has it ended?")
