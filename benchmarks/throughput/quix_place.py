"""The environment that the Quix side runs in: made once, in a cache folder, with the versions named here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PACKAGES = ("quixstreams==3.28.1", "elasticsearch==8.19.3")


class NoQuix(Exception):
    """Why there is no such environment."""


def quix_python() -> str:
    """The interpreter of the environment, made where it is missing. Raises NoQuix, with pip's last words."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "oddlog" / "benchmarks"
    folder = home / "-".join(package.replace("==", "-") for package in PACKAGES)
    python, done = folder / "bin" / "python", folder / "installed"
    if done.is_file():
        return str(python)
    folder.mkdir(parents=True, exist_ok=True)
    for command in (
        [sys.executable, "-m", "venv", "--clear", str(folder)],
        [str(python), "-m", "pip", "install", "--quiet", *PACKAGES],
    ):
        try:
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
        except (OSError, subprocess.SubprocessError) as error:
            said = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
            raise NoQuix(f"{' '.join(PACKAGES)} could not be installed: {said[-1] if said else error}") from None
    done.touch()
    return str(python)
