"""What of one training is logged to MLflow, and under which names: tags, parameters, metrics, figures, card.

How it is logged is in oddlog/connectors/mlflow_training.py; nothing is measured here.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from oddlog.connectors.mlflow_training import LoggedDataset, TrainingRun
from oddlog.scoring.card import Card
from oddlog.scoring.model import Model, Verdict
from oddlog.settings import Settings
from training import figures
from training.alerts import Alert, as_document, as_page
from training.card import describe
from training.evaluate import ATTACK, UNKNOWN, Labelled, Planted, Quality, quality_of, truth_of
from training.fit import GraphCheck
from training.prepare import Prepared

PRIVACY = "data.privacy"
"""The parameter of a run that tells under which privacy its events were made, where they were."""

if TYPE_CHECKING:
    from matplotlib.figure import Figure


GRAPH_TAG = "graph_difference"
"""Largest difference of a score between graph and reference: the reference itself is not kept, so a gate asks this."""

CAUTION_TAG = "caution."
"""Before the name of a check that had something to say of the events."""

EXAMPLE_ROWS = 3
EXAMPLE_EVENTS = 1_000
"""Events that MLflow takes the schema of a data set from."""
CONTRIBUTION_ROWS = 2_000
"""Events of either kind that mean contributions are drawn from."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was measured of one model."""

    verdict: Verdict
    """On the later events."""
    planted_scores: npt.NDArray[np.float32]
    labelled: Labelled | None
    planted: Planted | None
    held_out_alerts: float | None
    first_alerts: list[Alert]

    @property
    def scores(self) -> npt.NDArray[np.float32]:
        """Of the later events, by the first channel."""
        return self.verdict.score

    @property
    def quality(self) -> Quality | None:
        """What the model is ranked by."""
        return quality_of(self.labelled, self.planted)


def training_run(
    settings: Settings,
    prepared: Prepared,
    card: Card,
    outcome: Outcome,
    check: GraphCheck,
    seconds: dict[str, float],
    artifact: Path,
    model: Model,
) -> TrainingRun:
    """Everything that a run shows of one model: `check` and `seconds` by step are of its training."""
    data, options = card.dataset, settings.train
    tags = {
        "algorithm": card.algorithm,
        "status": "candidate",
        "feature_digest": card.feature_digest,
        "baseline_digest": card.baseline_digest,
        "dataset_digest": data.digest,
        "model_digest": card.model_digest,
        "oddlog_version": card.oddlog_version,
        GRAPH_TAG: f"{check.score:.9g}",
    }
    tags |= {f"{CAUTION_TAG}{caution.name}": caution.text for caution in prepared.cautions}
    if (commit := _git_commit()) is not None:
        tags["git_commit"] = commit
    if outcome.quality is not None:
        tags["quality"] = f"{outcome.quality.average_precision:.4f}"
        tags["quality_basis"] = outcome.quality.basis
    name = f"{card.algorithm} {data.since:%Y-%m-%d} to {data.until:%Y-%m-%d}, {data.events:,} events"
    return TrainingRun(
        name=name,
        started_at=card.created_at,
        tags=tags,
        parameters={
            "data.source": data.source,
            "data.digest": data.digest,
            "data.since": data.since.isoformat(),
            "data.fit_until": data.fit_until.isoformat(),
            "data.until": data.until.isoformat(),
            **({} if card.privacy is None else {PRIVACY: card.privacy.model_dump_json()}),
            "train.algorithm": card.algorithm,
            "train.fit_share": options.fit_share,
            "train.budget": options.budget,
            "train.seed": options.seed,
            "train.features": options.features,
            "train.parameters": json.dumps(options.parameters.get(card.algorithm, {}), sort_keys=True),
            "train.sample": prepared.options.sample,
            "train.exclude_alerted": options.exclude_alerted,
            **({} if options.exclude_up_to is None else {"train.exclude_up_to": options.exclude_up_to}),
            "features.digest": card.feature_digest,
            "features.names": ", ".join(card.feature_names),
            "features.baseline": card.baseline_digest,
            **{f"detector.{name}": value for name, value in card.parameters.items()},
        },
        metrics=_metrics(prepared, card, outcome, check, seconds, artifact),
        figures=_figures(prepared, card, outcome, model, options.seed),
        documents={
            "card.json": card.model_dump(
                mode="json", exclude={"calibration": True, "golden": True, "novelty": {"calibration", "golden"}}
            ),
            "first_alerts.json": as_document(outcome.first_alerts),
        },
        texts={"first_alerts.html": as_page(outcome.first_alerts, f"First alerts of {name}")},
        dataset=LoggedDataset(
            next(prepared.dataset.batches(rows=EXAMPLE_EVENTS)),
            prepared.dataset.snapshot,
            data.digest,
            data.source,
            "training",
            rows=prepared.dataset.rows,
        ),
        artifact=artifact,
        description=describe(
            card,
            outcome.labelled,
            outcome.planted,
            outcome.held_out_alerts,
            cautions=[caution.text for caution in prepared.cautions],
            sampling=prepared.sampling,
            left_out=(prepared.left_out.clients, prepared.left_out.events) if options.exclude_alerted else None,
        ),
        example=np.ascontiguousarray(prepared.fitted.later[:EXAMPLE_ROWS]),
        threshold=card.threshold,
    )


def _metrics(
    prepared: Prepared,
    card: Card,
    outcome: Outcome,
    check: GraphCheck,
    seconds: dict[str, float],
    artifact: Path,
) -> dict[str, float]:
    found: dict[str, float] = {
        "data/events": card.dataset.events,
        "data/fitted_events": prepared.fitted_events,
        "data/later_events": prepared.later.height,
        "data/clients": card.dataset.clients,
        "data/sample_share": prepared.options.sample,
        "data/behaviours": int(prepared.fitted.baseline.units[0]),
        "data/baseline_entries": prepared.fitted.baseline.entries,
        "data/alerted_clients_left_out": prepared.left_out.clients,
        "data/alerted_events_left_out": prepared.left_out.events,
        "threshold/value": card.threshold.value,
        "threshold/alerts_per_day": card.threshold.expected_per_day,
        "graph/rows_compared": check.rows,
        "graph/largest_score_difference": check.score,
        "graph/largest_contribution_difference": check.contribution,
        "size/artifact_bytes": sum(file.stat().st_size for file in artifact.iterdir()),
    }
    if card.threshold.novelty is not None:
        found["novelty/threshold"] = card.threshold.novelty.value
        found["novelty/alerts_per_day"] = card.threshold.novelty.expected_per_day
    if outcome.held_out_alerts is not None:
        found["threshold/alerts_per_day_held_out"] = outcome.held_out_alerts
    if (labelled := outcome.labelled) is not None:
        found |= {
            "labels/attacks": labelled.attacks,
            "labels/benign": labelled.benign,
            "labels/average_precision": labelled.average_precision,
            "labels/roc_auc": labelled.roc_auc,
            "labels/precision_at_1_percent": labelled.precision_at_1_percent,
            "labels/recall_at_budget": labelled.recall_at_budget,
            "labels/precision_at_budget": labelled.precision_at_budget,
        }
    if (planted := outcome.planted) is not None:
        found |= {
            "planted/events": planted.events,
            "planted/average_precision": planted.average_precision,
            "planted/detected": planted.detected,
        }
        for name, one in planted.by_scenario.items():
            found[f"planted/{name}/average_precision"] = one.average_precision
            found[f"planted/{name}/detected"] = one.detected
    if outcome.quality is not None:
        found["quality/average_precision"] = outcome.quality.average_precision
    found |= {f"checks/{caution.name}": caution.figure for caution in prepared.cautions}
    return found | {f"seconds/{step}": spent for step, spent in seconds.items()}


def _figures(prepared: Prepared, card: Card, outcome: Outcome, model: Model, seed: int) -> dict[str, Figure]:
    truth = truth_of(prepared.later["labels.truth"])
    is_planted = prepared.planted.scenario.is_not_null().to_numpy()
    own_attacks = truth_of(prepared.planted.events["labels.truth"]) == ATTACK
    curves = []
    if outcome.labelled is not None:
        known = truth != UNKNOWN
        curves.append(
            figures.Curve("labels", outcome.scores[known], truth[known] == ATTACK, outcome.labelled.average_precision)
        )
    if outcome.planted is not None:
        rows = is_planted | ~own_attacks
        curves.append(
            figures.Curve(
                "planted attacks",
                outcome.planted_scores[rows],
                is_planted[rows],
                outcome.planted.average_precision,
            )
        )
    value, what = card.threshold.value, f"{card.algorithm}, {card.dataset.events:,} events"
    odd = np.flatnonzero(outcome.scores >= value)
    sound = np.flatnonzero(outcome.scores < value)
    random = np.random.default_rng(seed)
    odd, sound = (
        random.choice(rows, min(CONTRIBUTION_ROWS, len(rows)), replace=False) if len(rows) else rows
        for rows in (odd, sound)
    )
    later = prepared.fitted.later
    return {
        "score_histogram.png": figures.score_histogram(
            f"Scores of the later events: {what}",
            outcome.scores,
            value,
            {
                "labelled attacks": outcome.scores[truth == ATTACK],
                "planted attacks": outcome.planted_scores[is_planted],
            },
        ),
        "precision_recall.png": figures.precision_recall(f"Precision and recall: {what}", curves),
        "scores_over_time.png": figures.scores_over_time(
            f"Scores over time: {what}", prepared.later["@timestamp"], outcome.scores, value, seed=seed
        ),
        "contributions.png": figures.mean_contributions(
            f"What the scores are made of: {what}",
            card.feature_names,
            model.contributions(later[odd]),
            model.contributions(later[sound]),
        ),
    }


def _git_commit() -> str | None:
    """The commit that this code is of, `-dirty` where it was changed since; None where no repository tracks it."""
    here = Path(__file__)
    # Installed below another project, this code is not of that project's commit.
    if _git(here.parent, "ls-files", "--error-unmatch", here.name) is None:
        return None
    return _git(here.parent, "describe", "--always", "--dirty", "--abbrev=40", "--exclude", "*")


def _git(folder: Path, *arguments: str) -> str | None:
    """What git says; None where it says nothing, fails, or is not there."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None
