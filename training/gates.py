"""The gates between a candidate and promotion: how `gates.toml` declares them, and what each says of the evidence.

The evidence is measured in `judge.py`; what follows from the verdicts is in `promote.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from oddlog.declared import read_declared

Outcome = Literal["pass", "fail", "skipped"]
Basis = Literal["labels", "planted"]


class _Gate(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class QualityGate(_Gate):
    """It must find attacks at all."""

    min_average_precision: float = Field(ge=0, le=1)
    """Least average precision: on labels where there are, else on planted attacks."""


class NotWorseGate(_Gate):
    """It must not be worse than the champion, on the same later events."""

    margin: float = Field(ge=0, le=1)
    """How much less average precision than the champion's is still taken as equal."""


class AlertRateGate(_Gate):
    """People must be able to look at its alerts."""

    max_factor: float = Field(gt=0)
    """Most alerts a day, in multiples of the budget that its threshold was made for."""


class GraphGate(_Gate):
    """What is served must be what was trained."""

    max_difference: float = Field(ge=0)
    """Largest difference between a score of the compiled graph and the reference's, over all evaluated rows."""


class SchemaGate(_Gate):
    """It must have been made for the features that serving computes."""


class GoldenGate(_Gate):
    """The downloaded artifact must give, here, the scores that it gave where it was made."""

    max_difference: float = Field(ge=0)
    """Largest difference of a golden vector's score."""


class DataGate(_Gate):
    """It must have been judged on enough events."""

    min_events: int = Field(ge=1)
    """Fewest events in the judged period."""
    min_hours: float = Field(default=0.0, ge=0)
    """Shortest judged period, first to last event."""


class Gates(_Gate):
    """The declared gates. One that is not declared is not asked."""

    data: DataGate | None = None
    """Enough events to judge on."""
    schema_: SchemaGate | None = Field(default=None, alias="schema")
    """Features as serving computes them."""
    graph: GraphGate | None = None
    """Graph equals reference."""
    golden: GoldenGate | None = None
    """Golden vectors reproduce."""
    quality: QualityGate | None = None
    """Finds attacks."""
    not_worse: NotWorseGate | None = None
    """Not worse than the champion."""
    alert_rate: AlertRateGate | None = None
    """Within the alert budget."""


GATE_NAMES: tuple[str, ...] = tuple(field.alias or name for name, field in Gates.model_fields.items())


@dataclass(frozen=True, slots=True)
class Rival:
    """The champion on the same later events, or why it could not be judged on them."""

    version: str
    average_precision: float | None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was measured of a candidate."""

    version: str
    algorithm: str
    events: int
    """In the judged period: after the fitted ones of the candidate, and of the champion."""
    hours: float
    """From the first to the last of them."""
    average_precision: float | None
    """None where there was nothing to judge by."""
    basis: Basis | None
    """What the average precision was measured by."""
    attacks: int
    """Attack events that it is over."""
    alerts_per_day: float | None
    budget_per_day: float
    graph_difference: float | None
    """None where the run does not tell."""
    golden_difference: float | None
    feature_digest: str
    serving_feature_digest: str
    problem: str = ""
    """Why the artifact could not be loaded; then most is None."""
    champion: Rival | None = None
    """None while nothing is promoted, or where the candidate is the champion."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one gate says."""

    gate: str
    outcome: Outcome
    figure: str
    """What was found."""
    limit: str
    """What the gate asks for."""
    why: str
    """Why the gate exists."""

    @property
    def text(self) -> str:
        """In one line, as the version's tag has it.

        >>> Verdict("data", "fail", "12 events", "at least 200", "why").text
        'fail: 12 events (at least 200)'
        """
        return f"{self.outcome}: {self.figure} ({self.limit})"


def load_gates(path: Path) -> Gates:
    """The gates that a TOML file declares. Raises UsageError, naming what is unknown or wrong."""
    return read_declared(
        path,
        Gates,
        file="gates file",
        noun="gate",
        table="gate",
        mend="oddlog promote --gates FILE, or ODDLOG_PROMOTE__GATES; the project's own is gates.toml",
        page="docs/promotion.md",
    )


def judge(gates: Gates, evidence: Evidence) -> list[Verdict]:
    """What every declared gate says, in the order of `Gates`."""
    verdicts: list[Verdict] = []
    for field, name in zip(Gates.model_fields, GATE_NAMES, strict=True):
        gate = getattr(gates, field)
        if gate is None:
            continue
        outcome, figure, limit = _ASK[name](gate, evidence)
        verdicts.append(Verdict(name, outcome, figure, limit, str(type(gate).__doc__)))
    return verdicts


def passed(verdicts: list[Verdict]) -> bool:
    """Whether no gate says no."""
    return all(verdict.outcome != "fail" for verdict in verdicts)


Said = tuple[Outcome, str, str]


def _data(gate: DataGate, evidence: Evidence) -> Said:
    enough = evidence.events >= gate.min_events and evidence.hours >= gate.min_hours
    limit = f"at least {gate.min_events:,} events" + (f" over {gate.min_hours:g} h" if gate.min_hours else "")
    return _said(enough), f"{evidence.events:,} events over {evidence.hours:.1f} h", limit


def _schema(gate: SchemaGate, evidence: Evidence) -> Said:
    equal = evidence.feature_digest == evidence.serving_feature_digest
    return (
        _said(equal),
        f"feature digest {evidence.feature_digest[:12] or 'unknown'}",
        f"{evidence.serving_feature_digest[:12]}, of the features that serving computes",
    )


def _graph(gate: GraphGate, evidence: Evidence) -> Said:
    return _difference(evidence.graph_difference, gate.max_difference, "the run did not log one", "over all rows")


def _golden(gate: GoldenGate, evidence: Evidence) -> Said:
    missing = evidence.problem or "they could not be computed"
    return _difference(evidence.golden_difference, gate.max_difference, missing, "over the golden vectors")


def _quality(gate: QualityGate, evidence: Evidence) -> Said:
    limit = f"at least {gate.min_average_precision:g}"
    if evidence.average_precision is None:
        return "fail", evidence.problem or "nothing to judge by: no labels, nothing planted", limit
    figure = f"average precision {evidence.average_precision:.3f} on {evidence.attacks:,} {_attacks(evidence.basis)}"
    return _said(evidence.average_precision >= gate.min_average_precision), figure, limit


def _not_worse(gate: NotWorseGate, evidence: Evidence) -> Said:
    rival = evidence.champion
    if rival is None:
        return "skipped", "there is no champion yet", f"at most {gate.margin:g} below it"
    limit = f"at most {gate.margin:g} below version {rival.version}"
    if rival.average_precision is None:
        # A champion that cannot be judged (its features are no longer computed, say) holds nothing up.
        return "skipped", f"version {rival.version} cannot be judged: {rival.reason}", limit
    if evidence.average_precision is None:
        return "fail", evidence.problem or "the candidate could not be judged", limit
    figure = f"average precision {evidence.average_precision:.3f}, the champion's {rival.average_precision:.3f}"
    return _said(evidence.average_precision >= rival.average_precision - gate.margin), figure, limit


def _alert_rate(gate: AlertRateGate, evidence: Evidence) -> Said:
    most = evidence.budget_per_day * gate.max_factor
    limit = f"at most {most:.1f} a day, {gate.max_factor:g} times the budget of {evidence.budget_per_day:g}"
    if evidence.alerts_per_day is None:
        return "fail", evidence.problem or "no events to count alerts on", limit
    return _said(evidence.alerts_per_day <= most), f"{evidence.alerts_per_day:.1f} alerts a day", limit


_ASK: dict[str, Callable[..., Said]] = {
    "data": _data,
    "schema": _schema,
    "graph": _graph,
    "golden": _golden,
    "quality": _quality,
    "not_worse": _not_worse,
    "alert_rate": _alert_rate,
}


def _difference(found: float | None, most: float, missing: str, over: str) -> Said:
    limit = f"at most {most:g}"
    if found is None:
        return "fail", missing, limit
    return _said(found <= most), f"largest difference {found:.2g} {over}", limit


def _said(yes: bool) -> Outcome:
    return "pass" if yes else "fail"


def _attacks(basis: Basis | None) -> str:
    return "labelled attack events" if basis == "labels" else "planted attack events"
