"""`oddlog mark`, `mark list` and `mark remove` on a store with alerts: what they write, hush, print and refuse."""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from oddlog.connectors.by_url import open_store
from oddlog.connectors.privacy_stamp import adopt_stamp
from oddlog.connectors.store import EventQuery, Store
from oddlog.events.privacy import Reader
from oddlog.settings import StoreSettings
from tests.store_frames import MIDNIGHT, scored
from tests.verbs import run_verb

pytestmark = pytest.mark.e2e

ALERT = "e1-logs.raw-0-3"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Eight events, a minute apart from 23:57 on, the fourth and the eighth odd."""
    opened = open_store(StoreSettings(url=f"sqlite:///{tmp_path}/oddlog.sqlite"))
    opened.setup()
    assert not opened.write_events(scored(8)).rejected
    yield opened
    opened.close()


@pytest.fixture
def mark(store: Store, tmp_path: Path) -> Callable[..., Result]:
    def run(*arguments: str) -> Result:
        return run_verb("mark", *arguments, env={"ODDLOG_STORE__URL": f"sqlite:///{tmp_path}/oddlog.sqlite"})

    return run


def said(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert isinstance(found, dict)
    return found


def alerts(store: Store) -> int:
    return store.count_events(EventQuery(only_anomalies=True))


def test_a_document_is_marked_listed_and_taken_back(mark: Callable[..., Result], store: Store) -> None:
    (made,) = said(mark(ALERT, "--as", "false-alarm", "--note", "a broken link of ours", "--by", "ada", "--json"))[
        "marks"
    ]
    assert (made["event"], made["client"], made["path"]) == (ALERT, "192.0.2.3", "/page/3")
    assert (made["by"], made["note"], made["time"]) == ("ada", "a broken link of ours", MIDNIGHT.isoformat())
    assert alerts(store) == 2  # it was one, and stays one: a false alarm
    assert said(mark("list", "--json"))["marks"] == [made]
    assert said(mark("list", "--as", "expected", "--json"))["marks"] == []
    shown = mark("list")
    assert all(word in shown.output for word in ("false-alarm", "192.0.2.3", "ada", "a broken link"))
    removed = said(mark("remove", made["id"], "--json"))
    assert (removed["removed"], removed["unhushed"]) == ([made], 0)
    assert "no marks" in mark("list").output


def test_what_is_expected_raises_no_alert_until_its_mark_goes(mark: Callable[..., Result], store: Store) -> None:
    done = said(mark("--client", "192.0.2.3", "--as", "expected", "--since", "2024-02-29", "--for", "30d", "--json"))
    assert (done["hushed"], alerts(store)) == (1, 1)
    (like,) = said(mark("add", "e1-logs.raw-0-7", "--as", "expected", "--for", "30d", "--json"))["marks"]
    assert (like["client"], like["path_prefix"]) == ("192.0.2.7", "/page/7")
    assert like["since"] == (MIDNIGHT + dt.timedelta(minutes=4)).isoformat()
    assert alerts(store) == 0
    again = mark("remove", like["id"], done["marks"][0]["id"])
    assert again.exit_code == 0
    assert "2 stored events are alerts again" in again.output
    assert alerts(store) == 2
    told = mark("--path-prefix", "/page/", "--as", "expected", "--since", "2024-02-29", "--until", "2024-03-01T00:01Z")
    assert "1 stored alerts are hushed; consumers follow within 10 s" in told.output


def test_what_has_been_is_marked_up_to_now(mark: Callable[..., Result]) -> None:
    (made,) = said(mark("--client", "192.0.2.3", "--as", "true-anomaly", "--json"))["marks"]
    assert "since" not in made
    assert made["until"] == made["at"]
    assert "@" in made["by"]


def test_an_address_is_stored_as_the_store_calls_the_client(mark: Callable[..., Result]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ODDLOG_PRIVACY__CLIENTS", "pseudonymise")
        patch.setenv("ODDLOG_PRIVACY__KEY", "k" * 32)
        (made,) = said(mark("--client", "192.0.2.3", "--as", "expected", "--for", "1d", "--json"))["marks"]
        again = said(mark("--client", made["client"], "--as", "expected", "--for", "1d", "--json"))["marks"]
    assert re.fullmatch("c-[0-9a-f]{32}", made["client"])
    assert again[0]["client"] == made["client"]


def test_an_address_is_not_written_into_a_store_of_pseudonyms(mark: Callable[..., Result], store: Store) -> None:
    adopt_stamp(store, Reader(b"k" * 32, clients=True).stamp)
    refused = mark("--client", "192.0.2.3", "--as", "expected", "--for", "1d")
    assert refused.exit_code == 2
    assert "clients are pseudonyms of key" in " ".join(refused.output.split())
    assert store.list_documents("marks") == []


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (("--as", "expected"), "nothing to mark"),
        ((ALERT, "--client", "192.0.2.3", "--as", "expected"), "documents together with --client"),
        ((ALERT, "--as", "false-alarm", "--for", "30d"), "an end for false-alarm"),
        ((ALERT, "--as", "expected", "--since", "2024-02-29"), "--since with documents"),
        (("e1-logs.raw-0-3000", "--as", "expected"), "the store holds no event 'e1-logs.raw-0-3000'"),
        (("--client", "192.0.2.3", "--as", "expected"), "without an end"),
        (("--client", "192.0.2.3", "--as", "expected", "--for", "soon"), "--for 'soon' is no length of time"),
        (("--client", "192.0.2.3", "--as", "expected", "--for", "1d", "--until", "2030-01-01"), "--for together with"),
        (("--client", "192.0.2.3", "--as", "false-alarm", "--until", "2999-01-01"), "which nobody has seen yet"),
        (("remove", "nobody"), "there is no mark 'nobody'"),
    ],
)
def test_what_makes_no_mark_is_refused(mark: Callable[..., Result], arguments: tuple[str, ...], found: str) -> None:
    refused = mark(*arguments)
    assert refused.exit_code == 2
    assert found in " ".join(refused.stderr.split())
    assert "no marks" in mark("list").output
