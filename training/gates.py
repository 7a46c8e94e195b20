"""The gates between a candidate and promotion, as `gates.toml` declares them: which there are, their fields, and why.

What each says of the evidence is in `verdicts.py`; the evidence is measured in `judge.py`.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from oddlog.declared import read_declared


class _Gate(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class DataGate(_Gate):
    """A figure over few events is luck."""

    min_events: int = Field(ge=1)
    """Fewest events in the judged period."""
    min_hours: float = Field(default=0.0, ge=0)
    """Shortest judged period, first to last event."""
    min_clients: int = Field(default=0, ge=0)
    """Fewest clients in it: what one client does, it does alike."""


class SchemaGate(_Gate):
    """Serving would compute other numbers than it was trained on."""


class GraphGate(_Gate):
    """What is served must be what was trained."""

    max_difference: float = Field(ge=0)
    """Largest difference between a score of the compiled graph and the reference's, over all evaluated rows."""


class GoldenGate(_Gate):
    """A damaged artifact, or another onnxruntime, would score otherwise than the model that was evaluated."""

    max_difference: float = Field(ge=0)
    """Largest difference of a golden vector's score."""


class QualityGate(_Gate):
    """It must put attacks before what is usual."""

    min_average_precision: float = Field(ge=0, le=1)
    """Least average precision: on labels and marks where there are enough, else on planted attacks."""


class ScenariosGate(_Gate):
    """Labels know the attacks of the past; planted ones of every known kind show what it is blind to."""

    min_detected: float = Field(ge=0, le=1)
    """Least share of the planted instances with at least one anomaly, at the threshold in force."""


class MarksGate(_Gate):
    """People have said of these events what they are: they need not say it again of the next model."""

    max_false_alarms: float = Field(default=0.5, ge=0, le=1)
    """Largest share of the events marked as false alarm or expected that it may flag; where the champion flags more of
    them, that."""
    min_true_anomalies: float = Field(default=0.5, ge=0, le=1)
    """Smallest share of the events marked as true anomaly that it must flag; where the champion flags fewer, that."""
    min_marked: int = Field(default=5, ge=1)
    """With fewer marked events of a kind, that kind is not asked about."""


class NotWorseGate(_Gate):
    """Whoever relies on the champion must not lose by the change."""

    margin: float = Field(ge=0, le=1)
    """How much less average precision than the champion's is still taken as equal."""


class AlertRateGate(_Gate):
    """People must be able to look at its alerts."""

    max_factor: float = Field(gt=0)
    """Most alerts a day, in multiples of the budget that its threshold was made for."""


class AgreementGate(_Gate):
    """A model that orders clients wholly otherwise than the champion has lost something, whatever its average says."""

    min_correlation: float = Field(ge=-1, le=1)
    """Least rank correlation (Spearman) with the champion, over client-hours by their highest score."""


class ShadowGate(_Gate):
    """What it scored live as challenger must be what it scores here: else serving computes something else."""

    min_correlation: float = Field(ge=-1, le=1)
    """Least rank correlation (Spearman) of the live scores with those computed here for the same events."""
    min_events: int = Field(default=100, ge=2)
    """With fewer live scores it is not asked."""


class LatencyGate(_Gate):
    """A model that scores slower than events come holds up the stream."""

    max_one_row_ms: float = Field(gt=0)
    """Longest median time of one event."""
    max_batch_ms: float = Field(gt=0)
    """Longest median time of 4,096 events at once."""


class MemoryGate(_Gate):
    """A service holds three models in every worker."""

    max_growth_mb: float = Field(gt=0)
    """Most resident memory that loading it and scoring with it may take."""


class DriftGate(_Gate):
    """A model of a site that has changed since alarms at what is usual by now."""

    max_distance: float = Field(gt=0)
    """Distance at which a feature counts as changed: normed Wasserstein, standard deviations of the reference."""
    max_share: float = Field(gt=0, le=1)
    """Share of the features at which the site counts as changed."""
    errors: float = Field(default=2.0, ge=0)
    """Standard errors that the distance is widened by: what so few clients differ by chance."""
    min_events: int = Field(default=200, ge=2)
    """With fewer events since its training it is not asked."""
    min_clients: float = Field(default=5, ge=1)
    """The same, with events worth fewer clients."""


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
    """Finds attacks, by labels and marks."""
    scenarios: ScenariosGate | None = None
    """Finds planted attacks."""
    marks: MarksGate | None = None
    """Agrees with people."""
    not_worse: NotWorseGate | None = None
    """Not worse than the champion."""
    alert_rate: AlertRateGate | None = None
    """Within the alert budget."""
    agreement: AgreementGate | None = None
    """Orders clients much as the champion does."""
    shadow: ShadowGate | None = None
    """Scores live as it does here."""
    latency: LatencyGate | None = None
    """Fast enough."""
    memory: MemoryGate | None = None
    """Small enough."""
    drift: DriftGate | None = None
    """Its site is still that site."""


GATE_NAMES: tuple[str, ...] = tuple(field.alias or name for name, field in Gates.model_fields.items())


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
