"""`oddlog privacy`: under which privacy the settings, the store and the champion are, and `--adopt` after a change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cli.console import Config, Json, RegistryUrl, StoreUrl, emit_json, err, out, settings_from, show_table, verb
from oddlog.errors import CheckFailed, RegistryError
from oddlog.settings import without_credentials

if TYPE_CHECKING:
    from oddlog.events.privacy import PrivacyStamp
    from oddlog.settings import Settings


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("privacy")(privacy)


@verb
def privacy(
    adopt: Annotated[
        bool,
        typer.Option("--adopt", help="From now on the store takes events under these settings, whatever it holds."),
    ] = False,
    config: Config = None,
    store: StoreUrl = None,
    registry: RegistryUrl = None,
    json: Json = False,
) -> None:
    """Tell whether settings, store and champion agree on privacy and its key. Exit 1 where they do not."""
    settings = settings_from(config, store=store, registry=registry)
    from oddlog.connectors.by_url import using_store
    from oddlog.connectors.privacy_stamp import adopt_stamp, stored_stamp
    from oddlog.events.privacy import reader_of

    wanted = reader_of(settings.privacy).stamp
    with using_store(settings.store) as opened:
        if adopt:
            opened.setup()
            adopt_stamp(opened, wanted)
        held = stored_stamp(opened)
    champion, trained = _champion(settings)
    found = {"settings": wanted, "store": held, **({champion: trained} if champion else {})}
    if json:
        emit_json({who: None if stamp is None else stamp.model_dump() for who, stamp in found.items()})
    else:
        show_table(None, ["", "clients", "query strings", "key"], [(who, *_row(stamp)) for who, stamp in found.items()])
    if differ := [who for who, stamp in found.items() if stamp != wanted]:
        raise CheckFailed(
            f"privacy of {' and '.join(differ)} is not that of the settings",
            expected="one privacy, and one key",
            mend="docs/privacy.md, on a key that changes; --adopt for the store, oddlog train for the model",
        )
    if not json:
        out.print("they agree" if champion else "settings and store agree", highlight=False)


def _champion(settings: Settings) -> tuple[str | None, PrivacyStamp | None]:
    """The champion in words, and the stamp of its card; None where there is none, or the registry is away, which is
    said."""
    import tempfile
    from pathlib import Path

    from oddlog.connectors.by_url import open_registry
    from oddlog.connectors.registry import CHAMPION
    from oddlog.scoring.artifact import read_card

    try:
        registry = open_registry(settings.registry)
        version = registry.by_alias(CHAMPION)
        if version is None:
            return None, None
        with tempfile.TemporaryDirectory(prefix="oddlog-privacy-") as folder:
            card = read_card(registry.download(version.version, Path(folder)))
    except RegistryError as error:
        # Consumers need no registry, and so may have none: but what was not asked does not agree.
        err.print(f"the champion was not looked at: {without_credentials(error.found)}", markup=False, highlight=False)
        return None, None
    return f"champion {version.version}", card.privacy


def _row(stamp: PrivacyStamp | None) -> tuple[str, str, str]:
    if stamp is None:
        return "kept", "kept", ""
    return (
        "pseudonyms" if stamp.clients else "kept",
        "dropped" if stamp.queries else "kept",
        stamp.key or "not known here",
    )
