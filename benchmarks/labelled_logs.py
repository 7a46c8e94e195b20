"""`--log FILE --labels FILE`, several times: the labelled logs that a study is made on. Judging is elsewhere."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from benchmarks.detection import LabelledLog, load
from oddlog.errors import UsageError


def add_log_flags(parser: argparse.ArgumentParser) -> None:
    """--log and --labels, in pairs, none or several; --fit-share."""
    parser.add_argument("--log", type=Path, action="append", default=[], help="access log, plain or .gz; repeatable")
    parser.add_argument("--labels", type=Path, action="append", default=[], help="its labels; one for every --log")
    parser.add_argument("--fit-share", type=float, default=0.5, help="share of the lines, oldest first, to fit on")


def check_logs(arguments: argparse.Namespace) -> None:
    """Raises UsageError where logs and labels are not as many, or the share is none."""
    if len(arguments.log) != len(arguments.labels):
        raise UsageError(
            f"{len(arguments.log)} --log and {len(arguments.labels)} --labels", expected="one --labels for every --log"
        )
    if not 0.0 < arguments.fit_share < 1.0:
        raise UsageError(f"--fit-share {arguments.fit_share}", expected="more than 0 and less than 1")


def labelled_logs(arguments: argparse.Namespace) -> Iterator[tuple[str, LabelledLog]]:
    """Name (of the log's folder) and content of every log. Raises UsageError for files that do not fit together."""
    for log, labels in zip(arguments.log, arguments.labels, strict=True):
        yield log.resolve().parent.name, load(log, labels)
