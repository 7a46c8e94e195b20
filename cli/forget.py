"""`oddlog forget CLIENT`: delete what is stored of a client."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.console import Config, Json, RegistryUrl, StoreUrl, emit_json, out, settings_from, show_table, verb
from oddlog.errors import UsageError
from oddlog.events.printable import printable

if TYPE_CHECKING:
    from oddlog.connectors.store import Store
    from oddlog.settings import Settings
    from serving.forget import Forgotten
    from serving.forget_files import ForgottenFiles


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("forget")(forget)


@verb
def forget(
    client: Annotated[
        str, typer.Argument(help="Its address as the log has it, or its pseudonym (c-...).", metavar="CLIENT")
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count what would be deleted; delete nothing.")] = False,
    expunge: Annotated[
        bool,
        typer.Option(help="Rewrite the store afterwards, so that the deleted bytes leave the disk, too."),
    ] = True,
    old_key: Annotated[
        list[Path] | None,
        typer.Option(
            "--old-key", help="File with a key of before: its pseudonym, too; may be repeated.", show_default=False
        ),
    ] = None,
    config: Config = None,
    store: StoreUrl = None,
    registry: RegistryUrl = None,
    json: Json = False,
) -> None:
    """Delete what is stored of a client: events, dead letters, marks, incidents, state; its name in reports."""
    settings = settings_from(config, store=store, registry=registry)
    from oddlog.connectors.by_url import using_store
    from serving.forget import forget as forget_in_store
    from serving.forget_files import forget_in_files

    with using_store(settings.store) as opened:
        names = _names(settings, opened, client.strip(), old_key or [])
        found = forget_in_store(opened, names, dry_run=dry_run)
        files = forget_in_files(settings, names, dry_run=dry_run)
        # Told before the rewriting, which takes long and may fail: who asked has to know what is gone by then.
        if json:
            emit_json({**asdict(found), "client": names[-1], "files": {**asdict(files)}})
        else:
            _tell(settings, found, files, names[-1])
        if expunge and not dry_run:
            opened.expunge()


def _names(settings: Settings, store: Store, client: str, old_keys: Sequence[Path]) -> list[str]:
    """All that the client is called in this place: as given, by old keys, and last what the store calls it now.

    Raises UsageError where a pseudonym is needed and its key is another one, or not here."""
    from oddlog.connectors.privacy_stamp import client_name
    from oddlog.events.privacy import reader_of
    from oddlog.settings import PrivacySettings

    if not client or any(c.isspace() for c in client):
        raise UsageError(
            f"{client!r} names no client", expected="an address, a host name, or a pseudonym",
            mend="oddlog forget 192.0.2.1 --dry-run",
        )  # fmt: skip
    name = client_name(store, settings.privacy, client)
    olds = [reader_of(PrivacySettings(clients="pseudonymise", key_file=file)) for file in old_keys]
    before = [old.name_of(client) for old in olds]
    return list(dict.fromkeys([client, *before, name]))


def _tell(settings: Settings, found: Forgotten, files: ForgottenFiles, name: str) -> None:
    rows = [
        ("events", found.events),
        ("dead letters that name it", found.dead_letters),
        ("marks and incidents about it", found.documents),
        ("documents with its name taken out", found.redacted),
        ("states in snapshots", found.states),
        ("reports and pages with its name taken out", len(files.redacted)),
        ("data sets of trainings with events of it", len(files.removed)),
    ]
    show_table(None, ["of " + printable(name, 60), "would go" if found.dry_run else "gone"], _shown(rows))
    for path in files.staying:
        out.print(f"stays: {path} names it; docs/privacy.md tells what can be done", highlight=False, soft_wrap=True)
    for place in files.unseen:
        out.print(f"not looked at: {place}", highlight=False, soft_wrap=True)
    if _consumer_runs(settings, found):
        out.print(
            f"note: a snapshot was written at {found.snapshot_at:%H:%M:%S} UTC: a consumer that runs still has the "
            "client's state in its memory, and writes it again. Stop it, forget once more, start it.",
            highlight=False,
        )


def _shown(rows: list[tuple[str, int]]) -> list[tuple[str, str]]:
    return [(what, f"{count:,}") for what, count in rows]


def _consumer_runs(settings: Settings, found: Forgotten) -> bool:
    """Whether a snapshot is so new that a consumer seems to be at work, and holds the client."""
    if found.snapshot_at is None or not (found.states or found.events):
        return False
    age = (dt.datetime.now(dt.UTC) - found.snapshot_at).total_seconds()
    return age < 3 * settings.enrich.snapshot_seconds
