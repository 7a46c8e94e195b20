"""A verb of the command line, run in this process: for its help and for what it refuses. What it does when it works is
asked of the real program, by tests/e2e."""

from __future__ import annotations

from typer.testing import CliRunner, Result

from cli.main import app


def run_verb(*arguments: str) -> Result:
    """What a verb says when it ends by itself: an exit code and words, never a traceback."""
    result = CliRunner().invoke(app, arguments, prog_name="oddlog")
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result
