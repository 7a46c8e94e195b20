"""What a figure has to be read with: the machine, its load before, and the processor time that processes took."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from pathlib import Path
from typing import Any

_TICKS = os.sysconf("SC_CLK_TCK")


def machine() -> dict[str, Any]:
    """Cores, processor, memory and load: a part of every JSON that a speed benchmark writes."""
    model = platform.machine()
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    return {
        "cores": len(os.sched_getaffinity(0)),
        "processor": model,
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "python": platform.python_version(),
        "load_before": round(os.getloadavg()[0], 2),
    }


def one_line(found: dict[str, Any]) -> str:
    """The machine in words."""
    return (
        f"{found['cores']} cores ({found['processor']}), {found['memory_gb']:g} GB, CPython {found['python']}; "
        f"load average before: {found['load_before']:.2f}"
    )


def processes(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            for child in map(int, path.read_text().split()):
                found += processes(child)
    return found


def cpu_seconds(pid: int) -> float:
    """Processor seconds, of user and system, that a process and the living ones below it have taken until now."""
    total = 0
    for one in processes(pid):
        with suppress(OSError, IndexError, ValueError):
            # The name may hold spaces and parentheses; the fields after its last one are plain.
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
    return total / _TICKS
