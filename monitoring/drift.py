"""A drift check, from store and registry to its verdict and everything that it leaves. No retraining.

What it leaves, in this order: HTML and JSON files, the Evidently snapshot, the MLflow run, a document of each measure,
and last the document of the batch: where that is, the check is whole. The same check again replaces all of it.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from monitoring.batch import Batch, expected_by_batch, read_batch, rows_within
from monitoring.comparison import METHOD, compare, distances
from monitoring.documents import Check, batch_document, check_id, measure_documents, stored
from monitoring.expected import Against, Expected
from monitoring.judgement import judge, limit_of
from monitoring.limits import Limits, load_limits
from monitoring.period import earlier
from monitoring.reference import Reference, expected_by_reference, fetch_reference
from monitoring.report import render
from monitoring.workspace import put_snapshot
from oddlog.connectors.mlflow_monitoring import MonitoringRun, log_monitoring
from oddlog.connectors.registry import Registry
from oddlog.connectors.store import Store
from oddlog.settings import Settings
from oddlog.whole_file import whole_file

FEW_CLIENTS = 50
"""Events of one client resemble each other: a batch is as good as the clients it is worth."""


@dataclass(frozen=True, slots=True)
class DriftResult:
    """The verdict on a batch, and where everything about it lies."""

    check: Check
    report: Path
    """The HTML report; the same as JSON lies beside it."""

    @property
    def id(self) -> str:
        """Of the check: model version, period, what it was compared with."""
        return self.check.id

    @property
    def drifted(self) -> bool:
        """By its features, or by anything else that has a limit."""
        return self.check.verdict.drifted

    @property
    def verdict(self) -> str:
        """In a sentence."""
        return self.check.text

    @property
    def run_id(self) -> str:
        """The MLflow run."""
        return self.check.run_id

    def document(self) -> dict[str, Any]:
        """As JSON: the document of the batch and those of its measures. What `--json` prints and the file holds."""
        return {**batch_document(self.check), "measures": measure_documents(self.check)}


def check_drift(
    settings: Settings,
    store: Store,
    registry: Registry,
    *,
    since: dt.datetime | None = None,
    until: dt.datetime | None = None,
    against: Against = "reference",
    version: str | None = None,
    reference: Reference | None = None,
    report: Path | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> DriftResult:
    """Compare a batch with what was to be expected of it, and keep the result.

    `since` None: everything later than the training data of the version; `version` None: the champion; `reference`:
    its, where it is there already. `report`: where the HTML goes (None: into the workspace of the settings).
    `progress` is told each step.

    Raises UsageError where there is no champion, the limits cannot be read, or an open period has no events;
    RegistryError, StoreError.
    """
    limits = load_limits(settings.drift.limits)
    progress("fetching the reference")
    reference = reference or fetch_reference(registry, version)
    since = since or reference.card.dataset.until + dt.timedelta(milliseconds=1)  # `until` is its last event
    progress("reading the batch")
    rows = rows_within(settings.drift.memory_mb, settings.drift.sample_rows)
    check = measure(store, reference, limits, since=since, until=until, against=against,
                    sample_rows=rows, progress=progress, keep=settings)  # fmt: skip
    progress("writing the report")
    path = (report or settings.drift.workspace / f"{check.id}.html").absolute()
    check = replace(check, report=str(path))
    page = render(batch_document(check), measure_documents(check), check.expected.points, check.batch.points)
    _write(path, page)
    _write(path.with_suffix(".json"), _json(check))
    progress("logging to MLflow")
    run_id = log_monitoring(settings.registry, reference.version, _run(check, page))
    check = replace(check, run_id=run_id)
    _write(path.with_suffix(".json"), _json(check))
    for id, document in stored(check).items():
        store.put_document("drift", id, document)
    return DriftResult(check, path)


def measure(
    store: Store,
    reference: Reference,
    limits: Limits,
    *,
    since: dt.datetime,
    until: dt.datetime | None,
    against: Against,
    sample_rows: int,
    progress: Callable[[str], None] = lambda _: None,
    keep: Settings | None = None,
) -> Check:
    """The verdict on a batch, with nothing written but, where `keep` is given, the Evidently snapshot.

    Without `keep` the distances are computed without Evidently's report, which takes most of the time."""
    batch = read_batch(store, reference, since=since, until=until, sample_rows=sample_rows)
    expected = expected_by_reference(reference, batch.since, batch.until)
    if (before := earlier(against, batch.since, batch.until)) is not None:
        other = read_batch(store, reference, since=before[0], until=before[1], sample_rows=sample_rows)
        expected = expected_by_batch(
            other, Expected(against, *before, points=None, figures=None, worth=0.0, pace=0.0, cautions=_earlier(other))
        )
        if expected.points is None:  # of the columns, so that they are told as not judged
            expected = replace(expected, points=reference.frame.clear(1).cast(pl.Float64))
    id = check_id(reference, batch.since, batch.until, against)
    progress("comparing")
    found: dict[str, float] = {}
    if batch.points is not None and expected.points is not None and batch.scored >= limits.batch.min_events:
        columns = {n: limit for n in expected.points.columns if (limit := limit_of(limits, n)) is not None}
        if keep is None:
            found = distances(expected.points, batch.points, columns)
        else:
            share = limits.features.share if limits.features else 0.5
            tags = {"check": id, "version": reference.version.version, "against": against}
            compared = compare(
                expected.points, batch.points, columns, share=share, name=id, time=batch.until, tags=tags
            )  # fmt: skip
            found = compared.distances
            if keep.drift.evidently is not None and compared.snapshot is not None:
                project = f"{reference.version.name} drift"
                put_snapshot(keep.drift.evidently, project, id, compared.snapshot)
    return Check(
        id=id,
        reference=reference,
        batch=batch,
        expected=expected,
        verdict=judge(limits, batch, expected, found),
        max_share=limits.features.share if limits.features else None,
        cautions=[*expected.cautions, *_cautions(batch, limits)],
        checked_at=dt.datetime.now(dt.UTC),
    )


def _cautions(batch: Batch, limits: Limits) -> list[str]:
    if limits.batch.min_clients <= batch.figures.worth < FEW_CLIENTS:
        worth = f"{batch.figures.worth:.0f}"
        return [f"the events are worth only {worth} clients: limits are widened by what so few do by chance"]
    return []


def _earlier(batch: Batch) -> list[str]:
    """What makes an earlier batch a weak measure."""
    if batch.scored:
        return []
    return ["what it is compared with has no event that this version scored: distances are not judged"]


def _run(check: Check, page: str) -> MonitoringRun:
    verdict, batch = check.verdict, check.batch
    metrics = {
        "drift.share": verdict.share,
        "drift.drifted": float(verdict.drifted),
        "batch.events": batch.figures.events,
        "batch.worth": batch.figures.worth,
    }
    metrics |= {f"effect/{m.name}": m.effect for m in verdict.measures if m.effect is not None}
    metrics |= {f"limit/{m.name}": m.limit for m in verdict.measures}
    document = batch_document(check)
    return MonitoringRun(
        check=check.id,
        name=f"version {check.reference.version.version}, {batch.since:%Y-%m-%d %H:%M} to {batch.until:%m-%d %H:%M}"
        + ("" if check.expected.against == "reference" else f", {check.expected.against}"),
        verdict=check.text,
        tags={
            "oddlog.drift.verdict": "drifted" if verdict.drifted else "not drifted",
            "oddlog.drift.by": ", ".join(verdict.by),
            "oddlog.drift.batch_until": document["batch"]["until"],
        },
        parameters={
            "model.version": check.reference.version.version,
            "model.algorithm": check.reference.card.algorithm,
            "batch.since": document["batch"]["since"],
            "batch.until": document["batch"]["until"],
            "drift.against": check.expected.against,
            "drift.method": f"normed {METHOD}",
        },
        metrics=metrics,
        artifacts={"drift.html": page, "drift.json": _json(check)},
        description="\n\n".join([check.text, *check.cautions]),
    )


def _json(check: Check) -> str:
    document = {**batch_document(check), "measures": measure_documents(check)}
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as beside:
        beside.write_text(text, encoding="utf-8")
