"""`oddlog score` as people call it: files, pipes, packed logs, programs, a model, and what goes wrong."""

from __future__ import annotations

import csv
import gzip
import json
import subprocess
from pathlib import Path

import pyarrow as pa
import pytest

from oddlog.simulation.traffic import simulate
from tests.children import ODDLOG
from tests.small_model import small_model
from tests.verbs import run_verb

pytestmark = pytest.mark.e2e

TEXT = "".join(
    f"{line}\n" for line in simulate(seed=8, lines=4_000, days=2.0, attacks=["directory_scan"], attack_share=0.04).lines
).encode()


def run(*arguments: str, cwd: Path, standard_input: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [ODDLOG, "score", *arguments], capture_output=True, cwd=cwd, timeout=240, check=False, input=standard_input
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "access.log").write_bytes(TEXT)
    return tmp_path


def test_for_people(folder: Path) -> None:
    done = run("access.log", cwd=folder)
    assert done.returncode == 0, done.stderr
    text = done.stdout.decode()
    assert "4,000 requests" in text
    assert "the oddest clients" in text
    assert "rarer than one event in" in text
    assert "of this client's requests" in text
    assert done.stderr == b""


def test_packed_and_piped_logs_are_the_same_log(folder: Path) -> None:
    (folder / "access.log.gz").write_bytes(gzip.compress(TEXT))
    (folder / "access.log.zst").write_bytes(pa.compress(TEXT, "zstd", asbytes=True))
    packed = ("access.log.gz", "access.log.zst")
    found = [json.loads(run_verb("score", name, "--json", cwd=folder).stdout) for name in packed]
    found.append(json.loads(run("-", "--json", cwd=folder, standard_input=TEXT).stdout))
    plain = json.loads(run_verb("score", "access.log", "--json", cwd=folder).stdout)
    for one in found:
        assert one | {"file": ""} == plain | {"file": ""}
    scanner = max(plain["oddest_clients"], key=lambda client: client["anomalies"])
    assert scanner["anomalies"] > 50
    assert scanner["oddest"]["reasons"]


def test_csv_and_page(folder: Path) -> None:
    done = run_verb("score", "access.log", "--csv", "--every", "--html", "odd.html", cwd=folder)
    assert done.exit_code == 0, done.stderr
    rows = list(csv.DictReader(done.stdout.splitlines()))
    assert [int(row["line"]) for row in rows] == list(range(1, 4_001))
    text = (folder / "odd.html").read_text()
    assert text.startswith("<!doctype html>")
    assert text.rstrip().endswith("</html>")
    assert sorted(path.name for path in folder.iterdir()) == ["access.log", "odd.html"]


def test_a_model_from_a_folder(folder: Path) -> None:
    small_model(folder / "model", TEXT.splitlines())
    done = run_verb("score", "access.log", "--model", "model", "--json", cwd=folder)
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["model"] == "surprise of model"
    assert max(client["anomalies"] for client in found["oddest_clients"]) > 50


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere.log"], "there is no file nowhere.log"),
        (["."], "is a folder"),
        (["empty.log"], "is empty"),
        (["few.log"], "at least 100"),
        (["prose.txt"], "none of the 2 lines"),
        (["broken.gz"], "cannot be unpacked"),
        (["access.log", "--algorithm", "magic"], "magic"),
        (["access.log", "--budget", "many"], "budget"),
        (["access.log", "--json", "--csv"], "one of them"),
        (["access.log", "--every"], "--csv"),
        (["access.log", "--model", "."], "holds no model"),
        (["access.log", "--model", "nobody"], "nobody"),
        (["access.log", "--html", "no/folder.html"], "cannot write"),
    ],
)
def test_wrong_arguments_end_with_2(
    folder: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    (folder / "empty.log").touch()
    (folder / "few.log").write_bytes(b"".join(TEXT.splitlines(keepends=True)[:30]))
    (folder / "prose.txt").write_text("to whom it may concern\nhello\n")
    (folder / "broken.gz").write_bytes(gzip.compress(TEXT)[:9_000])
    monkeypatch.chdir(folder)
    done = run_verb("score", *arguments)
    assert done.exit_code == 2, done.output
    assert said in done.stderr
    assert done.stdout == ""
