"""A drift check as documents of the store's collection "drift": one of the batch, one of each measure."""

from __future__ import annotations

import datetime as dt
import math
from dataclasses import asdict, dataclass
from typing import Any

import polars as pl

from monitoring.batch import Batch
from monitoring.comparison import METHOD
from monitoring.expected import Expected
from monitoring.judgement import Verdict
from monitoring.reference import Reference
from monitoring.words import sentence


@dataclass(frozen=True, slots=True)
class Check:
    """What a check found, before it is kept anywhere."""

    id: str
    """Model version, period and what it was compared with: the same check again replaces what it left."""
    reference: Reference
    batch: Batch
    expected: Expected
    verdict: Verdict
    max_share: float | None
    """Share of the features at which the batch has drifted by them; None where features are not judged."""
    cautions: list[str]
    checked_at: dt.datetime
    report: str = ""
    run_id: str = ""

    @property
    def text(self) -> str:
        """The verdict in a sentence."""
        found = self.verdict
        features = [m for m in found.measures if m.group == "feature" and (m.effect is not None or m.drifted)]
        others = [name for name in found.by if name != "features"]
        if features:
            past = sum(m.drifted for m in features)
            told = f"{past} of {len(features)} features are past their limit"
            if self.max_share is not None:
                told += f" (the batch drifts by them at {100 * self.max_share:.0f} %)"
        else:
            told = "no feature was judged"
        if others:
            told += f"; past its limit{', too' if features else ''}: {', '.join(others)}"
        return f"{'drifted' if found.drifted else 'not drifted'}: {told}"


def check_id(reference: Reference, since: dt.datetime, until: dt.datetime, against: str) -> str:
    """The id of a check."""
    version = reference.version
    return f"{version.name}-{version.version}-{since:%Y%m%dT%H%M%SZ}-{until:%Y%m%dT%H%M%SZ}" + (
        "" if against == "reference" else f"-{against}"
    )


def batch_document(check: Check) -> dict[str, Any]:
    """The batch and its verdict. `@timestamp` is the batch's end."""
    card, batch, expected = check.reference.card, check.batch, check.expected
    return {
        **_both(check),
        "kind": "batch",
        "id": check.id,
        "checked_at": iso(check.checked_at),
        "model": {
            "name": check.reference.version.name,
            "version": check.reference.version.version,
            "algorithm": card.algorithm,
            "baseline": card.baseline_digest,
        },
        "reference": {"since": iso(expected.since), "until": iso(expected.until), "worth": _finite(expected.worth)},
        "batch": {
            "since": iso(batch.since),
            "until": iso(batch.until),
            "events": int(batch.figures.events),
            "scored": batch.scored,
            "compared": batch.compared,
            "clients": batch.clients,
            "worth": _finite(batch.figures.worth),
        },
        "method": f"normed {METHOD}",
        "share": check.verdict.share,
        "max_share": check.max_share,
        "by": check.verdict.by,
        "verdict": check.text,
        "cautions": check.cautions,
        "dead": [{"kind": kind, "count": count} for kind, count in sorted(batch.dead.items())],
        "report": check.report,
        "run_id": check.run_id,
        "drifted": check.verdict.drifted,
    }


def measure_documents(check: Check) -> list[dict[str, Any]]:
    """Everything measured, farthest past its limit first, each with its sentence."""
    found = []
    for measure in check.verdict.measures:
        values = {name: _finite(value) for name, value in asdict(measure).items()}
        missing = check.batch.missing.get(measure.name)
        points = (_points(side, measure.name) for side in (check.batch.points, check.expected.points))
        told = sentence(measure, *points)
        found.append({**_both(check), "kind": "measure", **values, "missing": missing, "sentence": told})
    return found


def stored(check: Check) -> dict[str, dict[str, Any]]:
    """The documents by their id in the store, the batch's last: with it the check is whole."""
    model, batch = batch_document(check)["model"], batch_document(check)["batch"]
    beside = {"model": model, "batch": {name: batch[name] for name in ("since", "until", "events")}}
    measures = {f"{check.id}-{m['name']}": {**m, **beside} for m in measure_documents(check)}
    return {**measures, check.id: batch_document(check)}


def _both(check: Check) -> dict[str, Any]:
    return {"@timestamp": iso(check.batch.until), "check": check.id, "against": check.expected.against}


def _points(frame: pl.DataFrame | None, name: str) -> pl.Series | None:
    return frame[name] if frame is not None and name in frame.columns else None


def _finite(value: Any) -> Any:
    """JSON has no infinity."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def iso(time: dt.datetime) -> str:
    """A time, UTC, to the millisecond."""
    return time.astimezone(dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
