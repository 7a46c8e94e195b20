"""Every setting, its default and its meaning. Weakest first: defaults, TOML file, environment, flags.

Environment: `ODDLOG_<GROUP>__<FIELD>`, as in `ODDLOG_STORE__URL=http://127.0.0.1:9200`. The file is the one that
`--config` or `ODDLOG_CONFIG` names, else `oddlog.toml` in the working folder where there is one. Here are the tree and
its reading; the groups are in `settings_outside.py`, `settings_verbs.py` and further `settings_*.py`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)
from pydantic_settings.exceptions import SettingsError

from oddlog.errors import UsageError
from oddlog.settings_group import IN_WORDS
from oddlog.settings_incidents import IncidentSettings, NotifySettings
from oddlog.settings_outside import RegistrySettings, ScorerSettings, SourceSettings, StoreSettings
from oddlog.settings_privacy import PrivacySettings
from oddlog.settings_retrain import RetrainSettings
from oddlog.settings_verbs import (
    BackfillSettings,
    DriftSettings,
    EnrichSettings,
    LogSettings,
    MonitorSettings,
    PromoteSettings,
    ServeSettings,
    TrainSettings,
)

__all__ = [
    "BackfillSettings",
    "DriftSettings",
    "EnrichSettings",
    "IncidentSettings",
    "LogSettings",
    "MonitorSettings",
    "NotifySettings",
    "PrivacySettings",
    "PromoteSettings",
    "RegistrySettings",
    "RetrainSettings",
    "ScorerSettings",
    "ServeSettings",
    "Settings",
    "SourceSettings",
    "StoreSettings",
    "TrainSettings",
    "config_file",
    "load",
    "without_credentials",
]

DEFAULT_FILE = "oddlog.toml"


class Settings(BaseSettings):
    """The whole tree."""

    model_config = SettingsConfigDict(
        env_prefix="ODDLOG_",
        env_nested_delimiter="__",
        extra="forbid",
        use_attribute_docstrings=True,
        nested_model_default_partial_update=True,
    )

    source: SourceSettings = SourceSettings()
    """Where raw records come from."""
    store: StoreSettings = StoreSettings()
    """Where events are written to and trained from."""
    registry: RegistrySettings = RegistrySettings()
    """Where runs are logged and models registered."""
    scorer: ScorerSettings = ScorerSettings()
    """Who scores."""
    serve: ServeSettings = ServeSettings()
    """The BentoML service."""
    enrich: EnrichSettings = EnrichSettings()
    """The consumer."""
    backfill: BackfillSettings = BackfillSettings()
    """Scoring of stored events."""
    train: TrainSettings = TrainSettings()
    """Training."""
    promote: PromoteSettings = PromoteSettings()
    """Promotion."""
    drift: DriftSettings = DriftSettings()
    """Drift."""
    monitor: MonitorSettings = MonitorSettings()
    """The loop of drift checks."""
    retrain: RetrainSettings = RetrainSettings()
    """Retraining."""
    incidents: IncidentSettings = IncidentSettings()
    """Alerts grouped into incidents."""
    notify: NotifySettings = NotifySettings()
    """Who is told of incidents."""
    privacy: PrivacySettings = PrivacySettings()
    """What is kept of people."""
    log: LogSettings = LogSettings()
    """Logs of the processes themselves."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        sources: list[PydanticBaseSettingsSource] = [init_settings, env_settings]
        path = config_file()
        if path is not None:
            sources.append(TomlConfigSettingsSource(settings_cls, toml_file=path))
        return tuple(sources)


_chosen_file: Path | None = None


def config_file() -> Path | None:
    """The TOML file in force: the one chosen by `load`, by ODDLOG_CONFIG, or `oddlog.toml` here; else None."""
    if _chosen_file is not None:
        return _chosen_file
    if named := os.environ.get("ODDLOG_CONFIG"):
        return Path(named)
    return Path(DEFAULT_FILE) if Path(DEFAULT_FILE).is_file() else None


def load(flags: Mapping[str, Any] | None = None, *, file: Path | None = None) -> Settings:
    """Settings in force; `flags` is a nested mapping that beats everything. Raises UsageError.

    >>> load({"source": {"group": "mine"}}).source.group
    'mine'
    """
    global _chosen_file  # noqa: PLW0603  pydantic-settings asks the class, not the instance, for its sources
    if file is not None:
        _chosen_file = file
    path = config_file()
    if path is not None and not path.is_file():
        raise UsageError(
            f"no settings file at {path}", expected="a TOML file", mend="correct --config or ODDLOG_CONFIG"
        )
    unknown = [name for name in os.environ if name.startswith("ODDLOG_") and not _known_variable(name)]
    if unknown:
        raise UsageError(
            f"the environment has {', '.join(sorted(unknown))}, which no setting reads",
            expected="ODDLOG_<GROUP>__<FIELD>, for example ODDLOG_STORE__URL",
            mend="unset it, or correct its name: without it, oddlog config lists every setting",
        )
    try:
        return Settings(**(flags or {}))
    except ValidationError as error:
        raise _unusable(error) from None
    except SettingsError as error:
        raise UsageError(f"the environment cannot be read: {error}", expected="ODDLOG_<GROUP>__<FIELD>") from None
    except (ValueError, OSError) as error:
        raise UsageError(f"settings cannot be read from {path}: {error}", expected="a TOML file in UTF-8") from None


def _unusable(error: ValidationError) -> UsageError:
    """The first setting that is wrong. A value that may be a secret, one under a misspelt name too, is not shown."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    mend = f"correct {where} in the settings file, or ODDLOG_{where.upper().replace('.', '__')}, or the flag for it"
    if first["type"] == "extra_forbidden":
        group = Settings.model_fields.get(str(first["loc"][0]))
        known = Settings.model_fields if group is None else _fields(group.annotation)
        return UsageError(f"there is no setting {where}", expected=f"one of {', '.join(known)}", mend=mend)
    hidden = len(first["loc"]) == 1 or "password" in where or "key" in where or _is_secret(first["loc"])
    found = "" if hidden else f" (found {without_credentials(repr(first.get('input')))})"
    if first["type"] == "string_pattern_mismatch" and (expected := _in_words(first["loc"])):
        found = without_credentials(repr(first["input"]))
        return UsageError(f"setting {where} is {found}", expected=expected, mend=mend)
    return UsageError(f"setting {where}: {first['msg']}{found}", mend=mend)


def _in_words(place: Sequence[int | str]) -> str | None:
    """What the text of a field looks like, where it says so."""
    fields: Mapping[str, FieldInfo] = Settings.model_fields
    for part in place[:-1]:
        group = fields.get(str(part))
        if group is None or not isinstance(group.annotation, type):
            return None
        fields = _fields(group.annotation)
    extra = fields[str(place[-1])].json_schema_extra if str(place[-1]) in fields else None
    return str(extra[IN_WORDS]) if isinstance(extra, dict) and IN_WORDS in extra else None


def _is_secret(place: Sequence[int | str]) -> bool:
    """Whether the field is one of those that are never shown."""
    group = Settings.model_fields.get(str(place[0]))
    field = None if group is None else _fields(group.annotation).get(str(place[1]))
    return field is not None and "SecretStr" in str(field.annotation)


def _known_variable(name: str) -> bool:
    if name == "ODDLOG_CONFIG":
        return True
    parts = name.removeprefix("ODDLOG_").lower().split("__")
    group = Settings.model_fields.get(parts[0])
    if group is None:
        return False
    return len(parts) == 1 or (len(parts) == 2 and parts[1] in _fields(group.annotation))


def _fields(group: Any) -> Mapping[str, FieldInfo]:
    assert isinstance(group, type)
    assert issubclass(group, BaseModel)
    return group.model_fields


def without_credentials(text: str) -> str:
    """A text with every URL in it shown without user and password.

    >>> without_credentials("no answer from https://me:hunter2@mlflow:5000/health")
    'no answer from https://mlflow:5000/health'
    """
    return re.sub(r"(?<=://)[^/\s@]+@", "", text)
