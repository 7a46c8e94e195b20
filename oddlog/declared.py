"""Files that declare gates or limits, a TOML table each, read into a pydantic model. What they mean is not here."""

from __future__ import annotations

import tomllib
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from oddlog.errors import UsageError

M = TypeVar("M", bound=BaseModel)


def read_declared(
    path: Path, kind: type[M], *, file: str, noun: str, table: str, mend: str, page: str, beside: Container[str] = ()
) -> M:
    """The tables of a file as `kind`, whose fields are tables, each None or left to its default where it is not there.

    For messages: `file` is what the file is called, `noun` what it declares ("gate"), `table` what one of its tables is
    called, `mend` how a path that is wrong is set right, `page` what tells of every table. A file whose tables are all
    `beside` declares nothing.
    Raises UsageError, naming what is unknown or wrong."""
    tables = {field.alias or name: field.annotation for name, field in kind.model_fields.items()}
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(
            f"there is no {file} at {path.absolute()}",
            expected="a TOML file with a table for each of: " + ", ".join(tables),
            mend=mend,
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{path} is no TOML: {error}", expected=f"tables like [{next(iter(tables))}]", mend=f"edit {path}"
        ) from None
    try:
        declared = kind.model_validate(document)
    except ValidationError as error:
        raise UsageError(
            f"{path}: " + "; ".join(_problem(dict(entry), table) for entry in error.errors()),
            expected="; ".join(f"[{name}] {_fields_of(annotation)}" for name, annotation in tables.items()),
            mend=f"edit {path} ({page} tells every {table})",
        ) from None
    if all(name in beside for name in document):
        some = ", ".join(name for name in tables if name not in beside)
        raise UsageError(f"{path} declares no {noun}", expected=f"at least one of: {some}", mend=f"edit {path}")
    return declared


def _problem(entry: Mapping[str, Any], table: str) -> str:
    name, *rest = (str(part) for part in entry["loc"])
    field = ".".join(rest)
    if entry["type"] == "extra_forbidden":
        return f"[{name}] has no field {field!r}" if field else f"there is no {table} [{name}]"
    if entry["type"] == "missing":
        return f"[{name}] lacks the field {field!r}"
    message = str(entry["msg"]).removeprefix("Value error, ")
    return f"[{name}] {field}: {message}" if field else f"[{name}]: {message}"


def _fields_of(annotation: Any) -> str:
    """The fields of a table, which may be optional.

    >>> class Volume(BaseModel):
    ...     factor: float
    >>> _fields_of(Volume | None)
    'factor'
    """
    model = next((part for part in getattr(annotation, "__args__", ()) if part is not type(None)), annotation)
    return ", ".join(model.model_fields) or "without fields"
