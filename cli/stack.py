"""`oddlog stack up|down|status`: real Kafka and Elasticsearch on this machine, without Docker."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.console import Json, emit_json, err, out, show_table, verb
from oddlog.errors import UsageError

if TYPE_CHECKING:
    from oddlog.stack import Server, StackState


class Part(StrEnum):
    """The servers of the stack."""

    kafka = "kafka"
    elasticsearch = "elasticsearch"


StateDir = Annotated[Path, typer.Option("--state-dir", help="Folder of the servers' data, configuration, logs.")]
Only = Annotated[Part | None, typer.Option("--only", help="One of the servers.", show_default=False)]

DEFAULT = Path("mlruns/stack")


def register(app: typer.Typer) -> None:
    """Add the verb."""
    stack = typer.Typer(no_args_is_help=True, help="Real Kafka and Elasticsearch on this machine, without Docker.")
    stack.command("up")(up)
    stack.command("down")(down)
    stack.command("status")(status)
    app.add_typer(stack, name="stack")


@verb
def up(
    state_dir: StateDir = DEFAULT,
    only: Only = None,
    cache_dir: Annotated[
        Path | None, typer.Option("--cache-dir", help="Where the programs are kept.", show_default=False)
    ] = None,
    heap: Annotated[str, typer.Option("--heap", metavar="SIZE", help="Elasticsearch's Java heap.")] = "1g",
    json: Json = False,
) -> None:
    """Start them, wait until they answer, print their addresses. They run on until `oddlog stack down`."""
    if re.fullmatch(r"\d+[kmgKMG]", heap) is None:
        raise UsageError(
            f"--heap {heap!r} is no size", expected="a number and k, m or g, as Java takes it: --heap 512m"
        )
    from oddlog import stack

    with _steps() as step:
        state = stack.up(
            state_dir,
            kafka=only is not Part.elasticsearch,
            elasticsearch=only is not Part.kafka,
            elasticsearch_options=stack.ElasticsearchOptions(heap=heap),
            cache_dir=cache_dir,
            progress=step,
        )
    if json:
        emit_json({server.name: _document(server, "up") for server in state.servers})
        return
    _show(state, stack.status(state_dir))


@verb
def down(
    state_dir: StateDir = DEFAULT,
    only: Only = None,
    purge: Annotated[bool, typer.Option("--purge", help="Delete their data, configuration and logs too.")] = False,
    json: Json = False,
) -> None:
    """Stop them. Their data stays, unless --purge is given."""
    from oddlog import stack

    with _steps() as step:
        step("stopping the servers")
        stopped = stack.down(state_dir, only=only.value if only else None, purge=purge)
    if json:
        emit_json({"stopped": [server.name for server in stopped.servers]})
        return
    names = " and ".join(server.name for server in stopped.servers)
    out.print(f"stopped {names}" if names else "nothing was running", highlight=False)


@verb
def status(state_dir: StateDir = DEFAULT, only: Only = None, json: Json = False) -> None:
    """What runs, and whether it answers. Exit code 1 when something wished for does not."""
    from oddlog import stack

    answers = {name: found for name, found in stack.status(state_dir).items() if only is None or name == only}
    state = stack.read_state(state_dir)
    if json:
        known = {server.name: server for server in state.servers}
        emit_json({
            name: _document(known[name], found) if name in known else {"status": found}
            for name, found in answers.items()
        })  # fmt: skip
    else:
        _show(state, answers)
    if any(found != "up" for found in answers.values()):
        raise typer.Exit(1)


def _document(server: Server, found: str) -> dict[str, object]:
    return {"status": found, "url": server.url, "pid": server.pid, "log": server.log, "folder": server.folder}


def _show(state: StackState, answers: dict[str, str]) -> None:
    known = {server.name: server for server in state.servers}
    rows = [
        (name, found, server.url, server.pid, server.log) if (server := known.get(name)) else (name, found, "", "", "")
        for name, found in answers.items()
    ]
    show_table(None, ["server", "status", "url", "pid", "log"], rows)
    if answers.get("kafka") == "up":
        out.print(f"export ODDLOG_SOURCE__URL={known['kafka'].url}/logs.raw", highlight=False, soft_wrap=True)
    if answers.get("elasticsearch") == "up":
        out.print(f"export ODDLOG_STORE__URL={known['elasticsearch'].url}", highlight=False, soft_wrap=True)


@contextmanager
def _steps() -> Iterator[Callable[[str], None]]:
    """A spinner with the current step for people; a line a step where standard error is no terminal."""
    if not err.is_terminal:
        yield lambda text: err.print(text, highlight=False, soft_wrap=True)
        return
    with err.status("") as spinner:
        yield spinner.update
