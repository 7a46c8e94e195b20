"""The loop of marks, in one process on a simulated site: false alarms -> a mark -> a retraining -> fewer of them -> a
champion that passed the gates. And the same without the mark, which mends nothing.

When the champion has been trained, a partner's programs begin to post to an API of their own, soundly and for good.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from oddlog.connectors.by_url import open_registry, open_store
from oddlog.connectors.registry import CHAMPION, Registry
from oddlog.connectors.store import EventQuery, Store
from oddlog.events.logfile import records_from_lines
from oddlog.events.parse import parse
from oddlog.features.compute import FeatureComputer
from oddlog.scoring.local import LocalScorer
from oddlog.scoring.model import Model
from oddlog.scoring.shelf import ModelShelf
from oddlog.settings import Settings
from oddlog.simulation import simulate
from serving.backfill import backfill
from tests.verbs import run_verb
from training.train import train

MINUTE, DAY = dt.timedelta(minutes=1), dt.timedelta(days=1)
SITE = simulate(seed=5, lines=9_000, days=6, attack_share=0.04)
BEGIN = SITE.start + 3 * DAY
PARTNERS = [f"198.51.100.{n}" for n in range(1, 13)]
PREFIX = "/partner/"


def partner_lines() -> list[tuple[dt.datetime, str]]:
    """Every partner posts of three kinds, every 84 minutes."""
    times = [BEGIN + n * 7 * MINUTE for n in range(int((SITE.end - BEGIN) / (7 * MINUTE)))]
    return [
        (
            time,
            f"{PARTNERS[n % len(PARTNERS)]} - - [{time:%d/%b/%Y:%H:%M:%S +0000}] "
            f'"POST {PREFIX}{("invoices", "deliveries", "returns")[n % 3]}/export?customer={n % 40} HTTP/1.1" '
            f'200 {900 + n % 50} "-" "partner-sync/2"',
        )
        for n, time in enumerate(times)
    ]


def time_of(line: str) -> dt.datetime:
    return dt.datetime.strptime(line.split("[", 1)[1][:26], "%d/%b/%Y:%H:%M:%S %z")


@dataclass(frozen=True)
class Place:
    """Store and registry, with a champion of before the partners by which everything is scored."""

    folder: Path
    settings: Settings
    store: Store
    registry: Registry

    def verb(self, *arguments: str) -> dict[str, Any]:
        """What a verb tells about itself, at these places."""
        env = {
            "ODDLOG_STORE__URL": self.settings.store.url,
            "ODDLOG_REGISTRY__URL": self.settings.registry.url,
            "ODDLOG_REGISTRY__ARTIFACTS": self.settings.registry.artifacts,
            "ODDLOG_TRAIN__PULLS": str(self.settings.train.pulls),
            "ODDLOG_TRAIN__ALGORITHM": "surprise",
            "ODDLOG_PROMOTE__REPORTS": str(self.folder / "reports"),
        }
        done = run_verb(*arguments, "--json", env=env)
        assert done.exit_code == 0, done.output
        found = json.loads(done.stdout)
        assert isinstance(found, dict)
        return found

    def partners_alerts(self, version: str) -> int:
        """Their alerts, distinct (client, hour), in the last day, by a version."""
        model = Model.load(self.registry.download(version, self.folder / "models"))
        events = pl.concat(self.store.read_events(EventQuery(), order="position"))
        odd = model.judge(FeatureComputer(model.baseline).compute(events)).is_anomaly
        of_partners = pl.col("source.address").is_in(PARTNERS) & (pl.col("@timestamp") >= SITE.end - DAY)
        hours = events.filter(pl.Series(odd) & of_partners).select(
            "source.address", pl.col("@timestamp").dt.truncate("1h")
        )
        return hours.n_unique()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    settings = Settings.model_validate(
        {
            "store": {"url": f"sqlite:///{tmp_path}/oddlog.sqlite"},
            "registry": {"url": f"sqlite:///{tmp_path}/mlflow.db", "artifacts": str(tmp_path / "artifacts")},
            "train": {"algorithm": "surprise", "pulls": tmp_path / "pulls"},
        }
    )
    made = Place(tmp_path, settings, open_store(settings.store), open_registry(settings.registry))
    lines = sorted([*((time_of(line), line) for line in SITE.lines), *partner_lines()], key=lambda line: line[0])
    events = parse(records_from_lines([line.encode() for _, line in lines])).events
    made.store.setup()
    made.store.write_events(events.with_columns(pl.lit("pending").alias("anomaly.status")))
    first = train(settings, until=BEGIN, store=made.store, registry=made.registry)
    made.registry.set_alias(CHAMPION, first.version)
    shelf = ModelShelf("oddlog")
    shelf.hold(first.version, Model.load(made.registry.download(first.version, tmp_path / "models")))
    shelf.set_champion(first.version)
    backfill(made.store, LocalScorer(shelf), lead_in=14 * DAY)
    yield made
    made.store.close()


def test_false_alarms_that_are_marked_are_fewer_after_the_next_training(place: Place) -> None:
    first = place.registry.by_alias(CHAMPION)
    assert first is not None
    before = place.partners_alerts(first.version)
    assert before > 100

    nothing = place.verb("retrain", "--when", "marks 1")
    assert (nothing["outcome"], nothing["version"]) == ("not-due", None)

    # What was alerted on is not learnt: a training alone mends nothing.
    unmarked = place.verb("retrain", "--no-promote")
    assert unmarked["outcome"] in {"ready", "rejected"}
    assert place.partners_alerts(unmarked["version"]) > 0.9 * before

    place.verb("mark", "--path-prefix", PREFIX, "--as", "false-alarm", "--note", "our partners", "--by", "ada")
    early = place.verb("retrain", "--when", "marks 1", "--promote")
    assert (early["outcome"], early["version"]) == ("cooling-down", None)
    place.store.delete_document("runs", "retrain-oddlog")
    done = place.verb("retrain", "--when", "marks 1", "--promote")
    assert done["outcome"] == "promoted", done["why"]
    assert (done["promoted"], done["replaced"]) == (done["version"], first.version)
    assert "1 marks since version 1 was trained" in done["why"]
    champion = place.registry.by_alias(CHAMPION)
    assert champion is not None
    assert champion.version == done["version"]
    assert place.partners_alerts(done["version"]) < 0.1 * before
    (gate,) = (verdict for verdict in done["verdicts"] if verdict["gate"] == "marks")
    assert gate["outcome"] == "pass"
    assert "0 of" in gate["figure"]
    run_tags = champion.tags
    assert run_tags["retrained_because"].startswith("1 marks")
