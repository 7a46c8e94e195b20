"""A real `bentoml serve` over a real MLflow: promotion while it runs, broken versions, a registry that goes away."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx
import numpy as np
import pytest
from typer.testing import Result

from oddlog.connectors.by_url import open_registry
from oddlog.connectors.registry import CHALLENGER, CHAMPION, PREVIOUS, Registry
from oddlog.errors import ScorerError, ScorerUnavailable
from oddlog.features.declaration import FEATURE_NAMES
from oddlog.scoring.model import Model
from oddlog.settings import ScorerSettings, ServeSettings, Settings
from oddlog.simulation.traffic import simulate
from oddlog.stack.process import free_port
from serving.child import ServiceChild, service_environment, start_service
from serving.client import HttpScorer
from serving.scorers import open_scorer
from tests.children import mlflow_server, running
from tests.small_model import small_model
from tests.small_registry import register, registry_in
from tests.verbs import run_verb
from tests.waiting import until

T = TypeVar("T")

NAMES = list(FEATURE_NAMES)
ROOT = Path(__file__).resolve().parents[2]
DEADLINE = 180.0


def wait_for(condition: Callable[[], T], what: str) -> T:
    """The first true answer of `condition`."""
    return until(condition, what, seconds=DEADLINE)


class House:
    """An embedded registry with three versions: two sound ones, 1 and 2, and a broken one, 3."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings = Settings(
            registry=registry_in(folder),
            serve=ServeSettings(poll_seconds=0.2),
            scorer=ScorerSettings(attempts=2, timeout=5.0),
        )
        self.models: dict[str, Model] = {}
        for seed in (1, 2):
            lines = simulate(seed=seed, lines=4_000, days=1.0, attack_share=0.05).lines
            model = small_model(folder / f"model {seed}", [line.encode() for line in lines])
            self.models[register(self.settings.registry, folder / f"model {seed}")] = model
        cards = set((folder / "artifacts").rglob("card.json"))
        version = register(self.settings.registry, folder / "model 2")
        (card,) = set((folder / "artifacts").rglob("card.json")) - cards
        card.write_text(card.read_text().replace('"seed": 0', '"seed": 1'))
        assert [*self.models, version] == ["1", "2", "3"]

    @property
    def registry(self) -> Registry:
        return open_registry(self.settings.registry)

    def promote(self, version: str) -> None:
        """As `oddlog promote` does it: previous first, then champion."""
        registry = self.registry
        if (before := registry.by_alias(CHAMPION)) is not None:
            registry.set_alias(PREVIOUS, before.version)
        registry.set_alias(CHAMPION, version)

    @contextmanager
    def artifacts_away(self) -> Iterator[None]:
        """Neither registry nor cache can hand out a model."""
        shutil.rmtree(self.settings.registry.cache_dir)
        (self.folder / "artifacts").rename(self.folder / "away")
        try:
            yield
        finally:
            (self.folder / "away").rename(self.folder / "artifacts")

    def reset(self) -> None:
        for alias in (CHAMPION, PREVIOUS, CHALLENGER):
            self.registry.delete_alias(alias)
        shutil.rmtree(self.settings.registry.cache_dir, ignore_errors=True)

    def serve(self, folder: Path, *, ready: bool = True, workers: int = 1) -> Any:
        serve = self.settings.serve.model_copy(update={"workers": workers})
        settings = self.settings.model_copy(update={"serve": serve})
        return start_service(settings, free_port(), folder=folder, ready=ready)

    def scorer(self, child: ServiceChild) -> HttpScorer:
        return HttpScorer(self.settings.scorer.model_copy(update={"url": child.url}))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> House:
    return House(tmp_path_factory.mktemp("house"))


@pytest.fixture
def house(built: House) -> House:
    """With no alias set and nothing cached."""
    built.reset()
    return built


def features(rows: int) -> Any:
    return (np.random.default_rng(rows).random((rows, len(NAMES))) * 6).astype(np.float32)


def metric(child: ServiceChild, name: str) -> float:
    for line in child.get("/metrics").text.splitlines():
        if line.startswith(name + " "):
            return float(line.rsplit(" ", 1)[1])
    return 0.0


def waits_for_a_promotion(house: House, child: ServiceChild, scorer: HttpScorer) -> None:
    """A service without a model, until version 1 is champion."""
    assert child.get("/livez").status_code == 200
    wait_for(lambda: child.get("/v1/models").json()["registry"]["reachable"], "a look at the registry")
    answer = child.get("/readyz")
    assert answer.status_code == 503
    assert "oddlog train && oddlog promote" in answer.text
    assert scorer.champion() is None
    with pytest.raises(ScorerUnavailable, match="no version of model 'oddlog' is champion") as caught:
        scorer.score(features(1), NAMES)
    assert caught.value.mend == "oddlog train && oddlog promote"
    house.promote("1")
    child.wait_until_ready(DEADLINE)
    assert scorer.champion() == "1"
    assert scorer.score(features(1), NAMES).model_version == "1"
    assert metric(child, "oddlog_model_swaps_total") == 0


def test_no_model_promotion_threshold_broken_version_and_rollback(house: House, tmp_path: Path) -> None:
    with house.serve(tmp_path, ready=False) as child, house.scorer(child) as scorer:
        waits_for_a_promotion(house, child, scorer)
        rows = features(5_000)
        for version in ("1", "2"):
            if version == "2":
                house.promote("2")
                wait_for(lambda: scorer.champion() == "2", "version 2 as champion")
            verdict = house.models[version].judge(rows)
            found = scorer.score(rows, NAMES)
            assert (found.model_version, found.champion) == (version, version)
            np.testing.assert_array_equal(found.score, verdict.score)
            np.testing.assert_array_equal(found.severity, verdict.severity)
            np.testing.assert_array_equal(found.is_anomaly, verdict.is_anomaly)
            assert found.reasons == verdict.reasons
            assert scorer.baseline(version).digest == found.baseline_digest
        # Who still has the lane of version 1 is served by it, and told who is champion.
        old = scorer.score(rows[:10], NAMES, version="1")
        assert (old.model_version, old.champion) == ("1", "2")
        np.testing.assert_array_equal(old.score, house.models["1"].score(rows[:10]))
        assert metric(child, "oddlog_model_swaps_total") == 1
        assert metric(child, 'oddlog_events_scored_total{version="1"}') == 5_011

        threshold = house.models["2"].card.threshold.model_copy(update={"version": "2", "value": -1e9})
        house.registry.set_threshold("2", threshold)
        wait_for(lambda: scorer.score(rows[:3], NAMES).threshold_version == "2", "the new threshold")
        assert scorer.score(rows[:3], NAMES).is_anomaly.all()

        house.promote("3")
        told = wait_for(lambda: (told := scorer.models())["refused"] and told, "the broken version among the refused")
        assert [(one["version"], one["role"]) for one in told["refused"]] == [("3", "champion")]
        assert "digest" in told["refused"][0]["found"]
        assert told["champion"]["version"] == "2"
        assert told["detail"] == "version 2 goes on; the registry names 3"
        assert scorer.score(rows[:3], NAMES).champion == "2"
        assert child.get("/readyz").status_code == 200
        assert metric(child, 'oddlog_models_refused_total{version="3"}') == 1
        assert "version 3 (champion) is refused" in child.log_file.read_text()

        with house.artifacts_away():  # what was served before is in memory
            house.registry.set_alias(CHAMPION, "1")
            wait_for(lambda: scorer.champion() == "1", "the rollback")
            np.testing.assert_array_equal(scorer.score(rows, NAMES).score, house.models["1"].score(rows))
        with pytest.raises(ScorerError, match="no version '3'") as caught:
            scorer.score(rows[:1], NAMES, version="3")
        assert not isinstance(caught.value, ScorerUnavailable)
        with pytest.raises(ScorerError, match=f"missing: {NAMES[0]}"):
            scorer.score(rows[:1, 1:], NAMES[1:])


def test_swaps_under_load_fail_nothing_and_mix_nothing(house: House, tmp_path: Path) -> None:
    """Two workers, clients that name their version as the consumer does, and champions that change hands."""
    house.promote("1")
    rows = features(64)
    expected = {version: model.score(rows) for version, model in house.models.items()}
    wrong: list[str] = []
    done = threading.Event()
    answered = {"1": 0, "2": 0}

    def consume(scorer: HttpScorer) -> None:
        version = scorer.champion()
        while not done.is_set():
            try:
                found = scorer.score(rows, NAMES, version=version)
                if found.model_version != version:
                    wrong.append(f"asked {version}, answered {found.model_version}")
                if not np.array_equal(found.score, expected[found.model_version]):
                    wrong.append(f"scores are not those of {found.model_version}")
                answered[found.model_version] += 1
                if found.champion != version:
                    scorer.baseline(found.champion)
                    version = found.champion
            except Exception as error:
                wrong.append(repr(error))

    with house.serve(tmp_path, workers=2) as child, house.scorer(child) as scorer:
        threads = [threading.Thread(target=consume, args=(scorer,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            for champion in ("2", "1", "2"):
                before = answered[champion]
                house.promote(champion)
                wait_for(lambda c=champion, b=before: answered[c] > b + 50, f"answers by version {champion}")  # type: ignore[misc]
        finally:
            done.set()
            for thread in threads:
                thread.join(DEADLINE)
    assert wrong == []


def test_a_registry_that_goes_away_changes_nothing(house: House, tmp_path: Path) -> None:
    house.promote("1")
    house.promote("2")
    rows = features(10)
    database, port = house.settings.registry.url, free_port()
    registry = house.settings.registry.model_copy(update={"url": f"http://127.0.0.1:{port}"})
    settings = house.settings.model_copy(update={"registry": registry})
    with ExitStack() as children:

        def serve(name: str, *, ready: bool = True) -> tuple[ServiceChild, HttpScorer]:
            started = start_service(settings, free_port(), folder=tmp_path / name, ready=ready)
            child = children.enter_context(started)
            return child, children.enter_context(house.scorer(child))

        with mlflow_server(database, tmp_path / "mlflow.log", port=port):
            child, scorer = serve("before")
            wait_for(lambda: scorer.models()["previous"], "the previous version")
        wait_for(lambda: scorer.models()["registry"]["reachable"] is False, "the registry to be missed")
        assert scorer.score(rows, NAMES).champion == "2"
        assert child.get("/readyz").status_code == 200
        assert metric(child, "oddlog_registry_up") == 0
        assert scorer.models()["detail"] == "version 2 goes on; the registry is away"
        assert child.get("/readyz").text == "version 2 goes on; the registry is away\n"
        child.stop()

        child, scorer = serve("after")
        found = scorer.score(rows, NAMES)
        assert (found.model_version, found.champion) == ("2", "2")
        np.testing.assert_array_equal(found.score, house.models["2"].score(rows))
        told = scorer.models()
        assert told["registry"]["serving_from_cache"] is True
        assert told["previous"]["version"] == "1"
        assert "comes from the cache" in told["detail"]
        assert "version 2 comes from the cache" in child.get("/readyz").text
        assert metric(child, "oddlog_serving_from_cache") == 1
        with mlflow_server(database, tmp_path / "mlflow.log", port=port):
            wait_for(lambda: scorer.models()["registry"]["reachable"], "the registry again")
            assert scorer.models()["registry"]["serving_from_cache"] is False
            assert scorer.models()["detail"] == "version 2 is champion"
        child.stop()

        # A copy that was changed on disk is not served, whoever is away.
        (card,) = registry.cache_dir.glob("*/2-*/card.json")
        card.write_text(card.read_text().replace('"seed": 0', '"seed": 7'))
        _, scorer = serve("damaged", ready=False)
        with pytest.raises(ScorerUnavailable, match="no verified model is cached"):
            scorer.champion()


def test_bare_bentoml_serve_at_the_root_in_a_home_that_cannot_be_written(house: House, tmp_path: Path) -> None:
    """`bentoml serve`, nothing else typed: the service is declared in pyproject.toml."""
    house.promote("1")
    port = free_port()
    environment = service_environment(house.settings, tmp_path)
    environment |= {"HOME": "/proc/nowhere", "BENTOML_PORT": str(port), "BENTOML_HOST": "127.0.0.1"}
    environment.pop("BENTOML_DO_NOT_TRACK")
    log = tmp_path / "bare.log"
    bentoml = Path(sys.executable).with_name("bentoml")
    with running([bentoml, "serve"], log, cwd=ROOT, env=environment) as process:
        with ServiceChild(process, f"http://127.0.0.1:{port}", log) as child:
            child.wait_until_ready()
            with house.scorer(child) as scorer:
                assert scorer.champion() == "1"
            documented = child.get("/docs.json").json()["paths"]
            assert {"/v1/score", "/v1/score/lines", "/v1/models", "/readyz"} <= set(documented)
        with pytest.raises(httpx.TransportError):
            child.get("/livez")
        with pytest.raises(ProcessLookupError):
            os.killpg(child.pid, 0)


def test_a_scorer_in_process_follows_the_same_registry(house: House) -> None:
    settings = house.settings.model_copy(update={"scorer": ScorerSettings(url="local:")})
    scorer = open_scorer(settings)
    assert scorer.champion() is None
    house.promote("1")
    wait_for(lambda: scorer.champion() == "1", "the champion")
    rows = features(10)
    np.testing.assert_array_equal(scorer.score(rows, NAMES).score, house.models["1"].score(rows))
    # Any registered version can be had, champion or not; a broken one cannot.
    found = scorer.score(rows, NAMES, version="2")
    assert (found.model_version, found.champion) == ("2", "1")
    with pytest.raises(ScorerError, match="holds no version '9'"):
        scorer.baseline("9")
    scorer.close()


def test_the_challenger_is_set_checked_and_taken_away(house: House) -> None:
    house.promote("1")
    registry = ["--registry", house.settings.registry.url]

    def challenger(*arguments: str) -> Result:
        return run_verb("models", "challenger", *arguments, *registry)

    assert json.loads(challenger("2", "--json").stdout) == {"challenger": "2", "before": None}
    scorer = open_scorer(house.settings.model_copy(update={"scorer": ScorerSettings(url="local:")}))
    assert scorer.challenger() == "2"
    scorer.close()
    for arguments, code, said in [
        (["1"], 2, "version 1 is the champion"),
        (["3"], 2, "digest"),  # the broken one
        (["9"], 2, "holds no version '9'"),
        ([], 2, "no version"),
        (["2", "--none"], 2, "a version and --none"),
    ]:
        refused = challenger(*arguments)
        assert (refused.exit_code, said in refused.stderr) == (code, True), refused.stderr
        assert house.registry.by_alias(CHALLENGER) is not None, "a refusal changes nothing"
    assert run_verb("models", *registry, "challenger", "--none").exit_code == 2, "a flag that would not be heeded"
    assert "no version is challenger (before: 2)" in challenger("--none").stdout
    assert house.registry.by_alias(CHALLENGER) is None
    assert challenger("--none").exit_code == 0


def test_a_service_that_is_away_is_unavailable(house: House) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with HttpScorer(ScorerSettings(url=url, attempts=2)) as scorer:
        for ask in (scorer.champion, lambda: scorer.score(features(1), NAMES), lambda: scorer.baseline("1")):
            with pytest.raises(ScorerUnavailable, match="no answer from the scorer") as caught:
                ask()
            assert url in caught.value.found


def test_a_child_that_cannot_start_says_why(house: House, tmp_path: Path) -> None:
    settings = house.settings.model_copy(deep=True)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = int(taken.getsockname()[1])
        with (
            pytest.raises(ScorerUnavailable, match="exit code") as caught,
            start_service(settings, port, folder=tmp_path),
        ):
            pass
    assert "serve.log" in str(caught.value)
