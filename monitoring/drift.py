"""The drift check, from store and registry to its verdict: report, document, MLflow run. No retraining."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from monitoring.batch import Batch, read_batch
from monitoring.comparison import METHOD, ColumnDrift, compare
from monitoring.reference import fetch_reference
from monitoring.report import render
from oddlog.connectors.mlflow_monitoring import MonitoringRun, log_monitoring
from oddlog.connectors.registry import Registry
from oddlog.connectors.store import Store
from oddlog.scoring.card import DatasetInfo
from oddlog.settings import Settings
from oddlog.whole_file import whole_file

WHOLE_DAY = dt.timedelta(hours=22)
"""A period shorter than this lacks a part of the day."""
FEW_CLIENTS = 50
"""Events of one client resemble each other: a batch is as good as its number of clients."""


@dataclass(frozen=True, slots=True)
class DriftResult:
    """The verdict on a batch. Times are UTC; the period is since <= @timestamp < until."""

    id: str
    """Model version and period: the same check again replaces its document, its report and its run."""
    model_name: str
    model_version: str
    algorithm: str
    baseline: str
    reference_since: dt.datetime
    """The reference is of the period that calibrated the model: later than the one it was fitted on."""
    reference_until: dt.datetime
    reference_points: int
    since: dt.datetime
    until: dt.datetime
    events: int
    """Events of the period that this version scored."""
    compared: int
    """How many of them were compared."""
    clients: int
    limit: float
    max_share: float
    share: float
    """Share of the judged columns past the limit."""
    drifted: bool
    """`share` >= `max_share`."""
    columns: list[ColumnDrift]
    """Features, `score` and `severity`, farthest first."""
    cautions: list[str]
    """What makes the verdict less than certain, in sentences."""
    checked_at: dt.datetime
    report: Path
    """The HTML report; the same as JSON lies beside it."""
    run_id: str = ""
    """The MLflow run."""

    @property
    def verdict(self) -> str:
        """In a sentence."""
        past = sum(column.drifted for column in self.columns)
        return (
            f"{'drifted' if self.drifted else 'not drifted'}: {past} of {len(self.columns)} columns are past "
            f"{self.limit:g} standard deviations ({100 * self.share:.0f} %; the limit is {100 * self.max_share:.0f} %)"
        )

    def document(self) -> dict[str, Any]:
        """As JSON: what the store keeps, `--json` prints and the file beside the report holds."""
        return {
            "id": self.id,
            "@timestamp": _iso(self.checked_at),
            "model": {
                "name": self.model_name,
                "version": self.model_version,
                "algorithm": self.algorithm,
                "baseline": self.baseline,
            },
            "reference": {
                "since": _iso(self.reference_since),
                "until": _iso(self.reference_until),
                "points": self.reference_points,
            },
            "batch": {
                "since": _iso(self.since),
                "until": _iso(self.until),
                "events": self.events,
                "compared": self.compared,
                "clients": self.clients,
            },
            "method": f"normed {METHOD}",
            "limit": self.limit,
            "max_share": self.max_share,
            "share": self.share,
            "drifted": self.drifted,
            "verdict": self.verdict,
            "cautions": self.cautions,
            "columns": [asdict(column) for column in self.columns],
            "report": str(self.report),
            "run_id": self.run_id,
        }


def check_drift(
    settings: Settings,
    store: Store,
    registry: Registry,
    *,
    since: dt.datetime | None = None,
    until: dt.datetime | None = None,
    version: str | None = None,
    report: Path | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> DriftResult:
    """Compare a batch with the reference of a model version (None: the champion), and keep the result.

    `since` None: everything later than that version's training data. `report`: where the HTML goes (None:
    into the workspace of the settings). `progress` is told each step. Written, in this order: HTML and JSON
    files, the MLflow run, the document in the store's collection "drift".

    Raises UsageError where there is no champion, or the batch is too small; RegistryError, StoreError.
    """
    progress("fetching the reference")
    reference = fetch_reference(registry, version)
    progress("reading the batch")
    batch = read_batch(store, reference, settings.drift, since=since, until=until)
    progress("comparing")
    limits = settings.drift
    compared = compare(reference.frame, batch.frame, limit=limits.limit, max_share=limits.max_share)
    chosen, card = reference.version, reference.card
    id = f"{chosen.name}-{chosen.version}-{batch.since:%Y%m%dT%H%M%SZ}-{batch.until:%Y%m%dT%H%M%SZ}"
    result = DriftResult(
        id=id,
        model_name=chosen.name,
        model_version=chosen.version,
        algorithm=card.algorithm,
        baseline=card.baseline_digest,
        reference_since=card.dataset.fit_until,
        reference_until=card.dataset.until,
        reference_points=reference.frame.height,
        since=batch.since,
        until=batch.until,
        events=batch.events,
        compared=batch.frame.height,
        clients=batch.clients,
        limit=limits.limit,
        max_share=limits.max_share,
        share=compared.share,
        drifted=compared.share >= limits.max_share,
        columns=compared.columns,
        cautions=_cautions(batch, card.dataset),
        checked_at=dt.datetime.now(dt.UTC),
        report=(report or limits.workspace / f"{id}.html").absolute(),
    )
    progress("writing the report")
    data = result.report.with_suffix(".json")
    page = render(result.document(), compared.html)
    _write(result.report, page)
    _write(data, _json(result))
    progress("logging to MLflow")
    result = replace(result, run_id=log_monitoring(settings.registry, chosen, _run(result, page)))
    _write(data, _json(result))
    store.put_document("drift", id, result.document())
    return result


def _cautions(batch: Batch, dataset: DatasetInfo) -> list[str]:
    """Why distances may be there without drift."""
    spans = {"batch": batch.last - batch.first, "reference": dataset.until - dataset.fit_until}
    short = {name: span for name, span in spans.items() if span < WHOLE_DAY}
    cautions = []
    if short:
        hours = {name: span / dt.timedelta(hours=1) for name, span in short.items()}
        lengths = " and ".join(f"the {name} is only {found:.1f} h long" for name, found in hours.items())
        cautions.append(f"{lengths}: day and night differ without any drift, so that whole days compare better")
    if batch.clients < FEW_CLIENTS:
        cautions.append(f"only {batch.clients} clients: one of them alone can move a feature past its limit")
    return cautions


def _run(result: DriftResult, page: str) -> MonitoringRun:
    metrics = {
        "drift.share": result.share,
        "drift.drifted": float(result.drifted),
        "batch.events": result.events,
    }
    metrics |= {f"distance/{c.name}": c.distance for c in result.columns if c.distance is not None}
    return MonitoringRun(
        check=result.id,
        name=f"version {result.model_version}, {result.since:%Y-%m-%d %H:%M} to {result.until:%m-%d %H:%M}",
        verdict=result.verdict,
        tags={"oddlog.drift.verdict": "drifted" if result.drifted else "not drifted"},
        parameters={
            "model.version": result.model_version,
            "model.algorithm": result.algorithm,
            "batch.since": _iso(result.since),
            "batch.until": _iso(result.until),
            "drift.method": f"normed {METHOD}",
            "drift.limit": result.limit,
            "drift.max_share": result.max_share,
        },
        metrics=metrics,
        artifacts={"drift.html": page, "drift.json": _json(result)},
        description="\n\n".join([result.verdict, *result.cautions]),
    )


def _json(result: DriftResult) -> str:
    return json.dumps(result.document(), indent=2, ensure_ascii=False) + "\n"


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as beside:
        beside.write_text(text, encoding="utf-8")


def _iso(time: dt.datetime) -> str:
    return time.astimezone(dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
