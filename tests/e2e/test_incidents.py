"""`oddlog incidents` as it is called: the loop, a single round, lists, one incident, a message to try receivers."""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import signal
from pathlib import Path

import httpx
import polars as pl
import pytest

from oddlog.connectors.by_url import open_store
from oddlog.settings import StoreSettings
from tests.children import ODDLOG, running
from tests.receivers import HttpReceiver
from tests.store_frames import scored, write
from tests.verbs import run_verb
from tests.waiting import until

pytestmark = pytest.mark.e2e


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder whose store has an odd event of 192.0.2.3, two minutes old."""
    opened = open_store(StoreSettings(url=f"sqlite:///{tmp_path / 'mlruns/oddlog.sqlite'}"))
    opened.setup()
    times = [dt.datetime.now(dt.UTC) - dt.timedelta(minutes=2)] * 4
    write(opened, scored(4).with_columns(pl.Series("@timestamp", times, dtype=pl.Datetime("ms", "UTC"))))
    opened.close()
    return tmp_path


def test_the_loop_tells_of_an_incident_and_its_port_of_the_loop(place: Path) -> None:
    with HttpReceiver().running() as web:
        log = place / "log"
        command = [ODDLOG, "incidents", "watch", "--every", "1s", "--metrics-port", "0", "--log-json"]
        environment = os.environ | {"ODDLOG_NOTIFY__SLACK": web.url}
        with running(command, log, cwd=place, env=environment) as loop:

            def announced() -> re.Match[str] | None:
                assert loop.poll() is None, log.read_text()
                return re.search(r"metrics at (http://127\.0\.0\.1:\d+/metrics)", log.read_text())

            port = until(announced, "the announcement of the port")[1]
            until(lambda: web.bodies, "a message", told=log.read_text)
            until(
                lambda: 'oddlog_notifications_total{outcome="sent",receiver="slack"} 1.0' in httpx.get(port).text,
                "the count of it",
            )
            held = run_verb("incidents", "watch", "--once", cwd=place)
            loop.send_signal(signal.SIGTERM)
            assert loop.wait(30) == 0
        assert held.exit_code == 3
        assert "holds the lock 'incidents'" in held.stderr
        (line,) = (one for one in map(json.loads, log.read_text().splitlines()) if "incident" in one["message"][:8])
        assert line["message"].endswith("192.0.2.3: 1 odd request for /page/0")
        assert web.url not in log.read_text()
        again = run_verb("incidents", "watch", "--once", "--json", cwd=place, env={"ODDLOG_NOTIFY__SLACK": web.url})
        assert json.loads(again.stdout) == {"found": 0, "changed": 0, "closed": 0, "open": 1, "messages": 0}
        assert len(web.bodies) == 1


def test_a_round_a_list_and_one_of_it(place: Path) -> None:
    assert run_verb("incidents", "list", cwd=place).stdout == "no incidents that are open\n"
    done = run_verb("incidents", "watch", "--once", cwd=place)
    assert done.exit_code == 0, done.stderr
    assert "1 incidents found, 0 closed, 1 last; 0 messages sent" in done.stderr
    listed = json.loads(run_verb("incidents", "list", "--json", cwd=place).stdout)
    (one,) = listed["incidents"]
    assert (listed["count"], one["title"]) == (1, "192.0.2.3: 1 odd request for /page/0")
    assert one["id"] in run_verb("incidents", "list", cwd=place).stdout
    shown = run_verb("incidents", "show", one["id"], cwd=place).stdout
    assert "severity 1.0: its oddest request is rarer than one event in 10" in shown
    assert "oddest request: 192.0.2.3 GET /page/3?q=1 -> 203" in shown
    assert "why: rare “words” in the URL" in shown
    assert json.loads(run_verb("incidents", "show", one["id"], "--json", cwd=place).stdout)["told"] == {}
    missing = run_verb("incidents", "show", "none", cwd=place)
    assert (missing.exit_code, "oddlog incidents list" in missing.stderr) == (2, True)


def test_events_of_long_ago_are_grouped_and_nobody_is_told(place: Path) -> None:
    opened = open_store(StoreSettings(url=f"sqlite:///{place / 'mlruns/oddlog.sqlite'}"))
    write(opened, scored(8, start=100))
    opened.close()
    with HttpReceiver().running() as web:
        environment = {"ODDLOG_NOTIFY__WEBHOOK": web.url}
        done = run_verb(
            "incidents", "watch", "--once", "--since", "2024-02-29T00:00", "--json", cwd=place, env=environment
        )
        assert json.loads(done.stdout)["found"] == 3, done.stderr
        listed = json.loads(run_verb("incidents", "list", "--status", "closed", "--json", cwd=place).stdout)
        assert [one["client"] for one in listed["incidents"]] == ["192.0.2.107", "192.0.2.103"]
        assert [body["incident"]["client"] for body in web.bodies] == ["192.0.2.3"]
    most = ("incidents", "list", "--status", "closed", "--most", "1")
    latest = json.loads(run_verb(*most, "--json", cwd=place).stdout)
    assert (latest["count"], [one["client"] for one in latest["incidents"]]) == (2, ["192.0.2.107"])
    assert "and 1 more: --most 2" in run_verb(*most, cwd=place).stdout
    alone = run_verb("incidents", "watch", "--since", "2024-02-29T00:00", cwd=place)
    assert (alone.exit_code, "add --once" in alone.stderr) == (2, True)


def test_receivers_are_tried(place: Path) -> None:
    assert run_verb("incidents", "test", cwd=place).exit_code == 2
    with HttpReceiver().running() as web:
        environment = {"ODDLOG_NOTIFY__WEBHOOK": web.url, "ODDLOG_NOTIFY__SLACK": web.url}
        assert run_verb("incidents", "test", cwd=place, env=environment).stdout == "webhook: sent\nslack: sent\n"
        web.answers = [(500, {})]
        failed = run_verb("incidents", "test", "--json", cwd=place, env=environment)
        assert (failed.exit_code, json.loads(failed.stdout)) == (3, {"webhook": "webhook answers 500", "slack": "sent"})
        web.answers = [(500, {})]
        assert run_verb("incidents", "test", cwd=place, env=environment).stdout == "webhook answers 500\nslack: sent\n"
    assert web.bodies[0] == {"event": "test", "id": "test", "text": web.bodies[0]["text"]}
