"""The port Registry over MLflow's model registry, embedded or a server. Runs are in `mlflow_training.py`."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from oddlog.connectors import mlflow_connection as connection
from oddlog.connectors.registry import ModelVersion
from oddlog.errors import NotRegistered, RegistryError
from oddlog.scoring.card import Threshold

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion as MlflowVersion

    from oddlog.settings import RegistrySettings

ALGORITHM_TAG = "algorithm"
THRESHOLD_TAG = "oddlog.threshold"
HISTORY_TAG = "oddlog.threshold.history"
HISTORY_LENGTH = 100  # thresholds kept; a tag's value may have 100,000 characters, a threshold has some 300

ARTIFACT_FILES = ("model.onnx", "contributions.onnx", "baseline.arrow", "reference.arrow", "card.json")
"""The model artifact (oddlog/scoring/artifact.py): what `download` hands out, in one flat folder."""

LATER_FILES = ("novelty.onnx",)
"""What artifacts of format 1 have not; whether one has to be there, its card tells whoever loads it."""

_PAGE = 200


class MlflowRegistry:
    """Versions, aliases, tags and thresholds of `settings.model`.

    Reading a registry that is not there yet finds nothing and makes nothing; writing makes it.
    """

    def __init__(self, settings: RegistrySettings) -> None:
        connection.database_file(settings.url)  # refuses a URL of another scheme at once
        self._settings = settings
        self._name = settings.model
        self._made: MlflowClient | None = None

    def versions(self) -> list[ModelVersion]:
        if not connection.exists(self._settings):
            return []
        client = self._client()
        found: list[MlflowVersion] = []
        with self._errors():
            token: str | None = None
            while True:
                page = client.search_model_versions(f"name = '{self._name}'", max_results=_PAGE, page_token=token)
                found.extend(page)
                if not (token := page.token):
                    break
            if not found:
                return []
            # A search leaves the aliases out; the model has them all.
            aliases = client.get_registered_model(self._name).aliases
        by_version: dict[str, list[str]] = {}
        for alias, version in aliases.items():
            by_version.setdefault(str(version), []).append(alias)
        found.sort(key=lambda version: int(version.version), reverse=True)
        return [self._entity(version, by_version.get(str(version.version), [])) for version in found]

    def version(self, version: str) -> ModelVersion:
        entity = self._find(version)
        return self._entity(entity, entity.aliases)

    def by_alias(self, alias: str) -> ModelVersion | None:
        if not connection.exists(self._settings):
            return None
        client = self._client()
        with self._errors():
            from mlflow.exceptions import MlflowException

            try:
                entity = client.get_model_version_by_alias(self._name, alias)
            except MlflowException as error:
                # No such model, or a model without such an alias.
                text = str(error)
                if error.error_code == "RESOURCE_DOES_NOT_EXIST" or f"alias {alias} not found" in text:
                    return None
                raise
        return self._entity(entity, entity.aliases)

    def download(self, version: str, into: Path) -> Path:
        self._find(version)
        into.mkdir(parents=True, exist_ok=True)
        client = self._client()
        with tempfile.TemporaryDirectory(dir=into, prefix=".download-") as folder:
            raw, flat = Path(folder) / "raw", Path(folder) / "flat"
            with self._errors():
                import mlflow.artifacts

                uri = connection.tracking_uri(self._settings)
                source = client.get_model_version_download_uri(self._name, version)
                mlflow.artifacts.download_artifacts(
                    artifact_uri=source, dst_path=str(raw), tracking_uri=uri, registry_uri=uri
                )
            self._flatten(raw, flat, version)
            return _move_into_place(flat, into / version)

    def set_alias(self, alias: str, version: str) -> None:
        self._find(version)
        with self._errors():
            self._client().set_registered_model_alias(self._name, alias, version)

    def delete_alias(self, alias: str) -> None:
        if self.by_alias(alias) is None:
            return
        with self._errors():
            self._client().delete_registered_model_alias(self._name, alias)

    def set_tags(self, version: str, tags: Mapping[str, str]) -> None:
        self._find(version)
        with self._errors():
            for key, value in tags.items():
                self._client().set_model_version_tag(self._name, version, key, value)

    def thresholds(self, version: str) -> list[Threshold]:
        tags = self._find(version).tags
        try:
            found = [Threshold.model_validate_json(json.dumps(entry)) for entry in _history_of(version, tags)]
        except ValidationError as error:
            raise _broken_history(version, tags[HISTORY_TAG]) from error
        present = _threshold_of(version, tags)
        return found if present is None else [*found, present]

    def set_threshold(self, version: str, threshold: Threshold) -> None:
        tags = self._find(version).tags
        history = _history_of(version, tags)
        with contextlib.suppress(RegistryError):  # what is no threshold gives way, and was in force at no time
            if (before := _threshold_of(version, tags)) is not None:
                history.append(before.model_dump(mode="json"))
        # History first: a crash in between leaves an entry too many, never a threshold that nobody knows of.
        self.set_tags(
            version,
            {HISTORY_TAG: json.dumps(history[-HISTORY_LENGTH:]), THRESHOLD_TAG: threshold.model_dump_json()},
        )

    def _client(self) -> MlflowClient:
        if self._made is None:
            self._made = connection.client(self._settings)
        return self._made

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        with connection.registry_errors(self._settings.url):
            yield

    def _find(self, version: str) -> MlflowVersion:
        """MLflow's own entity of a version. Raises RegistryError, naming the versions that exist."""
        if connection.exists(self._settings):
            with self._errors():
                from mlflow.exceptions import MlflowException

                try:
                    return self._client().get_model_version(self._name, version)
                except MlflowException as error:
                    missing = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
                    if error.error_code not in missing:
                        raise
        known = [entry.version for entry in self.versions()]
        raise NotRegistered(
            f"the registry at {self._settings.url} holds no version {version!r} of the model {self._name!r}",
            expected="one of " + ", ".join(known) if known else "a registered version; there is none yet",
            mend="oddlog models" if known else "oddlog train",
        )

    def _entity(self, entity: Any, aliases: list[str]) -> ModelVersion:
        tags = dict(entity.tags)
        version = str(entity.version)
        return ModelVersion(
            name=self._name,
            version=version,
            run_id=str(entity.run_id or ""),
            algorithm=tags.get(ALGORITHM_TAG, ""),
            created_ms=int(entity.creation_timestamp),
            aliases=tuple(sorted(aliases)),
            tags=tags,
            threshold=_threshold_of(version, tags),
        )

    def _flatten(self, raw: Path, flat: Path, version: str) -> None:
        """MLflow's layout (flavour files, `extra_files/`) -> the artifact's own files beside one another."""
        flat.mkdir()
        present = {path.name: path for path in sorted(raw.rglob("*"), reverse=True) if path.is_file()}
        if missing := [name for name in ARTIFACT_FILES if name not in present]:
            raise RegistryError(
                f"version {version} of the model {self._name!r} lacks {', '.join(missing)}",
                expected="an artifact with " + ", ".join(ARTIFACT_FILES),
                mend="oddlog train; versions that oddlog did not register cannot be served",
            )
        for name in (*ARTIFACT_FILES, *LATER_FILES):
            if name in present:
                shutil.move(present[name], flat / name)


def _threshold_of(version: str, tags: Mapping[str, str]) -> Threshold | None:
    """The threshold in the tags of a version. Raises RegistryError for a tag that somebody broke."""
    if (text := tags.get(THRESHOLD_TAG)) is None:
        return None
    try:
        return Threshold.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "it"
        raise RegistryError(
            f"the tag {THRESHOLD_TAG!r} of version {version} is no threshold ({where}: {first['msg']}): {text[:200]}",
            expected="JSON with " + ", ".join(Threshold.model_fields),
            mend=f"on the page of version {version} in MLflow write the last entry of the tag {HISTORY_TAG}, or delete "
            f"{THRESHOLD_TAG}: then the threshold that the model was made with is in force",
        ) from error


def _history_of(version: str, tags: Mapping[str, str]) -> list[Any]:
    """The earlier thresholds of a version. Raises RegistryError for a tag that somebody broke."""
    text = tags.get(HISTORY_TAG, "[]")
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, list):
        raise _broken_history(version, text)
    return found


def _broken_history(version: str, text: str) -> RegistryError:
    return RegistryError(
        f"the tag {HISTORY_TAG!r} of version {version} is no list of thresholds: {text[:200]}",
        expected="a JSON list",
        mend=f"on the page of version {version} in MLflow correct the tag {HISTORY_TAG}, or delete it",
    )


def _move_into_place(fresh: Path, target: Path) -> Path:
    """Rename a whole folder to its place; several processes may do so at once with the same content."""
    for attempt in range(10):
        try:
            os.rename(fresh, target)
        except OSError:
            if not target.is_dir():
                raise
            # A folder cannot replace one that is not empty: the older copy gives way.
            with contextlib.suppress(FileNotFoundError):
                os.rename(target, fresh.with_name(f"old-{attempt}"))
        else:
            return target
    raise RegistryError(
        f"the folder {target} is replaced by others all the time",
        expected="to be able to put a download there",
        mend="give each process a cache folder of its own (ODDLOG_REGISTRY__CACHE_DIR)",
    )
