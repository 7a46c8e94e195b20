"""POST /v1/explain, for every detector, against what carried a score worked out the long way, row by row in Python."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import orjson
import pytest

from oddlog.detectors.autoencoder import Autoencoder
from oddlog.detectors.catalogue import NAMES as ALGORITHMS
from oddlog.detectors.catalogue import create
from oddlog.detectors.detector import Detector
from oddlog.detectors.iforest import IForest
from oddlog.detectors.normal import LIMIT, Normal
from oddlog.detectors.surprise import BLOCKS, Surprise
from oddlog.events.logfile import records_from_lines
from oddlog.events.parse import parse
from oddlog.features.compute import FeatureComputer
from oddlog.features.declaration import FEATURE_NAMES
from oddlog.scoring.artifact import write_artifact
from oddlog.scoring.explanation import LEAST_SHARE, MOST
from oddlog.scoring.model import Model
from oddlog.simulation.traffic import simulate
from serving.wire import ARROW, decode_scores, encode_matrix
from tests.service_in_process import Client, empty_backend
from tests.small_model import parts_of

FEATURES = list(FEATURE_NAMES)
ROWS = 40
LINES = [line.encode() for line in simulate(seed=8, lines=3_000, days=1.0, attack_share=0.1).lines]


@dataclass
class Served:
    """A detector as it was fitted, the model made of it, and a service that holds it."""

    detector: Detector
    model: Model
    ask: Client
    features: Any


@pytest.fixture(scope="module", params=ALGORITHMS)
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Served:
    folder = tmp_path_factory.mktemp(request.param)
    parts = parts_of(LINES, create(request.param))
    write_artifact(folder / "artifact", **parts)
    model = Model.load(folder / "artifact")
    backend = empty_backend(folder)
    backend.shelf.hold("1", model)
    backend.shelf.set_champion("1")
    features = FeatureComputer(model.baseline).compute(parse(records_from_lines(LINES)).events)
    rng = np.random.default_rng(2)
    chosen = features[rng.choice(len(features), ROWS, replace=False)].copy()
    chosen[0, :] = np.nan
    chosen[1, ::3] = np.nan
    return Served(parts["detector"], model, Client(backend), chosen)


def z_of(normal: Normal, row: Any) -> list[float]:
    """Standardised values of a row, clipped; what is not known is typical."""
    found = []
    for value, mean, deviation in zip(row, normal.mean, normal.deviation, strict=True):
        z = 0.0 if math.isnan(value) else (float(value) - float(mean)) / float(deviation)
        found.append(min(max(z, -LIMIT), LIMIT))
    return found


def of_surprise(detector: Surprise, row: Any) -> list[float]:
    """A block's part of the score, shared out by how far each feature's z lies from the block's usual mean."""
    z = dict(zip(FEATURES, z_of(detector.normal, row), strict=True))
    found = dict.fromkeys(FEATURES, 0.0)
    usual, spread = detector._block_normal.mean, detector._block_normal.deviation
    for number, block in enumerate(BLOCKS.values()):
        apart = {name: (z[name] - float(usual[number])) / len(block.features) for name in block.features}
        raw = sum(apart.values()) / float(spread[number])
        part = block.weight * min(max(raw, -LIMIT), LIMIT)
        for name in block.features:
            found[name] = part * apart[name] / sum(apart.values())
    return list(found.values())


def leaves(tree: Any, node: int) -> list[int]:
    """The leaves below a node."""
    left, right = tree.children_left[node], tree.children_right[node]
    return [node] if left < 0 else leaves(tree, left) + leaves(tree, right)


def of_forest(detector: IForest, row: Any, known: dict[tuple[int, int], float] | None = None) -> list[float]:
    """Down every tree: each split gives what it took from the expected depth to the feature that it asks."""
    x = [max(0.0, z) for z in z_of(detector._normal, row)]
    found = [0.0] * len(FEATURES)
    known = {} if known is None else known
    for number, (tree, depths) in enumerate(zip(detector._trees, detector._depths, strict=True)):

        def expected(node: int, number: int = number, tree: Any = tree, depths: Any = depths) -> float:
            if (number, node) not in known:
                below = leaves(tree, node)
                rows = sum(int(tree.n_node_samples[leaf]) for leaf in below)
                deep = sum(int(tree.n_node_samples[leaf]) * float(depths[leaf]) for leaf in below)
                known[number, node] = deep / rows
            return known[number, node]

        node = 0
        while tree.children_left[node] >= 0:
            column = tree.feature[node]
            goes_left = np.float32(x[column]) <= tree.threshold[node]
            child = int((tree.children_left if goes_left else tree.children_right)[node])
            found[column] += (expected(node) - expected(child)) / len(detector._trees)
            node = child
    return found


def of_autoencoder(detector: Autoencoder, row: Any) -> list[float]:
    """What of each input the network could not copy, weighted; never below zero."""
    x = [max(0.0, z) for z in z_of(detector._normal, row)]
    layer = list(x)
    last = len(detector._network.coefs_) - 1
    for number, (weights, bias) in enumerate(zip(detector._network.coefs_, detector._network.intercepts_, strict=True)):
        into = [sum(a * float(w) for a, w in zip(layer, column, strict=True)) for column in weights.T]
        layer = [value + float(b) for value, b in zip(into, bias, strict=True)]
        if number < last:
            layer = [math.tanh(value) for value in layer]
    return [
        float(weight) * max(0.0, value - copied)
        for weight, value, copied in zip(detector._weights, x, layer, strict=True)
    ]


THE_LONG_WAY: dict[str, Callable[[Any, Any], list[float]]] = {
    "surprise": of_surprise,
    "iforest": partial(of_forest, known={}),  # what a node expects is worked out once
    "autoencoder": of_autoencoder,
}


def signal(name: str) -> str:
    """A client feature's without its horizon: of the two, one is told."""
    return name.removesuffix("_1h").removesuffix("_1d")


def told(carried: list[float]) -> list[tuple[str, float]]:
    """Features and shares that a person should read."""
    positive = {name: max(0.0, part) for name, part in zip(FEATURES, carried, strict=True)}
    total = sum(positive.values())
    found: dict[str, tuple[str, float]] = {}
    for name, part in sorted(positive.items(), key=lambda item: -item[1]):
        if len(found) < MOST and total > 0:
            found.setdefault(signal(name), (name, part / total))
    return [(name, share) for name, share in found.values() if share >= LEAST_SHARE]


def explained(served: Served) -> list[dict[str, Any]]:
    """What the service says of every row."""
    body = orjson.dumps({"columns": FEATURES, "rows": served.features.tolist()})
    answer = served.ask.post("/v1/explain", body, "application/json")
    assert answer.status_code == 200, answer.text
    document = answer.json()
    assert len(document["reasons"]) == ROWS
    np.testing.assert_array_equal(np.array(document["score"], np.float32), served.model.score(served.features))
    return list(document["reasons"])


def test_reasons_are_those_of_the_long_way(served: Served) -> None:
    compared = 0
    for row, found in zip(served.features, explained(served), strict=True):
        reasons = [reason for reason in found if reason["feature"] in FEATURES]
        expected = told(THE_LONG_WAY[served.detector.name](served.detector, row))
        # Shares that float32 cannot tell apart may change places: compare what each feature was given.
        shares = {reason["feature"]: reason["share"] for reason in reasons}
        for name, share in expected:
            if share > LEAST_SHARE + 0.001:
                assert shares.get(name) == pytest.approx(share, abs=2e-3), (name, shares, expected)
                compared += 1
        assert len(reasons) <= MOST
        assert [reason["share"] for reason in reasons] == sorted(shares.values(), reverse=True)
        for reason in reasons:
            value = float(row[FEATURES.index(reason["feature"])])
            assert reason["value"] is None if math.isnan(value) else reason["value"] == pytest.approx(value)
            assert reason["typical"] == served.model.card.typical[reason["feature"]]
    assert compared > ROWS


def test_arrow_and_lines_say_the_same(served: Served) -> None:
    answer = served.ask.post("/v1/explain", encode_matrix(served.features, FEATURES), ARROW)
    found = decode_scores(answer.content)
    for row, reasons in enumerate(explained(served)):
        assert [reason["text"] for reason in found.reasons.get(row, [])] == [reason["text"] for reason in reasons]
    lines = LINES[:50]
    document = served.ask.post("/v1/explain/lines", b"\n".join([*lines, b"garbage"]), "text/plain").json()
    features = FeatureComputer(served.model.baseline).compute(parse(records_from_lines(lines)).events)
    body = encode_matrix(features, FEATURES)
    same = decode_scores(served.ask.post("/v1/explain", body, ARROW).content)
    assert [one["reasons"] for one in document["lines"][:50]] == [same.reasons.get(row, []) for row in range(50)]
    assert document["lines"][50]["status"] == "unparseable"


def test_an_anomaly_has_the_same_reasons_when_it_is_only_scored(served: Served) -> None:
    body = encode_matrix(served.features, FEATURES)
    scored = decode_scores(served.ask.post("/v1/score", body, ARROW).content)
    asked = decode_scores(served.ask.post("/v1/explain", body, ARROW).content)
    assert scored.novelty is not None
    for row, reasons in scored.reasons.items():
        # The first channel says nothing of what it does not find odd, unless it is asked; the second one always does.
        assert [reason["text"] for reason in asked.reasons[row]][-len(reasons) :] == [r["text"] for r in reasons]
        assert scored.novelty.is_anomaly[row] == (asked.reasons[row][-1]["feature"] == "novelty")
    assert len(asked.reasons) > len(scored.reasons)
