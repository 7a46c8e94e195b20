"""A verb of the command line, run in this process: for its help, for what it refuses, and for what the real program was
asked before. That a verb works is asked of the real program, by tests/e2e."""

from __future__ import annotations

import contextlib
import logging
import signal
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from cli import logs
from cli.main import app
from oddlog import settings


def run_verb(*arguments: str, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> Result:
    """What a verb says when it ends by itself: an exit code and words, never a traceback. `env`: on top of this one."""
    with _left_as_found(), contextlib.chdir(cwd or "."):
        result = CliRunner().invoke(app, arguments, prog_name="oddlog", env=env)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


@contextlib.contextmanager
def _left_as_found() -> Iterator[None]:
    """What a verb sets for good in a process of its own, it sets for itself alone: no other test finds it."""
    root, names = logging.getLogger(), ("", *logs.ROOMS)
    handlers, levels = root.handlers[:], {name: logging.getLogger(name).level for name in names}
    asked_to_end = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(settings, "_chosen_file", None)  # by --config
        patch.setattr(logs, "_in_json", False)  # by --log-json, as is the next
        patch.setattr(sys, "excepthook", sys.excepthook)
        try:
            yield
        finally:
            root.handlers[:] = handlers
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)
            for number, handler in asked_to_end.items():
                if signal.getsignal(number) is not handler:
                    signal.signal(number, handler)
