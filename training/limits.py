"""How many events a training can take within its memory, and the sample of clients that brings it there."""

from __future__ import annotations

from dataclasses import replace

from oddlog.connectors.store import Store
from training.checks import Caution
from training.dataset import Selection

FIXED_MB = 650
"""What a training takes whatever the events: the interpreter, polars, scikit-learn, onnxruntime, MLflow."""
BYTES_PER_EVENT = 800
"""What an event adds at the peak. Some 550 were seen on simulated traffic; logs with more different URLs and user
agents take more."""


def within_memory(store: Store, selection: Selection, memory_mb: int) -> tuple[Selection, list[Caution]]:
    """The selection, its sample of clients made smaller where all of it would not fit, and what to record of that."""
    room = max(memory_mb - FIXED_MB, 50) * 1_000_000 / BYTES_PER_EVENT
    events = store.count_events(selection.query) * selection.sample
    if events <= room:
        return selection, []
    share = selection.sample * room / events
    caution = Caution(
        "sampled_for_memory",
        f"{events:,.0f} events need more than {memory_mb:,} MB (setting train.memory_mb): trained on "
        f"{100 * share:.3g} % of the clients, chosen by hash",
        round(share, 4),
    )
    return replace(selection, sample=share), [caution]
