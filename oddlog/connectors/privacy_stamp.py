"""Under which privacy a store's events were made: noted by the first who writes, held against by every other.

Events of two keys in one store would show a client under two names, and a plain one beside its own pseudonym. What a
stamp is: `oddlog/events/privacy.py`.
"""

from __future__ import annotations

from oddlog.connectors.store import EventQuery, Store
from oddlog.errors import UsageError
from oddlog.events.privacy import PrivacyStamp

_ID = "privacy"


def stored_stamp(store: Store) -> PrivacyStamp | None:
    """The stamp of a store's events; None where they are as they came. Raises StoreUnavailable."""
    found = store.get_document("state", _ID)
    return None if found is None else PrivacyStamp.model_validate(found)


def claim_store(store: Store, stamp: PrivacyStamp | None) -> None:
    """Before events are written under `stamp`: note it in a store without events, compare it with a store's own.

    Raises UsageError where they differ, or where the store holds events of no stamp; StoreUnavailable."""
    stored = stored_stamp(store)
    if stored == stamp:
        return
    if stored is None:
        assert stamp is not None
        store.refresh()
        if store.count_events(EventQuery()) == 0 and store.count_dead() == 0:
            store.put_document("state", _ID, stamp.model_dump())
            return
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


def _told(stamp: PrivacyStamp | None) -> str:
    return "plain" if stamp is None else f"made with {stamp}"
