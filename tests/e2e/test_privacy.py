"""No address, name or query string of a log is in anything that privacy lets be stored: a whole life, then a grep.

    make privacy

The verbs run in process, on the embedded column. What is searched is every file below the folder of their state, in its
bytes and unpacked: gzip, zip, parquet, Arrow, base64 (client state in the store is Arrow in base64 in JSON in SQLite).
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import io
import os
import re
import sqlite3
import sys
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import orjson
import polars as pl
import pytest

from oddlog.connectors.by_url import open_registry, open_store
from oddlog.connectors.privacy_stamp import stored_stamp
from oddlog.connectors.store import EventQuery
from oddlog.events.privacy import Reader
from oddlog.scoring.artifact import read_card
from oddlog.settings import RegistrySettings, StoreSettings
from oddlog.simulation import simulate
from tests.verbs import run_verb

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

KEY = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
NAME, QUERY, REFERRED, MISFIT = "zz-nadia-quill", "zz9querytoken", "zz9referredtoken", "zz9misfittoken"
OWN = "203.0.113.222"
"""A client that names itself in its path, its agent and its envelope."""

TRAFFIC = simulate(seed=12, lines=3_000, days=3, attack_share=0.05)


def planted(number: int, line: str) -> bytes:
    """A line of the simulated log with what must not be kept."""
    client, rest = line.split(" ", 1)
    if number % 3 == 0:
        rest = rest.replace("- -", f"- {NAME}", 1)
    if number % 2 == 0:
        rest = re.sub(r'"([A-Z]+ [^ "?]+)[^ "]*( HTTP)', rf'"\1?{QUERY}={QUERY}{number}\2', rest)
    if number % 5 == 0:
        rest = re.sub(r'"-" "([^"]*)"$', rf'"https://{NAME}@x.example/?{REFERRED}#{REFERRED}" "\1"', rest)
    if number % 40 == 0:
        client, rest = (
            OWN,
            rest.replace("GET /", f"GET /of/{OWN}/", 1).replace("Mozilla/5.0", f"Mozilla/5.0 ({OWN})", 1),
        )
    return f"{client} {rest}".encode()


LINES = [planted(number, line) for number, line in enumerate(TRAFFIC.lines)]
ECS = orjson.dumps(
    {
        "@timestamp": "2026-03-02T10:00:00Z",
        "source": {"address": OWN, "ip": OWN},
        "client": {"ip": OWN, "user": {"name": NAME}},
        "user": {"name": NAME},
        "url": {"path": "/p", "query": QUERY, "original": f"/p?{QUERY}"},
        "http": {"request": {"method": "GET", "referrer": f"/?{REFERRED}"}, "response": {"status_code": 200}},
        "related": {"ip": [OWN], "user": [NAME]},
    }
)
MISFITS = [
    f"{OWN} {NAME} says {MISFIT}".encode(),
    b'{"message": "' + MISFIT.encode(),
    LINES[0].replace(b"2026", b"1926"),
]
NEEDLES = sorted(
    {line.split(" ", 1)[0] for line in TRAFFIC.lines} | {OWN, NAME, QUERY, REFERRED, MISFIT}, key=len, reverse=True
)
FIND = re.compile("|".join(map(re.escape, NEEDLES)).encode())

BASE64 = re.compile(rb"[A-Za-z0-9+/]{200,}={0,2}")


def contents(data: bytes, depth: int = 4) -> Iterator[bytes]:
    """Bytes, and what is packed in them."""
    yield data
    if depth == 0:
        return
    packed: list[bytes] = []
    with contextlib.suppress(Exception):
        if data[:2] == b"\x1f\x8b":
            packed.append(gzip.decompress(data))
        elif data[:2] == b"PK":
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                packed += [archive.read(name) for name in archive.namelist()]
        elif data[:4] == b"PAR1":
            packed.append(pl.read_parquet(io.BytesIO(data)).write_ndjson().encode())
        elif data[:6] == b"ARROW1":
            packed.append(pl.read_ipc(io.BytesIO(data)).write_ndjson().encode())
    for run in BASE64.findall(data):
        with contextlib.suppress(ValueError):
            packed.append(base64.b64decode(run[: len(run) // 4 * 4]))
    for one in packed:
        yield from contents(one, depth - 1)


def rows(path: Path) -> Iterator[bytes]:
    """Every value of every table of an SQLite file: a long one lies in its pages in pieces."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            for row in connection.execute(f'SELECT * FROM "{table}"'):
                yield b"\n".join(value if isinstance(value, bytes) else str(value).encode() for value in row)


def whole(path: Path) -> Iterator[bytes]:
    """A file's bytes and everything in it, unpacked."""
    data = path.read_bytes()
    for one in [data, *(rows(path) if data.startswith(b"SQLite format 3") else [])]:
        yield from contents(one)


def search(folder: Path) -> tuple[dict[str, Counter[str]], int, int]:
    """What was found, by file; how many files and bytes, unpacked ones included, were looked at."""
    found: dict[str, Counter[str]] = {}
    files = size = 0
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        files += 1
        for part in (os.fsencode(path.relative_to(folder)), *whole(path)):
            size += len(part)
            for match in FIND.findall(part):
                found.setdefault(str(path.relative_to(folder)), Counter())[match.decode()] += 1
    return found, files, size


def test_the_search_finds_what_is_packed(tmp_path: Path) -> None:
    frame = pl.DataFrame({"a": [QUERY] * 50})
    frame.write_parquet(tmp_path / "a.parquet", compression="zstd")
    frame.write_ipc(buffer := io.BytesIO(), compression="zstd")
    (tmp_path / "b.json").write_text('{"data":"' + base64.b64encode(buffer.getvalue()).decode() + '"}')
    (tmp_path / "c.gz").write_bytes(gzip.compress(QUERY.encode()))
    np.savez_compressed(tmp_path / "d.npz", text=np.frombuffer(QUERY.encode(), dtype=np.uint8))
    with contextlib.closing(sqlite3.connect(tmp_path / "e.db")) as connection, connection:
        connection.execute("CREATE TABLE t (x)")
        connection.execute("INSERT INTO t VALUES (?)", (b"x" * 9_000 + (tmp_path / "b.json").read_bytes(),))
    assert sorted(search(tmp_path)[0]) == ["a.parquet", "b.json", "c.gz", "d.npz", "e.db"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a life with privacy: shipped, enriched, trained, promoted, enriched again, checked for drift."""
    folder = tmp_path_factory.mktemp("privacy")
    state = folder / "state"
    state.mkdir()
    (folder / "key").write_text(KEY + "\n")
    (state / "gates.toml").write_text("[schema]\n[golden]\nmax_difference = 1e-3\n")
    (state / "oddlog.toml").write_text(
        f"""
        [source]
        url = "file://{folder}/topic.log"
        [scorer]
        url = "local:"
        [enrich]
        shadow_share = 1.0
        [train]
        algorithm = "surprise"
        [drift]
        sample_rows = 20000
        [privacy]
        clients = "pseudonymise"
        queries = "drop"
        key_file = "{folder}/key"
        """
    )

    def run(*arguments: str, code: int = 0) -> str:
        result = run_verb(*arguments, cwd=state)
        assert result.exit_code == code, f"{arguments}: {result.output}"
        return result.output

    half = len(LINES) // 2
    (folder / "first.log").write_bytes(b"\n".join([*LINES[:half], ECS, *MISFITS]) + b"\n")
    (folder / "second.log").write_bytes(b"\n".join(LINES[half:]) + b"\n")
    run("ship", str(folder / "first.log"))
    run("enrich", "--until-idle", "0.2")
    run("train")
    run("promote")
    run("ship", str(folder / "second.log"))
    run("enrich", "--until-idle", "0.2")
    run("backfill")
    run("incidents", "watch", "--once", "--since", "2026-03-01")
    run("train")
    run("evaluate", "--until", "2030-01-01")
    result = run_verb("drift", "--json", cwd=state)
    assert result.exit_code in {0, 1}, result.output
    (state / "scored.json").write_text(run("score", str(folder / "second.log"), "--html", "score.html", "--json"))
    (state / "scored.csv").write_text(
        run("score", str(folder / "second.log"), "--model", "champion", "--csv", "--every")
    )
    return folder


def test_nothing_planted_is_stored(place: Path) -> None:
    raw = b"".join(path.read_bytes() for path in (place / "first.log", place / "topic.log"))
    assert set(FIND.findall(raw)) >= {one.encode() for one in (OWN, NAME, QUERY, REFERRED, MISFIT)}, "none was planted"
    found, files, size = search(place / "state")
    sys.stdout.write(
        f"\n{len(NEEDLES)} addresses, names and tokens looked for in {files} files, {size / 1e6:.0f} MB unpacked: "
        f"found in {len(found)}\n"
    )
    assert not found


def test_what_is_stored_is_whole_and_of_use(place: Path) -> None:
    store = open_store(StoreSettings(url=f"sqlite:///{place}/state/mlruns/oddlog.sqlite"))
    with contextlib.closing(store):
        assert store.count_events(EventQuery()) == len(LINES) + 1
        assert store.count_events(EventQuery(status="pending")) == 0
        assert store.count_dead() == len(MISFITS)
        reader = Reader(KEY.encode(), clients=True, queries=True)
        mine = sum(line.startswith(OWN.encode()) for line in LINES) + 1
        assert store.count_events(EventQuery(clients=(reader.pseudonym(OWN),))) == mine
        assert stored_stamp(store) == reader.stamp
        assert len(store.list_documents("state")) > 3, "no snapshot was searched"
        assert store.list_documents("incidents")
    settings = RegistrySettings(url=f"sqlite:///{place}/state/mlruns/mlflow.db")
    registry = open_registry(settings)
    card = read_card(registry.download("1", place / "downloaded"))
    assert card.privacy == reader.stamp
    names = {path.name for path in (place / "state").rglob("*")}
    assert {"first_alerts.html", "baseline.arrow", "score.html"} <= names
    assert any(name.endswith(".parquet") for name in names)
    assert any(name.startswith("drift") and name.endswith(".html") for name in names) or any(
        path.suffix == ".html" for path in (place / "state" / "mlruns" / "drift").rglob("*")
    )


def test_a_client_is_forgotten_by_its_address(place: Path) -> None:
    state, reader = place / "state", Reader(KEY.encode(), clients=True, queries=True)
    name = reader.pseudonym(OWN).encode()
    naming = {path for path in state.rglob("*") if path.is_file() and any(name in one for one in whole(path))}
    assert {path.suffix for path in naming} >= {".sqlite", ".parquet"}
    counted = orjson.loads(run_verb("forget", OWN, "--dry-run", "--json", cwd=state).stdout)
    done = orjson.loads(run_verb("forget", OWN, "--json", cwd=state).stdout)
    assert counted == {**done, "dry_run": True, "files": {**done["files"], "dry_run": True}}
    assert done["client"].encode() == name
    assert done["events"] == sum(line.startswith(OWN.encode()) for line in LINES) + 1
    assert done["states"] > 0
    assert done["files"]["staying"] == []
    pages = {state / "score.html", state / "scored.json", state / "scored.csv"}  # who asked for them keeps them
    left = {path for path in state.rglob("*") if path.is_file() and any(name in one for one in whole(path))}
    assert left <= pages
    shown = run_verb("forget", OWN, cwd=state)
    assert shown.exit_code == 0
    assert "events" in shown.output
    assert run_verb("enrich", "--until-idle", "0", cwd=state).exit_code == 0


def test_privacy_tells_who_agrees(place: Path) -> None:
    state = place / "state"
    agreed = run_verb("privacy", cwd=state)
    assert agreed.exit_code == 0
    assert "they agree" in agreed.output
    (place / "other").write_text("another key of more than thirty-two characters")
    rotated = {"ODDLOG_PRIVACY__KEY_FILE": str(place / "other")}
    differs = run_verb("privacy", "--json", cwd=state, env=rotated)
    assert differs.exit_code == 1
    assert orjson.loads(differs.stdout)["store"]["clients"] is True
    refused = run_verb("forget", OWN, cwd=state, env=rotated)
    assert refused.exit_code == 2
    assert "pseudonyms of key" in refused.output
    name = Reader(KEY.encode(), clients=True).pseudonym(OWN)
    assert run_verb("forget", name, "--no-expunge", cwd=state, env=rotated).exit_code == 0


def test_another_key_or_none_is_refused(place: Path, tmp_path: Path) -> None:
    (tmp_path / "other").write_text("another key of more than thirty-two characters")
    state = place / "state"
    before = (state / "mlruns" / "oddlog.sqlite").stat().st_mtime_ns
    other = run_verb(
        "enrich", "--until-idle", "0", cwd=state, env={"ODDLOG_PRIVACY__KEY_FILE": str(tmp_path / "other")}
    )
    assert other.exit_code == 2
    assert "one key" in other.output
    plain = {"ODDLOG_PRIVACY__CLIENTS": "keep", "ODDLOG_PRIVACY__QUERIES": "keep"}
    off = run_verb("enrich", "--until-idle", "0", cwd=state, env=plain)
    assert off.exit_code == 2
    assert "the settings ask for plain" in off.output
    model = run_verb("score", str(place / "second.log"), "--model", "champion", cwd=state, env=plain)
    assert model.exit_code == 2
    assert "privacy.queries" in model.output
    assert (state / "mlruns" / "oddlog.sqlite").stat().st_mtime_ns == before


def test_a_model_of_other_queries_is_neither_promoted_nor_served(place: Path) -> None:
    """The last: it changes what the place is."""
    state, kept = place / "state", {"ODDLOG_PRIVACY__QUERIES": "keep"}
    adopted = run_verb("privacy", "--adopt", cwd=state, env=kept)
    assert adopted.exit_code == 1
    assert "privacy of champion 1 is not that of the settings" in adopted.output
    refused = run_verb("promote", cwd=state, env=kept)
    assert refused.exit_code == 1
    assert "trained on events with dropped query strings" in refused.output
    run_verb("ship", str(place / "second.log"), cwd=state)
    consumed = run_verb("enrich", "--until-idle", "0.2", "--json", cwd=state, env=kept)
    counts = orjson.loads(consumed.stdout)
    assert (counts["scored"], counts["pending"]) == (0, len(LINES) - len(LINES) // 2)
