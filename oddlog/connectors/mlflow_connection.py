"""How MLflow is reached: the client for a URL, an embedded database made safely, its errors as RegistryError.

What is done with it is in `mlflow_registry.py` (versions, aliases) and `mlflow_training.py` (runs).
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from oddlog.errors import RegistryError, UsageError
from oddlog.settings import RegistrySettings, without_credentials

if TYPE_CHECKING:
    from mlflow import MlflowClient

# MLflow's own defaults retry a dead server for minutes and wait 120 s for an answer; a caller here has a
# cached model, or a person who waits. setdefault: a user's own choice stands.
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "GIT_PYTHON_REFRESH": "quiet",
}


def prepare_environment() -> None:
    """Settings that MLflow reads from the environment; call before its first import."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    # The making of a database tells each of 69 migrations at INFO.
    for name in ("alembic", "mlflow.store.db.utils"):
        logging.getLogger(name).setLevel(logging.WARNING)


def database_file(url: str) -> Path | None:
    """The file of an embedded registry, absolute; None for a server.

    Raises UsageError for another scheme, and for a URL with a password: it would be shown wherever the URL is.

    >>> database_file("sqlite:////srv/mlflow.db").as_posix()
    '/srv/mlflow.db'
    >>> database_file("http://mlflow:5000") is None
    True
    """
    parts = urlsplit(url)
    if parts.scheme in {"http", "https"}:
        if "@" in parts.netloc:
            raise UsageError(
                "the registry URL carries a user name or password",
                expected="http(s)://mlflow:5000",
                mend="set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD instead",
            )
        return None
    if parts.scheme == "sqlite" and (path := url.removeprefix("sqlite:///")) not in {url, ""}:
        return Path(path).absolute()
    raise UsageError(
        f"registry URL {without_credentials(url)!r} is neither a server nor a database file",
        expected="http(s)://mlflow:5000 or sqlite:///mlruns/mlflow.db",
        mend="set ODDLOG_REGISTRY__URL, or [registry] url in oddlog.toml",
    )


def tracking_uri(settings: RegistrySettings) -> str:
    """What MLflow takes as tracking and registry URI: the URL, with an absolute path where it is a file."""
    file = database_file(settings.url)
    return settings.url if file is None else f"sqlite:///{file}"


def ui_command(settings: RegistrySettings) -> str:
    """The command, or the address, that shows the runs to a person.

    A bare `mlflow ui` would open a new, empty store.
    """
    if database_file(settings.url) is None:
        return settings.url
    return f"mlflow ui --backend-store-uri {settings.url}"


def exists(settings: RegistrySettings) -> bool:
    """Whether there is anything to ask: a server always, an embedded registry once its file is there."""
    file = database_file(settings.url)
    return file is None or (file.is_file() and file.stat().st_size > 0)


def client(settings: RegistrySettings) -> MlflowClient:
    """A client of the registry at `settings.url`; an embedded one is made where it is not there yet.

    Raises RegistryError.
    """
    prepare_environment()
    file = database_file(settings.url)
    with registry_errors(settings.url):
        if file is not None and not exists(settings):
            _make_database(file, artifact_root(settings))
        from mlflow import MlflowClient

        uri = tracking_uri(settings)
        return MlflowClient(tracking_uri=uri, registry_uri=uri)


def artifact_root(settings: RegistrySettings) -> str:
    """Where an embedded registry keeps artifacts, as a URI: absolute, for MLflow stores it as given."""
    if urlsplit(settings.artifacts).scheme:
        return settings.artifacts.rstrip("/")
    return Path(settings.artifacts).absolute().as_uri()


@contextlib.contextmanager
def registry_errors(url: str) -> Iterator[None]:
    """Whatever MLflow raises, as RegistryError that names the registry and how to mend it."""
    try:
        yield
    except RegistryError:
        raise
    except Exception as error:
        if _is_ours(error):
            raise
        raise RegistryError(
            f"the registry at {url} failed: {_first_line(error)}",
            expected="an MLflow that answers",
            mend=_mend(url, str(error)),
        ) from error


def _is_ours(error: Exception) -> bool:
    """Whether an exception is no failure of the registry: MLflow and its parts are what is translated."""
    parts = ("mlflow", "sqlalchemy", "sqlite3", "requests", "urllib3", "alembic")
    return not (isinstance(error, OSError) or type(error).__module__.split(".")[0] in parts)


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0] or type(error).__name__


def _mend(url: str, message: str) -> str:
    if "out-of-date database schema" in message:
        return f"mlflow db upgrade {url}"
    if database_file(url) is None:
        return f"start it (mlflow server), or set ODDLOG_REGISTRY__URL; `curl {url}/health` must answer OK"
    return "see that the folder is writable and the disk has room, or set ODDLOG_REGISTRY__URL"


def _make_database(file: Path, artifacts: str) -> None:
    """Make an MLflow database beside `file`, then move it into place: it is absent or whole, never half made.

    MLflow guards only half of its own set-up (the tracking tables, not the registry's), and other processes
    see every one of its migrations; a service that starts while `train` makes the file would fail. WAL lets a
    service read while a training writes.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(file.with_name(file.name + ".lock"), "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if file.is_file() and file.stat().st_size > 0:
            return
        with tempfile.TemporaryDirectory(dir=file.parent, prefix=".mlflow-") as folder:
            fresh = Path(folder) / "mlflow.db"
            _create_schema(f"sqlite:///{fresh}", artifacts)
            connection = sqlite3.connect(fresh)
            try:
                connection.execute("PRAGMA journal_mode=WAL")
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            finally:
                connection.close()
            fresh.replace(file)  # only an empty file can be there, left by a crash or a `touch`


def _create_schema(uri: str, artifacts: str) -> None:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    store: Any = SqlAlchemyStore(uri, artifacts)
    store._dispose_engine()  # so that no open connection points at a file that is about to move
