"""A verb of the command line, run in this process: for its help, for what it refuses, and for what the real program was
asked before. That a verb works is asked of the real program, by tests/e2e."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from cli.main import app
from oddlog import settings


def run_verb(*arguments: str, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> Result:
    """What a verb says when it ends by itself: an exit code and words, never a traceback. `env`: on top of this one."""
    with pytest.MonkeyPatch.context() as patch, contextlib.chdir(cwd or "."):
        patch.setattr(settings, "_chosen_file", None)  # by --config, for good: in a test it must not outlive the verb
        result = CliRunner().invoke(app, arguments, prog_name="oddlog", env=env)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result
