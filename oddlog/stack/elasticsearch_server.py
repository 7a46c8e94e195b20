"""Elasticsearch: one node of the minimal distribution. Its configuration, its start, and whether it answers.

It refuses to run as root: root's runs as another user, who owns its folder and reaches nothing else.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import pwd
import shutil
import ssl
import stat
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from oddlog.errors import OutsideError
from oddlog.stack import artifacts, process

CLUSTER = "oddlog-stack"
ASIDE = Path("/var/tmp")
"""Where root's Elasticsearch gets its folder when the state folder is closed to its user."""


@dataclass(frozen=True, slots=True)
class ElasticsearchOptions:
    """How Elasticsearch is run."""

    heap: str = "1g"
    """Java heap, as `-Xmx` takes it."""
    java_options: tuple[str, ...] = ()
    """Further options of its Java."""
    port: int = 9200
    """Wished port; another free one is taken when somebody listens there."""
    user: str = "nobody"
    """Who runs it when we are root. Every Debian has `nobody`; an existing user of your own will do."""
    settings: Mapping[str, object] = field(default_factory=dict)
    """Lines of `elasticsearch.yml` beside or instead of ours, by dotted name."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Further files of its configuration folder by name (`roles.yml`, `users`, ...), with their content."""
    credentials: tuple[str, str] | None = None
    """User and password that the health check uses, where security is on."""

    @property
    def scheme(self) -> str:
        """Of its URL: `https` where the settings turn on TLS.

        >>> ElasticsearchOptions(settings={"xpack.security.http.ssl.enabled": True}).scheme
        'https'
        """
        return "https" if self.settings.get("xpack.security.http.ssl.enabled") else "http"


def prepare(link: Path, options: ElasticsearchOptions) -> Path:
    """The folder for configuration, data and logs, owned by the user who will run Elasticsearch.

    That is `link` itself, or, where its user cannot get there, a folder under /var/tmp that `link` then
    points to. Raises OutsideError.
    """
    if os.geteuid() != 0:
        link.mkdir(parents=True, exist_ok=True)
        return link
    try:
        owner = pwd.getpwnam(options.user)
    except KeyError:
        raise OutsideError(
            f"there is no user {options.user!r} on this machine",
            expected="a user other than root to run Elasticsearch",
            mend=f"useradd --system {options.user}",
        ) from None
    if not link.exists() and not _reachable(link.parent, owner):
        digest = hashlib.sha256(str(link.absolute()).encode()).hexdigest()[:16]
        aside = ASIDE / f"oddlog-elasticsearch-{digest}"
        # /var/tmp is everybody's: a folder that somebody else put there under this name is not ours to use.
        aside.mkdir(mode=0o700, exist_ok=True)
        if aside.is_symlink() or aside.stat().st_uid not in {0, owner.pw_uid}:
            raise OutsideError(f"{aside} belongs to somebody else", mend=f"remove {aside}, or use another --state-dir")
        link.unlink(missing_ok=True)  # a link whose target a reboot has cleared away
        link.symlink_to(aside)
    folder = link.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    os.chown(folder, owner.pw_uid, owner.pw_gid)
    return folder


def _reachable(path: Path, user: pwd.struct_passwd) -> bool:
    """Whether another user may pass through a folder and all above it; only the first group counts."""
    for folder in (path.resolve(), *path.resolve().parents):
        entry = folder.stat()
        wanted = (
            stat.S_IXUSR if entry.st_uid == user.pw_uid
            else stat.S_IXGRP if entry.st_gid == user.pw_gid
            else stat.S_IXOTH
        )  # fmt: skip
        if not entry.st_mode & wanted:
            return False
    return True


def launch(folder: Path, options: ElasticsearchOptions, cache: Path, port: int, inner_port: int) -> tuple[int, Path]:
    """Start the node on `port` (transport on `inner_port`) in a folder from `prepare`; gives pid and log.

    The process is Elasticsearch's own launcher, which stays as the server's parent and stops it when told to
    stop. Raises OutsideError.
    """
    home, java = artifacts.program("elasticsearch", cache), artifacts.java_home()
    root = os.geteuid() == 0
    if root:
        owner = pwd.getpwnam(options.user)
        for path, mend in (
            (home / "bin", "oddlog stack up --cache-dir /var/cache/oddlog/stack"),
            (java / "bin", "install a Java that every user may run, or set JAVA_HOME to one"),
        ):
            if not _reachable(path, owner):
                raise OutsideError(
                    f"Elasticsearch may not run as root, and user {options.user!r} cannot reach {path}",
                    expected="folders that others may pass through (o+x) all the way",
                    mend=mend,
                )
    config, data, logs, temporary = (folder / name for name in ("config", "data", "logs", "tmp"))
    for path in (config, data, logs, temporary):
        path.mkdir(exist_ok=True)
    for name in ("jvm.options", "log4j2.properties", "roles.yml", "role_mapping.yml", "users", "users_roles"):
        if not (config / name).exists():
            shutil.copyfile(home / "config" / name, config / name)
    (config / "jvm.options.d").mkdir(exist_ok=True)
    jvm = (f"-Xms{options.heap}", f"-Xmx{options.heap}", f"-XX:HeapDumpPath={logs}", *options.java_options)
    (config / "jvm.options.d" / "oddlog.options").write_text("".join(f"{option}\n" for option in jvm))
    lines = {
        "cluster.name": CLUSTER,
        "node.name": "oddlog-1",
        "path.data": str(data),
        "path.logs": str(logs),
        "network.host": process.HOST,
        "http.port": port,
        "transport.port": inner_port,
        "discovery.type": "single-node",
        # A developer's disk is often fuller than 85 %: do not turn indices read-only for it.
        "cluster.routing.allocation.disk.threshold_enabled": False,
        # Tests make an index each: far more than the default thousand shards, for a while.
        "cluster.max_shards_per_node": 5000,
        "xpack.security.enabled": False,
        **options.settings,
    }
    # JSON is YAML, and quotes what needs quoting.
    (config / "elasticsearch.yml").write_text("".join(f"{key}: {json.dumps(value)}\n" for key, value in lines.items()))
    for name, content in options.files.items():
        (config / name).write_text(content)
    if root:
        for path in _below(folder):
            os.chown(path, owner.pw_uid, owner.pw_gid, follow_symlinks=False)

    dropped = {"JAVA_HOME", "JAVA_OPTS", "JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS", "ES_JAVA_OPTS", "ES_HOME"}
    env = {name: value for name, value in os.environ.items() if name not in dropped}
    env |= {
        "ES_JAVA_HOME": str(java),
        "ES_PATH_CONF": str(config),
        "ES_TMPDIR": str(temporary),
        "HOME": str(folder),
        # The launcher starts the server, and then it only waits.
        "CLI_JAVA_OPTS": "-XX:TieredStopAtLevel=1",
    }
    # The launcher says why a start failed before there is a log: both are worth showing.
    console = logs / "console.log"
    console.write_bytes(b"")
    child = process.start(
        [str(home / "bin" / "elasticsearch")],
        log=console,
        env=env,
        cwd=folder,
        user=options.user if root else None,
    )
    return child.pid, logs / f"{CLUSTER}.log"


def _below(folder: Path) -> Iterator[Path]:
    yield folder
    yield from folder.rglob("*")


def healthy(url: str, credentials: tuple[str, str] | None = None, timeout: float = 5.0) -> bool:
    """Whether the node at `url` answers and its cluster takes writes (status yellow or green).

    Over TLS its certificate is not looked at, so that no password is sent: that it asks for one is the answer."""
    request = urllib.request.Request(f"{url}/_cluster/health")
    context = None
    if url.startswith("https:"):
        credentials, context = None, ssl._create_unverified_context()
    if credentials is not None:
        request.add_header("Authorization", "Basic " + base64.b64encode(":".join(credentials).encode()).decode())
    # No proxy of the environment's between us and our own machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    try:
        with opener.open(request, timeout=timeout) as answer:
            return json.load(answer).get("status") in {"yellow", "green"}
    except urllib.error.HTTPError as error:
        # Security is on and we were given no password: the node itself is there.
        return error.code in {401, 403} and credentials is None
    except (OSError, ValueError):
        return False
