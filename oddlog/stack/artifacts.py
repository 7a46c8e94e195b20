"""Where the servers' programs come from: Maven Central, once, into a cache that all state folders share."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from oddlog.errors import OutsideError

POM = Path(__file__).with_name("pom.xml")
JAVA_RELEASE = 17
DOWNLOAD_SECONDS = 900.0


def default_cache() -> Path:
    """The cache folder: `$XDG_CACHE_HOME/oddlog/stack`, by default `~/.cache/oddlog/stack`.

    Root's is `/var/cache/oddlog/stack`: its Elasticsearch runs as another user, who cannot look into `/root`.
    """
    if os.geteuid() == 0:
        return Path("/var/cache/oddlog/stack")
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "oddlog" / "stack"


def versions() -> dict[str, str]:
    """The pinned versions, as `pom.xml` has them.

    >>> sorted(versions())
    ['elasticsearch', 'kafka']
    """
    space = "{http://maven.apache.org/POM/4.0.0}"
    properties = ET.parse(POM).getroot().find(f"{space}properties")
    assert properties is not None
    found = {element.tag.removeprefix(space): element.text or "" for element in properties}
    return {"kafka": found["kafka.version"], "elasticsearch": found["elasticsearch.version"]}


def missing_tools() -> list[str]:
    """What this machine lacks to run the servers, as names a person can install; empty when nothing is.

    Cheap enough for a test's skip condition: nothing is downloaded or started.
    """
    lacking = []
    if _find_java() is None:
        lacking.append(f"Java {JAVA_RELEASE} or newer")
    if shutil.which("mvn") is None:
        lacking.append("Maven (mvn)")
    return lacking


def java_home() -> Path:
    """JAVA_HOME, or the home of the `java` on PATH, whichever is new enough first. Raises OutsideError."""
    home = _find_java()
    if home is None:
        raise OutsideError(
            f"no Java {JAVA_RELEASE} or newer was found in JAVA_HOME or on PATH",
            expected=f"a Java runtime of release {JAVA_RELEASE} or newer; Kafka and Elasticsearch run on it",
            mend="apt-get install openjdk-17-jre-headless maven",
        )
    return home


def _find_java() -> Path | None:
    candidates = []
    if named := os.environ.get("JAVA_HOME"):
        candidates.append(Path(named) / "bin" / "java")
    if found := shutil.which("java"):
        candidates.append(Path(found).resolve())
    for java in candidates:
        if java.is_file() and _release(java) >= JAVA_RELEASE:
            return java.parent.parent
    return None


def _release(java: Path) -> int:
    """The release of a Java program (17 of "17.0.15", 8 of "1.8.0"); 0 where it does not run."""
    try:
        answer = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    match = re.search(r'version "(?:1\.)?(\d+)', answer.stderr)
    return int(match.group(1)) if match and answer.returncode == 0 else 0


def program(name: str, cache: Path) -> Path:
    """The folder of a server's program, brought by Maven when the cache lacks it.

    `name` is `kafka` (a folder with `libs/*.jar`) or `elasticsearch` (its home, with `bin/`). Several
    processes may ask at once: one brings it, the others wait. Raises OutsideError.
    """
    home = cache / f"{name}-{versions()[name]}"
    if home.is_dir():
        return home
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with exclusively(cache / ".lock"):
            if not home.is_dir():
                _bring(name, home, cache)
    except OSError as error:
        raise OutsideError(
            f"the cache folder {cache} cannot be used: {error}",
            expected="a folder this user can write to",
            mend="oddlog stack up --cache-dir FOLDER",
        ) from error
    return home


def _bring(name: str, home: Path, cache: Path) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise OutsideError(
            f"Maven (mvn) is not installed, and {home} is not there yet",
            expected="mvn on PATH: it brings the servers' programs from Maven Central",
            mend="apt-get install maven openjdk-17-jre-headless",
        )
    stage = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=cache))
    log = cache / f"maven-{name}.log"
    command = [maven, "-B", "-q", "-Dstyle.color=never", "-f", str(POM), f"-P{name}", f"-Dstage={stage}"]
    try:
        with log.open("wb") as output:
            done = subprocess.run(
                [*command, "generate-resources"],
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                env={**os.environ, "JAVA_HOME": str(java_home())}, timeout=DOWNLOAD_SECONDS, check=False,
            )  # fmt: skip
        made = stage / home.name if name == "elasticsearch" else stage
        if done.returncode != 0 or not (made / ("bin" if name == "elasticsearch" else "libs")).is_dir():
            raise OutsideError(
                f"Maven did not bring {home.name}:\n{last_lines(log)}",
                expected="access to Maven Central, or to the mirror that ~/.m2/settings.xml names",
                mend=f"read {log}",
            )
        _let_others_read(made)
        made.rename(home)
    except subprocess.TimeoutExpired as error:
        raise OutsideError(
            f"Maven took longer than {DOWNLOAD_SECONDS:.0f} s to bring {home.name}:\n{last_lines(log)}",
            mend=f"read {log}, then run the command again: what was brought is kept",
        ) from error
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _let_others_read(folder: Path) -> None:
    """Reading for everybody, whatever the umask: root's Elasticsearch is another user."""
    for path in (folder, *folder.rglob("*")):
        mode = path.stat().st_mode
        path.chmod(mode | (0o555 if path.is_dir() or mode & 0o100 else 0o444))


@contextmanager
def exclusively(path: Path) -> Iterator[None]:
    """Hold a lock file for the length of a block; waits for whoever holds it."""
    with path.open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def last_lines(path: Path, count: int = 15) -> str:
    """The end of a log, indented, for an error's text; says so where there is none."""
    try:
        lines = path.read_text(errors="replace").splitlines()[-count:]
    except OSError:
        lines = []
    return "\n".join(f"    {line}" for line in lines) or f"    ({path} is empty)"
