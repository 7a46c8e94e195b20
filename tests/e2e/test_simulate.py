"""`oddlog simulate` as people call it: files, standard output, labels, errors."""

from __future__ import annotations

import gzip
import json
import subprocess
from pathlib import Path

import pytest

from tests.children import ODDLOG
from tests.verbs import run_verb

pytestmark = pytest.mark.e2e


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ODDLOG, "simulate", *arguments], capture_output=True, text=True, cwd=cwd, timeout=120, check=False
    )


def test_a_log_and_its_labels(tmp_path: Path) -> None:
    done = run(
        "--lines", "3000", "--seed", "1", "--out", "access.log", "--release-after", "0.6", "--start",
        "2026-04-01T06:00:00+02:00", "--json", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    lines = (tmp_path / "access.log").read_text().splitlines()
    labels = (tmp_path / "access.log.labels").read_text().splitlines()
    assert len(lines) == len(labels) == told["lines"] == 3000
    assert told["start"] == "2026-04-01T04:00:00+00:00"
    assert sum(told["labels"].values()) == 3000
    assert {label: labels.count(label) for label in set(labels)} == told["labels"]
    assert set(told["labels"]) > {"benign", "attack:directory_scan"}
    assert "[01/Apr/2026:" in lines[0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["access.log", "access.log.labels"]
    table = run_verb("simulate", "--lines", "3000", "--seed", "1", "--out", "again.log", "--release-after", "0.6",
                     "--start", "2026-04-01T04:00:00", cwd=tmp_path)  # fmt: skip
    assert "3,000 lines" in table.stdout
    assert (tmp_path / "again.log").read_bytes() == (tmp_path / "access.log").read_bytes()


def test_standard_output_and_named_labels(tmp_path: Path) -> None:
    done = run("-n", "200", "--out", "-", "--labels", "truth", "--attacks", "none", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 200
    assert (tmp_path / "truth").read_text() == "benign\n" * 200
    assert [path.name for path in tmp_path.iterdir()] == ["truth"]


def test_packed_files_are_equal_for_equal_seeds(tmp_path: Path) -> None:
    for name in ("a.log.gz", "b.log.gz"):
        done = run_verb("simulate", "-n", "300", "--out", name, "--attacks", "data_pull,xmlrpc_posts", cwd=tmp_path)
        assert done.exit_code == 0, done.stderr
    assert (tmp_path / "a.log.gz").read_bytes() == (tmp_path / "b.log.gz").read_bytes()
    assert gzip.decompress((tmp_path / "a.log.gz").read_bytes()).count(b"\n") == 300


def test_a_reader_that_has_seen_enough(tmp_path: Path) -> None:
    with subprocess.Popen(
        [ODDLOG, "simulate", "-n", "60000", "--out", "-"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path
    ) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        assert child.stdout.readline()
        child.stdout.close()
        assert child.stderr.read() == b""
        assert child.wait(timeout=60) == 0


def test_scenarios_are_listed(tmp_path: Path) -> None:
    listed = json.loads(run_verb("simulate", "--list", "--json", cwd=tmp_path).stdout)
    assert set(listed) >= {
        "directory_scan", "slow_distributed_scan", "login_bruteforce", "injection_probes", "web_shell_use",
        "data_pull", "error_outage",
    }  # fmt: skip
    assert "directory_scan" in run_verb("simulate", "--list", cwd=tmp_path).stdout


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ((), "no file to write to"),
        (("--out", "x.log", "--attacks", "dirscan"), "'dirscan'"),
        (("--out", "x.log", "--lines", "0"), "lines is 0"),
        (("--out", "x.log", "--start", "yesterday"), "'yesterday'"),
        (("--out", "nowhere/x.log"), "cannot write to nowhere/x.log"),
        (("--out", "-", "--json"), "both want standard output"),
        (("--out", "x.log", "--attack-share", "7"), "attack_share is 7"),
    ],
)
def test_wrong_values_end_with_2_and_write_nothing(
    arguments: tuple[str, ...], found: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run_verb("simulate", *arguments)
    assert done.exit_code == 2, done.output
    assert found in done.stderr
    assert "expected:" in done.stderr
    assert list(tmp_path.iterdir()) == []
