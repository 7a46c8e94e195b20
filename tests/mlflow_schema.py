"""MLflow's tables made once for a whole run: its 69 migrations take longer than most tests that need a registry."""

from __future__ import annotations

import fcntl
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path


def made_once(folder: Path, create: Callable[[str, str], None]) -> Callable[[str, str], None]:
    """`create` (mlflow_connection's, of a database's URL and the place of its artifacts) on a copy of empty tables.

    The tables are made in `folder`, which all workers of a run share, by whoever comes first. What an MLflow that
    finds its tables does is still done: it compares their version and makes the default experiment.
    """

    def create_on_a_copy(url: str, artifacts: str) -> None:
        empty = folder / "mlflow-tables.db"
        with open(folder / ".mlflow-tables.lock", "a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not empty.exists():
                beside = folder / "mlflow-tables-half-made.db"
                create(f"sqlite:///{beside}", artifacts)
                with closing(sqlite3.connect(beside)) as connection, connection:
                    connection.execute("DELETE FROM experiments")  # the default one knows the place of its artifacts
                beside.replace(empty)
        shutil.copyfile(empty, url.removeprefix("sqlite:///"))
        create(url, artifacts)

    return create_on_a_copy
