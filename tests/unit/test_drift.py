"""Drift without Evidently: how a batch is sampled, how periods are read, what the page shows."""

from __future__ import annotations

import datetime as dt
import json
import subprocess
import sys
from typing import Any

import polars as pl
import pytest

from cli.times import duration, moment, period
from monitoring.batch import sample_by_client
from monitoring.report import render
from oddlog.errors import UsageError

START = dt.datetime(2024, 3, 1, tzinfo=dt.UTC)
NOON = dt.datetime(2024, 3, 1, 12, tzinfo=dt.UTC)


def events(per_client: dict[str, int]) -> pl.DataFrame:
    clients = [client for client, count in per_client.items() for _ in range(count)]
    return pl.DataFrame(
        {
            "source.address": clients,
            "@timestamp": [START + dt.timedelta(seconds=7 * i % 1_000) for i in range(len(clients))],
            "oddlog.position.offset": range(len(clients)),
        }
    )


def test_every_client_keeps_its_share_of_the_sample() -> None:
    whole = events({"busy": 6_000, "middling": 3_000, **{f"small {i}": 10 for i in range(100)}})
    counts = dict(sample_by_client(whole, 1_000)["source.address"].value_counts().iter_rows())
    assert counts["busy"] == pytest.approx(600, abs=1)
    assert counts["middling"] == pytest.approx(300, abs=1)
    assert all(counts[f"small {i}"] == 1 for i in range(100))


def test_a_sample_does_not_depend_on_the_order_of_reading() -> None:
    whole = events({"a": 500, "b": 700})
    shuffled = whole.sample(fraction=1, shuffle=True, seed=1)
    assert sample_by_client(whole, 100).equals(sample_by_client(shuffled, 100))


def test_a_sample_is_in_order_of_time_and_without_repetition() -> None:
    for rows in (1, 99, 1_200, 5_000):
        sample = sample_by_client(events({"a": 500, "b": 700}), rows)
        assert sample.height == min(rows, 1_200)
        assert sample["@timestamp"].is_sorted()
        assert sample["oddlog.position.offset"].n_unique() == sample.height


def test_periods() -> None:
    assert period(None, None, now=NOON) == (None, None)
    assert period(None, None, "1.5d", now=NOON) == (NOON - dt.timedelta(hours=36), NOON)
    assert period("2024-03-01T12:00:00+02:00", None) == (NOON - dt.timedelta(hours=2), None)
    assert moment("--since", "2024-03-01") == START


@pytest.mark.parametrize("text", ["", "1", "h", "0h", "-1h", "1y", "1h30m"])
def test_lengths_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="length of time"):
        duration(text)


def document(**changes: Any) -> dict[str, Any]:
    return {
        "@timestamp": "2024-03-01T12:00:00.000Z",
        "model": {"name": "<oddlog>", "version": "7", "algorithm": "iforest", "baseline": "b" * 64},
        "reference": {"since": "2024-02-01T00:00:00.000Z", "until": "2024-02-03T00:00:00.000Z", "points": 5_000},
        "batch": {"since": "2024-03-01T00:00:00.000Z", "until": "2024-03-02T00:00:00.000Z", "events": 12_345,
                  "compared": 10_000, "clients": 78},
        "method": "normed wasserstein",
        "limit": 0.2,
        "drifted": True,
        "verdict": "drifted: all of it",
        "cautions": ["mind the <night>"],
        "columns": [
            {"name": "path_rarity", "distance": 0.51234, "drifted": True, "mean": 1.0, "reference_mean": 0.5,
             "note": ""},
            {"name": "score", "distance": None, "drifted": True, "mean": None, "reference_mean": 0.5,
             "note": "the batch has no values"},
        ],
        **changes,
    }  # fmt: skip


def test_the_page_stands_above_evidentlys_and_escapes() -> None:
    page = render(document(), "<!DOCTYPE html><html><head><x></head><body><p>theirs</p></body></html>")
    assert page.index("<title>Drift of &lt;oddlog&gt; version 7</title>") < page.index("</head>")
    assert page.index("Drifted: all of it") < page.index("<p>theirs</p>")
    for text in ("12,345 events of 78 clients", "5,000 quantile points", "0.512", "the batch has no values", "–"):
        assert text in page
    assert "Mind the &lt;night&gt;." in page
    assert "<oddlog>" not in page


def test_the_page_stands_alone_where_nothing_could_be_compared() -> None:
    page = render(document(drifted=False, verdict="not drifted"), "")
    assert page.startswith("<!DOCTYPE html>")
    assert 'class="verdict sound">Not drifted' in page


def test_importing_the_verb_loads_nothing_heavy() -> None:
    code = "import cli.drift, json, sys; print(json.dumps(sorted(sys.modules)))"
    loaded = json.loads(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout)
    assert not {"evidently", "mlflow", "polars", "pandas", "onnxruntime"} & set(loaded)


def test_importing_the_check_does_not_load_evidently() -> None:
    code = "import monitoring.drift, json, sys; print(json.dumps(sorted(sys.modules)))"
    loaded = json.loads(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout)
    assert not {"evidently", "mlflow", "pandas"} & set(loaded)
