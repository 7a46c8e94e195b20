"""A simulated site that goes on: events come in steps and are scored by the champion of the day, batches are checked
for drift, retrainings asked for. Everything is the product's own, embedded; only the clock is simulated.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from monitoring.documents import stored
from monitoring.drift import measure
from monitoring.lately import drifting
from monitoring.limits import load_limits
from monitoring.reference import Reference, fetch_reference
from oddlog.connectors.by_url import open_registry, open_store
from oddlog.connectors.registry import CHAMPION, ModelVersion
from oddlog.connectors.store import EventQuery
from oddlog.events.logfile import records_from_lines
from oddlog.events.parse import parse
from oddlog.events.schema import EVENT_ID
from oddlog.features.compute import FeatureComputer
from oddlog.features.declaration import FEATURE_NAMES
from oddlog.features.fitting import units_of
from oddlog.scoring.local import LocalScorer
from oddlog.scoring.model import Model
from oddlog.scoring.shelf import ModelShelf
from oddlog.settings import Settings
from serving.documents import scored_events
from training.dataset import FEATURE_COLUMNS
from training.due import Change, Conditions
from training.retrain import Retraining, retrain
from training.train import train

HOUR, DAY = dt.timedelta(hours=1), dt.timedelta(days=1)
LEAD_IN = 14 * DAY
NAMES = list(FEATURE_NAMES)
PROJECT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True)
class Alerts:
    """Of a day. An alert is a (client, hour) with an anomaly; a false one has no event of an attack."""

    false: int
    """Like ones counted once: the unit of a budget."""
    false_hours: int
    """Each counted."""
    attack_hours: int
    """(client, hour) with an event of an attack."""
    found_hours: int
    """Those of them with an alert."""


class LivingSite:
    """Store, registry and clock below a folder. Labels are known to who measures, not to the store."""

    def __init__(
        self,
        folder: Path,
        lines: Sequence[str],
        labels: Sequence[str],
        *,
        algorithm: str = "iforest",
        seed: int = 0,
        **options: Any,
    ) -> None:
        """`lines` need not be in order of time; `options` are settings of retraining."""
        self.settings = Settings.model_validate(
            {
                "store": {"url": f"sqlite:///{folder}/oddlog.sqlite"},
                "registry": {"url": f"sqlite:///{folder}/mlflow.db", "artifacts": str(folder / "artifacts")},
                "train": {"algorithm": algorithm, "seed": seed, "pulls": folder / "pulls"},
                "promote": {"reports": folder / "reports", "gates": PROJECT / "gates.toml"},
                "drift": {"limits": PROJECT / "drift.toml"},
                "retrain": {"auto_promote": True, **options},
            }
        )
        self.folder = folder
        self.store, self.registry = open_store(self.settings.store), open_registry(self.settings.registry)
        self.store.setup()
        records = records_from_lines([line.encode() for line in lines], labels=list(labels))
        events = parse(records).events.sort("@timestamp", maintain_order=True)
        number = pl.int_range(events.height, dtype=pl.Int64, eager=True).alias("oddlog.position.offset")
        events = events.with_columns(number).with_columns(EVENT_ID)
        self.labels = events.select("_id", "labels.truth")
        self.events = events.with_columns(pl.lit(None, dtype=pl.String).alias("labels.truth"))
        self._shelf = ModelShelf("oddlog")
        self._reference: Reference | None = None
        self._computer: tuple[str, FeatureComputer, dt.datetime] | None = None

    def begin(self, until: dt.datetime) -> None:
        """Everything before `until` is there, unscored; a first champion is made of it."""
        self._write(self._between(None, until).with_columns(pl.lit("pending").alias("anomaly.status")))
        first = train(self.settings, store=self.store, registry=self.registry)
        self.registry.set_alias(CHAMPION, first.version)

    def live(self, since: dt.datetime, until: dt.datetime) -> None:
        """What comes in a period is scored by the champion, and stored."""
        events = self._between(since, until)
        if not events.height:
            return
        version = self.champion.version
        if self._computer is None or self._computer[0] != version or self._computer[2] != since:
            model = Model.load(self.registry.download(version, self.folder / "models"))
            self._shelf.hold(version, model, self.champion.threshold)
            self._shelf.set_champion(version)
            self._computer = (version, FeatureComputer(model.baseline), since)
            self._computer[1].compute(self._between(since - LEAD_IN, since))
        features = self._computer[1].compute(events)
        self._computer = (*self._computer[:2], until)
        scores = LocalScorer(self._shelf).score(features, NAMES, version=version)
        self._write(scored_events(events, features, NAMES, scores))

    def check(self, since: dt.datetime, until: dt.datetime) -> bool:
        """Judge a batch for drift, and keep the verdict as monitoring does; whether it drifted."""
        if self._reference is None or self._reference.version.version != self.champion.version:
            self._reference = fetch_reference(self.registry)
        found = measure(
            self.store, self._reference, load_limits(self.settings.drift.limits), since=since, until=until,
            against="reference", sample_rows=self.settings.drift.sample_rows,
        )  # fmt: skip
        for id, document in stored(found).items():
            self.store.put_document("drift", id, document)
        return found.verdict.drifted

    def retrain(self, conditions: Conditions, now: dt.datetime) -> Retraining:
        """`oddlog retrain` at a time of the simulation."""

        def change(version: ModelVersion, newest: dt.datetime) -> Change | None:
            found = drifting(self.store, version, newest=newest)
            return None if found is None else Change(found.since, found.until, found.verdict)

        return retrain(
            self.settings, conditions, drift=change, store=self.store, registry=self.registry, now=lambda: now
        )

    @property
    def champion(self) -> ModelVersion:
        """The version in place."""
        found = self.registry.by_alias(CHAMPION)
        assert found is not None
        return found

    def alerts(self, since: dt.datetime, until: dt.datetime) -> Alerts:
        """What the alerts of a day were worth."""
        columns = ["_id", "anomaly.is_anomaly", *FEATURE_COLUMNS]
        events = pl.concat(
            self.store.read_events(EventQuery(since=since, until=until), columns=columns, order="position")
        )
        label = pl.col("labels.truth")
        known = (
            events.with_columns(pl.Series("behaviour", units_of(events)[0]), odd=pl.col("anomaly.is_anomaly"))
            .join(self.labels, on="_id", how="left")
            .with_columns(pl.col("@timestamp").dt.truncate("1h").alias("hour"))
            .with_columns(attack=label.str.starts_with("attack").any().over("source.address", "hour"))
        )
        hours = known.group_by("source.address", "hour", "attack").agg(pl.col("odd").any())
        false = known.filter(pl.col("odd") & ~pl.col("attack"))
        return Alerts(
            false=false["behaviour"].n_unique(),
            false_hours=hours.filter(pl.col("odd") & ~pl.col("attack")).height,
            attack_hours=hours.filter("attack").height,
            found_hours=hours.filter(pl.col("odd") & pl.col("attack")).height,
        )

    def close(self) -> None:
        """Let the store go."""
        self.store.close()

    def _between(self, since: dt.datetime | None, until: dt.datetime) -> pl.DataFrame:
        time = pl.col("@timestamp")
        return self.events.filter((time < until) if since is None else (time >= since) & (time < until))

    def _write(self, events: pl.DataFrame) -> None:
        outcome = self.store.write_events(events)
        assert not outcome.rejected
        assert not outcome.retry
