"""The same forest behind other model servers, each in an environment of its own: `mlflow models serve` and MLServer.

Both take the model as scikit-learn's own: raw features through a StandardScaler and a clip into the same forest, which
they ask for its `predict`. JSON is what both speak.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt

from benchmarks.http_load import post
from benchmarks.tools import environment_with
from oddlog.features.declaration import FEATURE_NAMES
from oddlog.stack.process import free_port

_SCIKIT = ("scikit-learn==1.9.1", "numpy==2.4.6")
MLFLOW = ("mlflow==3.17.2", *_SCIKIT, "pandas==2.3.3")
MLSERVER = ("mlserver==1.7.1", "mlserver-sklearn==1.7.1", *_SCIKIT)

START_SECONDS = 180.0


@dataclass(frozen=True, slots=True)
class Peer:
    """A running server."""

    name: str
    url: str
    pid: int

    def request(self, rows: npt.NDArray[np.float32]) -> bytes:
        """What scores these rows."""
        if self.name == "MLServer":
            tensor = {"name": "features", "shape": list(rows.shape), "datatype": "FP32", "data": rows.ravel().tolist()}
            document: dict[str, Any] = {"inputs": [tensor]}
            path = "/v2/models/forest/infer"
        else:
            document = {"dataframe_split": {"columns": list(FEATURE_NAMES), "data": rows.tolist()}}
            path = "/invocations"
        return post(self.url + path, json.dumps(document).encode(), "application/json")


def save_forest(detector: Any, folder: Path) -> None:
    """Write the detector's forest as a scikit-learn pipeline: `forest.joblib`, readable wherever scikit-learn is."""
    import joblib
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, StandardScaler

    normal = detector._normal
    scaler = StandardScaler().fit(np.zeros((2, len(normal.mean))))
    scaler.mean_, scaler.scale_ = normal.mean.astype(float), normal.deviation.astype(float)
    clip = FunctionTransformer(np.clip, kw_args={"a_min": 0.0, "a_max": 8.0})
    folder.mkdir(parents=True, exist_ok=True)
    joblib.dump(make_pipeline(scaler, clip, detector._forest), folder / "forest.joblib")


@contextmanager
def mlflow_serves(folder: Path) -> Iterator[Peer]:
    """`mlflow models serve` with one worker, whose model is logged by MLflow's own scikit-learn flavour.

    Raises NoEnvironment where it cannot be installed."""
    programs = environment_with(MLFLOW)
    model = folder / "mlflow-model"
    script = (
        "import joblib, mlflow.sklearn, sys; "
        "mlflow.sklearn.save_model(joblib.load(sys.argv[1]), sys.argv[2], serialization_format='cloudpickle')"
    )
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "PATH": f"{programs}:{os.environ['PATH']}"}
    python = str(programs / "python")
    subprocess.run([python, "-c", script, str(folder / "forest.joblib"), str(model)], env=environment, check=True)
    port = free_port()
    command = [python, "-m", "mlflow", "models", "serve", "-m", str(model), "--env-manager", "local", "-w", "1"]
    with _started("mlflow models serve", [*command, "-p", str(port)], folder, environment, port, "/ping") as peer:
        yield peer


@contextmanager
def mlserver_serves(folder: Path) -> Iterator[Peer]:
    """MLServer with its scikit-learn runtime, scoring in the process that answers (no pool beside it to hand over to).

    Raises NoEnvironment where it cannot be installed."""
    programs = environment_with(MLSERVER)
    home = folder / "mlserver"
    home.mkdir()
    port, grpc, metrics = free_port(), free_port(), free_port()
    settings = {
        "host": "127.0.0.1", "http_port": port, "grpc_port": grpc, "metrics_port": metrics, "parallel_workers": 0,
        "debug": False,
    }  # fmt: skip
    model = {
        "name": "forest",
        "implementation": "mlserver_sklearn.SKLearnModel",
        "parameters": {"uri": str(folder / "forest.joblib")},
    }
    (home / "settings.json").write_text(json.dumps(settings))
    (home / "model-settings.json").write_text(json.dumps(model))
    command = [str(programs / "mlserver"), "start", str(home)]
    with _started("MLServer", command, folder, dict(os.environ), port, "/v2/models/forest/ready") as peer:
        yield peer


@contextmanager
def _started(
    name: str, command: list[str], folder: Path, environment: dict[str, str], port: int, ready: str
) -> Iterator[Peer]:
    """A server that has answered; ended, with what it started, when the block is left."""
    log = folder / f"{name.replace(' ', '-')}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=environment, cwd=folder, stdout=output, stderr=output, start_new_session=True
        )
    try:
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + START_SECONDS
        while not _answers(url + ready):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{name} does not start:\n{log.read_text()[-3_000:]}")
            time.sleep(0.2)
        yield Peer(name, url, process.pid)
    finally:
        for number in (15, 9):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5.0, trust_env=False).is_success
    except httpx.TransportError:
        return False
