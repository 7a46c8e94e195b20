"""Model artifacts that passed their check, on disk, and which of them had which role: a start without the registry.

Only what was loaded and verified gets its final name here; everything is written beside, then renamed, so that
several workers may share a folder.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import logging
import shutil
import tempfile
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from oddlog.connectors.registry import ModelVersion
from oddlog.errors import ArtifactError
from oddlog.scoring.card import Threshold
from oddlog.scoring.model import Model
from oddlog.settings import RegistrySettings

log = logging.getLogger(__name__)

KEPT = 8
"""Artifacts that stay on disk; the oldest go."""

POINTER = "roles.json"


class CachedVersion(BaseModel):
    """A version as the registry told it last."""

    model_config = ConfigDict(frozen=True)

    version: str
    key: str
    """Name of its folder: version and run, because a registry that is made anew counts from 1 again."""
    threshold: Threshold | None


class Roles(BaseModel):
    """Which version had which role when the registry was last asked."""

    model_config = ConfigDict(frozen=True)

    format: Literal[1] = 1
    roles: dict[str, CachedVersion]
    written_at: dt.datetime


class ArtifactCache:
    """The folder of one registry and model name, below `registry.cache_dir`."""

    def __init__(self, settings: RegistrySettings) -> None:
        # The URL may hold a password: its digest names the folder.
        digest = hashlib.sha256(settings.url.encode()).hexdigest()[:12]
        self.folder = settings.cache_dir / f"{settings.model}-{digest}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            (probe := self.folder / f".probe-{uuid.uuid4().hex}").touch()
            probe.unlink()
        except OSError as error:
            self.folder = Path(tempfile.mkdtemp(prefix="oddlog-cache-"))
            log.warning(
                "no model cache in %s (%s): using %s, so the next start needs the registry",
                settings.cache_dir, error.strerror, self.folder,
            )  # fmt: skip

    def load(self, found: ModelVersion, download: Callable[[str, Path], Path]) -> Model:
        """The verified model of a version: from here, else downloaded. Raises ArtifactError, RegistryError.

        A copy here that fails its check is thrown away and fetched anew, once."""
        final = self.folder / key_of(found)
        if final.is_dir():
            try:
                return Model.load(final)
            except ArtifactError as error:
                log.warning("cached artifact %s fails its check, fetching it anew: %s", final.name, error.found)
                shutil.rmtree(final, ignore_errors=True)
        incoming = self.folder / f".incoming-{uuid.uuid4().hex}"
        try:
            folder = download(found.version, incoming)
            model = Model.load(folder)
            try:
                folder.rename(final)
            except OSError:
                if not final.is_dir():  # else: another worker was faster, with the same content
                    log.warning("could not keep artifact %s in %s", final.name, self.folder, exc_info=True)
        finally:
            shutil.rmtree(incoming, ignore_errors=True)
        return model

    def load_cached(self, cached: CachedVersion) -> Model:
        """The verified model of a version that was cached. Raises ArtifactError."""
        folder = self.folder / cached.key
        if not folder.is_dir():
            raise ArtifactError(f"no cached artifact {cached.key}", expected=f"a folder of that name in {self.folder}")
        return Model.load(folder)

    def remember(self, roles: dict[str, ModelVersion]) -> None:
        """Note who has which role; what no role names and is old goes."""
        note = Roles(
            roles={
                role: CachedVersion(version=found.version, key=key_of(found), threshold=found.threshold)
                for role, found in roles.items()
            },
            written_at=dt.datetime.now(dt.UTC),
        )
        beside = self.folder / f".{POINTER}-{uuid.uuid4().hex}"
        try:
            beside.write_text(note.model_dump_json(indent=1))
            beside.rename(self.folder / POINTER)
            self._prune({cached.key for cached in note.roles.values()})
        except OSError as error:
            beside.unlink(missing_ok=True)
            log.warning("could not note the champion in %s: %s", self.folder, error)

    def remembered(self) -> Roles | None:
        """The last note; None where there is none that can be read."""
        path = self.folder / POINTER
        try:
            return Roles.model_validate_json(path.read_text())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            log.warning("the note of roles %s cannot be read: %s", path, error)
            return None

    def _prune(self, named: set[str]) -> None:
        folders = [path for path in self.folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
        folders.sort(key=lambda path: path.stat().st_mtime, reverse=True)
        for path in folders[KEPT:]:
            if path.name not in named:
                shutil.rmtree(path, ignore_errors=True)


def key_of(found: ModelVersion) -> str:
    """Name of a version's folder.

    >>> key_of(ModelVersion(name="oddlog", version="3", run_id="abc", algorithm="iforest", created_ms=7))
    '3-abc'
    """
    return f"{found.version}-{found.run_id or found.created_ms}"
