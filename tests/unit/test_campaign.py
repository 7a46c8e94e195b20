"""What the fault campaign judges by: its verdict finds each breach, its plan comes from the seed, its proxy refuses as
Elasticsearch does. The campaign itself is in tests/integration/test_campaign_short.py.
"""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from benchmarks.campaign.consumers import Exit
from benchmarks.campaign.plan import SHORT, plan, short_plan
from benchmarks.campaign.run import Outcome
from benchmarks.campaign.verdict import (
    FEATURES,
    Truth,
    Verdict,
    judge_features,
    judge_once,
    judge_scores,
)
from benchmarks.campaign.watch import Watch, Watched
from benchmarks.fault_proxy import PROXY_FAULTS, TOO_LARGE_BYTES, FaultProxy
from oddlog.scoring.model import Model
from oddlog.settings import Settings
from oddlog.simulation.traffic import simulate
from tests.small_model import small_model

IDS = [f"e1-t-0-{number}" for number in range(6)]
SOUND = np.arange(96, dtype=np.float32).reshape(6, 16) / 10


def truth() -> Truth:
    return Truth(
        events=pl.DataFrame({"_id": IDS}).with_row_index("row"),
        dead={"e1-t-0-6": ("empty", b"")},
        features={"one": SOUND, "two": SOUND + 1},
        originals={IDS[5]: b"refused line"},
    )


def documents(features: np.ndarray[Any, Any] = SOUND, **columns: Any) -> pl.DataFrame:
    frame = pl.DataFrame({"_id": IDS, "anomaly.status": "scored", "anomaly.baseline": "one"})
    values = [pl.Series(name, features[:, i]) for i, name in enumerate(FEATURES)]
    return frame.with_columns(**columns).with_columns(values)


DEAD = [("e1-t-0-6", "empty", b"")]


@pytest.mark.parametrize(
    ("rows", "dead", "broken"),
    [
        (IDS, DEAD, {}),
        (IDS[:5], [*DEAD, (IDS[5], "refused", b"refused line")], {}),
        (IDS[1:], DEAD, {"lost": 1}),
        (IDS, [], {"lost": 1}),
        ([*IDS, IDS[2]], DEAD, {"duplicated": 1}),
        ([*IDS, "e1-t-0-99"], DEAD, {"duplicated": 1}),
        (IDS, [*DEAD, (IDS[5], "refused", b"refused line")], {"duplicated": 1}),
        (IDS[1:], [*DEAD, (IDS[0], "no_format", b"x")], {"misplaced": 1}),
        (IDS[:5], [*DEAD, (IDS[5], "refused", b"other bytes")], {"misplaced": 1}),
        (IDS, [("e1-t-0-6", "empty", b"changed")], {"misplaced": 1}),
        ([*IDS, "e1-t-0-6"], [], {"misplaced": 1}),
    ],
)
def test_records_that_are_not_once_are_found(
    rows: list[str], dead: list[tuple[str, str, bytes]], broken: dict[str, int]
) -> None:
    verdict = Verdict()
    judge_once(verdict, truth(), pl.DataFrame({"_id": rows}), dead)
    assert verdict.broken == broken


def test_features_of_another_state_or_baseline_are_found() -> None:
    verdict = Verdict()
    judge_features(verdict, truth(), documents())
    assert verdict.broken == {}
    off = SOUND.copy()
    off[3, 7] *= 1.0001
    judge_features(verdict, truth(), documents(off))
    assert verdict.broken == {"features_differ": 1}
    assert verdict.examples == {"features_differ": [IDS[3]]}
    verdict = Verdict()
    judge_features(verdict, truth(), documents(**{"anomaly.baseline": pl.lit("two")}))
    assert verdict.broken == {"features_differ": 6}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:
    folder = tmp_path_factory.mktemp("models")
    sites = {name: simulate(seed=number, lines=1_200, days=1).lines for number, name in enumerate(("1", "2"))}
    return {name: small_model(folder / name, [line.encode() for line in lines]) for name, lines in sites.items()}


def test_a_score_of_another_version_than_the_named_one_is_found(models: dict[str, Model]) -> None:
    matrix = SOUND % 2
    digest = models["1"].card.baseline_digest
    columns = {"anomaly.model.version": pl.lit("1"), "anomaly.baseline": pl.lit(digest)}

    def judged(scores: Any, **more: Any) -> Verdict:
        verdict = Verdict()
        given = {**columns, "anomaly.score": pl.Series(np.asarray(scores, dtype=np.float64)), **more}
        judge_scores(verdict, models, documents(matrix, **given))
        return verdict

    right = judged(models["1"].score(matrix))
    assert right.broken == {}
    assert right.tellable == 6, "the two models score alike: no mix-up would be noticed"
    assert judged(models["2"].score(matrix)).broken == {"mis_scored": 6}
    mixed = np.where(np.arange(6) == 4, models["2"].score(matrix), models["1"].score(matrix))
    assert judged(mixed).broken == {"mis_scored": 1}
    other = {"anomaly.baseline": pl.lit(models["2"].card.baseline_digest)}
    assert judged(models["1"].score(matrix), **other).broken == {"mis_scored": 6}
    assert judged(models["1"].score(matrix), **{"anomaly.model.version": pl.lit("9")}).broken == {"mis_scored": 6}


def test_every_breach_fails_the_campaign() -> None:
    passed = Outcome(1, watched=Watched(checks=3), exits=[Exit("consumer-1", 3, "error: refuses with 401", True)])
    passed.exits.append(Exit("consumer-1", 3, "error: Elasticsearch does not answer", False))
    assert passed.broken == {}
    assert Outcome(1).broken == {"checks of committed offsets": "none could be made"}
    for field, value in (
        ("watched", Watched(checks=3, ahead=["partition 1"])),
        ("verdict", Verdict(lost=1)),
        ("verdict", Verdict(pending=1)),
        ("exits", [Exit("consumer-1", 3, "error: Elasticsearch does not answer", True)]),
        ("exits", [Exit("consumer-1", 3, "traceback: KeyError", False)]),
        ("exits", [Exit("consumer-1", 1, "traceback: KeyError", False)]),
        ("exits", [Exit("consumer-1", -11, "", False)]),
        ("stuck", "committed 3 of 4"),
    ):
        outcome = Outcome(1, watched=Watched(checks=3))
        setattr(outcome, field, value)
        assert outcome.broken, field


def test_the_plan_comes_from_the_seed() -> None:
    assert short_plan(1) == short_plan(1) != short_plan(2)
    assert sorted(fault.kind for fault in short_plan(5)) == sorted(SHORT)
    long = plan(3, 200)
    assert long == plan(3, 200)
    assert len(long) == 200
    assert sum("kafka" in fault.kind for fault in long) == 20
    assert sum("elasticsearch" in fault.kind for fault in long) == 20
    assert {f"proxy {name}" for name in PROXY_FAULTS} < {fault.kind for fault in long}


class FewDocuments:
    """A world whose Elasticsearch holds so many documents before each partition's committed offset."""

    def __init__(self, *counts: int, failed: int = 0) -> None:
        self.settings = Settings()
        self.settings = self.settings.model_copy(
            update={"source": self.settings.source.model_copy(update={"url": "kafka://127.0.0.1:1/t"})}
        )
        self.disturbed = 0
        self.counts = counts
        self.failed = failed

    def elastic(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        buckets = {str(number): {"doc_count": count} for number, count in enumerate(self.counts)}
        shards = {"failed": self.failed}
        return {"status": "green", "_shards": shards, "aggregations": {"by": {"buckets": buckets}}}


def test_a_commit_ahead_of_documents_is_found() -> None:
    def looked(world: Any, disturbed: int = 0) -> Watched:
        watch = Watch(world, list)
        watch.committed = {0: 10, 1: 20}
        watch.check(disturbed)
        return watch.seen

    assert looked(FewDocuments(10, 25)).ahead == []
    assert looked(FewDocuments(10, 20)).checks == 1
    assert looked(FewDocuments(10, 19)).ahead == ["partition 1: 20 committed, 19 documents before it"]
    # What cannot be seen proves nothing: a shard that failed, an index that is closed.
    assert looked(FewDocuments(0, 0, failed=1)) == Watched()
    assert looked(FewDocuments(0, 0), disturbed=1) == Watched()


class _Elastic(BaseHTTPRequestHandler):
    """Answers a bulk with 201 for each document; remembers what came."""

    protocol_version = "HTTP/1.1"
    bodies: list[bytes]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.bodies.append(body)
        actions = body.count(b'"create"')
        answer = json.dumps({"errors": False, "items": [{"create": {"status": 201}}] * actions}).encode()
        self.send_response_only(200)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


@pytest.fixture
def behind() -> Iterator[tuple[FaultProxy, list[bytes]]]:
    """A proxy, and the bodies that reach the server behind it."""
    bodies: list[bytes] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Elastic,), {"bodies": bodies}))
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    proxy = FaultProxy(f"http://127.0.0.1:{server.server_address[1]}", seed=1)
    yield proxy, bodies
    proxy.close()
    server.shutdown()
    server.server_close()
    thread.join()


def bulk(rows: int, width: int = 1) -> bytes:
    lines = (f'{{"create":{{"_id":"{row}"}}}}\n{{"n":{row},"x":"{"y" * width}"}}\n' for row in range(rows))
    return "".join(lines).encode()


def post(proxy: FaultProxy, body: bytes) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", int(proxy.url.rpartition(":")[2]), timeout=10)
    try:
        connection.request("POST", "/_bulk", body)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_the_proxy_lets_through_what_it_is_not_told_to_refuse(behind: tuple[FaultProxy, list[bytes]]) -> None:
    proxy, bodies = behind
    status, _ = post(proxy, bulk(3))
    assert (status, bodies) == (200, [bulk(3)])
    proxy.inject("too_large_413")
    assert post(proxy, bulk(3))[0] == 200
    assert post(proxy, bulk(3, TOO_LARGE_BYTES))[0] == 413
    assert proxy.hits == {"too_large_413": 1}


@pytest.mark.parametrize("fault", ["part_429", "part_503"])
def test_parts_of_a_bulk_are_refused_in_their_places(behind: tuple[FaultProxy, list[bytes]], fault: Any) -> None:
    proxy, bodies = behind
    proxy.inject(fault)
    status, text = post(proxy, bulk(50))
    answer = json.loads(text)
    assert (status, answer["errors"], len(answer["items"])) == (200, True, 50)
    done = [row for row, item in enumerate(answer["items"]) if item["create"]["status"] == 201]
    (body,) = bodies
    assert [json.loads(line)["n"] for line in body.splitlines()[1::2]] == done
    assert 0 < len(done) < 50
    refused = [item["create"] for item in answer["items"] if item["create"]["status"] != 201]
    assert {item["status"] for item in refused} == {int(fault[-3:])}
    assert all(item["error"]["type"] for item in refused)


@pytest.mark.parametrize(("fault", "reached"), [("cut_before", 0), ("cut_after", 1)])
def test_connections_are_cut_on_the_stated_side(
    behind: tuple[FaultProxy, list[bytes]], fault: Any, reached: int
) -> None:
    proxy, bodies = behind
    proxy.inject(fault)
    with pytest.raises((http.client.HTTPException, OSError)):
        post(proxy, bulk(2))
    assert len(bodies) == reached


@pytest.mark.parametrize(
    ("fault", "status"), [("whole_429", 429), ("whole_503", 503), ("balancer_503", 503), ("refused_401", 401)]
)
def test_whole_requests_are_refused(behind: tuple[FaultProxy, list[bytes]], fault: Any, status: int) -> None:
    proxy, bodies = behind
    proxy.inject(fault)
    assert post(proxy, bulk(2))[0] == status
    assert bodies == []
    proxy.inject(None)
    assert post(proxy, bulk(2))[0] == 200


def test_the_points_of_a_kill_are_named_as_the_program_names_them() -> None:
    from benchmarks.campaign import plan as planned

    text = (Path(planned.__file__).parent / "stopped.py").read_text()
    assert all(f'"{point}"' in text for point in planned.POINTS)
