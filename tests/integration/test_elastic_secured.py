"""A real Elasticsearch that asks for a password over TLS, and the roles of deploy/elasticsearch: what they allow is
enough, what they do not is refused, and a consumer that is refused stops, says why, and has lost nothing.

One server for all of it. Native users and API keys do not work in the minimal distribution: users and roles are
those of the file realm, and the roles are the files that compose and docs use.
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import json
import os
import random
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest

from monitoring.drift import check_drift
from oddlog import stack
from oddlog.connectors.by_url import open_registry
from oddlog.connectors.elastic import ElasticStore
from oddlog.connectors.elastic_connection import ElasticConnection
from oddlog.connectors.files import FileSource
from oddlog.connectors.registry import CHAMPION
from oddlog.connectors.store import EventQuery
from oddlog.errors import StoreRefused, StoreUnavailable
from oddlog.scoring.local import LocalScorer
from oddlog.scoring.shelf import ModelShelf
from oddlog.settings import EnrichSettings, Settings, StoreSettings, load
from oddlog.simulation.traffic import simulate
from oddlog.stack import process
from serving.backfill import backfill
from serving.doctor import Check, examine, exit_code
from serving.enrich import Enricher
from serving.retention import retain
from tests.certificates import Authority
from tests.children import ODDLOG, QUICK_START, running
from tests.small_model import small_model
from tests.waiting import until
from training.promote import promote
from training.train import train

pytestmark = [pytest.mark.elasticsearch, pytest.mark.usefixtures("own_servers"), pytest.mark.timeout(600)]

ROLES = Path(__file__).parents[2] / "deploy" / "elasticsearch"
START = dt.datetime(2024, 3, 4, tzinfo=dt.UTC)
LINES = [line.encode() for line in simulate(seed=41, start=START, lines=3_000, days=2).lines]
ALL = EventQuery()
PASSWORD = "correct horse"
WITH_ROLES = {"admin": "superuser", "oddlog": "oddlog", "keeper": "retention", "judge": "judge", "nobody": ""}


def users(*names: str) -> str:
    """The file realm's `users`: name and PBKDF2 of the password."""
    salt = b"s" * 16
    key = hashlib.pbkdf2_hmac("sha512", PASSWORD.encode(), salt, 1_000, dklen=32)
    hashed = "$".join(["{PBKDF2}1000", base64.b64encode(salt).decode(), base64.b64encode(key).decode()])
    return "".join(f"{name}:{hashed}\n" for name in names)


def roles(**changed: object) -> str:
    """`roles.yml`: a role a line, for JSON is YAML."""
    given = {"oddlog": "role.json", "retention": "role-retention.json", "judge": "role-judge.json"}
    read = {name: json.loads((ROLES / file).read_text()) for name, file in given.items()}
    return "".join(f"{name}: {json.dumps(role)}\n" for name, role in (read | changed).items())


@dataclass(frozen=True)
class Secured:
    """The server."""

    url: str
    ca_file: Path
    config: Path
    """Its folder: the file realm's files are read again when they change."""

    def settings(self, user: str | None, **changed: object) -> StoreSettings:
        """Of a user; the roles are for the prefix `oddlog`."""
        values = {"url": self.url, "username": user, "password": user and PASSWORD, "ca_file": self.ca_file}
        return StoreSettings.model_validate(values | changed)

    def connection(self, user: str | None, **changed: object) -> ElasticConnection:
        return ElasticConnection(self.settings(user, **changed))


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    if lacking := stack.missing_tools():
        reason = f"a real Elasticsearch needs {' and '.join(lacking)}"
        if os.environ.get("CI") == "true":
            pytest.fail(f"{reason}; in CI a test that cannot run is a failure")
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("secured")
    authority = Authority()
    certificate = authority.certificate()
    (ca_file := folder / "ca.pem").write_text(authority.pem)
    # Not the ports of everybody: another one may be starting at the same time.
    port, inner = (process.free_port(*random.sample(range(20_000, 29_000), 20)) for _ in range(2))
    options = stack.ElasticsearchOptions(
        heap="512m",
        java_options=QUICK_START,
        port=port,
        settings={
            "transport.port": inner,
            "xpack.security.enabled": True,
            "xpack.security.http.ssl.enabled": True,
            "xpack.security.http.ssl.certificate": "http.crt",
            "xpack.security.http.ssl.key": "http.key",
            "resource.reload.interval.high": "500ms",  # how soon changed users and roles are read
        },
        files={
            "http.crt": certificate.chain,
            "http.key": certificate.key,
            "users": users(*WITH_ROLES),
            "users_roles": "".join(f"{role}:{user}\n" for user, role in WITH_ROLES.items() if role),
            "roles.yml": roles(),
        },
    )
    try:
        server = stack.up(folder, kafka=False, elasticsearch_options=options).elasticsearch
        assert server is not None
        yield Secured(server.url, ca_file, Path(server.folder) / "config")
    finally:
        stack.down(folder, purge=True)


@pytest.fixture
def admin(secured: Secured) -> Iterator[ElasticConnection]:
    """Who may do everything; what the test wrote is deleted afterwards."""
    connection = secured.connection("admin")
    yield connection
    for index in connection.json("GET", "/oddlog-*/_settings", params={"expand_wildcards": "all"}):
        connection.json("DELETE", f"/{index}")
    connection.close()


@pytest.fixture
def store(secured: Secured, admin: ElasticConnection) -> Iterator[ElasticStore]:
    """As the consumer's user."""
    opened = ElasticStore(secured.settings("oddlog"))
    opened.setup()
    yield opened
    opened.close()


def site(folder: Path, store: StoreSettings) -> Settings:
    return load(
        {
            "source": {"url": f"file://{folder / 'access.log'}", "state_dir": str(folder / "places")},
            "store": store,
            "registry": {
                "url": f"sqlite:///{folder / 'mlflow.db'}",
                "artifacts": str(folder / "artifacts"),
                "cache_dir": str(folder / "cache"),
            },
            "drift": {"workspace": str(folder / "drift"), "evidently": None},
            "scorer": {"url": "local:"},
        }
    )


def consume(settings: Settings, store: ElasticStore, shelf: ModelShelf) -> None:
    source = FileSource(settings.source)
    try:
        # Snapshots after every batch, so that they are asked of the role, too.
        enrich = EnrichSettings(batch_rows=500, batch_seconds=0.02, snapshot_seconds=0.01, settle_seconds=0.01)
        Enricher(enrich, source, store, LocalScorer(shelf)).run(until_idle=0.2)
    finally:
        source.close()


def test_the_role_is_enough_for_consumer_training_backfill_and_drift(
    secured: Secured, store: ElasticStore, tmp_path: Path
) -> None:
    settings = site(tmp_path, secured.settings("oddlog"))
    log, shelf = tmp_path / "access.log", ModelShelf("oddlog")
    log.write_bytes(b"".join(line + b"\n" for line in [*LINES[:1_500], b"no log line"]))
    consume(settings, store, shelf)  # without a champion: pending
    store.refresh()
    assert (store.count_events(EventQuery(status="pending")), store.count_dead()) == (1_500, 1)

    trained = train(settings, algorithm="surprise", store=store)
    judge_dry(settings, ElasticStore(secured.settings("judge")), trained.version)
    registry = open_registry(settings.registry)
    registry.set_alias(CHAMPION, trained.version)
    model = small_model(tmp_path / "small", LINES[:1_500])
    shelf.hold(trained.version, model)
    shelf.set_champion(trained.version)
    with log.open("ab") as file:
        file.writelines(line + b"\n" for line in LINES[1_500:])
    consume(settings, store, shelf)
    assert len(store.list_documents("state")) > 0
    backfill(store, LocalScorer(shelf), lead_in=dt.timedelta(days=14))
    store.refresh()
    assert store.count_events(EventQuery(status="scored")) == len(LINES)

    check_drift(settings, store, registry)
    assert len([found for found in store.list_documents("drift") if found["kind"] == "batch"]) == 1
    assert store.acquire_lock("promotion", "me", 60.0) is None
    store.release_lock("promotion", "me")
    assert store.delete_dead(store.read_dead()["_id"].to_list()) == 1
    assert store.setup_problems() == []


def judge_dry(settings: Settings, store: ElasticStore, version: str) -> None:
    """A dry run of a promotion, as the user that may only read; a real one is refused to it."""
    chosen = {"gates": ROLES.parents[1] / "gates.toml", "reports": settings.source.state_dir.with_name("reports")}
    changed = settings.model_copy(update={"promote": settings.promote.model_copy(update=chosen)})
    judged = promote(changed, dry_run=True, store=store).judged
    assert [one.version.version for one in judged] == [version]
    assert judged[0].evidence.events > 0
    with pytest.raises(StoreRefused, match=r"unauthorized for user \[judge\]"):
        promote(changed, store=store)
    store.close()


def test_doctor_names_what_a_user_lacks(secured: Secured, store: ElasticStore, tmp_path: Path) -> None:
    def look(user: str, **changed: object) -> dict[str, Check]:
        return {check.part: check for check in examine(site(tmp_path, secured.settings(user, **changed)))}

    whole = look("oddlog")
    assert {whole[part].verdict for part in ("store", "privileges", "mappings")} == {"ok"}
    part = look("keeper")
    assert (part["store"].verdict, part["privileges"].verdict, part["mappings"].verdict) == ("ok", "no", "skipped")
    assert "monitor on the cluster, manage_index_templates on the cluster, auto_configure on oddlog-*" in (
        part["privileges"].text
    )
    assert "maintenance" not in part["privileges"].text  # that one it has
    assert "deploy/elasticsearch/role.json" in str(part["privileges"].mend)
    unknown = look("oddlog", password="wrong")
    assert (unknown["store"].verdict, exit_code(list(unknown.values()))) == ("failed", 3)
    assert "ODDLOG_STORE__PASSWORD" in str(unknown["store"].mend)


def test_what_the_role_does_not_allow_is_refused(secured: Secured, store: ElasticStore) -> None:
    oddlog = secured.connection("oddlog")
    store.put_document("runs", "one", {"a": 1})
    admin = secured.connection("admin")
    admin.json("PUT", "/oddlog-events-2024.03.04")
    admin.json("PUT", "/somebody-elses/_doc/1", {"a": 1}, params={"refresh": "true"})
    for method, path, body in (
        ("DELETE", "/oddlog-events-2024.03.04", None),
        ("POST", "/oddlog-events-2024.03.04/_close", None),
        ("PUT", "/oddlog-events-2024.03.04/_settings", {"index.blocks.write": True}),
        ("GET", "/somebody-elses/_doc/1", None),
        ("PUT", "/somebody-elses/_doc/2", {"a": 2}),
        ("PUT", "/new-index/_doc/1", {"a": 1}),
        ("PUT", "/_cluster/settings", {"persistent": {"action.auto_create_index": None}}),
    ):
        with pytest.raises(StoreRefused, match=r"refuses with 403: action \[\S+\] is unauthorized for user \[oddlog\]"):
            oddlog.json(method, path, body)
    assert admin.json("GET", "/somebody-elses/_count")["count"] == 1
    admin.json("DELETE", "/somebody-elses")
    oddlog.close()
    admin.close()


def test_retention_has_a_role_of_its_own(secured: Secured, store: ElasticStore, tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    log.write_bytes(b"".join(line + b"\n" for line in LINES))
    consume(site(tmp_path, secured.settings("oddlog")), store, ModelShelf("oddlog"))
    days = [START.date() + dt.timedelta(days=n) for n in range(2)]
    with pytest.raises(StoreRefused, match=r"unauthorized for user \[oddlog\]"):
        retain(store, 0, today=days[1])
    keeper = ElasticStore(secured.settings("keeper"))
    found = retain(keeper, 0, today=days[1])
    assert list(found.days) == days[:1]
    store.refresh()
    left = pl.concat(store.read_events(ALL, columns=["_id", "@timestamp"]))
    assert left["@timestamp"].dt.date().unique().to_list() == days[1:]
    assert found.events + left.height == len(LINES)
    with pytest.raises(StoreRefused, match=r"unauthorized for user \[keeper\]"):
        keeper.put_document("runs", "one", {"a": 1})
    keeper.close()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"password": "wrong"}, "refuses with 401: unable to authenticate user .oddlog."),
        ({"username": None, "password": None}, "refuses with 401: missing authentication credentials"),
        ({"username": None, "password": None, "api_key": "bm90OmtleQ=="}, "refuses with 401: unable to authenticate"),
        ({"username": "nobody"}, "refuses with 403: action .* is unauthorized for user .nobody."),
    ],
)
def test_who_is_not_known_or_may_nothing_is_told_how_to_mend_it(
    secured: Secured, changed: dict[str, object], said: str
) -> None:
    with pytest.raises(StoreRefused, match=said) as caught:
        ElasticStore(secured.settings("oddlog", **changed)).setup()
    assert "docs/store.md" in str(caught.value.expected)
    assert "ODDLOG_STORE__API_KEY" in str(caught.value.mend)
    assert "wrong" not in str(caught.value)
    assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize("trusting", ["another", None])
def test_a_certificate_of_an_unknown_authority_is_named(secured: Secured, trusting: str | None, tmp_path: Path) -> None:
    (other := tmp_path / "another.pem").write_text(Authority("another").pem)
    refused = ElasticStore(secured.settings("oddlog", ca_file=other if trusting else None))
    with pytest.raises(StoreRefused, match="no trusted connection to Elasticsearch at https:") as caught:
        refused.ping()
    assert "ODDLOG_STORE__CA_FILE" in str(caught.value.mend)


class TestRefusedAtWork:
    """The real consumer, as its user loses what it may."""

    @pytest.fixture
    def command(self, secured: Secured, tmp_path: Path) -> dict[str, str]:
        return os.environ | {
            "ODDLOG_SOURCE__URL": f"file://{tmp_path / 'access.log'}",
            "ODDLOG_STORE__URL": secured.url,
            "ODDLOG_STORE__USERNAME": "oddlog",
            "ODDLOG_STORE__PASSWORD": PASSWORD,
            "ODDLOG_STORE__CA_FILE": str(secured.ca_file),
            "ODDLOG_SCORER__URL": "local:",
        }

    @pytest.mark.parametrize(
        ("file", "without", "said"),
        [
            ("users", lambda: users("admin"), "refuses with 401: unable to authenticate user [oddlog]"),
            (
                "roles.yml",
                lambda: roles(oddlog={"indices": [{"names": ["oddlog-*"], "privileges": ["read", "maintenance"]}]}),
                "refuses with 403: action [indices:data/write/bulk] is unauthorized for user [oddlog]",
            ),
        ],
        ids=["401", "403"],
    )
    def test_the_consumer_stops_and_goes_on_where_it_stood(
        self, secured: Secured, admin: ElasticConnection, command: dict[str, str], tmp_path: Path,
        file: str, without: Callable[[], str], said: str,
    ) -> None:  # fmt: skip
        log, told = tmp_path / "access.log", tmp_path / "told"

        def arrive(lines: list[bytes]) -> None:
            with log.open("ab") as appended:
                appended.writelines(line + b"\n" for line in lines)

        def stored() -> int:
            params = {"ignore_unavailable": "true"}
            try:
                admin.json("POST", "/oddlog-*/_refresh", params=params)
                return int(admin.json("GET", "/oddlog-events-*/_count", params=params)["count"])
            except StoreUnavailable:
                return -1  # an index that is being made cannot be searched yet

        rules = secured.config / file
        allowed = rules.read_text()
        arrive(LINES[:500])
        try:
            with running([ODDLOG, "enrich"], told, env=command, cwd=tmp_path) as consumer:
                until(lambda: stored() == 500, "the first part", told=told.read_text)
                rules.write_text(without())
                probe = secured.connection("oddlog")
                until(lambda: refused(probe), "the new rules")
                arrive(LINES[500:1_000])
                assert consumer.wait(60) == 3, told.read_text()
        finally:
            rules.write_text(allowed)
        text = " ".join(told.read_text().split())
        assert said in text
        assert "ODDLOG_STORE__PASSWORD" in text
        assert "Traceback" not in text
        assert PASSWORD not in text
        assert stored() == 500

        until(lambda: not refused(probe), "the old rules")
        probe.close()
        with running([ODDLOG, "enrich"], told, env=command, cwd=tmp_path) as consumer:
            until(lambda: stored() == 1_000, "the second part", told=told.read_text)
            consumer.send_signal(signal.SIGTERM)
            assert consumer.wait(30) == 0
        store = ElasticStore(secured.settings("admin"))
        found = pl.concat(store.read_events(ALL, columns=["_id", "event.original"]))
        store.close()
        assert sorted(found["event.original"]) == sorted(line.decode() for line in LINES[:1_000])


def refused(probe: ElasticConnection) -> bool:
    """Whether this user may not write (a document that fits no mapping is written by nobody)."""
    try:
        probe.json("PUT", "/oddlog-runs/_doc/probe", {"a": 1})
    except StoreRefused:
        return True
    return False
