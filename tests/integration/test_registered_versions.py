"""`oddlog threshold`: shown, set for another budget, learnt anew from the store, and followed by what serves."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest

from oddlog.connectors import mlflow_connection
from oddlog.connectors.marks import new_mark, put_marks
from oddlog.connectors.mlflow_registry import HISTORY_TAG, THRESHOLD_TAG
from oddlog.connectors.registry import CHAMPION
from oddlog.connectors.store import EventQuery
from oddlog.errors import OutsideError
from oddlog.features.compute import FeatureComputer
from oddlog.features.declaration import FEATURE_NAMES
from oddlog.features.fitting import units_of
from oddlog.scoring.card import Threshold
from oddlog.scoring.local import LocalScorer
from oddlog.scoring.shelf import ModelShelf
from oddlog.scoring.threshold import NOVELTY_SHARE, anomalies, fit_threshold, flagged_per_day
from serving.documents import scored_events
from serving.follow import AliasFollower
from tests.registered_place import RegisteredPlace, registered_place
from tests.verbs import run_verb
from training import limits
from training.sample import in_sample
from training.threshold import put_in_force, set_budget
from training.threshold_tags import CHANGES_TAG, CURVE_TAG, curve_of

CLIENT = "source.address"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegisteredPlace]:
    with registered_place(tmp_path_factory.mktemp("threshold")) as made:
        yield made


@pytest.fixture
def place(built: RegisteredPlace) -> Iterator[RegisteredPlace]:
    """Without marks, both versions under the threshold that they were made with, and no other known of them."""
    yield built
    for mark in built.store.list_documents("marks"):
        built.store.delete_document("marks", mark["_id"])
    client = mlflow_connection.client(built.settings.registry)
    for version, model in built.models.items():
        for tag in {CURVE_TAG, CHANGES_TAG, HISTORY_TAG} & set(built.registry.version(version).tags):
            client.delete_model_version_tag(built.settings.registry.model, version, tag)
        built.registry.set_tags(version, {THRESHOLD_TAG: model.card.threshold.model_dump_json()})


def threshold(place: RegisteredPlace, *arguments: str, code: int = 0) -> Any:
    """What a verb below `oddlog threshold` says as JSON; its error where it ends with another code."""
    done = run_verb("threshold", *arguments, "--json", env=place.environment)
    assert done.exit_code == code, done.output
    return json.loads(done.stdout) if code == 0 else " ".join(done.stderr.split())


def later(place: RegisteredPlace, version: str) -> tuple[pl.DataFrame, np.ndarray, np.ndarray, np.ndarray]:
    """The events after those that a version was fitted on, its scores and novelty of them, and their behaviours."""
    model = place.models[version]
    kept = (place.events["@timestamp"] >= model.card.dataset.fit_until).to_numpy()
    features = FeatureComputer(model.baseline).compute(place.events)[kept]
    events, novelty = place.events.filter(pl.Series(kept)), model.novelty(features)
    assert novelty is not None
    return events, model.score(features), novelty, units_of(events)[0]


def expected(
    place: RegisteredPlace, version: str, budget: float, number: str, kept: Any = None, share: float = 1.0
) -> Threshold:
    """What it has to be, worked out here in one go."""
    events, scores, novelty, behaviours = later(place, version)
    rows = np.ones(events.height, dtype=bool) if kept is None else kept(events)
    left = events.filter(pl.Series(rows))
    return fit_threshold(
        scores[rows], left["source.address"], left["@timestamp"], budget, novelty=novelty[rows],
        behaviours=behaviours[rows], version=number, share=share,
    )  # fmt: skip


def test_a_threshold_is_learnt_anew_set_shown_and_followed_without_a_restart(place: RegisteredPlace) -> None:
    made = place.models["1"].card.threshold
    shown = threshold(place, "show")
    assert shown["threshold"] == made.model_dump(mode="json")
    assert (shown["version"], shown["change"], shown["expected"], shown["earlier"]) == ("1", None, [], [])
    assert "before it was kept" in threshold(place, "set", "--budget", "5/day", code=2)

    shelf = ModelShelf(place.settings.registry.model)
    follower = AliasFollower(place.settings.registry, shelf, lambda: place.registry)
    scorer = LocalScorer(shelf, lambda _: follower.look())
    assert stored_by(place, scorer) == ("1", made)

    recalibrate = ("recalibrate", "--since", "9d", "--budget", "10/day", "--by", "ada", "--note", "a new shop")
    dry = threshold(place, *recalibrate, "--dry-run")
    assert (dry["written"], dry["dry_run"], dry["changed"]) == (False, True, True)
    assert place.registry.version("1").threshold == made
    assert stored_by(place, scorer) == ("1", made)

    done = threshold(place, *recalibrate)
    new = place.registry.version("1").threshold
    assert new == expected(place, "1", 10, "2") == Threshold.model_validate(done["threshold"])
    assert done["threshold"] == dry["threshold"]
    assert done["learnt"]["features"] == "stored"
    assert done["learnt"]["events"] == later(place, "1")[0].height
    events, scores, novelty, behaviours = later(place, "1")
    before = anomalies(made, scores, novelty)[0]
    assert done["learnt"]["alerts_per_day_before"] == pytest.approx(
        flagged_per_day(before, events["source.address"], events["@timestamp"], behaviours)
    )
    (caution,) = done["cautions"]
    assert "the version was fitted on them" in caution
    assert stored_by(place, scorer) == ("2", new)

    done = threshold(place, "set", "--budget", "3/day", "--by", "bob")
    new = place.registry.version("1").threshold
    assert new == expected(place, "1", 3, "3") == Threshold.model_validate(done["threshold"])
    assert stored_by(place, scorer) == ("3", new)
    same = threshold(place, "set", "--budget", "3/day")
    assert (same["changed"], same["written"], same["threshold"]["version"]) == (False, False, "3")

    # A tag that was deleted: the threshold that the model was made with is in force again, and no number comes twice.
    client = mlflow_connection.client(place.settings.registry)
    client.delete_model_version_tag(place.settings.registry.model, "1", THRESHOLD_TAG)
    assert stored_by(place, scorer) == ("1", made)
    assert threshold(place, "show")["threshold"] == made.model_dump(mode="json")
    assert threshold(place, "set", "--budget", "4/day")["threshold"]["version"] == "4"


def test_who_changed_a_threshold_and_what_it_promises_is_shown(place: RegisteredPlace) -> None:
    threshold(place, "recalibrate", "--since", "9d", "--budget", "10/day", "--by", "ada", "--note", "a new shop")
    threshold(place, "set", "--budget", "3/day", "--by", "bob")
    new = place.registry.version("1").threshold
    assert new is not None
    shown = threshold(place, "show", "--version", "champion")
    assert (shown["change"]["by"], shown["change"]["way"], shown["threshold"]["version"]) == ("bob", "set", "3")
    assert [one["threshold"]["version"] for one in shown["earlier"]] == ["2", "1"]
    assert [one["change"] and one["change"]["note"] for one in shown["earlier"]] == ["a new shop", None]
    steps = shown["expected"]
    first = new.expected_per_day - (new.novelty.expected_per_day if new.novelty else 0)
    assert steps[0]["alerts_per_day"] == pytest.approx(first)
    assert [one["severity"] for one in steps] == sorted(one["severity"] for one in steps)
    assert [one["alerts_per_day"] for one in steps] == sorted((one["alerts_per_day"] for one in steps), reverse=True)
    said = run_verb("threshold", "show", env=place.environment)
    words = " ".join(said.stdout.split())
    assert "threshold 3 of version 1 (champion) of oddlog, surprise" in words
    assert "set by bob" in words
    assert "by ada" in words


def stored_by(place: RegisteredPlace, scorer: LocalScorer) -> tuple[str, Threshold | None]:
    """The threshold's version on documents of events that are scored now, and itself: every verdict there is by it."""
    events, matrix = place.events[-400:], FeatureComputer(place.models["1"].baseline).compute(place.events)[-400:]
    documents = scored_events(events, matrix, list(FEATURE_NAMES), scorer.score(matrix, list(FEATURE_NAMES)))
    (version,) = documents["anomaly.threshold_version"].unique()
    (value,) = documents["anomaly.threshold"].unique()
    held = scorer.shelf.get("1").threshold
    assert (held.version, held.value) == (version, value)
    novelty = place.models["1"].novelty(matrix)
    assert documents["anomaly.is_anomaly"].to_list() == anomalies(held, documents["anomaly.score"], novelty)[0].tolist()
    return version, held


def test_another_version_is_computed_anew_and_both_channels_share_the_budget(place: RegisteredPlace) -> None:
    """Its baseline was never served, so that no document has its features."""
    done = threshold(place, "recalibrate", "--since", "2000-01-01", "--version", "2")
    new = place.registry.version("2").threshold
    assert new == expected(place, "2", 20, "2")
    assert done["learnt"]["features"] == "computed"
    assert new.novelty is not None
    assert new.novelty.budget_per_day == 20 * NOVELTY_SHARE
    assert place.registry.version("1").threshold == place.models["1"].card.threshold

    silent = threshold(place, "set", "--budget", "20/day", "--no-novelty", "--version", "2")
    assert silent["threshold"]["novelty"] is None
    assert silent["threshold"]["expected_per_day"] < done["threshold"]["expected_per_day"] or (
        done["threshold"]["novelty"]["expected_per_day"] == 0
    )
    still = threshold(place, "set", "--budget", "30/day", "--version", "2")
    assert still["threshold"]["novelty"] is None
    again = threshold(place, "set", "--budget", "20/day", "--novelty", "--version", "2")
    assert again["threshold"] == new.model_copy(update={"version": again["threshold"]["version"]}).model_dump(
        mode="json"
    )


def test_marked_attackers_and_hushed_events_tell_nothing_of_alerts_to_come(place: RegisteredPlace) -> None:
    events, scores, _, _ = later(place, "1")
    odd = events[int(np.argmax(scores))]
    attacker = odd["source.address"].item()
    path = events.filter(pl.col("url.path").str.len_bytes() > 4)["url.path"].mode().sort()[0]
    put_marks(
        place.store,
        [
            new_mark("true-anomaly", by="ada", event=odd["_id"].item()),
            new_mark("expected", by="ada", path_prefix=path, until=dt.datetime(2100, 1, 1, tzinfo=dt.UTC)),
        ],
    )
    own = (pl.col("source.address") == attacker).alias("own")
    hushed = (pl.col("url.path").str.starts_with(path) & ~own).alias("hushed")
    done = threshold(place, "recalibrate", "--since", "9d")
    counts = events.select(own, hushed).sum().row(0)
    assert (done["learnt"]["marked_clients"], done["learnt"]["marked_events"]) == (1, counts[0])
    assert done["learnt"]["hushed_events"] == counts[1] > 0
    assert done["learnt"]["events"] == events.height - sum(counts)
    kept = expected(
        place, "1", 20, done["threshold"]["version"], lambda frame: ~frame.select(own | hushed)[:, 0].to_numpy()
    )
    assert Threshold.model_validate(done["threshold"]) == kept


def test_who_was_alerted_on_before_the_period_is_left_out_where_that_is_asked_for(place: RegisteredPlace) -> None:
    began = place.models["1"].card.dataset.fit_until
    alerts = list(place.store.read_events(EventQuery(until=began, only_anomalies=True), columns=["_id", CLIENT]))
    odd = pl.concat(alerts)
    events, _, _, _ = later(place, "1")
    of_odd = events.join(odd, on=CLIENT, how="semi")
    spared = of_odd[CLIENT].unique().sort()[0]  # whose alerts were false
    put_marks(
        place.store,
        [new_mark("false-alarm", by="ada", client=spared, until=dt.datetime(2100, 1, 1, tzinfo=dt.UTC))],
    )
    known = set(odd[CLIENT]) - {spared}
    own = pl.col(CLIENT).is_in(list(known))
    done = threshold(place, "recalibrate", "--since", "9d", "--exclude-alerted", "--dry-run")
    left_out = events.filter(own)
    assert done["learnt"]["alerted_clients"] == left_out[CLIENT].n_unique() > 1
    assert done["learnt"]["alerted_events"] == left_out.height
    assert done["learnt"]["events"] == events.height - left_out.height
    kept = expected(place, "1", 20, "2", lambda frame: ~frame.select(own)[:, 0].to_numpy())
    assert Threshold.model_validate(done["threshold"]) == kept
    said = run_verb(
        "threshold", "recalibrate", "--since", "9d", "--exclude-alerted", "--dry-run", env=place.environment
    )
    told = " ".join(said.stdout.split())
    assert f"{left_out.height:,} events of {left_out[CLIENT].n_unique():,} clients that were alerted on before" in told
    assert threshold(place, "recalibrate", "--since", "9d", "--dry-run")["learnt"]["alerted_clients"] == 0

    # Who was marked before the period is left out, too, alerts or not.
    early = place.events.filter(pl.col("@timestamp") < began, ~pl.col(CLIENT).is_in([*known, spared]))
    marked = early.filter(pl.col(CLIENT).is_in(events[CLIENT].unique().implode()))[0]
    put_marks(place.store, [new_mark("true-anomaly", by="ada", event=marked["_id"].item())])
    with_marked = threshold(place, "recalibrate", "--since", "9d", "--exclude-alerted", "--dry-run")["learnt"]
    assert with_marked["alerted_clients"] == done["learnt"]["alerted_clients"] + 1
    assert (with_marked["marked_clients"], done["learnt"]["marked_clients"]) == (0, 0)

    # Of more alerts than attacks explain the oddest alone: an eighth of an alert a day, over what was before.
    few = {**place.environment, "ODDLOG_TRAIN__EXCLUDE_UP_TO": "0.125", "ODDLOG_TRAIN__BUDGET": "1/day"}
    bounded = run_verb(
        "threshold", "recalibrate", "--since", "9d", "--exclude-alerted", "--dry-run", "--json", env=few
    )  # fmt: skip
    document = json.loads(bounded.stdout)
    assert document["learnt"]["alerted_clients"] <= 2
    assert any("are learnt from all the same" in caution for caution in document["cautions"])


def test_what_does_not_fit_into_memory_is_learnt_from_a_sample_of_the_clients(
    place: RegisteredPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "BYTES_PER_EVENT", 50_000_000 / 2_000)  # room for so many events
    monkeypatch.setenv("ODDLOG_TRAIN__MEMORY_MB", str(limits.FIXED_MB + 50))
    done = threshold(place, "recalibrate", "--since", "9d")
    share = done["learnt"]["share"]
    assert 0.3 < share < 0.8
    own = expected(
        place, "1", 20, "2", lambda frame: in_sample(frame["source.address"], share).to_numpy(), share=share
    )  # fmt: skip
    assert Threshold.model_validate(done["threshold"]) == own
    assert 10 < own.expected_per_day <= 20  # by all clients
    found = json.loads(run_verb("models", "diff", "1", "2", "--json", env=place.environment).stdout)
    assert found["share"] < 0.8
    assert found["clients"] < later(place, "1")[0]["source.address"].n_unique()


def test_what_cannot_be_done_is_told(place: RegisteredPlace) -> None:
    assert "alert budget 'lots'" in threshold(place, "set", "--budget", "lots", code=2)
    for verb in (("set",), ("recalibrate", "--since", "7d")):
        assert "0 a day" in threshold(place, *verb, "--budget", "0/day", code=2)
        long = threshold(place, *verb, "--budget", "5/day", "--note", "so " * 200, code=2)
        assert "a note of 600 characters" in long
    told = threshold(place, "recalibrate", "--since", "2031-01-01", code=2)
    assert "0 events to learn a threshold from since 2031-01-01 00:00:00 UTC; the store holds those from" in told
    assert "at least 1,000" in threshold(place, "recalibrate", "--since", "1h", code=2)
    assert "--since 7d" in threshold(place, "recalibrate", "--since", "lately", code=2)
    assert "is no length of time" in threshold(place, "recalibrate", "--since", "7y", code=2)
    assert "not before --until" in threshold(
        place, "recalibrate", "--since", "2026-03-02", "--until", "2026-03-01", code=2
    )
    assert "holds no version '9'" in threshold(place, "show", "--version", "9", code=2)
    place.registry.delete_alias(CHAMPION)
    try:
        for verb in (("show",), ("set", "--budget", "5/day"), ("recalibrate", "--since", "7d")):
            told = threshold(place, *verb, code=2)
            assert "there is no champion; registered: 2, 1" in told
            assert "oddlog promote" in told
    finally:
        place.registry.set_alias(CHAMPION, "1")


def test_broken_tags_are_told_and_a_deleted_threshold_is_the_models_own(place: RegisteredPlace) -> None:
    threshold(place, "recalibrate", "--since", "9d", "--version", "2")
    kept = place.registry.version("2").tags
    for tag in (CURVE_TAG, CHANGES_TAG):
        place.registry.set_tags("2", {tag: '{"nothing": 1}'})
        assert f"the tag {tag!r} of version 2 is not" in threshold(place, "show", "--version", "2", code=3)
        place.registry.set_tags("2", {tag: kept[tag]})
    place.registry.set_tags("2", {THRESHOLD_TAG: "none"})
    assert "is no threshold" in threshold(place, "show", "--version", "2", code=3)
    place.registry.set_tags("2", {THRESHOLD_TAG: kept[THRESHOLD_TAG]})


def test_two_changes_at_once_are_told_of_each_other(place: RegisteredPlace) -> None:
    threshold(place, "recalibrate", "--since", "9d", "--version", "2", "--budget", "7/day")
    lock = f"threshold-{place.settings.registry.model}"
    assert place.store.acquire_lock(lock, "somebody", 60) is None
    try:
        told = threshold(place, "set", "--budget", "5/day", "--version", "2", code=3)
        assert "another change of a threshold is at work: somebody holds the lock" in told
    finally:
        place.store.release_lock(lock, "somebody")
    late = set_budget(
        place.settings, 9, by="late", version="2", dry_run=True, store=place.store, registry=place.registry
    )
    threshold(place, "set", "--budget", "5/day", "--version", "2")
    curve, five = curve_of(late.registered), place.registry.version("2").threshold
    assert curve is not None
    with pytest.raises(OutsideError, match="changed meanwhile"):
        put_in_force(
            place.settings, replace(late, dry_run=False), curve, way="set", by="late", note="", store=place.store,
            registry=place.registry,
        )  # fmt: skip
    assert place.registry.version("2").threshold == five


# --- oddlog models diff -----------------------------------------------------------------------------------------------


def test_two_versions_are_compared_event_by_event(place: RegisteredPlace) -> None:
    done = run_verb("models", "diff", "1", "2", "--json", env=place.environment)
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    since = max(model.card.dataset.fit_until for model in place.models.values())
    kept = (place.events["@timestamp"] >= since).to_numpy()
    events, said = place.events.filter(pl.Series(kept)), {}
    for version, model in place.models.items():
        features = FeatureComputer(model.baseline).compute(place.events)[kept]
        said[version] = (model.score(features), model.judge(features))
    assert (found["events"], found["clients"]) == (events.height, events["source.address"].n_unique())
    frame = events.with_columns(
        a=pl.Series(said["1"][1].is_anomaly), b=pl.Series(said["2"][1].is_anomaly),
        hour=pl.col("@timestamp").dt.truncate("1h"), score_a=pl.Series(said["1"][0]), score_b=pl.Series(said["2"][0]),
    )  # fmt: skip
    hours = frame.group_by("source.address", "hour").agg(pl.col("a", "b").any(), pl.col("score_a", "score_b").max())
    for part, rows in (("by_event", frame), ("by_client_hour", hours)):
        counts = {(a, b): rows.filter((pl.col("a") == a) & (pl.col("b") == b)).height for a in (0, 1) for b in (0, 1)}
        assert found[part] == {
            "both": counts[1, 1], "only_a": counts[1, 0], "only_b": counts[0, 1], "neither": counts[0, 0],
        }  # fmt: skip
    assert found["by_event"]["only_a"] > 0
    assert found["by_event"]["only_b"] > 0
    for part, rows in (("events", frame), ("client_hours", hours)):
        first, second = (rows[score].rank().to_numpy() for score in ("score_a", "score_b"))
        ranks = np.corrcoef(first, second)[0, 1]
        assert found["ranks"][part] == pytest.approx(ranks, abs=1e-6)
    for kind in found["statuses"]:
        own = frame.filter(pl.col("http.response.status_code").cast(pl.String) == kind["name"])
        assert (kind["events"], kind["a"], kind["b"]) == (own.height, own["a"].sum(), own["b"].sum())
    assert sum(kind["a"] for kind in found["statuses"]) == found["a"]["anomalies"]

    for name, only in (("only_a", "a"), ("only_b", "b")):
        other, alone = "ab".replace(only, ""), hours.filter(pl.col(only) & ~pl.col("ab".replace(only, "")))
        assert bool(found[name]) == bool(alone.height)
        for example in found[name]:
            row = frame.filter(pl.col("_id") == example["event"])
            assert row[only].item()
            assert not row[other].item()
            assert (example["a"]["score"], example["b"]["score"]) == (row["score_a"].item(), row["score_b"].item())
            assert example["a"]["reasons"]
            assert example["b"]["reasons"]
    # By the documents' own words, where they are of the version.
    stored = pl.concat(place.store.read_events(EventQuery(only_anomalies=True)))
    told = {one["_id"]: [reason["text"] for reason in one["anomaly.reasons"]] for one in stored.iter_rows(named=True)}
    for example in found["only_a"]:
        assert [reason["text"] for reason in example["a"]["reasons"]] == told[example["event"]]


def test_a_comparison_follows_thresholds_and_is_told_in_words(place: RegisteredPlace) -> None:
    threshold(place, "recalibrate", "--since", "9d", "--version", "2", "--budget", "1/day")
    back = run_verb("models", "diff", "2", "champion", env=place.environment)
    assert back.exit_code == 0, back.output
    words = " ".join(back.stdout.split())
    assert "versions 2 and 1 of oddlog" in words
    assert "only version 1 alerts" in words
    assert "2: no anomaly, rarer than one event in" in words
    assert "be careful: their thresholds are for different budgets, 1 and 20 alerts a day" in words
    whole = run_verb(
        "models", "diff", "1", "2", "--since", "2026-03-02", "--until", "2026-03-03", "--json", env=place.environment
    )
    found = json.loads(whole.stdout)
    assert found["b"]["threshold_version"] == place.registry.version("2").threshold.version  # type: ignore[union-attr]
    assert "what it has counted itself" in found["cautions"][0]
    assert found["until"] < "2026-03-03"


def test_what_cannot_be_compared_is_told(place: RegisteredPlace) -> None:
    for arguments, said in (
        (("1", "champion"), "1 and champion are the same version, 1"),
        (("1", "challenger"), "no version is called 'challenger'"),
        (("1", "7"), "holds no version '7'"),
        (
            ("1", "2", "--since", "2031-01-01"),
            "no event since 2031-01-01 00:00:00 UTC; the store holds those",
        ),
    ):
        done = run_verb("models", "diff", *arguments, env=place.environment)
        assert done.exit_code == 2, done.output
        assert said in " ".join(done.stderr.split())
