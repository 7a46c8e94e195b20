"""The HTTP routes in this process, over a real model: what each answers, and what it says to a mistake."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import orjson
import pyarrow as pa
import pytest

from oddlog.events.logfile import records_from_lines
from oddlog.events.parse import parse
from oddlog.features.baseline import Baseline
from oddlog.features.compute import FeatureComputer
from oddlog.features.declaration import FEATURE_NAMES, feature_digest
from oddlog.scoring.model import Model
from oddlog.simulation.traffic import simulate
from serving.backend import Backend
from serving.wire import ARROW, METADATA, decode_scores, encode_matrix
from tests.named_registry import Named
from tests.service_in_process import Client, empty_backend
from tests.small_model import small_model

NAMES = list(FEATURE_NAMES)


@pytest.fixture(scope="module")
def lines() -> list[bytes]:
    simulated = simulate(seed=3, lines=4_000, days=1.0, attack_share=0.05)
    return [line.encode() for line in simulated.lines]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, lines: list[bytes]) -> Model:
    return small_model(tmp_path_factory.mktemp("model") / "artifact", lines)


@pytest.fixture
def backend(model: Model, tmp_path: Path) -> Backend:
    """A service that holds the model as champion 2 and as previous 1; its registry knows no others."""
    empty = empty_backend(tmp_path, explain_rows=100)
    for version in ("1", "2"):
        empty.shelf.hold(version, model)
    empty.shelf.set_champion("2")
    return empty


@pytest.fixture
def client(backend: Backend) -> Client:
    return Client(backend)


def matrix(rows: int, seed: int = 0) -> Any:
    return (np.random.default_rng(seed).random((rows, len(NAMES))) * 6).astype(np.float32)


@pytest.mark.parametrize("rows", [0, 1, 7, 2_000])
def test_arrow_and_json_give_what_the_model_gives(client: Client, model: Model, rows: int) -> None:
    features = matrix(rows)
    features[:1, 3] = np.nan
    verdict = model.judge(features)
    score, severities, odd, reasons = verdict.score, verdict.severity, verdict.is_anomaly, verdict.reasons
    shuffled = list(reversed(NAMES))
    answer = client.post("/v1/score", encode_matrix(features[:, ::-1], shuffled), ARROW)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == ARROW
    found = decode_scores(answer.content)
    np.testing.assert_array_equal(found.score, score)
    np.testing.assert_array_equal(found.severity, severities)
    np.testing.assert_array_equal(found.is_anomaly, odd)
    assert found.reasons == reasons
    assert (found.model_version, found.champion) == ("2", "2")
    assert found.threshold == model.card.threshold.value
    body = orjson.dumps({"columns": NAMES, "rows": features.tolist()})  # NaN becomes null, which stands for the same
    if len(body) > 400_000:
        return
    document = client.post("/v1/score", body, "application/json; charset=utf-8").json()
    assert set(document["model"]) == set(METADATA)
    np.testing.assert_array_equal(np.array(document["score"], np.float32), score)
    assert document["is_anomaly"] == odd.tolist()
    assert {row for row, some in enumerate(document["reasons"]) if some} == set(reasons)


def test_a_version_can_be_named_and_every_answer_names_the_champion(client: Client) -> None:
    body = encode_matrix(matrix(2), NAMES)
    found = decode_scores(client.post("/v1/score?version=1", body, ARROW).content)
    assert (found.model_version, found.champion) == ("1", "2")
    named = orjson.dumps({"columns": NAMES, "rows": [[0] * 16], "version": "1"})
    assert client.post("/v1/score", named, "application/json").json()["model"]["model_version"] == "1"


RIGHT = {"columns": NAMES, "rows": [[0.0] * 16]}


@pytest.mark.parametrize(
    ("path", "body", "media", "status", "says"),
    [
        ("/v1/score", b"{}", None, 415, "no content type"),
        ("/v1/score", b"x", "application/x-www-form-urlencoded", 415, "form-urlencoded"),
        ("/v1/score", b"\x80\x04", "application/vnd.bentoml+pickle", 415, "pickle"),
        ("/v1/score", b"--x\r\nbroken", "multipart/form-data; boundary=x", 415, "multipart"),
        ("/v1/score", b"{", "application/json", 400, "not JSON"),
        ("/v1/score", b"{}", "application/json", 422, "columns"),
        ("/v1/score", b"", ARROW, 400, "empty"),
        ("/v1/score", encode_matrix(matrix(4), NAMES)[:-100], ARROW, 400, "no whole Arrow"),
        ("/v1/score", encode_matrix(matrix(4)[:, 1:], NAMES[1:]), ARROW, 422, f"missing: {NAMES[0]}"),
        ("/v1/score", encode_matrix(matrix(2_001), NAMES), ARROW, 413, "2,001 rows"),
        ("/v1/score", b"x" * 400_001, ARROW, 413, "more than 400,000 bytes"),
        ("/v1/score", encode_matrix(matrix(1) + np.float32(np.inf), NAMES), ARROW, 422, "infinite"),
        ("/v1/score?version=9", encode_matrix(matrix(1), NAMES), ARROW, 404, "no version '9'"),
        ("/v1/score?version=", encode_matrix(matrix(1), NAMES), ARROW, 404, "no version ''"),
        ("/v1/score", orjson.dumps({**RIGHT, "version": "x" * 5_000}), "application/json", 404, "no version"),
        ("/v1/score?verison=1", encode_matrix(matrix(1), NAMES), ARROW, 422, "'verison'"),
        ("/v1/score?version=1&version=2", encode_matrix(matrix(1), NAMES), ARROW, 422, "twice"),
        ("/v1/score?version=2", orjson.dumps({**RIGHT, "version": "1"}), "application/json", 409, "in the query"),
        ("/v1/explain", encode_matrix(matrix(101), NAMES), ARROW, 413, "101 rows to explain"),
        ("/v1/explain/lines", b"\n" * 101, "text/plain", 413, "101 rows to explain"),
        ("/v1/score/lines", b"x", "application/octet-stream", 415, "octet-stream"),
        ("/v1/score/lines", b"[]", "application/json", 422, "a list"),
        ("/v1/score/lines", b"\n" * 2_001, "text/plain", 413, "2,001 rows"),
    ],
)
def test_a_mistake_is_told_with_what_was_expected(
    client: Client, path: str, body: bytes, media: str | None, status: int, says: str
) -> None:
    answer = client.post(path, body, media)
    assert answer.status_code == status
    problem = answer.json()
    assert set(problem) == {"found", "expected", "mend"}
    assert says in problem["found"]
    assert all(0 < len(text) < 1_500 for text in problem.values())


def test_an_unknown_version_names_those_that_are_held(client: Client) -> None:
    for path in ("/v1/models/9/baseline", "/v1/models/9/card"):
        answer = client("GET", path)
        assert answer.status_code == 404
        assert "1, 2" in answer.json()["expected"]


def test_a_compressed_body_is_refused(client: Client) -> None:
    answer = client.post("/v1/score", b"\x1f\x8b", ARROW, headers={"content-encoding": "gzip"})
    assert answer.status_code == 415
    assert "gzip" in answer.json()["found"]


def test_a_million_columns_are_a_mistake_like_any_other(backend: Backend) -> None:
    """By Arrow and by JSON: refused in a few words, whether by size or by name."""
    ask = Client(replace(backend, settings=backend.settings.model_copy(update={"max_bytes": 200_000_000})))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, pa.schema([pa.field("column", pa.float32())] * 1_000_000)):
        pass
    names = b",".join(b'"c%d"' % number for number in range(1_000_000))
    as_json = b'{"columns": [' + names + b'], "rows": []}'
    for body, media in ((bytes(sink.getvalue()), ARROW), (as_json, "application/json")):
        answer = ask.post("/v1/score", body, media)
        assert answer.status_code in {413, 422}, answer.text[:300]
        assert len(answer.text) < 5_000


def test_a_body_that_never_ends_is_refused(client: Client) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 1_000 * 100_000:
            sent += 100_000
            yield b"x" * 100_000

    answer = client.post("/v1/score", endless(), ARROW)
    assert answer.status_code == 413
    assert sent < 10_000_000


def test_a_wrong_method_or_path_is_told_in_the_same_form(client: Client) -> None:
    answer = client("GET", "/v1/score")
    assert answer.status_code == 405
    assert "Method Not Allowed" in answer.json()["found"]


def test_log_lines_are_scored_as_the_stream_would(client: Client, model: Model, lines: list[bytes]) -> None:
    body = b"\n".join([*lines[:300], b"garbage", b""]) + b"\r\n"
    answer = client.post("/v1/score/lines", body, "text/plain")
    assert answer.status_code == 200
    document = answer.json()
    told = document["lines"]
    assert [one["line"] for one in told] == list(range(1, 303))
    assert [one["status"] for one in told[300:]] == ["unparseable", "unparseable"]
    assert told[300]["kind"] == "no_format"
    assert "garbage" in told[300]["reason"]
    events = parse(records_from_lines(lines[:300])).events
    verdict = model.judge(FeatureComputer(model.baseline).compute(events))
    score, odd, reasons = verdict.score, verdict.is_anomaly, verdict.reasons
    assert [one["score"] for one in told[:300]] == score.astype(float).tolist()
    assert [one["is_anomaly"] for one in told[:300]] == odd.tolist()
    assert {row for row in range(300) if told[row]["reasons"]} == set(reasons)
    assert told[0]["client"] == events["source.address"][0]
    as_json = client("POST", "/v1/score/lines", json={"lines": [line.decode() for line in lines[:3]]}).json()
    assert as_json["lines"] == client.post("/v1/score/lines", b"\n".join(lines[:3]), "text/plain").json()["lines"]


def test_no_lines_give_no_answers(client: Client) -> None:
    answer = client.post("/v1/score/lines", b"", "text/plain")
    assert (answer.status_code, answer.json()["lines"]) == (200, [])


def test_the_baseline_is_fetched_once_by_its_digest(client: Client, model: Model) -> None:
    answer = client("GET", "/v1/models/2/baseline")
    assert Baseline.from_arrow(answer.content).digest == model.card.baseline_digest
    tag = answer.headers["etag"]
    assert tag == f'"{model.card.baseline_digest}"'
    again = client("GET", "/v1/models/2/baseline", headers={"if-none-match": f'"x", {tag}'})
    assert (again.status_code, again.content) == (304, b"")


def test_models_schema_and_card_tell_what_is_served(client: Client, model: Model) -> None:
    told = client("GET", "/v1/models").json()
    assert told["champion"]["version"] == "2"
    assert told["champion"]["threshold"]["value"] == model.card.threshold.value
    assert told["held"] == ["1", "2"]
    assert told["registry"]["reachable"] is None
    assert client("GET", "/v1/models/1/card").json()["model_digest"] == model.card.model_digest
    schema = client("GET", "/v1/schema").json()
    assert schema["digest"] == feature_digest()
    assert [feature["name"] for feature in schema["features"]] == NAMES


def test_without_a_model_every_answer_says_what_is_missing(tmp_path: Path) -> None:
    backend = empty_backend(tmp_path)
    client = Client(backend)
    body = encode_matrix(matrix(1), NAMES)
    assert "not answered yet" in client.post("/v1/score", body, ARROW).json()["found"]
    backend.follower.look()
    for answer in (
        client.post("/v1/score", body, ARROW),
        client.post("/v1/score", orjson.dumps(RIGHT), "application/json"),
        client.post("/v1/score/lines", b"x", "text/plain"),
        client("GET", "/v1/models/1/baseline"),
    ):
        assert answer.status_code == 503
        assert answer.json() == {
            "found": "no version of model 'oddlog' is champion",
            "expected": "a promoted model",
            "mend": "oddlog train && oddlog promote",
        }
        assert int(answer.headers["retry-after"]) >= 1
    told = client("GET", "/v1/models").json()
    assert told["champion"] is None
    assert told["registry"]["reachable"] is True
    assert client("GET", "/v1/schema").status_code == 200


def test_a_registry_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "none.db").write_bytes(b"this is no database" * 100)
    backend = empty_backend(tmp_path)
    backend.follower.look()
    answer = Client(backend).post("/v1/score", encode_matrix(matrix(1), NAMES), ARROW)
    assert answer.status_code == 503
    assert "the registry is away" in answer.json()["found"]
    assert backend.follower.view.reachable is False


def test_a_version_promoted_just_after_a_look_is_found_by_who_names_it(tmp_path: Path, lines: list[bytes]) -> None:
    artifact = tmp_path / "artifact"
    made = small_model(artifact, lines)
    registry = Named(artifact, champion="1")
    backend = empty_backend(tmp_path, registry=registry)
    client, body = Client(backend), encode_matrix(matrix(1), NAMES)
    backend.follower.look()
    registry.champion = "2"  # another worker has seen it, and told a client
    answer = client.post("/v1/score?version=2", body, ARROW)
    assert answer.status_code == 200
    assert decode_scores(answer.content).champion == "2"
    np.testing.assert_array_equal(decode_scores(answer.content).score, made.score(matrix(1)))

    async def many() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(backend.look_again)

    before = registry.asked
    assert client.post("/v1/score?version=3", body, ARROW).status_code == 404
    assert registry.asked == before + 1
    anyio.run(many)
    assert registry.asked <= before + 3, "those who ask at once share a look"


@pytest.fixture
def python() -> list[str]:
    return [sys.executable, "-c"]


def test_the_service_is_found_and_tells_its_makers_nothing(python: list[str], tmp_path: Path) -> None:
    script = (
        "import bentoml, sys\n"
        "from bentoml._internal.utils.analytics import usage_stats\n"
        "assert not usage_stats.do_not_track()\n"  # remembered, as BentoML's command line does
        "from serving.service import OddlogScorer\n"
        "assert usage_stats.do_not_track()\n"
        "assert 'mlflow' not in sys.modules\n"
        "paths = OddlogScorer.openapi_spec.asdict()['paths']\n"
        "print(*sorted(path for path in paths if path.startswith('/v1')))\n"
    )
    environment = {name: value for name, value in os.environ.items() if "TRACK" not in name}
    environment |= {"BENTOML_HOME": str(tmp_path / uuid.uuid4().hex)}
    done = subprocess.run([*python, script], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [
        "/v1/explain",
        "/v1/explain/lines",
        "/v1/models",
        "/v1/models/{version}/baseline",
        "/v1/models/{version}/card",
        "/v1/schema",
        "/v1/score",
        "/v1/score/lines",
    ]
