"""What a speed benchmark leaves: tables for people, with the machine under them, and the figures as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.machine import one_line

FOLDER = Path("benchmarks/results")
"""Where the JSON is written when no other file is named."""


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table whose columns but the first are numbers.

    >>> print(markdown(["step", "s"], [["load", "1.5"]]))
    | step | s |
    | --- | ---: |
    | load | 1.5 |
    """
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def publish(
    name: str, where: dict[str, Any], figures: Mapping[str, Any], tables: Sequence[str], path: Path | None
) -> None:
    """Print the tables and the machine (as `machine()` gave it before), write all as JSON (default: `FOLDER`)."""
    print("\n\n".join([*tables, one_line(where)]))
    path = path or FOLDER / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"benchmark": name, "machine": where, **figures}, indent=2) + "\n")
    print(f"figures: {path}")
