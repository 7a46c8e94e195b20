"""Opening a SQLite file for several processes, and SQLite's errors as the store's. Knows no table."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from oddlog.errors import StoreError, StoreRefused, StoreUnavailable

_UNAVAILABLE = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}
_REFUSED = {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH, sqlite3.SQLITE_CANTOPEN}


def connect(path: Path, timeout: float) -> sqlite3.Connection:
    """A connection in autocommit that waits up to `timeout` seconds for other writers.

    Makes the file and its folders. Raises StoreRefused where it may not, and what `translated` raises."""
    with translated(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreRefused(
                f"the folder {path.parent} of the SQLite store cannot be made: {error.strerror}",
                expected="a folder that this user may write",
                mend="set ODDLOG_STORE__URL, or [store] url in oddlog.toml",
            ) from None
        connection = sqlite3.connect(path, timeout=timeout, isolation_level=None, check_same_thread=False)
        try:
            _to_wal(connection, timeout)
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA cache_size = -65536")  # KiB: a batch and the indexes' tops stay in memory
            connection.execute("PRAGMA wal_autocheckpoint = 8000")  # pages: some ten batches between checkpoints
        except BaseException:
            connection.close()
            raise
        return connection


@contextlib.contextmanager
def translated(path: Path) -> Iterator[None]:
    """SQLite's errors as the port's, by their code."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in _UNAVAILABLE:
            raise StoreUnavailable(
                f"the SQLite store {path} cannot be used now: {error}",
                expected="its lock within the timeout, and room on the disk",
            ) from error
        if code in _REFUSED:
            raise StoreRefused(
                f"the SQLite store {path} refuses: {error}",
                expected="a file and folder that this user may write",
            ) from error
        raise StoreError(
            f"the SQLite store {path} failed: {error}",
            expected="a file that oddlog made",
            mend="point ODDLOG_STORE__URL at another file",
        ) from error


def _to_wal(connection: sqlite3.Connection, timeout: float) -> None:
    """The switch to WAL fails at once while another process makes it: try until the timeout."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
