"""Under which privacy a store's events were made: noted by the first who writes, held against by every other.

Events of two keys in one store would show a client under two names, and a plain one beside its own pseudonym. What a
stamp is: `oddlog/events/privacy.py`.
"""

from __future__ import annotations

from oddlog.connectors.store import EventQuery, Store
from oddlog.errors import UsageError
from oddlog.events.privacy import PSEUDONYM, PrivacyStamp, reader_of
from oddlog.settings_privacy import PrivacySettings

_ID = "privacy"


def stored_stamp(store: Store) -> PrivacyStamp | None:
    """The stamp of a store's events; None where they are as they came. Raises StoreUnavailable."""
    found = store.get_document("state", _ID)
    return None if found is None else PrivacyStamp.model_validate(found)


def claim_store(store: Store, stamp: PrivacyStamp | None) -> None:
    """Before events are written under `stamp`: note it in a store without events, compare it with a store's own.

    Raises UsageError where they differ, or where the store holds events of no stamp; StoreUnavailable."""
    if not is_claimed(store, stamp):
        assert stamp is not None
        store.put_document("state", _ID, stamp.model_dump())


def is_claimed(store: Store, stamp: PrivacyStamp | None) -> bool:
    """Whether the store's events are under `stamp`; False: it has none yet, nor a stamp. Notes nothing.

    Raises as `claim_store`."""
    stored = stored_stamp(store)
    if stored == stamp:
        return True
    if stored is None:
        store.refresh()
        if store.count_events(EventQuery()) == 0 and store.count_dead() == 0:
            return False
    raise UsageError(
        f"the store's events are {_told(stored)}, the settings ask for {_told(stamp)}",
        expected="one privacy for all events of a store, and one key",
        mend="correct privacy.* and its key; or begin a new store (store.prefix, or another file); or let both stand "
        "side by side from now on: oddlog privacy --adopt (docs/privacy.md tells what each means)",
    )


def adopt_stamp(store: Store, stamp: PrivacyStamp | None) -> None:
    """From now on the store takes events under `stamp`, whatever it holds. Raises StoreUnavailable."""
    if stamp is None:
        store.delete_document("state", _ID)
    else:
        store.put_document("state", _ID, stamp.model_dump())


def client_name(store: Store, settings: PrivacySettings, client: str) -> str:
    """What the store calls a client, given by address or by pseudonym.

    Raises UsageError where that takes a key that is another one, or not here: an address would match nothing, and stay
    in the store with what is written of it. Raises StoreUnavailable."""
    reader, held = reader_of(settings), stored_stamp(store)
    mine = reader.stamp.key if reader.stamp is not None and reader.stamp.clients else None
    if held is not None and held.clients and mine != held.key and PSEUDONYM.fullmatch(client) is None:
        raise UsageError(
            f"the store's clients are pseudonyms of key {held.key}, and the settings have "
            + (f"key {mine}" if mine else "no pseudonyms"),
            expected="privacy.clients, and the key that the store's events were made with",
            mend="ODDLOG_PRIVACY__KEY_FILE; or give the pseudonym itself; oddlog privacy tells more",
        )
    return reader.name_of(client)


def _told(stamp: PrivacyStamp | None) -> str:
    return "plain" if stamp is None else f"made with {stamp}"
