"""Finds the files that a log's earlier and later generations lie in, after rotation. Reading is in `files.py`."""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from oddlog.connectors.file_place import Generation

COMPRESSED = (".gz", ".bz2", ".xz", ".zst", ".lz4", ".Z", ".zip")
_ROTATED = r"[.\-_][0-9][0-9TZ.:_\-]*"
"""What logrotate and its like append: `.1`, `-20240501`, `.2024-05-01-10`."""


def open_regular(path: Path) -> int | None:
    """A descriptor for reading, None where there is no regular file. Raises OSError, as for permissions."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    return None


def find(path: Path, generation: Generation, read: int | None = None, recent_digest: str | None = None) -> int | None:
    """An open file that is this generation: by inode under whatever name in the folder, else by what it holds
    under a rotated name (a copy, made before the original was truncated) or at the path itself (moved).

    `read` and `recent_digest` as in Generation.fits."""
    everything = sorted(path.parent.iterdir()) if path.parent.is_dir() else []
    others = [each for each in everything if each.name.startswith(path.name) and each != path]
    by_inode = [each for each in everything if _inode(each) == (generation.device, generation.inode)]
    for candidate in [*by_inode, *(each for each in others if each.suffix not in COMPRESSED), path]:
        with contextlib.suppress(PermissionError):  # a neighbour that is none of our business
            fd = open_regular(candidate)
            if fd is not None:
                if generation.fits(fd, read, recent_digest):
                    return fd
                os.close(fd)
    return None


def unseen(path: Path, since_ns: int, known: Sequence[Generation]) -> Iterator[Path]:
    """Rotated files written to since then, oldest first, that are no generation we know: two rotations passed
    while nobody looked."""
    for _, candidate in sorted(_rotated(path, since_ns, "")):
        fd = open_regular(candidate)
        if fd is None:
            continue
        try:
            key = _inode(candidate)
            familiar = any(each.fits(fd) or (key == (each.device, each.inode) and each.begins(fd)) for each in known)
            empty = os.fstat(fd).st_size == 0
        finally:
            os.close(fd)
        if not familiar and not empty:
            yield candidate


def compressed_since(path: Path, since_ns: int) -> list[str]:
    """Names of compressed rotated files that were written to after then (compressing keeps that time)."""
    found = (pair for suffix in COMPRESSED for pair in _rotated(path, since_ns + 1, suffix))
    return [candidate.name for _, candidate in sorted(found)]


def _rotated(path: Path, since_ns: int, suffix: str) -> Iterator[tuple[int, Path]]:
    if not path.parent.is_dir():
        return
    names = re.compile(re.escape(path.name) + _ROTATED + re.escape(suffix))
    for candidate in path.parent.iterdir():
        if names.fullmatch(candidate.name):
            with contextlib.suppress(FileNotFoundError):
                if (mtime := candidate.stat().st_mtime_ns) >= since_ns:
                    yield mtime, candidate


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
