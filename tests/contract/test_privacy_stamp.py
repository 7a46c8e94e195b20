"""A store belongs to one privacy and one key, whichever store it is."""

from __future__ import annotations

import polars as pl
import pytest

from oddlog.connectors.privacy_stamp import adopt_stamp, claim_store, client_name, stored_stamp
from oddlog.connectors.store import Store
from oddlog.errors import UsageError
from oddlog.events.privacy import Reader
from oddlog.events.record import Partition
from oddlog.settings_privacy import PrivacySettings
from serving.snapshots import Snapshot, write_snapshot
from tests.store_frames import dead_letters, events, write

KEY = b"a key of thirty-two characters.."
STAMP = Reader(KEY, clients=True, queries=True).stamp
OTHERS = (None, Reader(b"x" * 32, clients=True, queries=True).stamp, Reader(KEY, clients=True).stamp)


def test_a_store_belongs_to_who_writes_first(store: Store) -> None:
    claim_store(store, None)
    assert stored_stamp(store) is None
    # Beside the stamp lie snapshots, with fields of the same names.
    write_snapshot(store, Snapshot(Partition("e1", "logs.raw", 0), 4, "b" * 64, pl.DataFrame({"client": ["c-1"]})))
    claim_store(store, STAMP)
    assert stored_stamp(store) == STAMP
    claim_store(store, STAMP)
    for other in OTHERS:
        with pytest.raises(UsageError, match="the settings ask for"):
            claim_store(store, other)
    adopt_stamp(store, OTHERS[1])
    claim_store(store, OTHERS[1])
    adopt_stamp(store, None)
    adopt_stamp(store, None)
    claim_store(store, None)


@pytest.mark.parametrize("what", ["events", "dead letters"])
def test_a_store_with_plain_records_takes_no_private_ones_unasked(store: Store, what: str) -> None:
    if what == "events":
        write(store, events(1))
    else:
        store.write_dead(dead_letters(1))
    with pytest.raises(UsageError, match="events are plain"):
        claim_store(store, STAMP)
    assert stored_stamp(store) is None


def test_a_client_is_called_as_the_store_calls_it_or_not_at_all(store: Store) -> None:
    plain = PrivacySettings()
    mine = PrivacySettings(clients="pseudonymise", key=KEY.decode())
    assert client_name(store, plain, "192.0.2.1") == "192.0.2.1"
    adopt_stamp(store, Reader(KEY, clients=True).stamp)
    pseudonym = Reader(KEY, clients=True).pseudonym("192.0.2.1")
    assert client_name(store, mine, "192.0.2.1") == client_name(store, mine, pseudonym) == pseudonym
    others = (
        plain,
        PrivacySettings(clients="pseudonymise", key="x" * 32),
        PrivacySettings(queries="drop", key=KEY.decode()),  # the same key, and no pseudonyms
    )
    for other in others:
        with pytest.raises(UsageError, match="clients are pseudonyms of key"):
            client_name(store, other, "192.0.2.1")
        assert client_name(store, other, pseudonym) == pseudonym
