"""Python environments of their own for what is measured beside us or measures us: made once, in a cache folder."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

QUIX = ("quixstreams==3.28.1", "elasticsearch==8.19.3")
PY_SPY = ("py-spy==0.4.3",)


class NoEnvironment(Exception):
    """Why there is no such environment."""


def environment_with(packages: tuple[str, ...]) -> Path:
    """The `bin` folder of an environment with these packages, made where it is missing.

    Raises NoEnvironment, with pip's last words."""
    return _made("-".join(package.replace("==", "-") for package in packages), packages, " ".join(packages))


def environment_of(requirements: Path) -> Path:
    """The same with what a file of hashed requirements names, and nothing else."""
    digest = hashlib.sha256(requirements.read_bytes()).hexdigest()[:16]
    return _made(f"locked-{digest}", ("--no-deps", "--require-hashes", "-r", str(requirements)), str(requirements))


def _made(name: str, arguments: tuple[str, ...], called: str) -> Path:
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "oddlog" / "benchmarks"
    folder = home / name
    programs, done = folder / "bin", folder / "installed"
    if done.is_file():
        return programs
    folder.mkdir(parents=True, exist_ok=True)
    for command in (
        [sys.executable, "-m", "venv", "--clear", str(folder)],
        [str(programs / "python"), "-m", "pip", "install", "--quiet", *arguments],
    ):
        try:
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=600)
        except (OSError, subprocess.SubprocessError) as error:
            said = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
            raise NoEnvironment(f"{called} could not be installed: {said[-1] if said else error}") from None
    done.touch()
    return programs
