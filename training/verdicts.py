"""What every declared gate says of the evidence: figure, limit, verdict, and why the gate exists. Nothing is measured.

The gates themselves are in `gates.py`, what follows from the verdicts in `promote.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from training.evidence import Basis, Evidence
from training.gates import (
    GATE_NAMES,
    AgreementGate,
    AlertRateGate,
    DataGate,
    DriftGate,
    Gates,
    GoldenGate,
    GraphGate,
    LatencyGate,
    MarksGate,
    MemoryGate,
    NotWorseGate,
    QualityGate,
    ScenariosGate,
    SchemaGate,
    ShadowGate,
)

Outcome = Literal["pass", "fail", "skipped"]


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


def passed(verdicts: Iterable[Verdict]) -> bool:
    """Whether no gate says no."""
    return all(verdict.outcome != "fail" for verdict in verdicts)


Said = tuple[Outcome, str, str]


def _data(gate: DataGate, evidence: Evidence) -> Said:
    enough = (
        evidence.events >= gate.min_events and evidence.hours >= gate.min_hours and evidence.clients >= gate.min_clients
    )
    limit = f"at least {gate.min_events:,} events"
    limit += f" of {gate.min_clients:,} clients" if gate.min_clients else ""
    limit += f" over {gate.min_hours:g} h" if gate.min_hours else ""
    return _said(enough), f"{evidence.events:,} events of {evidence.clients:,} clients, {evidence.hours:.1f} h", limit


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


def _scenarios(gate: ScenariosGate, evidence: Evidence) -> Said:
    limit = f"at least {gate.min_detected:.0%} of the planted instances"
    found = evidence.detected
    if found is None:
        return "fail", evidence.problem or "nothing could be planted", limit
    figure = f"{found.share:.0%} found (average precision {found.average_precision:.3f})"
    return _said(found.share >= gate.min_detected), figure + _listed("; missed", found.missed), limit


def _marks(gate: MarksGate, evidence: Evidence) -> Said:
    """Each kind of mark against its own limit, or the champion's share, where that one is the easier."""
    marked = evidence.marked
    rival = None if evidence.champion is None else evidence.champion.marked
    most, least = gate.max_false_alarms, gate.min_true_anomalies
    if rival is not None:
        # Its own false alarms were what people marked: who flags fewer of them is an improvement, however many.
        most = max(most, _share(rival.flagged_false_alarms, rival.false_alarms))
        if rival.true_anomalies:
            least = min(least, _share(rival.flagged_true_anomalies, rival.true_anomalies))
    limit = f"flags at most {most:.0%} of the false alarms, at least {least:.0%} of the true anomalies"
    if marked is None:
        return "fail", evidence.problem or "the candidate could not be judged", limit
    said: list[tuple[bool, str]] = []
    if marked.false_alarms >= gate.min_marked:
        share = _share(marked.flagged_false_alarms, marked.false_alarms)
        said.append((share <= most, f"{marked.flagged_false_alarms:,} of {marked.false_alarms:,} false alarms flagged"))
    if marked.true_anomalies >= gate.min_marked:
        share = _share(marked.flagged_true_anomalies, marked.true_anomalies)
        text = f"{marked.flagged_true_anomalies:,} of {marked.true_anomalies:,} true anomalies flagged"
        said.append((share >= least, text))
    if not said:
        there = f"{marked.false_alarms} events marked as false alarms, {marked.true_anomalies} as true anomalies"
        return "skipped", there, f"{limit}; asked from {gate.min_marked} of a kind on"
    return _said(all(well for well, _ in said)), ", ".join(text for _, text in said), limit


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


def _agreement(gate: AgreementGate, evidence: Evidence) -> Said:
    rival, limit = evidence.champion, f"a rank correlation of at least {gate.min_correlation:g} with the champion"
    if rival is None:
        return "skipped", "there is no champion yet", limit
    if rival.average_precision is None:
        return "skipped", f"version {rival.version} cannot be judged: {rival.reason}", limit
    if rival.agreement is None:
        return "fail", evidence.problem or "all scores of one of the two are the same", limit
    figure = f"{rival.agreement:.3f} with version {rival.version}, over client-hours by their highest score"
    return _said(rival.agreement >= gate.min_correlation), figure, limit


def _shadow(gate: ShadowGate, evidence: Evidence) -> Said:
    live, limit = evidence.shadowed, f"a rank correlation of at least {gate.min_correlation:g} with its live scores"
    if live is None:
        return "skipped", "no live score: it was not challenger while these events came", limit
    if live.events < gate.min_events:
        return "skipped", f"{live.events:,} live scores, fewer than {gate.min_events:,}", limit
    if live.agreement is None:
        return "fail", evidence.problem or "all scores of one side are the same", limit
    return _said(live.agreement >= gate.min_correlation), f"{live.agreement:.4f} over {live.events:,} events", limit


def _latency(gate: LatencyGate, evidence: Evidence) -> Said:
    limit = f"one event within {gate.max_one_row_ms:g} ms, 4,096 within {gate.max_batch_ms:g} ms"
    cost = evidence.cost
    if cost is None:
        return "fail", evidence.problem or "it could not be measured", limit
    figure = f"one event {cost.one_row_ms:.3f} ms, {cost.batch_rows:,} events {cost.batch_ms:.1f} ms (medians)"
    return _said(cost.one_row_ms <= gate.max_one_row_ms and cost.batch_ms <= gate.max_batch_ms), figure, limit


def _memory(gate: MemoryGate, evidence: Evidence) -> Said:
    limit = f"at most {gate.max_growth_mb:g} MB"
    cost = evidence.cost
    if cost is None:
        return "fail", evidence.problem or "it could not be measured", limit
    return _said(cost.growth_mb <= gate.max_growth_mb), f"{cost.growth_mb:.1f} MB to load it and score with it", limit


def _drift(gate: DriftGate, evidence: Evidence) -> Said:
    change = evidence.change
    limit = f"fewer than {gate.max_share:.0%} of the features {gate.max_distance:g} standard deviations away"
    if evidence.problem and change is None:
        return "fail", evidence.problem, limit
    if change is None or change.events < gate.min_events:
        events = 0 if change is None else change.events
        return "skipped", f"{events:,} events have come since its training, fewer than {gate.min_events:,}", limit
    if change.worth < gate.min_clients:
        few = f"the events since its training are worth {change.worth:.1f} clients, fewer than {gate.min_clients:g}"
        return "skipped", few, limit
    if not change.distances:
        return "skipped", "the artifact has no reference that they can be compared with", limit
    most = gate.max_distance + gate.errors * change.error
    limit = (
        f"fewer than {gate.max_share:.0%} of the features {most:.2f} standard deviations away: {gate.max_distance:g}, "
        f"and {gate.errors * change.error:.2f} for what so few clients differ by chance"
    )
    far = sorted((name for name, size in change.distances.items() if size >= most), key=change.distances.__getitem__)
    share = len(far) / len(change.distances)
    figure = f"{share:.0%} of the features so far away, over {change.events:,} events since its training"
    return _said(share < gate.max_share), figure + _listed("; farthest", far[::-1][:3]), limit


_ASK: dict[str, Callable[..., Said]] = {
    "data": _data,
    "schema": _schema,
    "graph": _graph,
    "golden": _golden,
    "quality": _quality,
    "scenarios": _scenarios,
    "marks": _marks,
    "not_worse": _not_worse,
    "alert_rate": _alert_rate,
    "agreement": _agreement,
    "shadow": _shadow,
    "latency": _latency,
    "memory": _memory,
    "drift": _drift,
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


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _listed(lead: str, names: Iterable[str]) -> str:
    listed = ", ".join(names)
    return f"{lead}: {listed}" if listed else ""
