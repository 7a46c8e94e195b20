"""A file that is there whole or not at all: written beside its place, then renamed. Which files: whoever calls."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Gives a path beside `path` to write to; renames it at the end of the `with`, or removes it after an error.

    The name beside ends as `path` does, for writers that go by it. Raises OSError.

    >>> with whole_file(Path(getfixture("tmp_path")) / "report.md") as beside:
    ...     _ = beside.write_text("done")
    >>> [path.name for path in Path(getfixture("tmp_path")).iterdir()]
    ['report.md']
    """
    beside = path.with_name(f".{uuid.uuid4().hex}.{path.name}")
    try:
        yield beside
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
