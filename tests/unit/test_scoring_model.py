"""The artifact is whole or refused; the model scores; the shelf and the local scorer keep versions apart.

The detector here is a weighted sum, small enough to know every number; the real ones have their own suites.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from pathlib import Path
from typing import Any, Self

import numpy as np
import onnx
import polars as pl
import pytest
from onnx import TensorProto, helper

from oddlog.detectors.detector import FitData, Matrix
from oddlog.errors import ArtifactError, ScorerError, ScorerUnavailable
from oddlog.events.logfile import records_from_lines
from oddlog.events.parse import parse
from oddlog.features.compute import FeatureComputer
from oddlog.features.compute import fit_features as fit
from oddlog.features.declaration import FEATURE_NAMES
from oddlog.scoring.artifact import FILES, NOVELTY, read_card, write_artifact
from oddlog.scoring.card import NoveltyThreshold, Threshold
from oddlog.scoring.local import LocalScorer
from oddlog.scoring.model import Model
from oddlog.scoring.reference import make_reference
from oddlog.scoring.shelf import ModelShelf
from tests.small_model import parts_of

NAMES = list(FEATURE_NAMES)
WHOLE = (*FILES, NOVELTY)
START = dt.datetime(2024, 3, 1, tzinfo=dt.UTC)


class WeightedSum:
    """score = features @ weights; contributions = features * weights."""

    name = "surprise"

    def __init__(self, factor: float = 1.0) -> None:
        self.weights = np.arange(1, len(NAMES) + 1, dtype=np.float32) * np.float32(factor)

    def fit(self, data: FitData, *, seed: int) -> Self:
        return self

    def score(self, features: Matrix) -> np.ndarray:
        return np.asarray(features @ self.weights, dtype=np.float32)

    def contributions(self, features: Matrix) -> Matrix:
        return np.asarray(features * self.weights, dtype=np.float32)

    def parameters(self) -> dict[str, Any]:
        return {"weights": "rising"}

    def score_graph(self) -> onnx.ModelProto:
        return self._graph("MatMul", "score", [None])

    def contribution_graph(self) -> onnx.ModelProto:
        return self._graph("Mul", "contributions", [None, len(NAMES)])

    def _graph(self, operator: str, output: str, shape: list[int | None]) -> onnx.ModelProto:
        weights = helper.make_tensor("weights", TensorProto.FLOAT, [len(NAMES)], self.weights.tolist())
        graph = helper.make_graph(
            [helper.make_node(operator, ["features", "weights"], [output])],
            "weighted_sum",
            [helper.make_tensor_value_info("features", TensorProto.FLOAT, [None, len(NAMES)])],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, shape)],
            [weights],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def log_lines(count: int) -> list[bytes]:
    return [
        f"192.0.2.{i % 9} - - [01/Mar/2024:{i // 60 % 24:02}:{i % 60:02}:00 +0000] "
        f'"GET /page/{i % 7} HTTP/1.1" {404 if i % 11 == 0 else 200} 512 "-" "Browser/{i % 3}"'.encode()
        for i in range(count)
    ]


def build(
    folder: Path, *, factor: float = 1.0, created_at: dt.datetime = START, spoil: float = 0.0, novelty: bool = True
) -> Path:
    """A small whole artifact; `spoil` is added to its golden scores."""
    parts = parts_of(log_lines(400), WeightedSum(factor), novelty=novelty) | {"created_at": created_at}
    golden = parts["golden"]
    parts["golden"] = golden.model_copy(update={"scores": [score + spoil for score in golden.scores]})
    write_artifact(folder, **parts)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("artifact") / "one")


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    return Model.load(folder)


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    target = tmp_path / "copy"
    target.mkdir()
    for name in WHOLE:
        (target / name).write_bytes((folder / name).read_bytes())
    return target


def matrix(rows: int, seed: int = 0) -> Matrix:
    return np.random.default_rng(seed).uniform(0, 2, (rows, len(NAMES))).astype(np.float32)


def test_the_folder_has_these_files_and_nothing_beside(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == sorted(WHOLE)
    assert list(folder.parent.iterdir()) == [folder]


def test_the_same_model_has_the_same_digest_whenever_it_was_made(folder: Path, tmp_path: Path) -> None:
    again = build(tmp_path / "again", created_at=START + dt.timedelta(days=300))
    assert read_card(again).model_digest == read_card(folder).model_digest
    other = build(tmp_path / "other", factor=1.5)
    assert read_card(other).model_digest != read_card(folder).model_digest


def test_writing_over_an_artifact_replaces_it_whole(copy: Path) -> None:
    build(copy, factor=3.0)
    assert Model.load(copy).score(np.ones((1, len(NAMES)), np.float32))[0] == pytest.approx(3 * 136)
    assert list(copy.parent.iterdir()) == [copy]


def test_a_loaded_model_scores_as_its_detector(model: Model) -> None:
    rows = matrix(100)
    np.testing.assert_allclose(model.score(rows), WeightedSum().score(rows), rtol=1e-5)
    np.testing.assert_allclose(model.contributions(rows), WeightedSum().contributions(rows), rtol=1e-5)
    assert model.score(rows).dtype == np.float32


def test_reasons_are_given_for_anomalies_alone(model: Model) -> None:
    rows = matrix(200)
    found = model.judge(rows, first_alone(model))
    assert found.novelty is None
    assert found.is_anomaly.tolist() == (found.score.astype(float) >= model.card.threshold.value).tolist()
    assert 0 < found.is_anomaly.sum() <= len(rows)
    assert sorted(found.reasons) == np.flatnonzero(found.is_anomaly).tolist()
    row = int(np.argmax(found.score))
    heaviest = NAMES[int(np.argmax(WeightedSum().contributions(rows)[row]))]
    assert found.reasons[row][0]["feature"] == heaviest
    assert found.severity.shape == (200,)
    assert (np.diff(found.severity[np.argsort(found.score)]) >= 0).all()


def first_alone(model: Model) -> Threshold:
    return model.card.threshold.model_copy(update={"novelty": None})


def test_either_channel_makes_an_anomaly_and_each_gives_its_own_reason(model: Model) -> None:
    rows = np.tile(np.array([model.card.typical[name] for name in NAMES], dtype=np.float32), (4, 1))
    new = [NAMES.index("path_rarity"), NAMES.index("token_rarity")]
    rows[1, NAMES.index("client_error_1h")] = rows[2, NAMES.index("client_error_1h")] = 500.0
    rows[2:, new] += 50.0
    usual = model.novelty(rows[:1])
    assert usual is not None
    assert model.card.novelty is not None
    second = NoveltyThreshold(value=float(usual[0]) + 1.0, budget_per_day=2.0, expected_per_day=0.0)
    value = float(model.score(rows[3:])[0]) + 1.0  # the third row alone, odd in everything, is above
    found = model.judge(rows, model.card.threshold.model_copy(update={"value": value, "novelty": second}))
    assert found.novelty is not None
    assert (found.score >= value).tolist() == [False, False, True, False]
    assert found.is_anomaly.tolist() == [False, False, True, True]
    assert found.novelty.is_anomaly.tolist() == [False, False, True, True]
    assert found.novelty.threshold == second.value
    (reason,) = found.reasons[3]
    assert (reason["feature"], reason["share"]) == ("novelty", 1.0)
    assert reason["text"].startswith("novelty: odd in itself, whoever sends it: its path is as rare as 1 in ")
    assert reason["value"] == pytest.approx(found.novelty.score[3])
    assert reason["typical"] == model.card.novelty.typical
    both = [one["feature"] for one in found.reasons[2]]
    assert both[-1] == "novelty"
    assert len(both) > 1
    np.testing.assert_allclose(model.novelty_parts(rows).sum(axis=1), found.novelty.score, rtol=1e-4, atol=1e-5)
    assert (np.diff(found.novelty.severity[np.argsort(found.novelty.score)]) >= 0).all()


def test_a_model_of_format_1_is_as_it_was_and_says_nothing_of_novelty(tmp_path: Path) -> None:
    """What an oddlog without the second channel wrote: its files, its card's text, the digest by its rule."""
    folder = build(tmp_path / "old", novelty=False)
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    card = json.loads((folder / "card.json").read_text())
    assert card["format"] == 1
    assert "novelty" not in card
    assert "novelty" not in card["threshold"]
    whole = hashlib.sha256()
    said = json.dumps(
        {name: value for name, value in card.items() if name not in ("model_digest", "created_at")},
        sort_keys=True, separators=(",", ":"), ensure_ascii=False,
    )  # fmt: skip
    files = ("model.onnx", "contributions.onnx", "baseline.arrow", "reference.arrow")
    for name, data in [*((name, (folder / name).read_bytes()) for name in files), ("card.json", said.encode())]:
        whole.update(f"{name}:{len(data)}:".encode() + data)
    assert whole.hexdigest() == card["model_digest"]
    old = Model.load(folder)
    rows = matrix(50)
    found = LocalScorer(shelf := ModelShelf("oddlog"))
    shelf.hold("1", old)
    shelf.set_champion("1")
    scores = found.score(rows, NAMES)
    assert scores.novelty is None
    assert old.novelty(rows) is None
    assert scores.is_anomaly.tolist() == (scores.score.astype(float) >= scores.threshold).tolist()


@pytest.mark.parametrize(("kind", "novelty"), [(1, True), (2, False)])
def test_a_card_whose_format_and_content_differ_is_refused(tmp_path: Path, kind: int, novelty: bool) -> None:
    folder = build(tmp_path / "mixed", novelty=novelty)
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps({**card, "format": kind}))
    with pytest.raises(ArtifactError, match=f"a card of format {kind}"):
        Model.load(folder)


def test_a_novelty_that_changed_is_refused(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.asarray(model.card.golden.features, dtype=np.float32)
    other = model.novelty(rows)
    assert other is not None
    monkeypatch.setattr(model, "novelty", lambda _: other + np.float32(0.5))
    with pytest.raises(ArtifactError, match="golden vector 0 has a novelty of"):
        model.check_golden()


def test_the_contribution_graph_is_not_built_without_an_anomaly(folder: Path) -> None:
    fresh = Model.load(folder)
    high = first_alone(fresh).model_copy(update={"value": 1e9})
    assert fresh.judge(matrix(5), high).reasons == {}
    assert fresh._contributions is None
    low = high.model_copy(update={"value": 0.0})
    assert len(fresh.judge(matrix(5), low).reasons) == 5


def test_an_empty_matrix_has_an_empty_verdict(model: Model) -> None:
    found = model.judge(np.empty((0, len(NAMES)), np.float32))
    assert found.novelty is not None
    assert (found.score.shape, found.severity.shape, found.is_anomaly.shape, found.reasons) == ((0,), (0,), (0,), {})
    assert found.novelty.score.shape == found.novelty.severity.shape == found.novelty.is_anomaly.shape == (0,)
    assert model.contributions(np.empty((0, len(NAMES)), np.float32)).shape == (0, len(NAMES))


def test_the_reference_comes_back(model: Model) -> None:
    frame = model.reference()
    assert frame.columns == [*NAMES, "score", "severity"]
    assert frame.height == 50
    assert frame.get_column("score").is_sorted()


def test_the_baseline_computes_what_it_computed_before(model: Model) -> None:
    events = parse(records_from_lines(log_lines(400))).events
    again, _ = fit(events)
    assert model.baseline.digest == again.digest == model.card.baseline_digest
    np.testing.assert_array_equal(
        FeatureComputer(model.baseline).compute(events), FeatureComputer(again).compute(events)
    )


@pytest.mark.parametrize("name", [name for name in WHOLE if name != "card.json"])
def test_one_changed_byte_is_refused(copy: Path, name: str) -> None:
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / name).write_bytes(bytes(data))
    with pytest.raises(ArtifactError, match="digest") as caught:
        Model.load(copy)
    assert caught.value.mend


def test_a_changed_card_is_refused(copy: Path) -> None:
    card = json.loads((copy / "card.json").read_text())
    card["threshold"]["value"] = 0.0
    (copy / "card.json").write_text(json.dumps(card))
    with pytest.raises(ArtifactError, match="digest"):
        Model.load(copy)


@pytest.mark.parametrize("name", WHOLE)
def test_a_missing_file_is_named(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(ArtifactError, match=name):
        Model.load(copy)


def test_a_card_that_is_no_card_is_refused(copy: Path) -> None:
    (copy / "card.json").write_text("{}")
    with pytest.raises(ArtifactError, match=r"card\.json: algorithm"):
        Model.load(copy)


def test_golden_vectors_that_score_otherwise_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="golden vector") as caught:
        Model.load(build(tmp_path / "spoilt", spoil=0.5))
    assert "as when the model was made" in str(caught.value.expected)


def test_a_model_of_other_features_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oddlog.scoring.model.feature_digest", lambda: "0" * 64)
    with pytest.raises(ArtifactError, match="other features"):
        Model.load(folder)


def test_columns_are_taken_by_name(model: Model) -> None:
    rows = matrix(10)
    backwards = np.ascontiguousarray(rows[:, ::-1])
    np.testing.assert_array_equal(model.ordered(backwards, NAMES[::-1]), rows)


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["bytes", *NAMES[1:]], f"missing {NAMES[0]}; unknown bytes"),
        ([NAMES[1], *NAMES[1:]], f"missing {NAMES[0]}; repeated {NAMES[1]}"),
        ([*NAMES, "bytes"], "unknown bytes"),
    ],
)
def test_columns_that_differ_are_named(model: Model, names: list[str], found: str) -> None:
    with pytest.raises(ScorerError, match=found):
        model.ordered(np.zeros((1, len(names)), np.float32), names)


def test_a_shelf_names_what_it_holds(model: Model) -> None:
    shelf = ModelShelf("oddlog")
    assert shelf.champion() is None
    with pytest.raises(ScorerError, match="no version '7'") as caught:
        shelf.get("7")
    assert "none" in str(caught.value.expected)
    shelf.hold("3", model)
    shelf.hold("4", model)
    with pytest.raises(ScorerError) as caught:
        shelf.set_champion("7")
    assert "3, 4" in str(caught.value.expected)
    shelf.set_champion("4")
    with pytest.raises(ScorerError, match="is champion"):
        shelf.drop("4")
    shelf.drop("3")
    shelf.drop("3")
    assert shelf.versions() == ["4"]


def test_a_new_threshold_changes_the_verdict_and_not_the_score(model: Model) -> None:
    shelf = ModelShelf("oddlog")
    scorer = LocalScorer(shelf)
    shelf.hold("1", model)
    shelf.set_champion("1")
    before = scorer.score(matrix(50), NAMES)
    shelf.hold("1", model, model.card.threshold.model_copy(update={"value": 0.0, "version": "2"}))
    after = scorer.score(matrix(50), NAMES)
    assert (before.threshold_version, after.threshold_version) == ("1", "2")
    np.testing.assert_array_equal(before.score, after.score)
    assert after.is_anomaly.all()


def test_a_local_scorer_fetches_what_it_is_asked_for(model: Model) -> None:
    shelf = ModelShelf("oddlog")

    def refresh(version: str | None) -> None:
        for wanted in {"1", version} & {"1", "2"}:
            shelf.hold(wanted, model)
        shelf.set_champion("1")

    scorer = LocalScorer(shelf, refresh)
    assert scorer.champion() == "1"
    scores = scorer.score(matrix(3), NAMES, version="2")
    assert (scores.model_version, scores.champion) == ("2", "1")
    with pytest.raises(ScorerError, match="no version '9'"):
        scorer.baseline("9")


def test_without_a_champion_nothing_is_scored(model: Model) -> None:
    shelf = ModelShelf("oddlog")
    shelf.hold("1", model)
    scorer = LocalScorer(shelf)
    assert scorer.champion() is None
    with pytest.raises(ScorerUnavailable, match="champion"):
        scorer.score(matrix(1), NAMES)


def test_a_reference_leaves_out_what_is_no_number() -> None:
    features = np.array([[1, np.nan], [2, np.nan], [np.inf, np.nan], [4, np.nan]], dtype=np.float32)
    frame = make_reference(features, ["a", "b"], [1, 2, 3, 4], [0, 0, 0, 9], points=5)
    assert frame.get_column("a").is_finite().all()
    assert frame.get_column("a").max() <= 4
    assert frame.get_column("b").null_count() == 5
    assert frame.schema == dict.fromkeys(["a", "b", "score", "severity"], pl.Float32)
