"""What a bento of the service carries: `python -m benchmarks.bento`, two minutes the first time.

`bentoml build` as `[tool.bentoml.build]` of pyproject.toml says; then an environment of its own with what its
requirements name and nothing else, and in it `bentoml serve` of that bento, away from this checkout, with a registry
behind an `mlflow server`: it has to score and explain as the model does.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from benchmarks.child import resident
from benchmarks.machine import machine, processes
from benchmarks.program import end_when_asked, told_by_the_clock
from benchmarks.tables import markdown, publish
from benchmarks.tools import environment_of
from oddlog.connectors.by_url import open_registry
from oddlog.connectors.registry import CHAMPION
from oddlog.features.declaration import FEATURE_NAMES
from oddlog.settings import ScorerSettings
from oddlog.simulation.traffic import simulate
from oddlog.stack.process import free_port
from serving.client import HttpScorer
from tests.children import mlflow_server, running
from tests.small_model import small_model
from tests.small_registry import register, registry_in

ROOT = Path(__file__).resolve().parent.parent


def build(home: Path) -> Path:
    """The folder of a new bento, in a BentoML home of its own."""
    environment = {**os.environ, "BENTOML_HOME": str(home), "BENTOML_DO_NOT_TRACK": "True"}
    bentoml = str(Path(sys.executable).with_name("bentoml"))
    subprocess.run([bentoml, "build", "--output", "tag", str(ROOT)], env=environment, check=True, capture_output=True)
    (found,) = [path.parent for path in home.glob("bentos/oddlog/*/bento.yaml")]
    return found


def serve(bento: Path, programs: Path, folder: Path) -> dict[str, Any]:
    """Seconds until it is ready and memory of a worker, once it has scored and explained as it should."""
    lines = [line.encode() for line in simulate(seed=6, lines=4_000, days=2.0).lines]
    model = small_model(folder / "model", lines, algorithm="iforest")
    own = registry_in(folder)
    open_registry(own).set_alias(CHAMPION, register(own, folder / "model"))
    rows = (np.random.default_rng(0).random((50, len(FEATURE_NAMES))) * 6).astype(np.float32)
    port = free_port()
    with mlflow_server(own.url, folder / "mlflow.log", artifacts=folder / "artifacts") as registry:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("ODDLOG_", "PYTHONPATH"))}
        environment = kept | {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "BENTOML_HOME": str(folder / "home"),
            "BENTOML_DO_NOT_TRACK": "True",
            "ODDLOG_REGISTRY__URL": registry,
            "ODDLOG_REGISTRY__CACHE_DIR": str(folder / "cache of the bento"),
        }
        command = [programs / "bentoml", "serve", bento, "--host", "127.0.0.1", "--port", str(port)]
        begun = time.monotonic()
        log = folder / "serve.log"
        with running(command, log, env=environment, cwd=folder) as process:
            url = f"http://127.0.0.1:{port}"
            while not _ready(url):
                if process.poll() is not None or time.monotonic() - begun > 180:
                    raise SystemExit(f"the bento does not serve:\n{log.read_text()[-3_000:]}")
                time.sleep(0.1)
            cold = time.monotonic() - begun
            with HttpScorer(ScorerSettings(url=url)) as scorer:
                np.testing.assert_array_equal(scorer.score(rows, list(FEATURE_NAMES)).score, model.score(rows))
                assert len(scorer.explain(rows, list(FEATURE_NAMES)).reasons) > 0
            answer = httpx.post(f"{url}/v1/score/lines", content=lines[0], headers={"content-type": "text/plain"})
            assert answer.json()["lines"][0]["status"] == "scored", answer.text
            worker = max(resident(pid) for pid in processes(process.pid))
    return {"cold_start_seconds": cold, "rss": worker}


def size(folder: Path) -> int:
    """Bytes of the files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def _ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=5.0).is_success
    except httpx.TransportError:
        return False


def _packages(programs: Path) -> Path:
    (found,) = (programs.parent / "lib").glob("python*/site-packages")
    return found


def table(found: dict[str, Any]) -> str:
    """Markdown."""
    return markdown(
        ["a bento", ""],
        [
            ["files", str(found["files"])],
            ["size, MB", f"{found['bento_bytes'] / 1e6:.2f}"],
            ["packages that it asks for, installed, MB", f"{found['environment_bytes'] / 1e6:,.0f}"],
            ["the whole project's packages, MB", f"{found['whole_bytes'] / 1e6:,.0f}"],
            ["seconds from start to ready", f"{found['cold_start_seconds']:.1f}"],
            ["resident MB of its worker", f"{found['rss'] / 1e6:.0f}"],
        ],
    )


def main(argv: Sequence[str] | None = None) -> int:
    """The table on standard output. Exit code 1 where the bento cannot be built, or does not serve."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bento", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="where the figures go; default: benchmarks/results/bento.json")
    given = parser.parse_args(argv)
    say = told_by_the_clock()
    end_when_asked()
    about = machine()
    folder = Path(tempfile.mkdtemp(prefix="oddlog-bento-"))
    try:
        say("building")
        bento = build(folder / "built")
        say("an environment of what it asks for, made once")
        programs = environment_of(bento / "env" / "python" / "requirements.txt")
        say("serving it there")
        found: dict[str, Any] = {
            "files": sum(1 for path in bento.rglob("*") if path.is_file()),
            "bento_bytes": size(bento),
            "environment_bytes": size(_packages(programs)),
            "whole_bytes": size(_packages(Path(sys.executable).parent)),
            **serve(bento, programs, folder),
        }
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    publish("bento", about, found, [table(found)], given.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
