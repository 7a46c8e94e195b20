"""Drift without Evidently and MLflow: periods, the reference by hours, what a monitor keeps of its place, the page."""

from __future__ import annotations

import datetime as dt
import json
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import Any, cast

import httpx
import numpy as np
import polars as pl
import pytest

from cli.times import duration, moment, period
from monitoring.batch import Batch, read_batch
from monitoring.documents import Check
from monitoring.expected import SKETCH_POINTS
from monitoring.gauges import DriftGauges, metrics_port
from monitoring.judgement import Measure, Verdict
from monitoring.monitor import Monitor
from monitoring.period import LENGTHS, earlier, last_whole, read_batch_flag
from monitoring.reference import Reference, expected_by_reference, read_reference
from monitoring.report import render
from oddlog.connectors.by_url import open_store
from oddlog.connectors.registry import ModelVersion
from oddlog.connectors.store import Store
from oddlog.errors import RegistryError, UsageError
from oddlog.events.schema import TIMESTAMP
from oddlog.features.declaration import FEATURE_NAMES
from oddlog.scoring.card import Card
from oddlog.scoring.reference import COUNTS, make_reference, new_clients, slot_counts, unseen_from
from oddlog.settings import MonitorSettings, Settings, StoreSettings
from tests.store_frames import dead_letters, events, scored, write, write_letters
from tests.waiting import until

START = dt.datetime(2024, 3, 1, tzinfo=dt.UTC)
NOON = dt.datetime(2024, 3, 1, 12, tzinfo=dt.UTC)
HOUR, DAY = dt.timedelta(hours=1), dt.timedelta(days=1)


def test_periods() -> None:
    assert period(None, None, now=NOON) == (None, None)
    assert period(None, None, "1.5d", now=NOON) == (NOON - dt.timedelta(hours=36), NOON)
    assert period("2024-03-01T12:00:00+02:00", None) == (NOON - dt.timedelta(hours=2), None)
    assert moment("--since", "2024-03-01") == START


@pytest.mark.parametrize("text", ["", "1", "h", "0h", "-1h", "1y", "1h30m"])
def test_lengths_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="length of time"):
        duration(text)


def test_batches_follow_the_clock() -> None:
    late = NOON + dt.timedelta(minutes=59)
    assert last_whole(LENGTHS["1h"], late) == (NOON - HOUR, NOON)
    assert last_whole(LENGTHS["1d"], late) == (START - DAY, START)
    assert read_batch_flag("6h", NOON) == (NOON - 6 * HOUR, NOON)
    assert read_batch_flag("2024-03-01..2024-03-01T14:00+02:00", late) == (START, NOON)
    assert earlier("reference", START, NOON) is None
    assert earlier("previous", START, NOON) == (START - 12 * HOUR, START)
    assert earlier("same-time-last-week", START, NOON) == (START - 7 * DAY, NOON - 7 * DAY)


@pytest.mark.parametrize("text", ["2h", "", "..", "2024-03-01..", "2024-03-02..2024-03-01", "a..b"])
def test_batches_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="no period"):
        read_batch_flag(text, NOON)


def test_a_client_is_new_after_a_day_away() -> None:
    hours = [START, START + HOUR, START + 30 * HOUR, START + 31 * HOUR, START + 60 * HOUR]
    pairs = pl.DataFrame({"client": ["a"] * 5, "hour": hours}, schema={"client": pl.String, "hour": TIMESTAMP})
    found = new_clients(pairs).sort("hour")["new"].to_list()
    assert found == [None, None, True, False, True]


def traffic(days: int) -> pl.DataFrame:
    """Two requests an hour by day and one by night of each of five clients, one of them new each day; 404s at noon."""
    rows = [
        (START + day * DAY + hour * HOUR + dt.timedelta(minutes=n), f"c{n}" if n % 5 else f"new {day}",
         404 if hour == 12 else 200, n == 1 and hour == 12, hour == 12)
        for day in range(days) for hour in range(24) for n in range(10 if hour >= 8 else 5)
    ]  # fmt: skip
    schema = {"time": TIMESTAMP, "client": pl.String, "status": pl.Int32, "odd": pl.Boolean, "unseen": pl.Boolean}
    return pl.DataFrame(rows, schema=schema, orient="row")


def test_counts_of_hours() -> None:
    whole = traffic(3)
    before = whole.filter(pl.col("time") < START + DAY).select("client", pl.col("time").dt.truncate("1h").alias("hour"))
    later = whole.filter(pl.col("time") >= START + DAY)
    found = slot_counts(later, before.unique())
    assert found.columns == ["slot", *COUNTS]
    assert found.height == 46  # the first and the last hour may be cut
    noon = found.row(by_predicate=pl.col("slot") == START + DAY + 12 * HOUR, named=True)
    assert {name: noon[name] for name in COUNTS if name != "new"} == {
        "events": 10, "squares": 12, "clients": 9, "alerts": 1, "unseen": 10, "busiest": 2, "1xx": 0, "2xx": 0,
        "3xx": 0, "4xx": 10, "5xx": 0,
    }  # fmt: skip
    assert noon["new"] == 0  # the new one came at midnight
    empty = slot_counts(later.filter(pl.col("time").dt.hour() != 15), before.unique())
    assert empty.filter(pl.col("slot").dt.hour() == 15)["events"].to_list() == [0, 0]


def reference(days: int = 3, *, hours: bool = True) -> Reference:
    """Features are the hour of the day."""
    whole = traffic(days)
    hour = whole["time"].dt.hour().cast(pl.Float32).to_numpy()
    features = np.repeat(hour[:, None], len(FEATURE_NAMES), axis=1)
    more: dict[str, Any] = {}
    if hours:
        more = {"times": whole["time"], "slots": slot_counts(whole, whole.select("client", hour=pl.col("time"))[:0])}
    frame = make_reference(features, FEATURE_NAMES, hour, hour, points=500, **more)
    dataset = {"digest": "d", "since": START, "fit_until": START, "until": START + days * DAY, "events": 1,
               "clients": 1, "source": "a test"}  # fmt: skip
    card: Any = Card.model_construct(feature_names=list(FEATURE_NAMES), algorithm="iforest", baseline_digest="b" * 64)
    card = card.model_copy(update={"dataset": type("Dataset", (), dataset)})
    version = ModelVersion("oddlog", "3", run_id="", algorithm="iforest", created_ms=0)
    return read_reference(version, card, frame, unseen=unseen_from([99]))


def test_like_hours_are_expected() -> None:
    found = expected_by_reference(reference(), START + 9 * DAY + 11 * HOUR, START + 9 * DAY + 13 * HOUR)
    assert found.points is not None
    assert found.points.height == SKETCH_POINTS
    assert found.points["score"].min() >= 11  # type: ignore[operator]
    assert found.points["score"].mean() == pytest.approx(11.5)
    assert found.figures is not None
    assert (found.figures.events, found.cautions) == (20, [])
    assert found.figures.statuses["4xx"] == 0.5
    assert found.figures.alert_rate == pytest.approx(1 / 18)
    assert found.figures.unseen_paths == 0.5
    assert found.figures.busiest == pytest.approx(0.2)
    assert found.figures.worth == pytest.approx(20**2 / 24)
    assert found.worth == pytest.approx(60**2 / 72)


def test_hours_weigh_by_their_events_and_by_how_much_of_them_there_is() -> None:
    at = START + 9 * DAY
    found = expected_by_reference(reference(), at + 7.5 * HOUR, at + 9 * HOUR)  # five an hour, then ten
    assert found.figures is not None
    assert found.figures.events == 12.5
    assert found.points is not None
    assert (found.points["score"] < 8).mean() == pytest.approx(0.2, abs=0.01)
    whole = expected_by_reference(reference(), at, at + 2 * DAY)
    assert whole.figures is not None
    assert whole.figures.events == 2 * (8 * 5 + 16 * 10)


def test_hours_that_the_reference_lacks_are_told() -> None:
    one = reference()
    assert one.slots is not None
    some = Reference(one.version, one.card, one.frame, one.hours, one.slots.filter(pl.col("slot").dt.hour() < 12), 1.0)
    found = expected_by_reference(some, NOON - HOUR, NOON + HOUR)
    assert "no hour 12 of the day" in found.cautions[0]
    assert found.figures is not None
    assert not found.complete
    none = expected_by_reference(some, NOON, NOON + HOUR)
    assert none.figures is None
    assert none.points is not None


def test_an_older_reference_without_hours_still_gives_distances_and_says_so() -> None:
    found = expected_by_reference(reference(hours=False), NOON, NOON + HOUR)
    assert found.figures is None
    assert found.points is not None
    assert found.points["score"].max() == 23
    assert "before references had hours" in found.cautions[0]
    assert "only 1.0 h long" in found.cautions[1]


def filled(folder: Any, count: int) -> Store:
    """A store with events of version 3, a minute apart from START on, of four clients; some pending, some dead."""
    store = open_store(StoreSettings(url=f"sqlite:///{folder}/events.sqlite"))
    store.setup()
    columns: dict[str, Any] = {
        "@timestamp": [START + dt.timedelta(minutes=n) for n in range(count)],
        "source__address": [f"192.0.2.{n % 4}" for n in range(count)],
        "http__response__status_code": [200 if n % 4 else 500 for n in range(count)],
        **{f"features__{name}": np.arange(count, dtype=np.float32) for name in FEATURE_NAMES},
    }
    write(store, scored(count, **columns)[: count - 10])
    write(store, events(count, **{k: v for k, v in columns.items() if "features" not in k})[count - 10 :].with_columns(
        pl.lit("pending").alias("anomaly.status")))  # fmt: skip
    write_letters(store, dead_letters(3).with_columns(pl.lit(NOON).cast(TIMESTAMP).alias("@timestamp")))
    return store


def test_a_batch_is_read_with_counts_of_all_and_distributions_of_a_sample(tmp_path: Any) -> None:
    store = filled(tmp_path, 4_000)
    found = read_batch(store, reference(), since=START, until=START + 3 * DAY, sample_rows=800)
    assert (found.figures.events, found.scored) == (4_000, 3_990)
    assert found.compared == pytest.approx(800, rel=0.1)
    assert found.points is not None
    assert found.points["path_rarity"].median() == pytest.approx(2_000, rel=0.05)
    assert found.pending == 10 / 4_000
    assert found.figures.statuses["5xx"] == 0.25
    assert found.figures.busiest == 0.25
    assert found.figures.worth == pytest.approx(4, rel=0.02)
    assert found.figures.unseen_paths is not None
    assert found.figures.unseen_paths > 0.99  # all but the first few values are above what is in the baseline
    assert (found.dead, found.lateness, found.figures.new_clients) == ({"no_format": 3}, 0.0, None)
    second = read_batch(store, reference(), since=START + DAY + HOUR, until=START + 2 * DAY, sample_rows=10_000)
    assert second.figures.new_clients == 0.0
    store.close()


def test_a_batch_may_be_empty_but_not_without_an_end(tmp_path: Any) -> None:
    store = filled(tmp_path, 100)
    empty = read_batch(store, reference(), since=START + 9 * DAY, until=START + 10 * DAY, sample_rows=100)
    assert (empty.figures.events, empty.scored, empty.points, empty.lateness) == (0, 0, None, None)
    with pytest.raises(UsageError, match="there are no events from 2024-03-10") as caught:
        read_batch(store, reference(), since=START + 9 * DAY, until=None, sample_rows=100)
    assert "holds 90 events that version 3 scored" in str(caught.value.mend)
    store.close()


def test_a_verdict_counts_judged_features_alone() -> None:
    def told(features: Sequence[tuple[float | None, bool]], by: list[str]) -> str:
        measures = [
            Measure(f"f{number}", "feature", "sd", 1.0, 1.0, effect, 0.3, drifted)
            for number, (effect, drifted) in enumerate(features)
        ]
        made = reference()
        return Check(
            id="x", reference=made, batch=cast(Batch, None), expected=expected_by_reference(made, START, NOON),
            verdict=Verdict(measures, 0.0, bool(by), by), max_share=0.3, cautions=[], checked_at=NOON,
        ).text  # fmt: skip

    assert told([(0.1, False), (0.5, True), (None, False)], []) == (
        "not drifted: 1 of 2 features are past their limit (the batch drifts by them at 30 %)"
    )
    assert told([(None, False)] * 2, ["dominance"]) == "drifted: no feature was judged; past its limit: dominance"


def document(**changes: Any) -> dict[str, Any]:
    return {
        "checked_at": "2024-03-01T12:00:00.000Z",
        "against": "reference",
        "model": {"name": "<oddlog>", "version": "7", "algorithm": "iforest", "baseline": "b" * 64},
        "reference": {"since": "2024-02-01T00:00:00.000Z", "until": "2024-02-03T00:00:00.000Z"},
        "batch": {"since": "2024-03-01T00:00:00.000Z", "until": "2024-03-02T00:00:00.000Z", "events": 12_345,
                  "scored": 12_000, "compared": 10_000, "clients": 78, "worth": 33.4},
        "method": "normed wasserstein",
        "drifted": True,
        "verdict": "drifted: all of it",
        "cautions": ["mind the <night>"],
        **changes,
    }  # fmt: skip


def test_the_page_stands_alone_and_escapes() -> None:
    base = {"group": "feature", "unit": "sd", "limit": 0.3, "value": 1.0, "expected": 0.5, "note": ""}
    measures = [
        {**base, "name": f"f{n}", "effect": 2 - n / 10, "drifted": n < 3, "sentence": f"what <{n}> is"}
        for n in range(12)
    ]
    flow = {"group": "flow", "name": "volume", "effect": None, "note": "nothing came"}
    measures.append({**base, **flow, "drifted": False, "sentence": "events: 1"})
    points = pl.DataFrame({f"f{n}": np.arange(100.0) for n in range(12)})
    page = render(document(), measures, points, points)
    assert page.startswith("<!DOCTYPE html>")
    assert "<title>Drift of &lt;oddlog&gt; version 7</title>" in page
    for text in ("Drifted: all of it", "12,345 events of 78 clients", "Mind the &lt;night&gt;.", "What &lt;2&gt; is."):
        assert text in page
    assert "<oddlog>" not in page
    assert page.count("<svg") == 10  # the first ten features
    assert page.index("What &lt;0&gt;") < page.index("What &lt;9&gt;")
    assert "http" not in page
    assert "<script" not in page
    assert len(page) < 100_000


class AwayThenEmpty:
    """A registry that fails once, then has no champion."""

    def __init__(self) -> None:
        self.asked = 0

    def by_alias(self, alias: str) -> ModelVersion | None:
        self.asked += 1
        if self.asked == 1:
            raise RegistryError("away")
        return None


def test_the_loop_outlives_a_registry_that_is_away_and_waits_for_a_champion(tmp_path: Any) -> None:
    settings = Settings(monitor=MonitorSettings(poll_seconds=0.01))
    store, registry, gauges = filled(tmp_path, 20), AwayThenEmpty(), DriftGauges()
    one: Any = registry
    loop = Monitor(settings, store, one, every="1h", observe=gauges)
    thread = threading.Thread(target=loop.run)
    thread.start()
    until(lambda: registry.asked > 3, "a few rounds")
    other = Monitor(settings, store, one, every="6h")
    assert other.catch_up().waiting_for.startswith("no model is champion")
    loop.stop()
    thread.join(20)
    assert not thread.is_alive()
    assert store.acquire_lock("monitor-oddlog-1h", "another", 1) is None  # given back
    with metrics_port(gauges, "127.0.0.1", 0) as port:
        text = httpx.get(f"http://127.0.0.1:{port}/metrics").text
        with pytest.raises(UsageError, match="cannot be had"), metrics_port(gauges, "127.0.0.1", port):
            pass
    assert 'oddlog_monitor_checks_total{outcome="failed"} 1.0' in text
    assert "oddlog_monitor_leading 1.0" in text
    store.close()


def test_a_monitor_whose_lock_was_taken_over_checks_nothing_more(tmp_path: Any) -> None:
    """A check that outlasts the lock: whoever took it goes on from the place that is kept."""
    store = filled(tmp_path, 20)
    settings = Settings(monitor=MonitorSettings(lock_seconds=0.05))

    class Slow:
        def by_alias(self, alias: str) -> ModelVersion:
            until(lambda: store.acquire_lock("monitor-oddlog-1h", "another", 60) is None, "the lock runs out")
            return ModelVersion("oddlog", "1", "run", "surprise", 0)

    one: Any = Slow()
    done = Monitor(settings, store, one, every="1h").catch_up()
    assert done.waiting_for.startswith("another holds the lock")
    assert done.checked == 0
    assert store.list_documents("runs") == []
    assert store.acquire_lock("monitor-oddlog-1h", "a third", 1) == "another"  # not given back by who lost it
    store.close()


def test_importing_the_verbs_loads_nothing_heavy() -> None:
    code = "import cli.drift, cli.monitor, json, sys; print(json.dumps(sorted(sys.modules)))"
    loaded = json.loads(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout)
    assert not {"evidently", "mlflow", "polars", "pandas", "onnxruntime"} & set(loaded)


def test_importing_the_loop_does_not_load_evidently() -> None:
    code = "import monitoring.monitor, json, sys; print(json.dumps(sorted(sys.modules)))"
    loaded = json.loads(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout)
    assert not {"evidently", "mlflow", "pandas"} & set(loaded)
