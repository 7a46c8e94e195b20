"""Forgetting a client in files beside the store: reports, pages, MLflow's artifacts, pulls that were interrupted.

Text has the name taken out. A data set that holds the client's events goes as a whole: what is left of it would be
another one under its digest; the run that logged it stays, and cannot be repeated. Model artifacts, held together by
digests, are left as they are: no client is in their tables.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl
from polars.exceptions import PolarsError

from oddlog.settings import Settings
from oddlog.whole_file import whole_file
from serving.mentions import Mentions

_TEXT = frozenset({".html", ".json", ".jsonl", ".ndjson", ".md", ".txt", ".csv", ".log", ".yaml"})
_CLIENT = "source.address"
_CARD = "card.json"


@dataclass(slots=True)
class ForgottenFiles:
    """What was done to files, or with `dry_run` would be."""

    dry_run: bool
    redacted: list[Path] = field(default_factory=list)
    """Texts that named the client."""
    removed: list[Path] = field(default_factory=list)
    """Data sets with events of it."""
    staying: list[Path] = field(default_factory=list)
    """Files that name it and were left."""
    unseen: list[str] = field(default_factory=list)
    """Places of the settings that are not on this machine."""


def forget_in_files(settings: Settings, names: Sequence[str], *, dry_run: bool = False) -> ForgottenFiles:
    """Look for a client in every folder that the settings name. Raises OSError where one cannot be written."""
    mentions, result = Mentions(names), ForgottenFiles(dry_run)
    for path in _files(settings, result):
        if path.suffix == ".parquet":
            if _holds(path, names):
                result.removed.append(path)
                if not dry_run:
                    path.unlink(missing_ok=True)
                    if settings.train.pulls in path.parent.parents:
                        # The rest of an interrupted pull: gone on with, it would lack what others did.
                        shutil.rmtree(path.parent)
            continue
        try:
            data = path.read_bytes()
        except OSError:  # pruned meanwhile, or a socket
            continue
        if not mentions.among(data):
            continue
        if path.suffix not in _TEXT or path.name == _CARD:
            result.staying.append(path)
            continue
        result.redacted.append(path)
        if not dry_run:
            with whole_file(path) as beside:
                beside.write_bytes(mentions.without(data))
    return result


def _files(settings: Settings, result: ForgottenFiles) -> Iterator[Path]:
    registry = settings.registry
    folders = [registry.cache_dir, settings.drift.workspace, settings.promote.reports, settings.train.pulls]
    if settings.drift.evidently is not None:
        folders.append(settings.drift.evidently)
    if not registry.url.startswith("sqlite:///"):
        result.unseen.append(f"the artifacts of {registry.url.split('@')[-1]}")
    elif "://" in registry.artifacts:
        result.unseen.append(registry.artifacts)
    else:
        folders.append(Path(registry.artifacts))
        yield from (Path(registry.url.removeprefix("sqlite:///") + end) for end in ("", "-wal"))
    seen: set[Path] = set()
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and not path.is_symlink() and (whole := path.resolve()) not in seen:
                seen.add(whole)
                yield path


def _holds(path: Path, names: Sequence[str]) -> bool:
    """Whether a data set has events of the client."""
    with contextlib.suppress(PolarsError, OSError):
        events = pl.scan_parquet(path)
        if _CLIENT in events.collect_schema():
            return not events.filter(pl.col(_CLIENT).is_in(list(names))).limit(1).collect().is_empty()
    return False
