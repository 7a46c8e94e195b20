"""A `bentoml serve` with forests to be measured over HTTP: fitted here, registered in an MLflow of its own, promoted.

Kafka and Elasticsearch have no part in it: `place.py` is for what they have a part in.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.machine import processes
from benchmarks.place import Say
from oddlog.connectors.by_url import open_registry
from oddlog.connectors.registry import CHAMPION
from oddlog.detectors.iforest import IForest
from oddlog.events.logfile import records_from_lines
from oddlog.events.parse import parse
from oddlog.features.compute import FeatureComputer
from oddlog.scoring.artifact import write_artifact
from oddlog.scoring.model import Model
from oddlog.settings import Settings, load
from oddlog.simulation.traffic import simulate
from oddlog.stack.process import free_port
from serving.child import SERVICE, ServiceChild, start_service
from tests.small_model import parts_of
from tests.small_registry import register


@dataclass
class Served:
    """The service, and the models it serves."""

    folder: Path
    settings: Settings
    service: ServiceChild
    models: dict[str, Model]
    """As they were registered, by version."""
    detector: Any
    """The first one's detector: scikit-learn's forest is in it."""
    features: npt.NDArray[np.float32]
    """Float32 [n, d]: later traffic of the same site, under the first model's baseline."""
    cold_start: float
    """Seconds from the start of the process to the first 200 of /readyz."""

    def workers(self) -> list[int]:
        """Processes that score."""
        command = "/proc/{}/cmdline"
        return [pid for pid in processes(self.service.pid) if b"--worker-id" in Path(command.format(pid)).read_bytes()]


@contextmanager
def served(
    say: Say,
    *,
    rows: int,
    lines: int = 20_000,
    seeds: Sequence[int] = (0,),
    workers: int = 1,
    poll_seconds: float = 5.0,
    service: str = SERVICE,
) -> Iterator[Served]:
    """Fit a forest for each seed, register them as versions 1, 2, ..., serve the first; end all of it."""
    folder = Path(tempfile.mkdtemp(prefix="oddlog-benchmark-"))
    with ExitStack() as ending:
        ending.callback(shutil.rmtree, folder, ignore_errors=True)
        port = free_port()
        settings = load(
            {
                "registry": {
                    "url": f"sqlite:///{folder / 'mlflow.db'}",
                    "artifacts": str(folder / "artifacts"),
                    "cache_dir": str(folder / "cache"),
                },
                "store": {"url": f"sqlite:///{folder / 'events.sqlite'}"},
                "serve": {"workers": workers, "poll_seconds": poll_seconds},
                "scorer": {"url": f"http://127.0.0.1:{port}"},
            }
        )
        made = [line.encode() for line in simulate(seed=6, lines=lines + rows, days=2.0).lines]
        say(f"fitting and registering {len(seeds)} forests on {lines:,} lines")
        models: dict[str, Model] = {}
        detectors = []
        for seed in seeds:
            parts = parts_of(made[:lines], IForest(), seed=seed)
            write_artifact(folder / f"forest {seed}", **parts)
            detectors.append(parts["detector"])
            models[register(settings.registry, folder / f"forest {seed}")] = Model.load(folder / f"forest {seed}")
        first = next(iter(models.values()))
        open_registry(settings.registry).set_alias(CHAMPION, next(iter(models)))
        features = FeatureComputer(first.baseline).compute(parse(records_from_lines(made[lines:])).events)
        say("starting the scorer")
        begun = time.monotonic()
        child = ending.enter_context(start_service(settings, port, folder=folder / "service", service=service))
        cold = time.monotonic() - begun
        yield Served(folder, settings, child, models, detectors[0], np.ascontiguousarray(features), cold)
