"""`oddlog mark`, and `oddlog mark list|remove`: what people say of events."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from cli.console import Config, Json, StoreUrl, emit_json, out, settings_from, show_table, verb
from cli.times import duration, period
from cli.who import By, who
from oddlog.errors import UsageError
from oddlog.events.printable import printable

if TYPE_CHECKING:
    from oddlog.connectors.marks import Mark

Verdict = Literal["false-alarm", "true-anomaly", "expected"]


class _MarkGroup(TyperGroup):
    """`oddlog mark DOCUMENT` is `oddlog mark add DOCUMENT`: no document is called as a command is."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in {"--help", "--"}:
            args = ["add", *args]
        return super().parse_args(ctx, args)


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    mark = typer.Typer(
        name="mark",
        cls=_MarkGroup,
        help="Say of events that they are false alarms, true anomalies or expected: `oddlog mark DOCUMENT --as ...`, "
        "short for `oddlog mark add`.",
        no_args_is_help=True,
    )
    mark.command("add")(mark_add)
    mark.command("list")(mark_list)
    mark.command("remove")(mark_remove)
    app.add_typer(mark)


@verb
def mark_add(
    verdict: Annotated[
        Verdict, typer.Option("--as", help="What it is. `expected` with an end keeps the like of it from alerting.")
    ],
    document: Annotated[
        list[str] | None, typer.Argument(help="The _id of an event; may be several.", metavar="DOCUMENT")
    ] = None,
    client: Annotated[
        str | None, typer.Option(help="Instead: all events of this client.", metavar="ADDRESS", show_default=False)
    ] = None,
    path_prefix: Annotated[
        str | None,
        typer.Option(help="Instead: all events with a path that begins so.", metavar="PATH", show_default=False),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(help="Of these events, those from this time on; `expected`: from now on unless given.",
                     metavar="TIME", show_default=False),
    ] = None,
    until: Annotated[
        str | None, typer.Option(help="Those before this time: when `expected` ends.", metavar="TIME",
                                 show_default=False),
    ] = None,
    length: Annotated[
        str | None, typer.Option("--for", help="Until so long from now: 30d.", metavar="TIME", show_default=False)
    ] = None,
    note: Annotated[str, typer.Option(help="Why, for whoever reads it later.", show_default=False)] = "",
    by: By = None,
    config: Config = None,
    store: StoreUrl = None,
    json: Json = False,
) -> None:  # fmt: skip
    """Mark documents, or all events of a client or below a path."""
    if bool(document) == bool(client or path_prefix):
        raise UsageError(
            "documents together with --client or --path-prefix" if document else "nothing to mark",
            expected="the _id of documents, or a client and path prefix",
            mend="oddlog mark DOCUMENT --as false-alarm, or oddlog mark --client ADDRESS --as expected --for 30d",
        )
    if length is not None and until is not None:
        raise UsageError("--for together with --until", expected="one of the two ways to name an end")
    if document and since is not None:
        raise UsageError("--since with documents", expected="--since with --client or --path-prefix")
    start, end = period(since, until)
    if length is not None:
        end = dt.datetime.now(dt.UTC) + duration(length, "--for")
    from oddlog.connectors.by_url import using_store
    from oddlog.connectors.privacy_stamp import client_name
    from serving.marking import mark_documents, mark_pattern

    settings = settings_from(config, store=store)
    said_by = who(by)
    with using_store(settings.store) as opened:
        if document:
            done = mark_documents(opened, document, verdict, by=said_by, note=note, until=end)
        else:
            # Where the store calls clients by pseudonyms, so does a mark: an address would match nothing, and be kept.
            called = None if client is None else client_name(opened, settings.privacy, client)
            done = mark_pattern(
                opened, verdict, by=said_by, note=note, client=called, path_prefix=path_prefix, since=start, until=end
            )
    if json:
        emit_json({"marks": [_document(one) for one in done.marks], "hushed": done.hushed})
        return
    for one in done.marks:
        out.print(f"{one.id}: {printable(one.about)}: {one.verdict}", markup=False, highlight=False, soft_wrap=True)
    if any(one.is_pattern and one.verdict == "expected" for one in done.marks):
        out.print(
            f"{done.hushed:,} stored alerts are hushed; consumers follow within "
            f"{settings.enrich.marks_seconds:g} s. Scores stay as they are.",
            highlight=False,
        )


@verb
def mark_list(
    verdict: Annotated[Verdict | None, typer.Option("--as", help="Only these.", show_default=False)] = None,
    config: Config = None,
    store: StoreUrl = None,
    json: Json = False,
) -> None:
    """List the marks, newest first."""
    from oddlog.connectors.by_url import using_store
    from oddlog.connectors.marks import list_marks

    with using_store(settings_from(config, store=store).store) as opened:
        found = [one for one in reversed(list_marks(opened)) if verdict in {None, one.verdict}]
    if json:
        emit_json({"marks": [_document(one) for one in found]})
        return
    if not found:
        out.print("no marks")
        return
    show_table(
        None,
        ["id", "verdict", "about", "by", "at", "note"],
        [(m.id, m.verdict, printable(m.about), printable(m.by), f"{m.at:%Y-%m-%d %H:%M}", printable(m.note))
         for m in found],
    )  # fmt: skip


@verb
def mark_remove(
    id: Annotated[list[str], typer.Argument(help="The id of a mark; may be several.", metavar="MARK")],
    config: Config = None,
    store: StoreUrl = None,
    json: Json = False,
) -> None:
    """Take marks back; what they hushed is an alert again."""
    from oddlog.connectors.by_url import using_store
    from serving.marking import unmark

    with using_store(settings_from(config, store=store).store) as opened:
        done = unmark(opened, id)
    if json:
        emit_json({"removed": [_document(one) for one in done.marks], "unhushed": done.unhushed})
        return
    for one in done.marks:
        out.print(f"removed {one.id}: {printable(one.about)}", markup=False, highlight=False, soft_wrap=True)
    if done.unhushed:
        out.print(f"{done.unhushed:,} stored events are alerts again", highlight=False)


def _document(mark: Mark) -> dict[str, object]:
    from dataclasses import asdict

    return {
        name: value.isoformat() if isinstance(value, dt.datetime) else value
        for name, value in asdict(mark).items()
        if value is not None
    }
