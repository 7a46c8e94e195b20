"""What every verb shares: settings from flags, output for people or programs, errors as exit codes."""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, ParamSpec, TextIO, TypeVar

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cli.logs import log_error, logs_are_json
from oddlog.errors import OddlogError
from oddlog.settings import Settings, load, without_credentials

P = ParamSpec("P")
R = TypeVar("R")

# MLflow, BentoML and Evidently report to their makers unless told not to. setdefault: a user's own choice stands.
for _name, _value in {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "BENTOML_DO_NOT_TRACK": "True",
    "DO_NOT_TRACK": "1",
    "GIT_PYTHON_REFRESH": "quiet",
}.items():
    os.environ.setdefault(_name, _value)


WIDE = 200
"""Columns where there is no terminal to ask."""


def _console(file: TextIO, *, stderr: bool) -> Console:
    """A terminal wraps; a file or pipe gets lines as they are, and tables that are not squeezed into 80 columns."""
    if file.isatty():
        return Console(stderr=stderr)
    return Console(stderr=stderr, soft_wrap=True, width=None if "COLUMNS" in os.environ else WIDE)


out, err = _console(sys.stdout, stderr=False), _console(sys.stderr, stderr=True)

Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output, for programs.")]
Config = Annotated[Path | None, typer.Option("--config", help="TOML file with settings.", show_default=False)]
SourceUrl = Annotated[str | None, typer.Option("--source", help="Beats setting source.url.", show_default=False)]
StoreUrl = Annotated[str | None, typer.Option("--store", help="Beats setting store.url.", show_default=False)]
RegistryUrl = Annotated[str | None, typer.Option("--registry", help="Beats setting registry.url.", show_default=False)]
ScorerUrl = Annotated[str | None, typer.Option("--scorer", help="Beats setting scorer.url.", show_default=False)]


def flags_of(**groups: dict[str, Any] | None) -> dict[str, dict[str, Any]]:
    """Nested flags without those that were not given.

    >>> flags_of(source={"url": None, "group": "g"}, store={"url": None})
    {'source': {'group': 'g'}}
    """
    chosen = {
        name: {key: value for key, value in (fields or {}).items() if value is not None}
        for name, fields in groups.items()
    }
    return {name: fields for name, fields in chosen.items() if fields}


def settings_from(
    config: Path | None = None,
    *,
    source: str | None = None,
    store: str | None = None,
    registry: str | None = None,
    scorer: str | None = None,
    group: str | None = None,
    **groups: dict[str, Any],
) -> Settings:
    """Settings in force for a verb: its common flags, and `groups` of further ones. Raises UsageError."""
    flags = url_flags(source, store, registry, scorer)
    for name, fields in flags_of(**{"source": {"group": group}, **groups}).items():
        flags.setdefault(name, {}).update(fields)
    return load(flags, file=config)


def url_flags(
    source: str | None = None, store: str | None = None, registry: str | None = None, scorer: str | None = None
) -> dict[str, dict[str, Any]]:
    """The flags that choose parts by URL, as nested settings."""
    return flags_of(source={"url": source}, store={"url": store}, registry={"url": registry}, scorer={"url": scorer})


def verb(function: Callable[P, R]) -> Callable[P, R]:
    """Turn OddlogError into its message on standard error and its exit code; a reader that left ends it quietly."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except OddlogError as error:
            if logs_are_json():
                log_error(error)
                raise typer.Exit(error.exit_code) from None
            err.print("error:", style="bold red", end=" ")
            err.print(without_credentials(str(error)), highlight=False, markup=False, soft_wrap=True)
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
        except BrokenPipeError:
            # `| head` has seen enough. Python would complain once more while closing.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(0) from None

    return run


def emit_json(document: Any) -> None:
    """One JSON document on standard output."""
    sys.stdout.write(json.dumps(document, default=str, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def show_table(title: str | None, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table for people. Nothing in it is markup: what others wrote is shown as they wrote it."""
    table = Table(title=None if title is None else Text(title), title_justify="left", header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text("" if cell is None else str(cell)) for cell in row))
    out.print(table, soft_wrap=False)
