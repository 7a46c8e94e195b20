"""The parts of the speed benchmarks that can be wrong without a server: what is compared, and by which figures."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from benchmarks.scaling import costs, needs
from benchmarks.throughput import bare, naive, sides
from benchmarks.throughput.quix_features import Features, tables_of
from benchmarks.throughput.report import TARGETS, as_document, ratios, tables
from benchmarks.throughput.rounds import Round, differences, flat
from benchmarks.traffic import filebeat, traffic
from benchmarks.where_time_goes import by_stage
from oddlog.connectors.documents import nested
from oddlog.events.parse import parse
from oddlog.events.record import Partition, Records
from oddlog.features.compute import FeatureComputer, fit_features

GARBAGE = r'192.0.2.7 - - [04/Mar/2024:20:52:41 +0000] "\x00\x0E8\xB4 \x8E" 400 157 "-" "-"'


def records(lines: list[str]) -> Records:
    n = len(lines)
    values = [filebeat(line, dt.datetime(2024, 3, 5, tzinfo=dt.UTC), 0) for line in lines]
    return Records(values, ["e1"] * n, ["t"] * n, [0] * n, list(range(n)), [0] * n, {Partition("e1", "t", 0): n})


def test_the_plain_features_of_the_quix_side_are_the_products(tmp_path: Path) -> None:
    made = traffic(3, 1_500, 1_500)
    baseline, _ = fit_features(parse(records(made.fitted)).events)
    events = parse(records(made.consumed)).events
    expected = FeatureComputer(baseline).compute(events)
    (tmp_path / "tables.json").write_text(json.dumps(tables_of(baseline)))
    features = Features(tmp_path / "tables.json")
    clients: dict[str, dict[str, Any]] = {}
    found = []
    for row in events.iter_rows(named=True):
        event = {
            "url": row["url.original"], "path": row["url.path"], "method": row["http.request.method"],
            "status": row["http.response.status_code"], "seconds": row["@timestamp"].timestamp(),
        }  # fmt: skip
        values, clients[row["source.address"]] = features.of(event, clients.get(row["source.address"], {}))
        found.append(values)
    np.testing.assert_allclose(np.array(found), expected, rtol=1e-5, atol=1e-5)


class KafkaRecord:
    def __init__(self, value: bytes, offset: int) -> None:
        self.value, self.offset = value, offset


def test_the_bare_limit_writes_the_products_documents() -> None:
    batch = records([*traffic(4, 1, 400).consumed, GARBAGE])
    events = parse(batch).events
    known = [flat(one) for one in events.drop("_id").select(nested(events.columns[1:])).to_dicts()]
    partition = type("P", (), {"topic": "t", "partition": 0})()
    lines = bare.body("p", partition, [KafkaRecord(v or b"", i) for i, v in enumerate(batch.value)]).splitlines()
    assert len(lines) == 2 * len(known)
    for action, line, event in zip(lines[::2], lines[1::2], known, strict=True):
        made = orjson.loads(line)
        assert {"status", "score", "model", "baseline"} <= made.pop("anomaly").keys()
        assert len(made.pop("features")) == 16
        event["@timestamp"] = event["@timestamp"].strftime("%Y-%m-%dT%H:%M:%S.000Z")
        assert flat(made) == event
        assert orjson.loads(action)["create"]["_index"] == f"p-events-{event['@timestamp'][:10].replace('-', '.')}"


def test_the_naive_side_reads_every_simulated_line() -> None:
    assert all(len(naive.features(naive.read(line))) == 5 for line in [*traffic(5, 1, 300).consumed, GARBAGE])


def test_documents_of_another_shape_are_told() -> None:
    known = {"url.path": "/", "features.a": 1.0, "anomaly.score": 2.0}
    side = sides.bare(1)
    assert not differences(known, {"url.path": "/", "features.a": 9.0, "anomaly.score": 0.0}, side)
    assert "features.a" in differences(known, {"url.path": "/", "anomaly.score": 0.0}, side)
    assert "'/b'" in differences(known, {**known, "url.path": "/b"}, side)
    assert "features.a" in differences(known, {**known, "features.a": 9.0}, sides.quix(1, "python"))
    assert not differences(known, {"url.original": "x"}, sides.naive(1))


@pytest.mark.parametrize(("product", "met"), [(9.0, True), (7.0, False)])
def test_ratios_are_taken_round_by_round_and_held_against_their_targets(product: float, met: bool) -> None:
    def one(side: str, rate: float) -> Round:
        return Round(side, "surprise", 100, 1.0, rate, {"consumer": 30.0, "elasticsearch": 40.0})

    rounds = [one("product", product), one("constant", 10.0), one("constant", 20.0), one("product", 2 * product)]
    assert ratios(rounds, TARGETS[0]) == [product / 10, product / 10]
    document = as_document(rounds, {"machine": {"cores": 2}})
    assert [(found["above"], found["below"], found["met"]) for found in document["ratios"]] == [
        ("product", "constant", met)
    ]
    text = tables(json.loads(json.dumps(document)))
    assert f"| {'met' if met else 'not met'} |" in text
    assert "cores busy" in text


def test_samples_are_counted_by_the_stage_that_is_named_first() -> None:
    stacks = [
        "MainThread;_loop (serving/enrich.py);commit (oddlog/connectors/kafka.py);x (kafka/a.py) 3",
        "MainThread;_loop (serving/enrich.py);poll (oddlog/connectors/kafka.py);take (kafka/consumer/fetcher.py) 5",
        "MainThread;_loop (serving/enrich.py);parse (oddlog/events/parse.py);read_lines (oddlog/events/line.py) 7",
        "MainThread;_loop (serving/enrich.py) 1",
        "nonsense",
    ]
    assert by_stage(stacks) == {
        "commit": 3, "read: kafka-python (fetch, decode)": 5, "parse": 7, "rest of the loop": 1,
    }  # fmt: skip


def test_what_a_rate_needs_follows_from_processor_time() -> None:
    rounds = [
        {"side": side, "model": "surprise", "cpu": {"consumer": us, "scorer": 7.0, "kafka": 7.0, "elasticsearch": 35.0}}
        for side, us in (("product", 60.0), ("product", 80.0), ("constant", 9.0))
    ]
    cost = costs({"rounds": rounds}, "surprise")
    assert cost["consumer"] == 70.0
    found = needs(cost, 100_000, busy=0.7, node_cores=8, replicas=1)
    assert (found["consumers"], found["partitions"], found["scorer_workers"]) == (10, 20, 1)
    assert found["elasticsearch_cores"] == pytest.approx(10.0)
    assert found["elasticsearch_nodes"] == 2
    with pytest.raises(SystemExit, match="processor times"):
        costs({"rounds": [{"side": "product", "model": "surprise", "cpu": {"consumer": 1.0}}]}, "surprise")
