"""The parts of the stack that need no Java: ports, processes that are known to be ours, remembered state."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from oddlog import stack
from oddlog.errors import OutsideError
from oddlog.stack import artifacts, process, state
from oddlog.stack.elasticsearch_server import ElasticsearchOptions, prepare
from oddlog.stack.state import Server, StackState
from tests.waiting import until

SLEEPER = [sys.executable, "-c", "import time; print('here', flush=True); time.sleep(600)"]


def _sleeper(tmp_path: Path) -> subprocess.Popen[bytes]:
    return process.start(SLEEPER, log=tmp_path / "log", env=dict(os.environ), cwd=tmp_path)


def _server(pid: int, born: str) -> Server:
    return Server("kafka", "kafka://127.0.0.1:1", 1, 2, pid, born, "/nowhere", "/nowhere/log")


def test_a_taken_port_is_passed_over() -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        taken = holder.getsockname()[1]
        chosen = process.free_port(taken)
    assert chosen != taken
    assert process.free_port(chosen) == chosen
    assert process.free_port(chosen, taken=[chosen]) != chosen


def test_stop_ends_what_was_started_and_leaves_no_zombie(tmp_path: Path) -> None:
    child = _sleeper(tmp_path)
    born = process.birth(child.pid)
    assert born is not None
    assert process.alive(child.pid, born)
    process.stop(child.pid, born)
    assert not process.alive(child.pid, born)
    assert child.returncode is not None


def test_stop_kills_what_ignores_sigterm(tmp_path: Path) -> None:
    code = (
        "import signal, time, pathlib; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "pathlib.Path('ready').touch(); time.sleep(600)"
    )
    child = process.start([sys.executable, "-c", code], log=tmp_path / "log", env=dict(os.environ), cwd=tmp_path)
    born = process.birth(child.pid)
    assert born is not None
    try:
        until((tmp_path / "ready").exists, "the start of the child")
        process.stop(child.pid, born, grace=0.2)
    finally:
        child.kill()  # harmless to one that has ended
    assert child.returncode == -9


def test_a_pid_that_another_process_has_now_is_not_touched(tmp_path: Path) -> None:
    stranger = _sleeper(tmp_path)
    born = process.birth(stranger.pid)
    assert born is not None
    try:
        folder = tmp_path / "stack"
        folder.mkdir()
        state.write(folder, StackState(kafka=_server(stranger.pid, "another start time")))
        assert stack.status(folder)["kafka"] == "dead"
        assert stack.down(folder).servers == ()
        assert process.alive(stranger.pid, born)
    finally:
        process.stop(stranger.pid, born)


def test_down_after_a_crash_forgets_the_dead_server(tmp_path: Path) -> None:
    state.write(tmp_path, StackState(kafka=_server(2**22 + 1, "long ago")))
    assert stack.status(tmp_path) == {"kafka": "dead", "elasticsearch": "down"}
    assert stack.down(tmp_path).servers == ()
    assert stack.status(tmp_path) == {"kafka": "down", "elasticsearch": "down"}


def test_down_without_a_state_folder_makes_none(tmp_path: Path) -> None:
    assert stack.down(tmp_path / "absent") == StackState()
    assert not (tmp_path / "absent").exists()


@pytest.mark.parametrize("text", ["{", "[]", '{"kafka": {"name": "kafka"}}', '{"redis": {"name": "redis"}}'])
def test_a_broken_state_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / state.FILE).write_text(text)
    with pytest.raises(OutsideError, match=r"stack\.json cannot be read"):
        stack.read_state(tmp_path)


def test_without_java_and_maven_the_error_names_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for tool in ("java", "mvn"):
        shim = tmp_path / tool
        shim.write_text("#!/bin/sh\nexit 127\n")
        shim.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    assert stack.missing_tools() == ["Java 17 or newer"]
    with pytest.raises(OutsideError, match="no Java 17") as caught:
        artifacts.java_home()
    assert caught.value.mend == "apt-get install openjdk-17-jre-headless maven"
    (tmp_path / "mvn").unlink()
    assert stack.missing_tools() == ["Java 17 or newer", "Maven (mvn)"]
    with pytest.raises(OutsideError, match="Maven"):
        artifacts.program("kafka", tmp_path / "cache")
    assert list((tmp_path / "cache").glob("kafka*")) == []


@pytest.mark.parametrize(("banner", "release"), [("1.8.0_392", 8), ("17.0.15", 17), ("21", 21)])
def test_an_old_java_is_told_from_a_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, banner: str, release: int
) -> None:
    java = tmp_path / "bin" / "java"
    java.parent.mkdir()
    java.write_text(f"#!/bin/sh\necho 'openjdk version \"{banner}\" 2025-01-01' >&2\n")
    java.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", "/nonexistent")
    if release >= artifacts.JAVA_RELEASE:
        assert artifacts.java_home() == tmp_path
    else:
        with pytest.raises(OutsideError):
            artifacts.java_home()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to give Elasticsearch to another user")
def test_a_state_folder_that_is_closed_to_its_user_gets_a_link(tmp_path: Path) -> None:
    closed = tmp_path / "home"
    closed.mkdir(mode=0o700)
    link = closed / "elasticsearch"
    folder = prepare(link, ElasticsearchOptions())
    try:
        assert link.is_symlink()
        assert link.resolve() == folder
        assert folder.stat().st_mode & stat.S_IRWXU == stat.S_IRWXU
        seen = subprocess.run(["ls", folder], user="nobody", group=65534, extra_groups=[], check=False)
        assert seen.returncode == 0, "its user cannot read the folder that was made for it"
        assert prepare(link, ElasticsearchOptions()) == folder, "a second start moved the data"
    finally:
        stack.down(closed, purge=True)
    assert not folder.exists()
    assert not link.is_symlink()
