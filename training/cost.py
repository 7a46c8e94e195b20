"""What scoring with a model costs here: time of one event and of many, and memory. Whether that is too much: gates."""

from __future__ import annotations

import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from oddlog.scoring.model import Matrix, Model
from training.evidence import Cost

BATCH_ROWS = 4_096
ONE_ROW_CALLS, BATCH_CALLS = 300, 15

_PAGES = Path("/proc/self/statm")


def measure_cost(model: Model, before_mb: float) -> Cost:
    """Medians over ONE_ROW_CALLS and BATCH_CALLS calls of both channels, on the golden vectors' rows.

    `before_mb`: resident memory before the artifact was loaded. What onnxruntime itself takes is not in the growth if
    it was imported by then."""
    golden = np.asarray(model.card.golden.features, dtype=np.float32).reshape(-1, len(model.card.feature_names))
    rows = np.resize(golden, (BATCH_ROWS, golden.shape[1]))
    one = np.ascontiguousarray(rows[:1])

    def score(matrix: Matrix) -> None:
        model.score(matrix)
        model.novelty(matrix)

    batch_ms = _median_ms(lambda: score(rows), BATCH_CALLS)
    one_row_ms = _median_ms(lambda: score(one), ONE_ROW_CALLS)
    return Cost(one_row_ms, batch_ms, BATCH_ROWS, max(0.0, resident_mb() - before_mb))


def resident_mb() -> float:
    """Memory of this process that is resident, in MB; where there is no /proc, the most that it ever was."""
    if _PAGES.exists():
        return int(_PAGES.read_text().split()[1]) * resource.getpagesize() / 1_000_000
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / 1_000_000 if sys.platform == "darwin" else most / 1_000


def _median_ms(call: Callable[[], None], calls: int) -> float:
    call()  # onnxruntime plans its memory at the first run of a shape
    found = []
    for _ in range(calls):
        began = time.perf_counter_ns()
        call()
        found.append((time.perf_counter_ns() - began) / 1e6)
    return statistics.median(found)
