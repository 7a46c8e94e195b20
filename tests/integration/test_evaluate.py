"""`oddlog evaluate`: a registered version over a period, by labels, by marks and by planted attacks, kept in MLflow."""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score
from typer.testing import CliRunner

from cli import console
from cli.main import app
from oddlog import notebook
from oddlog.connectors import mlflow_connection
from oddlog.connectors.mlflow_evaluation import VERSION_TAG
from oddlog.connectors.store import EventQuery
from oddlog.errors import UsageError
from oddlog.features.compute import FeatureComputer
from oddlog.features.fitting import units_of
from tests.trained_place import TRAFFIC, Place, trained_place
from training.metrics import Cut
from training.period import Evaluation, evaluate_version


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with trained_place(tmp_path_factory.mktemp("evaluate")) as made:
        yield made


@pytest.fixture(scope="module")
def found(place: Place) -> Evaluation:
    return evaluate_version(place.settings, store=place.store, registry=place.registry)


@pytest.fixture
def known(place: Place) -> pl.DataFrame:
    """The events after the fitted period with labels, scores and novelty, computed here in one go."""
    events = pl.concat(place.store.read_events(EventQuery(), order="position"))
    features = FeatureComputer(place.champion.baseline).compute(events)
    novelty = place.champion.novelty(features)
    assert novelty is not None
    return events.with_columns(
        score=pl.Series(place.champion.score(features).astype(np.float64)),
        novelty=pl.Series(novelty.astype(np.float64)),
    ).filter(pl.col("@timestamp") >= place.champion.card.dataset.fit_until)


def test_figures_are_those_of_the_benchmarks(found: Evaluation, known: pl.DataFrame, place: Place) -> None:
    attack = known["labels.truth"].str.starts_with("attack").to_numpy()
    scores = known["score"].to_numpy()
    assert (found.events, found.attacks, found.benign) == (known.height, attack.sum(), (~attack).sum())
    assert found.labelled is not None
    assert found.labelled.events["ap"] == pytest.approx(average_precision_score(attack, scores))
    assert found.labelled.events["roc_auc"] == pytest.approx(roc_auc_score(attack, scores))
    # An alert budget of 20 a day: the highest client-hours.
    hours = known.group_by("source.address", pl.col("@timestamp").dt.truncate("1h").alias("hour")).agg(
        pl.col("score").max()
    )
    days = (known["@timestamp"].max() - known["@timestamp"].min()) / dt.timedelta(days=1)  # type: ignore[operator]
    cut = Cut.at(hours["score"].to_numpy(), 20 * days)
    taken = cut.taken(scores)
    assert found.labelled.events["recall_at_budget"] == pytest.approx(taken[attack].sum() / attack.sum())
    assert set(found.labelled.by_type) == set(known["labels.truth"].unique()) - {"benign"}
    threshold = place.first.threshold.value
    second = place.first.threshold.novelty
    assert second is not None
    either = (pl.col("score") >= threshold) | (pl.col("novelty") >= second.value)
    # Alerts of one day that show the same behaviour count once.
    like = known.with_columns(behaviour=pl.Series(units_of(known)[0]), day=pl.col("@timestamp").dt.date())
    assert found.alerts_per_day == pytest.approx(like.filter(either).select("behaviour", "day").n_unique() / days)
    assert found.novelty is not None
    new = like.filter(pl.col("novelty") >= second.value).select("behaviour", "day")
    assert found.novelty.alerts_per_day == pytest.approx(new.n_unique() / days)
    assert found.cautions == ()


def test_planted_attacks_are_judged_as_labels_are(found: Evaluation) -> None:
    assert len(found.planted.by_type) >= 10
    assert {f"attack:{name}" for name in found.detected} == set(found.planted.by_type)
    assert found.planted_events == sum(figures["events"] for figures in found.planted.by_type.values())
    assert 0.4 < found.planted.events["ap"] < 1
    assert found.planted.by_type["attack:directory_scan"]["recall_at_budget"] > 0.5


def test_a_period_of_the_fitted_events_is_judged_with_a_caution(place: Place) -> None:
    whole = evaluate_version(
        place.settings, version=place.first.version, since=TRAFFIC.start, store=place.store, registry=place.registry
    )
    assert whole.events == place.store.count_events(EventQuery())
    (caution,) = whole.cautions
    assert "until when this version was fitted" in caution


def test_marks_count_as_labels(place: Place, known: pl.DataFrame, found: Evaluation) -> None:
    threshold = place.first.threshold.value
    benign = known.filter(pl.col("labels.truth") == "benign")
    high = benign.sort("score", descending=True)["_id"][0]
    low = benign.sort("score")["_id"][0]
    documents = {
        "one": {"event": high, "verdict": "true-anomaly", "at": "2026-01-02"},
        "two": {"event": low, "verdict": "false-alarm", "at": "2026-01-02"},
        "older": {"event": high, "verdict": "false-alarm", "at": "2026-01-01"},
        "elsewhere": {"event": "e9-nowhere-0-1", "verdict": "true-anomaly"},
        "strange": {"verdict": "true-anomaly"},
    }
    try:
        for name, document in documents.items():
            place.store.put_document("marks", name, document)
        marked = evaluate_version(place.settings, store=place.store, registry=place.registry)
        place.store.put_document("marks", "one", {"event": high, "verdict": "expected", "at": "2026-01-03"})
        hushed = evaluate_version(place.settings, store=place.store, registry=place.registry)
    finally:
        for name in documents:
            place.store.delete_document("marks", name)
    assert (marked.attacks, marked.benign, marked.marked) == (found.attacks + 1, found.benign - 1, 2)
    assert marked.labelled is not None
    assert marked.labelled.by_type["attack:marked"]["events"] == 1
    assert marked.false_alarms_left == 0
    high_score = known.filter(pl.col("_id") == high)["score"][0]
    assert hushed.false_alarms_left == int(high_score >= threshold)
    assert hushed.attacks == found.attacks
    assert found.false_alarms_left is None


def test_the_verb_shows_and_keeps_the_figures(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ODDLOG_STORE__URL", place.settings.store.url)
    monkeypatch.setenv("ODDLOG_REGISTRY__URL", place.settings.registry.url)
    monkeypatch.setenv("ODDLOG_REGISTRY__ARTIFACTS", place.settings.registry.artifacts)
    monkeypatch.setenv("ODDLOG_TRAIN__PULLS", str(place.settings.train.pulls))
    monkeypatch.setattr(console.out, "width", 200)  # a worker of the tests may have a narrow one
    shown = CliRunner().invoke(app, ["evaluate", "--budget", "5/day"])
    assert shown.exit_code == 0, shown.output
    words = " ".join(shown.output.split())
    assert f"version {place.first.version} of oddlog, surprise" in words
    assert "directory_scan" in words

    done = CliRunner().invoke(app, ["evaluate", "--version", "champion", "--budget", "5/day", "--json"])
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert document["budget_per_day"] == 5
    assert set(document["labelled"]) >= {"ap", "roc_auc", "precision_at_1pct", "recall_at_budget", "client_hours"}
    client = mlflow_connection.client(place.settings.registry)
    run = client.get_run(document["run_id"])
    assert run.info.status == "FINISHED"
    assert run.data.metrics["labels/ap"] == pytest.approx(document["labelled"]["ap"])
    assert run.data.metrics["planted/directory_scan/detected"] == document["detected"]["directory_scan"]
    experiment = client.get_experiment(run.info.experiment_id)
    assert experiment.name == f"{place.settings.registry.experiment}-evaluation"
    assert run.inputs.model_inputs
    kept = json.loads(Path(client.download_artifacts(run.info.run_id, "evaluation.json")).read_text())
    assert kept["planted"] == document["planted"]
    tags = place.registry.version(place.first.version).tags
    assert tags[VERSION_TAG].endswith(f"(run {document['run_id']})")


def test_what_cannot_be_evaluated_is_refused(place: Place) -> None:
    with pytest.raises(UsageError, match="no version is called 'challenger'") as caught:
        evaluate_version(place.settings, version="challenger", store=place.store, registry=place.registry)
    assert f"registered: {place.first.version}" in str(caught.value)
    with pytest.raises(UsageError, match=r"no event since 2031-01-01 .* holds those from 2026-03-02"):
        evaluate_version(
            place.settings, since=dt.datetime(2031, 1, 1, tzinfo=dt.UTC), store=place.store, registry=place.registry
        )


# --- the notebook page, on the same store and registry ----------------------------------------------------------------


@pytest.fixture
def in_force(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The place's settings as a user's environment has them, in a folder of their own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ODDLOG_STORE__URL", place.settings.store.url)
    monkeypatch.setenv("ODDLOG_REGISTRY__URL", place.settings.registry.url)
    monkeypatch.setenv("ODDLOG_REGISTRY__ARTIFACTS", place.settings.registry.artifacts)
    return tmp_path


def test_the_notebook_page_runs_in_order_and_gives_the_numbers_of_the_stream(in_force: Path, place: Place) -> None:
    page = (Path(__file__).parents[2] / "docs" / "notebook.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    assert len(blocks) == page.count("```python")
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, "docs/notebook.md", "exec"), names)
    scored, stored = names["scored"], names["later"]
    # What the consumer has written about the same events, by the same model after the same events.
    np.testing.assert_allclose(scored["anomaly.score"], stored["anomaly.score"], rtol=1e-5)
    np.testing.assert_allclose(scored["anomaly.severity"], stored["anomaly.severity"], rtol=1e-5)
    odd = scored.filter(pl.col("anomaly.is_anomaly"))
    hours = odd.select("source.address", pl.col("@timestamp").dt.truncate("1h")).unique()
    assert names["alerts"].height == hours.height > 0
    assert names["alerts"]["anomalies"].sum() == odd.height
    told = stored.filter(pl.col("anomaly.channel") == "score").head(1)
    again = notebook.reasons(scored.filter(pl.col("_id") == told["_id"].item()), names["champion"])
    texts = [reason["text"] for reason in told["anomaly.reasons"].item()]
    assert again["text"].to_list() == [text for text in texts if not text.startswith("novelty:")]
    assert (in_force / "scores.png").stat().st_size > 0
    assert (in_force / "client.png").stat().st_size > 0


def test_a_notebook_is_told_what_is_wrong(in_force: Path) -> None:
    with pytest.raises(UsageError, match="no time"):
        notebook.period("yesterday")
    with pytest.raises(UsageError, match="no event from 1999"):
        notebook.period("1999-01-01", "1999-01-02")
    (in_force / "empty.log").touch()
    with pytest.raises(UsageError, match="no line of"):
        notebook.read_log(in_force / "empty.log")
    (in_force / "access.log").write_text("\n".join(TRAFFIC.lines[:50]))
    events = notebook.read_log(in_force / "access.log")
    assert events.height == 50
    with pytest.raises(UsageError, match=r"no request of 203\.0\.113\.255"):
        notebook.plot_client(events, "203.0.113.255")
    with pytest.raises(UsageError, match="no version is called 'nobody'"):
        notebook.model("nobody")
