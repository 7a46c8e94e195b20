"""What is in force of the settings: every value as text, without secrets, and where it came from. The settings
themselves are in `settings.py`.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from oddlog.settings import Settings, config_file, without_credentials


@dataclass(frozen=True, slots=True)
class SettingLine:
    """One setting in force: dotted name, value as text (secrets hidden), where it came from, what it means."""

    name: str
    value: str
    origin: str
    meaning: str


def describe(settings: Settings, flags: Mapping[str, Any] | None = None) -> Iterator[SettingLine]:
    """Every setting in force, with its origin: `flag`, `environment`, the file's name, or `default`."""
    path = config_file()
    in_file = tomllib.loads(path.read_text(encoding="utf-8")) if path is not None else {}
    for group_name in Settings.model_fields:
        group = getattr(settings, group_name)
        in_environment = _in_environment(group_name)
        for field_name, field in type(group).model_fields.items():
            if field_name in (flags or {}).get(group_name, {}):
                origin = "flag"
            elif field_name in in_environment:
                origin = "environment"
            elif field_name in in_file.get(group_name, {}):
                origin = str(path)
            else:
                origin = "default"
            value = getattr(group, field_name)
            yield SettingLine(
                name=f"{group_name}.{field_name}",
                value="" if value is None else without_credentials(str(value)),
                origin=origin,
                meaning=" ".join((field.description or "").split()),
            )


def _in_environment(group: str) -> set[str]:
    """Fields of a group that have a variable of their own, or stand in the JSON of the whole group's."""
    found: set[str] = set()
    for name, value in os.environ.items():
        whole, _, field = name.lower().partition("__")
        if whole == f"oddlog_{group}":
            found.update([field] if field else json.loads(value))
    return found
