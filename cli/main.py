"""`oddlog`: the verbs, each in a file of its own. Heavy libraries are imported by the verb that needs them."""

from __future__ import annotations

import importlib

import typer

app = typer.Typer(
    name="oddlog",
    help="Finds odd events in logs, and keeps the models that find them alive.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

# In the order of the life cycle, which is the order --help lists them in.
VERBS = (
    "demo", "score", "setup", "simulate", "ship", "enrich", "backfill", "train", "tune", "evaluate", "promote",
    "models", "threshold", "mark", "drift", "monitor", "retrain", "incidents",
    "dead", "retention", "forget", "privacy", "doctor", "stack", "config",
)  # fmt: skip


@app.callback()
def _root() -> None:
    """Finds odd events in logs, and keeps the models that find them alive."""


for _verb in VERBS:
    importlib.import_module(f"cli.{_verb}").register(app)


def main() -> None:
    """Entry point of the `oddlog` command."""
    app()


if __name__ == "__main__":
    main()
