"""The verbs that operators use, as people run them: the consumer's port and logs, dead letters, retention, doctor."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from pathlib import Path

import httpx
import pytest
from typer.testing import Result

from tests.children import ODDLOG, running
from tests.verbs import run_verb
from tests.waiting import until

LINE = '192.0.2.{n} - - [17/May/2015:10:05:{n:02d} +0000] "GET /page HTTP/1.1" 200 12 "-" "curl/8"\n'

pytestmark = pytest.mark.e2e


def environment(folder: Path) -> dict[str, str]:
    """Everything embedded, below a folder of the test; a scorer that is not there."""
    return os.environ | {
        "ODDLOG_SOURCE__URL": f"file://{folder / 'access.log'}",
        "ODDLOG_SCORER__URL": "http://127.0.0.1:9",
        "ODDLOG_SCORER__ATTEMPTS": "1",
    }


def run(*arguments: str, cwd: Path, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ODDLOG, *arguments], capture_output=True, text=True, cwd=cwd, env=environment(cwd) | more, timeout=120,
        check=False,
    )  # fmt: skip


def inside(*arguments: str, cwd: Path, **more: str) -> Result:
    """A verb that the real program was asked before, in this process: a second or more sooner."""
    return run_verb(*arguments, cwd=cwd, env=environment(cwd) | more)


def test_the_consumer_tells_what_it_does_and_logs_json(tmp_path: Path) -> None:
    log, errors = tmp_path / "access.log", tmp_path / "stderr"
    log.write_text("".join(LINE.format(n=n) for n in range(20)) + "no log line\n")
    command = [ODDLOG, "enrich", "--metrics-port", "0", "--log-json"]
    with running(command, errors, cwd=tmp_path, env=environment(tmp_path)) as consumer:

        def announced() -> re.Match[str] | None:
            assert consumer.poll() is None, errors.read_text()
            return re.search(r"metrics at (http://127\.0\.0\.1:\d+)/", errors.read_text())

        port = until(announced, "the announcement of the port")[1]
        assert httpx.get(f"{port}/livez").status_code == 200
        wanted = ("oddlog_consumer_records_total 21.0", 'oddlog_consumer_events_total{status="pending"} 20.0',
                  'oddlog_consumer_dead_letters_total{kind="no_format"} 1.0', "oddlog_consumer_ready 1.0",
                  'stage="commit"', "oddlog_consumer_lag{")  # fmt: skip
        until(lambda: all(one in httpx.get(f"{port}/metrics").text for one in wanted), "the batch in the metrics")
        assert httpx.get(f"{port}/readyz").status_code == 200
        consumer.send_signal(signal.SIGTERM)
        assert consumer.wait(30) == 0
    lines = [json.loads(line) for line in errors.read_text().splitlines()]
    assert {"time", "level", "logger", "message"} <= set(lines[0])
    assert (lines[-1]["records"], lines[-1]["pending"], lines[-1]["dead_letters"]) == (21, 20, 1)
    assert len(lines) < 20  # no line for an event


def test_errors_and_stages_are_json_lines_too(tmp_path: Path) -> None:
    done = run("train", "--log-json", cwd=tmp_path)
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert done.returncode == lines[-1]["exit_code"] == 2
    assert lines[-1]["level"] == "ERROR"
    assert lines[-1]["mend"]


def test_a_taken_port_is_said(tmp_path: Path) -> None:
    import socket

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        one.listen()
        done = run("enrich", "--metrics-port", str(one.getsockname()[1]), cwd=tmp_path)
    assert done.returncode == 2
    assert "--metrics-port" in done.stderr


def event(day: str, n: int) -> str:
    return LINE.format(n=n).replace("17/May/2015", day)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder with a store of six events over three days and two dead letters."""
    lines = [event(f"{day}/May/2015", n) for day in (16, 17, 18) for n in (1, 2)]
    (tmp_path / "access.log").write_text("".join(lines) + "no log line \x1b[31m\n" + "\n")
    done = inside("enrich", "--until-idle", "0.2", cwd=tmp_path)
    assert done.exit_code == 0, done.stderr
    return tmp_path


def test_dead_letters_are_listed_shown_and_replayed(site: Path) -> None:
    listed = json.loads(inside("dead", "list", "--json", cwd=site).stdout)
    assert {group["kind"]: group["count"] for group in listed["groups"]} == {"no_format": 1, "empty": 1}
    assert listed["count"] == len(listed["newest"]) == 2
    only = json.loads(inside("dead", "list", "--json", "--kind", "empty", "--newest", "0", cwd=site).stdout)
    assert (only["count"], only["newest"]) == (1, [])
    people = inside("dead", "list", cwd=site)
    assert "no_format" in people.stdout
    assert "\x1b" not in people.stdout

    id = next(row["_id"] for row in listed["newest"] if row["kind"] == "no_format")
    shown = inside("dead", "show", id, cwd=site)
    assert "no log line \\x1b[31m" in shown.stdout
    assert "no_format" in shown.stdout
    assert run("dead", "show", id, "--raw", cwd=site).stdout == "no log line \x1b[31m"
    document = json.loads(inside("dead", "show", id, "--json", cwd=site).stdout)
    assert (document["_id"], document["parser_now"]["kind"], document["stored"]) == (id, "no_format", False)

    nothing = inside("dead", "replay", cwd=site)
    assert "2 dead letters read: 0 events written, 1 still empty, 1 still no_format" in nothing.stdout

    # A letter whose bytes parse now: as after the parser has learnt its format.
    from oddlog.connectors.sqlite import SqliteStore
    from oddlog.connectors.store import EventQuery
    from oddlog.settings import StoreSettings

    store = SqliteStore(StoreSettings(url=f"sqlite:///{site / 'mlruns' / 'oddlog.sqlite'}"))
    letters = store.read_dead()
    store.delete_dead([id])
    import polars as pl

    known = pl.when(pl.col("_id") == id).then(pl.lit(event("18/May/2015", 9).strip().encode()))
    store.write_dead(letters.with_columns(known.otherwise("original").alias("original")))
    dry = json.loads(inside("dead", "replay", "--id", id, "--dry-run", "--json", cwd=site).stdout)
    assert (dry["written"], dry["removed"], store.count_dead()) == (1, 0, 2)
    done = inside("dead", "replay", cwd=site)
    assert "1 events written, 1 still empty" in done.stdout
    assert "oddlog backfill" in done.stdout
    assert store.count_dead() == 1
    assert store.count_events(EventQuery(ids=(id,), status="pending")) == 1
    assert store.count_events(EventQuery()) == 7
    store.close()

    unknown = inside("dead", "show", "never", cwd=site)
    assert (unknown.exit_code, "oddlog dead list" in unknown.stderr) == (2, True)


def test_retention_deletes_days_and_asks_before_it_deletes_all(site: Path) -> None:
    import datetime as dt

    today = dt.datetime.now(dt.UTC).date()
    keep = (today - dt.date(2015, 5, 18)).days  # as if today were that day
    dry = json.loads(inside("retention", "--keep-days", str(keep), "--dry-run", "--json", cwd=site).stdout)
    assert (dry["days"], dry["events"]) == ({"2015-05-16": 2, "2015-05-17": 2}, 4)
    done = run("retention", "--keep-days", str(keep), cwd=site)
    assert "4 events of 2 days before 2015-05-18 deleted" in done.stdout
    unsaid = inside("retention", cwd=site)
    assert (unsaid.exit_code, "store.keep_days" in unsaid.stderr) == (2, True)
    refused = inside("retention", cwd=site, ODDLOG_STORE__KEEP_DAYS="30")
    assert refused.exit_code == 2
    assert "--everything" in refused.stderr
    assert "lead_in_days" in inside("retention", "--keep-days", "3", "--everything", cwd=site).stdout
    left = json.loads(inside("dead", "list", "--json", cwd=site).stdout)
    assert left["count"] == 2
    again = json.loads(inside("retention", "--keep-days", "0", "--json", cwd=site).stdout)
    assert again["days"] == {}


def test_doctor_says_what_is_wrong_and_ends_with_a_code(site: Path) -> None:
    found = run("doctor", cwd=site)
    assert found.returncode == 3
    lines = {line.split()[1]: line for line in found.stdout.splitlines()}
    assert lines["store"].startswith("ok")
    assert lines["scorer"].startswith("failed")
    assert lines["champion"].startswith("no")
    assert lines["champion"].endswith("to mend: oddlog train && oddlog promote")
    document = json.loads(
        inside("doctor", "--scorer", "local:", "--json", cwd=site, ODDLOG_SCORER__URL="local:").stdout
    )
    assert document["exit_code"] == 1
    assert {check["part"]: check["verdict"] for check in document["checks"]}["offsets"] == "ok"
