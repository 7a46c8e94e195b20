"""What the programs that measure quality share on the command line: flags, and errors as messages and exit codes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from oddlog.detectors.catalogue import NAMES, create
from oddlog.errors import OddlogError, UsageError


def add_flags(parser: argparse.ArgumentParser, *, seeds: int, seeds_mean: str) -> None:
    """--algorithm, --seeds (default and what they are), --budget, --json."""
    parser.add_argument("--algorithm", default="all", help="all, or one of " + ", ".join(NAMES))
    parser.add_argument("--seeds", type=int, default=seeds, help=seeds_mean)
    parser.add_argument("--budget", default="20/day", help="alerts, distinct (client, hour), to see")
    parser.add_argument("--json", action="store_true", help="one JSON document on one line")


def algorithms_of(arguments: argparse.Namespace) -> tuple[str, ...]:
    """The detectors to measure. Raises UsageError for one that there is not, and for seeds below 1."""
    if arguments.seeds < 1:
        raise UsageError(f"--seeds {arguments.seeds}", expected="1 or more")
    return NAMES if arguments.algorithm == "all" else (create(arguments.algorithm).name,)


def run_command(
    run: Callable[[argparse.Namespace], None], parser: argparse.ArgumentParser, argv: Sequence[str] | None
) -> int:
    """Exit codes: 0, 2 for wrong arguments or files."""
    try:
        run(parser.parse_args(argv))
    except OddlogError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0
