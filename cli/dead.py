"""`oddlog dead list|show|replay`: what no document was made of."""

from __future__ import annotations

import base64
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from cli.console import Config, Json, StoreUrl, emit_json, err, out, settings_from, show_table, verb
from oddlog.events.printable import printable

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from oddlog.connectors.store import Store
    from serving.dead import ReplayResult

Kind = Annotated[str | None, typer.Option("--kind", help="Only those of this kind.", show_default=False)]


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    dead = typer.Typer(
        name="dead", help="Dead letters: list them, look at one, give them to the parser again.", no_args_is_help=True
    )
    dead.command("list")(dead_list)
    dead.command("show")(dead_show)
    dead.command("replay")(dead_replay)
    app.add_typer(dead)


@verb
def dead_list(
    kind: Kind = None,
    newest: Annotated[int, typer.Option(help="How many single ones to list, newest first.", min=0)] = 10,
    config: Config = None,
    store: StoreUrl = None,
    json: Json = False,
) -> None:
    """Count dead letters by kind and reason, and list the newest."""
    from oddlog.connectors.store import DeadQuery
    from serving import dead

    with _opened(config, store) as opened:
        query = DeadQuery(kind=kind)
        found, rows = dead.groups(opened, query), dead.newest(opened, query, newest)
    if json:
        emit_json(
            {
                "count": sum(group.count for group in found),
                "groups": [asdict(group) for group in found],
                "newest": rows.to_dicts(),
            }
        )
        return
    if not found:
        out.print("no dead letters")
        return
    show_table(
        None,
        ["kind", "reason", "count", "oldest", "newest"],
        [(g.kind, g.reason, f"{g.count:,}", _time(g.oldest), _time(g.newest)) for g in found],
    )
    if rows.height:
        show_table(None, ["id", "time", "kind", "reason"], [_row(row) for row in rows.iter_rows()])


@verb
def dead_show(
    id: Annotated[str, typer.Argument(help="Its id, which is its position.", metavar="ID")],
    raw: Annotated[bool, typer.Option("--raw", help="Only the original bytes, as they are.")] = False,
    config: Config = None,
    store: StoreUrl = None,
    json: Json = False,
) -> None:
    """Show one dead letter: position, reason, original bytes, and what the parser says to it now."""
    from serving import dead

    with _opened(config, store) as opened:
        letter = dead.show(opened, id)
    original = letter.row["original"]
    assert original is None or isinstance(original, bytes)
    if raw:
        sys.stdout.buffer.write(original or b"")
        sys.stdout.buffer.flush()
        return
    if json:
        encoded = None if original is None else base64.b64encode(original).decode()
        parsed = {"event": letter.event, "kind": letter.kind_now, "reason": letter.reason_now}
        emit_json({**letter.row, "original": encoded, "parser_now": parsed, "stored": letter.stored})
        return
    now = (
        f"an event of {letter.event['@timestamp']} by {letter.event['source.address']}: oddlog dead replay --id {id}"
        if letter.event is not None
        else f"{letter.kind_now}: {letter.reason_now}"
    )
    for name, value in (
        *((name.removeprefix("oddlog.position."), value) for name, value in letter.row.items() if name != "original"),
        ("parser now", now),
        ("event stored", "yes" if letter.stored else "no"),
        ("bytes", len(original or b"")),
    ):
        out.print(f"{name:<14}{printable(str(value))}", markup=False, highlight=False, soft_wrap=True)
    for line in dead.readable(original):
        out.print(f"  | {line}", markup=False, highlight=False, soft_wrap=True)


@verb
def dead_replay(
    kind: Kind = None,
    id: Annotated[list[str] | None, typer.Option("--id", help="Only this one; may be repeated.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell what would be done; change nothing.")] = False,
    config: Config = None,
    store: StoreUrl = None,
    json: Json = False,
) -> None:
    """Give dead letters to the parser again, under their own position: what parses now becomes a pending event."""
    from oddlog.connectors.by_url import using_store
    from oddlog.connectors.privacy_stamp import claim_store
    from oddlog.connectors.store import DeadQuery
    from oddlog.events.privacy import reader_of
    from serving import dead

    settings = settings_from(config, store=store)
    reader = reader_of(settings.privacy)
    with using_store(settings.store) as opened, err.status("replay") as status:
        claim_store(opened, reader.stamp)
        result = dead.replay(
            opened,
            DeadQuery(kind=kind, ids=tuple(id) if id else None),
            dry_run=dry_run,
            parser=reader.parse,
            progress=lambda done: status.update(f"{done.read:,} read"),
        )
    if json:
        emit_json(asdict(result))
    else:
        _tell(result)


def _opened(config: Config, store: StoreUrl) -> AbstractContextManager[Store]:
    from oddlog.connectors.by_url import using_store

    return using_store(settings_from(config, store=store).store)


def _tell(result: ReplayResult) -> None:
    would = "would be " if result.dry_run else ""
    out.print(
        f"{result.read:,} dead letters read: {result.written:,} events {would}written"
        + (f", {result.there_already:,} were there already" if result.there_already else "")
        + (f", {result.refused:,} refused by the store" if result.refused else "")
        + "".join(f", {count:,} still {kind}" for kind, count in sorted(result.still_dead.items())),
        highlight=False,
    )
    for reason in result.reasons:
        out.print(f"  refused: {printable(reason)}", markup=False, highlight=False)
    if result.written and not result.dry_run:
        out.print("they are pending; to score them: oddlog backfill", highlight=False)


def _row(row: tuple[object, ...]) -> tuple[object, ...]:
    id, moment, kind, reason = row
    return id, _time(moment), kind, printable(str(reason))


def _time(moment: object) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}"
