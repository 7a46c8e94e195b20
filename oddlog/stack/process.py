"""Server processes: free ports, starting, a pid known to be ours, stopping. What they run is elsewhere."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

HOST = "127.0.0.1"

# Children of this very process leave a zombie until they are waited for; `stop` finds them here.
_children: dict[int, subprocess.Popen[bytes]] = {}


def free_port(*wished: int, taken: Sequence[int] = ()) -> int:
    """The first of the wished ports that nobody listens on and that is not in `taken`, else any free one."""
    for port in (*(p for p in wished if p not in taken), 0):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            # As the servers do: without it a port in TIME_WAIT from the last run would look taken.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            chosen = int(probe.getsockname()[1])
            if chosen not in taken:
                return chosen
    return free_port(taken=taken)


def start(
    command: Sequence[str],
    *,
    log: Path,
    env: Mapping[str, str],
    cwd: Path,
    user: str | None = None,
) -> subprocess.Popen[bytes]:
    """Start a program in a session of its own, so that it outlives this process and its terminal."""
    options: dict[str, object] = {}
    if user is not None:
        import pwd

        entry = pwd.getpwnam(user)
        options = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    with log.open("ab") as output:
        child = subprocess.Popen(
            list(command), stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            env=dict(env), cwd=cwd, start_new_session=True, **options,
        )  # type: ignore[call-overload]  # fmt: skip
    _children[child.pid] = child
    return child  # type: ignore[no-any-return]


def birth(pid: int) -> str | None:
    """What tells this process from a later one with the same pid: its start time; None when it is gone.

    A zombie counts as gone: it holds no port and no file.
    """
    if Path("/proc/self/stat").exists():
        try:
            # The name may hold spaces and parentheses; the fields after its last one are plain.
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        except (OSError, IndexError):
            return None
        return None if fields[0] in "ZX" else f"{boot}/{fields[19]}"
    answer = subprocess.run(["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    state, _, started = answer.stdout.strip().partition(" ")
    return started.strip() if started and not state.startswith("Z") else None


def alive(pid: int, born: str) -> bool:
    """Whether the process that had this pid and start time still runs."""
    reap(pid)
    return birth(pid) == born


def reap(pid: int) -> None:
    """Take the exit status of a child of ours that has ended."""
    child = _children.get(pid)
    if child is not None and child.poll() is not None:
        del _children[pid]


def stop(pid: int, born: str, *, grace: float = 30.0) -> None:
    """SIGTERM, and SIGKILL after `grace` seconds; returns when it is gone. Never touches another's pid.

    SIGKILL goes to all of its group, which `start` made: a launcher that is killed stops its server no more."""
    for send, sign, patience in ((os.kill, signal.SIGTERM, grace), (os.killpg, signal.SIGKILL, 10.0)):
        if not alive(pid, born):
            return
        try:
            send(pid, sign)
        except ProcessLookupError:
            return
        deadline = time.monotonic() + patience
        while alive(pid, born) and time.monotonic() < deadline:
            time.sleep(0.05)
