"""One suite over every scorer: the same models give the same verdicts, wherever they are scored."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from oddlog.connectors.by_url import open_registry
from oddlog.connectors.registry import CHALLENGER, CHAMPION
from oddlog.errors import ScorerError, ScorerUnavailable
from oddlog.features.compute import FeatureComputer
from oddlog.features.declaration import FEATURE_NAMES
from oddlog.scoring.local import LocalScorer
from oddlog.scoring.model import Model
from oddlog.scoring.scorer import Scorer, Scores
from oddlog.scoring.shelf import ModelShelf
from oddlog.settings import ScorerSettings, ServeSettings, Settings
from oddlog.simulation.traffic import simulate
from oddlog.stack.process import free_port
from serving.child import start_service
from serving.scorers import open_scorer
from tests.small_model import small_model
from tests.small_registry import register, registry_in
from tests.waiting import at_once, until

NAMES = list(FEATURE_NAMES)
OTHER = {"1": "2", "2": "1"}

Matrix = npt.NDArray[np.float32]


@dataclass
class World:
    """A scorer, and what stands behind it."""

    scorer: Scorer
    models: dict[str, Model]
    """By version: "1" and "2"."""
    promote: Callable[[str | None], None]
    """Makes a version champion, or none."""

    def wait_for_champion(self, version: str | None) -> None:
        """A promotion is seen within the deadline; how soon is each scorer's own."""
        until(lambda: self._sees(version), f"{version} as champion")

    def _sees(self, version: str | None) -> bool:
        try:
            return self.scorer.champion() == version
        except ScorerUnavailable:  # a service that has not heard from its registry yet
            return False


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of the two model artifacts, by version."""
    folder = tmp_path_factory.mktemp("models")
    for version, seed in (("1", 1), ("2", 2)):
        lines = simulate(seed=seed, lines=2_000, days=1.0, attack_share=0.05).lines
        small_model(folder / version, [line.encode() for line in lines])
    return {version: folder / version for version in ("1", "2")}


@pytest.fixture(scope="module")
def models(artifacts: dict[str, Path]) -> dict[str, Model]:
    return {version: Model.load(folder) for version, folder in artifacts.items()}


def local_world(models: dict[str, Model]) -> Iterator[World]:
    shelf = ModelShelf("oddlog")
    for version, model in models.items():
        shelf.hold(version, model)

    def promote(version: str | None) -> None:
        shelf.set_champion(version)
        if version is not None:
            shelf.set_challenger(OTHER[version])

    scorer = LocalScorer(shelf)
    yield World(scorer, models, promote)
    scorer.close()


@dataclass
class Registered:
    """A real, embedded registry that holds both models, and what promotes them there."""

    settings: Settings

    @classmethod
    def of(cls, artifacts: dict[str, Path], folder: Path) -> Registered:
        registry = registry_in(folder)
        assert [register(registry, artifact) for artifact in artifacts.values()] == ["1", "2"]
        return cls(Settings(registry=registry, serve=ServeSettings(poll_seconds=0.2)))

    def promote(self, version: str | None) -> None:
        """The other version becomes challenger, so that it is held, too."""
        registry = open_registry(self.settings.registry)
        if version is None:
            registry.delete_alias(CHAMPION)
        else:
            registry.set_alias(CHALLENGER, OTHER[version])
            registry.set_alias(CHAMPION, version)


def registry_world(models: dict[str, Model], registered: Registered) -> Iterator[World]:
    settings = registered.settings.model_copy(update={"scorer": ScorerSettings(url="local:")})
    scorer = open_scorer(settings)
    yield World(scorer, models, registered.promote)
    scorer.close()


def http_world(models: dict[str, Model], registered: Registered, folder: Path) -> Iterator[World]:
    with start_service(registered.settings, free_port(), folder=folder, ready=False) as child:
        settings = registered.settings.model_copy(update={"scorer": ScorerSettings(url=child.url)})
        scorer = open_scorer(settings)
        yield World(scorer, models, registered.promote)
        scorer.close()


@pytest.fixture(scope="module", params=["local", "registry", "http"])
def opened(
    request: pytest.FixtureRequest,
    models: dict[str, Model],
    artifacts: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[World]:
    """A world of each kind, opened once: models at hand, `local:` over a registry, and a `bentoml serve`."""
    if request.param == "local":
        yield from local_world(models)
        return
    folder = tmp_path_factory.mktemp(request.param)
    registered = Registered.of(artifacts, folder)
    if request.param == "registry":
        yield from registry_world(models, registered)
    else:
        yield from http_world(models, registered, folder)


@pytest.fixture
def world(opened: World) -> World:
    """With version 1 as champion."""
    opened.promote("1")
    opened.wait_for_champion("1")
    return opened


def matrix(rows: int, seed: int = 0) -> Matrix:
    """Rows from common to very odd."""
    return (np.random.default_rng(seed).random((rows, len(NAMES))) ** 4 * 6).astype(np.float32)


def test_no_champion_no_scores(opened: World) -> None:
    opened.promote(None)
    opened.wait_for_champion(None)
    with pytest.raises(ScorerUnavailable):
        opened.scorer.score(matrix(1), NAMES)


def test_the_champion_scores_what_its_model_scores(world: World) -> None:
    rows = matrix(500)
    found = world.scorer.score(rows, NAMES)
    model = world.models["1"]
    verdict = model.judge(rows)
    score, severity, is_anomaly, reasons = verdict.score, verdict.severity, verdict.is_anomaly, verdict.reasons
    assert (found.model_name, found.model_version, found.champion) == ("oddlog", "1", "1")
    assert found.baseline_digest == model.baseline.digest
    assert (found.threshold, found.threshold_version) == (model.card.threshold.value, "1")
    np.testing.assert_array_equal(found.score, score)
    np.testing.assert_allclose(found.severity, severity, rtol=1e-12)
    np.testing.assert_array_equal(found.is_anomaly, is_anomaly)
    assert (found.score.dtype, found.severity.dtype, found.is_anomaly.dtype) == (np.float32, np.float64, np.bool_)
    assert 0 < is_anomaly.sum() < len(rows)
    assert found.novelty is not None
    assert verdict.novelty is not None
    assert found.novelty.threshold == verdict.novelty.threshold
    np.testing.assert_array_equal(found.novelty.score, verdict.novelty.score)
    np.testing.assert_allclose(found.novelty.severity, verdict.novelty.severity, rtol=1e-12)
    np.testing.assert_array_equal(found.novelty.is_anomaly, verdict.novelty.is_anomaly)
    assert found.reasons.keys() == reasons.keys()
    for row, expected in reasons.items():
        assert [reason["feature"] for reason in found.reasons[row]] == [reason["feature"] for reason in expected]
        for one, other in zip(found.reasons[row], expected, strict=True):
            assert one["text"] == other["text"]
            assert (one["value"], one["typical"], one["share"]) == pytest.approx(
                (other["value"], other["typical"], other["share"])
            )


@pytest.mark.parametrize("rows", [0, 1, 40_000])  # the last are more than one request holds
def test_any_number_of_rows(world: World, rows: int) -> None:
    found = world.scorer.score(matrix(rows), NAMES)
    assert found.score.shape == found.severity.shape == found.is_anomaly.shape == (rows,)
    assert found.novelty is not None
    assert found.novelty.score.shape == found.novelty.severity.shape == found.novelty.is_anomaly.shape == (rows,)
    np.testing.assert_array_equal(found.score, world.models["1"].score(matrix(rows)))
    assert set(found.reasons) == set(np.flatnonzero(found.is_anomaly).tolist())


def test_a_batch_is_its_rows(world: World) -> None:
    rows = matrix(64)
    whole = world.scorer.score(rows, NAMES)
    parts = [world.scorer.score(rows[i : i + 16], NAMES).score for i in range(0, 64, 16)]
    np.testing.assert_allclose(np.concatenate(parts), whole.score, rtol=1e-5)


def test_missing_values_score_as_typical(world: World) -> None:
    rows = matrix(3)
    rows[1, :] = np.nan
    found = world.scorer.score(rows, NAMES)
    assert np.isfinite(found.severity).all()
    np.testing.assert_array_equal(found.score, world.models["1"].score(rows))
    assert not found.is_anomaly[1], "a row of which nothing is known was called an anomaly"


def test_a_version_is_scored_by_name_and_the_champion_is_told(world: World) -> None:
    found = world.scorer.score(matrix(50), NAMES, version="2")
    assert (found.model_version, found.champion) == ("2", "1")
    np.testing.assert_array_equal(found.score, world.models["2"].score(matrix(50)))
    assert not np.allclose(found.score, world.scorer.score(matrix(50), NAMES, version="1").score)


def test_the_challenger_is_told_and_can_be_scored_with(world: World) -> None:
    for champion in ("1", "2"):
        world.promote(champion)
        until(lambda champion=champion: world.scorer.challenger() == OTHER[champion], "the challenger")
        found = world.scorer.score(matrix(5), NAMES, version=OTHER[champion])
        assert found.model_version == OTHER[champion]
        assert found.baseline_digest == world.scorer.baseline(OTHER[champion]).digest


def test_columns_are_matched_by_name(world: World) -> None:
    rows = matrix(20)
    backwards = np.ascontiguousarray(rows[:, ::-1])
    np.testing.assert_array_equal(
        world.scorer.score(backwards, NAMES[::-1]).score, world.scorer.score(rows, NAMES).score
    )


def test_columns_that_differ_are_named(world: World) -> None:
    with pytest.raises(ScorerError) as caught:
        world.scorer.score(matrix(2), ["bytes_sent", *NAMES[1:]])
    assert not isinstance(caught.value, ScorerUnavailable)
    assert "bytes_sent" in str(caught.value)
    assert NAMES[0] in str(caught.value)
    with pytest.raises(ScorerError):
        world.scorer.score(matrix(2)[:, :3], NAMES[:3])


def test_an_unknown_version_is_refused_and_changes_nothing(world: World) -> None:
    with pytest.raises(ScorerError) as caught:
        world.scorer.score(matrix(2), NAMES, version="99")
    assert not isinstance(caught.value, ScorerUnavailable)
    assert "99" in str(caught.value)
    with pytest.raises(ScorerError, match="99"):
        world.scorer.baseline("99")
    assert world.scorer.champion() == "1"


def test_the_baseline_is_the_models_own(world: World) -> None:
    for version, model in world.models.items():
        baseline = world.scorer.baseline(version)
        assert baseline.digest == model.card.baseline_digest
        assert FeatureComputer(baseline).clients == 0
    assert world.models["1"].card.baseline_digest != world.models["2"].card.baseline_digest


def test_a_promotion_while_scoring_mixes_nothing(world: World) -> None:
    rows = matrix(100)
    expected = {version: model.score(rows) for version, model in world.models.items()}
    answers: list[Scores] = []

    def ask() -> None:
        def answered() -> bool:
            answers.append(world.scorer.score(rows, NAMES))
            return answers[-1].model_version == "2"

        until(answered, "an answer of version 2", each=at_once)

    with ThreadPoolExecutor(2) as pool:
        asking = [pool.submit(ask) for _ in range(2)]
        world.promote("2")
        for one in asking:
            one.result()
    for answer in answers:
        np.testing.assert_array_equal(answer.score, expected[answer.model_version])
        assert answer.baseline_digest == world.models[answer.model_version].card.baseline_digest
    assert world.scorer.score(rows, NAMES, version="1").champion == "2"
