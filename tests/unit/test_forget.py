"""`oddlog forget` as a person meets it: by which names it looks, what it says, what it refuses."""

from __future__ import annotations

import contextlib
from pathlib import Path

import orjson
import polars as pl
import pytest

from oddlog.connectors.by_url import open_store
from oddlog.connectors.privacy_stamp import adopt_stamp
from oddlog.connectors.sqlite import SqliteStore
from oddlog.errors import StoreUnavailable
from oddlog.events.privacy import Reader
from oddlog.events.record import Partition
from oddlog.settings import StoreSettings
from serving.snapshots import Snapshot, write_snapshot
from tests.store_frames import events, write
from tests.verbs import run_verb

KEY, OLD = b"a key of thirty-two characters..", b"the key of before, as long as it"
CLIENT = "192.0.2.1"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A store that had plain events, then an old key, then the one in force: an event of the client under each."""
    now, before = (Reader(key, clients=True) for key in (KEY, OLD))
    (tmp_path / "key").write_bytes(KEY)
    (tmp_path / "old").write_bytes(OLD)
    (tmp_path / "oddlog.toml").write_text('[privacy]\nclients = "pseudonymise"\nkey_file = "key"\n')
    with contextlib.closing(open_store(StoreSettings(url=f"sqlite:///{tmp_path}/mlruns/oddlog.sqlite"))) as store:
        names = [CLIENT, before.pseudonym(CLIENT), now.pseudonym(CLIENT), now.pseudonym("192.0.2.2")]
        write(store, events(4).with_columns(pl.Series("source.address", names)))
        adopt_stamp(store, now.stamp)
        state = pl.DataFrame({"client": names[2:]})
        write_snapshot(store, Snapshot(Partition("e1", "logs.raw", 0), 4, "b" * 64, state))
    return tmp_path


def test_it_looks_by_every_name_that_it_is_given(place: Path) -> None:
    def counted(*flags: str) -> int:
        result = run_verb("forget", CLIENT, "--dry-run", "--json", *flags, cwd=place)
        assert result.exit_code == 0, result.output
        return int(orjson.loads(result.stdout)["events"])

    assert counted() == 2  # as it was logged, and by the key in force
    assert counted("--old-key", "old") == 3
    done = run_verb("forget", CLIENT, "--old-key", "old", cwd=place)
    assert done.exit_code == 0
    assert "gone" in done.output
    assert "Stop it, forget once more, start it" in done.output, "the snapshot is seconds old"
    assert counted("--old-key", "old") == 0
    other = Reader(KEY, clients=True).pseudonym("192.0.2.2")
    assert run_verb("forget", other, "--dry-run", "--json", cwd=place).stdout.count('"events": 1') == 1


def test_what_names_no_client_is_refused(place: Path) -> None:
    for text in ("", "  ", "a b"):
        refused = run_verb("forget", text, cwd=place)
        assert refused.exit_code == 2
        assert "names no client" in refused.output


@pytest.mark.parametrize("other", [{"ODDLOG_PRIVACY__CLIENTS": "keep"}, {"ODDLOG_PRIVACY__KEY_FILE": "old"}])
def test_without_the_stores_key_an_address_is_refused_and_a_pseudonym_is_not(
    place: Path, other: dict[str, str]
) -> None:
    refused = run_verb("forget", CLIENT, cwd=place, env=other)
    assert refused.exit_code == 2
    assert "pseudonyms of key" in refused.output
    name = Reader(KEY, clients=True).pseudonym(CLIENT)
    done = run_verb("forget", name, "--json", cwd=place, env=other)
    assert done.exit_code == 0
    assert orjson.loads(done.stdout)["states"] == 1


def test_what_is_gone_is_told_where_the_store_cannot_be_rewritten(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(store: SqliteStore) -> None:
        raise StoreUnavailable("another process writes to it")

    monkeypatch.setattr(SqliteStore, "expunge", away)
    failed = run_verb("forget", CLIENT, "--json", cwd=place)
    assert failed.exit_code == 3
    assert "another process writes to it" in failed.stderr
    assert orjson.loads(failed.stdout)["events"] == 2
    again = run_verb("forget", CLIENT, "--json", "--no-expunge", cwd=place)
    assert (again.exit_code, orjson.loads(again.stdout)["events"]) == (0, 0)


def test_an_interrupted_pull_with_a_part_of_it_is_begun_anew(place: Path) -> None:
    pulls = place / "mlruns" / "pulls"
    for name, clients in (("its", ["192.0.2.2", CLIENT]), ("another", ["192.0.2.2", "192.0.2.3"])):
        (pulls / name).mkdir(parents=True)
        (pulls / name / "plan.json").write_text("{}")
        (pulls / name / "00000.done").touch()
        for number, client in enumerate(clients):
            pl.DataFrame({"source.address": [client]}).write_parquet(pulls / name / f"00000-{number:06d}.parquet")
    done = run_verb("forget", CLIENT, "--json", cwd=place)
    assert done.exit_code == 0, done.output
    # A part alone would be missing silently: with it went what others did.
    assert [path.name for path in pulls.iterdir()] == ["another"]
    assert len(list((pulls / "another").iterdir())) == 4
    assert len(orjson.loads(done.stdout)["files"]["removed"]) == 1
