"""What private reading leaves of a record: no address, no name, no query string, and the same features for it."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import orjson
import pytest

from oddlog.connectors.by_url import open_store
from oddlog.connectors.store import DeadQuery, Store
from oddlog.errors import ArtifactError, UsageError
from oddlog.events.envelope import envelope
from oddlog.events.logfile import records_from_lines
from oddlog.events.parse import parse
from oddlog.events.privacy import Reader, fingerprint, reader_of, stamp_of, without_queries
from oddlog.events.schema import DEAD_SCHEMA, EVENT_SCHEMA
from oddlog.features.compute import FeatureComputer, fit_features
from oddlog.scoring.card import Card
from oddlog.scoring.privacy import check_privacy
from oddlog.settings import StoreSettings
from oddlog.settings_privacy import PrivacySettings
from oddlog.simulation.traffic import simulate
from serving.dead import replay
from tests.small_model import small_model

KEY = b"a key of thirty-two characters.."
BOTH = Reader(KEY, clients=True, queries=True)

ADDRESS, SECOND, NAME, TOKEN, BEHIND = (
    "203.0.113.77",
    "2001:db8::beef",
    "nadia.example",
    "t0ken-in-query",
    "t0ken-behind",
)
LINE = (
    f"{ADDRESS} - {NAME} [17/May/2015:10:05:03 +0000] "
    f'"GET /list/{ADDRESS}?q={TOKEN} HTTP/1.1" 404 12 '
    f'"http://{NAME}:x@site.example/from?r={TOKEN}#{BEHIND}" "by {ADDRESS}"'
)
ECS = {
    "@timestamp": "2015-05-17T10:05:03Z",
    "source": {"ip": SECOND, "address": SECOND},
    "client": {"ip": SECOND},
    "user": {"name": NAME},
    "url": {"original": f"/p?q={TOKEN}", "query": f"q={TOKEN}", "path": "/p"},
    "http": {"request": {"method": "GET", "referrer": f"/r?{TOKEN}"}, "response": {"status_code": 200}},
    "message": LINE,
    "extra": {"geo": ADDRESS},
}
RECORDS = [
    LINE.encode(),
    envelope(LINE, at=dt.datetime(2015, 5, 17, tzinfo=dt.UTC)),
    orjson.dumps(ECS),
    f"{ADDRESS} {NAME} {TOKEN} is no log line; expected {TOKEN}".encode(),
    b'{"message": "' + f"{ADDRESS} {TOKEN}".encode(),
    LINE.replace("2015", "1971").encode(),
    b"",
]
PLANTED = [ADDRESS, SECOND, NAME, TOKEN, BEHIND]


def text_of(records: list[bytes], reader: Reader) -> str:
    parsed = reader.parse(records_from_lines(records))
    assert list(parsed.events.schema.items()) == list(parse(records_from_lines(records)).events.schema.items())
    assert list(parsed.dead.columns) == list(DEAD_SCHEMA)
    return repr([parsed.events.rows(), parsed.dead.rows()])


def test_nothing_planted_is_left_in_events_and_dead_letters() -> None:
    plain = text_of(RECORDS, Reader())
    assert all(one in plain for one in PLANTED)
    private = text_of(RECORDS, BOTH)
    assert not [one for one in PLANTED if one in private]
    parsed = BOTH.parse(records_from_lines(RECORDS))
    assert parsed.events.height == 3
    assert dict(parsed.dead["kind"].value_counts().iter_rows()) == {
        "no_format": 1,
        "bad_json": 1,
        "bad_date": 1,
        "empty": 1,
    }
    assert set(parsed.dead["original"]) == {b""}
    assert parsed.dead["reason"][0].startswith(
        f"found a record of {len(RECORDS[3])} bytes, withheld for privacy; expected"
    )
    first = parsed.events.row(0, named=True)
    assert first["url.original"] == first["url.path"] == "/list/client"
    assert first["http.request.referrer"] == "http://site.example/from"
    assert (first["source.ip"], first["url.query"]) == (None, None)
    assert first["source.address"] == BOTH.pseudonym(ADDRESS)
    assert BOTH.kept(records_from_lines(RECORDS)).value == [b""] * len(RECORDS)


def test_a_record_can_be_told_from_another_without_its_text() -> None:
    lines = [LINE.encode(), LINE.encode(), LINE.replace("404", "403").encode()]
    one, again, other = BOTH.parse(records_from_lines(lines)).events["event.original"].to_list()
    assert one == again != other
    assert one.startswith("withheld:")


def test_each_half_alone() -> None:
    clients = Reader(KEY, clients=True).parse(records_from_lines([LINE.encode()])).events.row(0, named=True)
    assert clients["url.query"] == f"q={TOKEN}"
    assert ADDRESS not in repr(clients)
    queries = Reader(KEY, queries=True).parse(records_from_lines([LINE.encode()])).events.row(0, named=True)
    assert (queries["source.address"], queries["user.name"]) == (ADDRESS, NAME)
    assert TOKEN not in repr(queries)


def test_pseudonyms_belong_to_a_key_and_keep_clients_apart() -> None:
    addresses = [f"192.0.2.{n}" for n in range(200)]
    names = [BOTH.pseudonym(address) for address in addresses]
    assert len(set(names)) == 200
    assert names == [Reader(KEY, clients=True).pseudonym(address) for address in addresses]
    assert not set(names) & {Reader(b"x" * 32, clients=True).pseudonym(address) for address in addresses}
    parsed = BOTH.parse(records_from_lines([LINE.replace(NAME, ADDRESS).encode()])).events.row(0, named=True)
    assert parsed["user.name"].removeprefix("u-") != parsed["source.address"].removeprefix("c-")


def test_features_are_those_of_the_plain_events_without_queries() -> None:
    lines = [line.encode() for line in simulate(seed=4, lines=3_000, days=2).lines]
    plain = without_queries(parse(records_from_lines(lines)).events)
    private = BOTH.parse(records_from_lines(lines)).events
    assert private.height == plain.height > 2_900
    baseline, _ = fit_features(plain)
    own, _ = fit_features(private)
    assert own.path.keys.to_list() == baseline.path.keys.to_list()
    np.testing.assert_allclose(
        FeatureComputer(own).compute(private), FeatureComputer(baseline).compute(plain), rtol=1e-5, atol=1e-6
    )


def test_off_is_the_parser_itself() -> None:
    reader = reader_of(PrivacySettings())
    assert reader.parse is parse
    assert reader.stamp is None
    records = records_from_lines([LINE.encode()])
    assert reader.kept(records) is records


def test_a_key_comes_from_a_setting_or_a_file(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(KEY + b"\n")
    of_file = reader_of(PrivacySettings(clients="pseudonymise", key_file=tmp_path / "key"))
    assert of_file.pseudonym("a") == Reader(KEY, clients=True).pseudonym("a")
    assert of_file.stamp is not None
    assert of_file.stamp.key == fingerprint(KEY)
    assert KEY.decode() not in repr(PrivacySettings(clients="pseudonymise", key=KEY.decode()))
    unknown = stamp_of(PrivacySettings(queries="drop"))
    assert unknown is not None
    assert unknown.key is None


@pytest.mark.parametrize("content", [None, b"short"])
def test_a_key_that_is_no_good_is_refused(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "key").write_bytes(content)
    with pytest.raises(UsageError, match="key_file"):
        reader_of(PrivacySettings(queries="drop", key_file=tmp_path / "key"))
    with pytest.raises(UsageError, match="no key"):
        reader_of(PrivacySettings(queries="drop"))
    with pytest.raises(ValueError, match="32 characters"):
        PrivacySettings.model_validate({"key": "short"})
    with pytest.raises(ValueError, match="both set"):
        PrivacySettings.model_validate({"key": "k" * 32, "key_file": tmp_path})


STAMP = BOTH.stamp
OTHER_KEY = Reader(b"x" * 32, clients=True, queries=True).stamp
PLAIN_QUERIES = Reader(KEY, clients=True).stamp


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> Card:
    lines = [line.encode() for line in simulate(seed=4, lines=600, days=1).lines]
    return small_model(tmp_path_factory.mktemp("model") / "artifact", lines).card


def test_a_model_of_other_queries_is_refused_and_one_of_another_key_told_of(card: Card) -> None:
    private = card.model_copy(update={"privacy": STAMP})
    assert check_privacy(card, None) is None
    assert check_privacy(private, STAMP) is None
    assert STAMP is not None
    unknown_here = STAMP.model_copy(update={"key": None})
    assert check_privacy(private, unknown_here) is None
    assert "pseudonyms of key" in str(check_privacy(private, OTHER_KEY))
    assert "as they were logged" in str(check_privacy(card, PLAIN_QUERIES))
    for model, stamp in ((private, None), (private, PLAIN_QUERIES), (card, STAMP)):
        with pytest.raises(ArtifactError, match="query strings"):
            check_privacy(model, stamp)


def test_a_card_without_privacy_is_written_as_before(card: Card) -> None:
    assert card.unknown_to_format["privacy"] is True
    assert "privacy" not in card.model_dump(exclude=card.unknown_to_format)
    private = card.model_copy(update={"privacy": STAMP})
    assert Card.model_validate_json(private.model_dump_json(exclude=private.unknown_to_format)) == private


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(StoreSettings(url=f"sqlite:///{tmp_path}/s.sqlite"))
    opened.setup()
    yield opened
    opened.close()


def test_a_letter_whose_bytes_were_withheld_stays_and_says_so(store: Store) -> None:
    store.write_dead(BOTH.parse(records_from_lines(RECORDS)).dead)
    result = replay(store, DeadQuery())
    assert (result.parsed, result.still_dead) == (0, {"withheld": 3, "empty": 1})
    assert store.count_dead() == 4


READS_BY_ITSELF = {
    "serving/dead.py": "shows a letter; what replays is given",
    "serving/lane.py": "a default: the consumer gives its own",
    "serving/lines.py": "answers about lines that were sent, and stores nothing",
    "serving/shadow.py": "a default: the consumer gives its own",
    "training/filescore.py": "a default: the verb gives its own",
}


def test_nobody_else_reads_raw_records_plainly() -> None:
    root = Path(__file__).resolve().parents[2]
    rooms = [path for room in ("cli", "serving", "training", "monitoring") for path in (root / room).glob("*.py")]
    importing = re.compile(r"^\s*from oddlog\.events\.parse import .*\bparse\b|events\.parse\.parse\b", re.MULTILINE)
    found = {str(path.relative_to(root)) for path in [*rooms, root / "oddlog" / "notebook.py"]
             if importing.search(path.read_text())}  # fmt: skip
    assert found == set(READS_BY_ITSELF), "parse with oddlog.events.privacy.reader_of(settings.privacy).parse"


def test_columns_are_those_of_the_schema() -> None:
    assert BOTH.parse(records_from_lines([])).events.columns == list(EVENT_SCHEMA)
