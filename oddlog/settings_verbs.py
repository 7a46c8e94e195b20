"""Settings of our own verbs: serve, enrich, train, ... What lies outside is in `settings_outside.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, field_validator

from oddlog.settings_group import Group, checked_keys, text


class ServeSettings(Group):
    """The BentoML service itself."""

    workers: int = Field(default=1, ge=1)
    """Processes that score; each holds its own models."""
    poll_seconds: float = Field(default=5.0, gt=0)
    """How often it asks the registry for the champion; jitter of +-20 % is added."""
    max_rows: int = Field(default=65_536, ge=1)
    """Most rows a request may carry."""
    max_bytes: int = Field(default=64_000_000, ge=1_000)
    """Largest request body."""
    explain_rows: int = Field(default=2_000, ge=1)
    """Most rows that one request may have explained: reasons cost more than scores."""
    body_seconds: float = Field(default=30.0, gt=0)
    """Longest time that the body of a request may take to arrive."""
    max_requests: int = Field(default=128, ge=1)
    """Most requests that a worker has under way at once; one more is told to come again."""
    api_key: SecretStr | None = None
    """Key that every request to /v1/ must carry (`Authorization: Bearer KEY`); none: no key is asked for. Two keys with
    a comma between them are both good, while one takes the other's place. /livez, /readyz, /metrics and the OpenAPI
    page are open always."""

    @field_validator("api_key")
    @classmethod
    def _are_keys(cls, keys: SecretStr | None) -> SecretStr | None:
        return checked_keys(keys, several=True)


class EnrichSettings(Group):
    """The consumer: source -> parse -> features -> score -> write -> commit."""

    batch_rows: int = Field(default=4_096, ge=1)
    """Most records in one batch."""
    batch_seconds: float = Field(default=0.2, gt=0)
    """Longest wait for the first record of a batch."""
    in_flight: int = Field(default=2, ge=1, le=16)
    """Batches that are written to the store at once, while one more is prepared."""
    lead_in_days: float = Field(default=14.0, gt=0)
    """How far back records are replayed to restore client state: several times the longest decay of a day."""
    retry_seconds: float = Field(default=30.0, gt=0)
    """Longest pause between two attempts at a store that cannot take a batch now."""
    snapshot_seconds: float = Field(default=60.0, gt=0)
    """How often client state is written to the store, so that a restart replays no more than came since."""
    settle_seconds: float = Field(default=30.0, gt=0)
    """How often events that were written as pending under a known baseline are scored after all."""
    marks_seconds: float = Field(default=10.0, gt=0)
    """How often marks are looked at: a pattern that is `expected` from now on raises no alert after so long."""
    max_clients: int = Field(default=1_000_000, ge=1_000)
    """Most clients whose state is kept, of one partition and model: some 300 bytes each. Past it the quarter that was
    least active is forgotten. Training keeps a million: a lower number makes clients look newer than they are."""
    shadow_share: float = Field(default=0.1, ge=0, le=1)
    """Share of the clients whose events the challenger scores, too (`anomaly.shadow.*`). 1: all, and its lane is warm
    when it is promoted; 0: no shadow."""
    shadow_after_seconds: float = Field(default=6.0, ge=0)
    """How long after its commit a document is given the challenger's score: a second more than Elasticsearch's refresh
    interval for events. Sooner, every such update makes Elasticsearch refresh for it."""
    shadow_waiting: int = Field(default=20_000, ge=1)
    """Most events that wait for the challenger's score; more are dropped, and counted."""
    metrics_port: int | None = Field(default=None, ge=0, le=65_535)
    """Port of the consumer's /metrics, /livez and /readyz; none: no such port. 0: any free one, which the log tells."""
    metrics_host: str = "127.0.0.1"
    """Address that port is bound to; in a container `0.0.0.0`."""
    live_seconds: float = Field(default=120.0, gt=0)
    """The consumer counts as live while its loop has moved within so many seconds; longer than any one request."""


class BackfillSettings(Group):
    """Scoring of stored events: `oddlog backfill`."""

    workers: int = Field(default=4, ge=1)
    """Most partitions that are worked on side by side; each takes a frame of events and its clients' state."""


class TrainSettings(Group):
    """Training and its evaluation."""

    algorithm: Literal["iforest", "autoencoder", "surprise"] = "iforest"
    """Which detector."""
    budget: str = text("20/day", r"^\d+(\.\d+)?/day$", "a number of alerts, and /day: as in 20/day")
    """Alerts, distinct (client, hour), that the owner wants to see."""
    fit_share: float = Field(default=0.7, gt=0.1, lt=0.95)
    """Share of the events, oldest first, that baseline and detector are fitted on; the rest calibrates."""
    seed: int = 0
    """Makes a training repeatable."""
    min_events: int = Field(default=1_000, ge=10)
    """Fewer events than this are refused."""
    min_clients: int = Field(default=5, ge=1)
    """Fewer clients than this, in the part that is fitted on, are refused."""
    features: Literal["refit", "stored"] = "refit"
    """`refit`: a new baseline, features computed anew. `stored`: the champion's baseline, and the features that were
    stored under it."""
    exclude_alerted: bool = False
    """Whether clients that were alerted on in the fitted part are left out of baseline and detector; marks come before
    alerts (docs/marks.md)."""
    exclude_up_to: float | None = Field(default=None, gt=0)
    """With exclude_alerted: only the clients of the oddest alerts, so many times the budget a day at most. More alerts
    than that tell of logs that have changed, not of attacks. None: all."""
    sample: float = Field(default=1.0, gt=0, le=1)
    """Share of the clients, chosen by hash, that is trained on; counts are then over the sample."""
    memory_mb: int = Field(default=4_096, ge=512)
    """Memory that a training may take; events that would need more are sampled by client, and the run says so."""
    parameters: dict[str, dict[str, int | float]] = Field(default_factory=dict)
    """Detector parameters that beat its defaults, by algorithm: `[train.parameters.iforest]`, `trees = 100`."""
    pulls: Path = Path("mlruns/pulls")
    """Where an interrupted pull of events waits for a day to be gone on with."""


class PromoteSettings(Group):
    """Promotion of a candidate to champion."""

    gates: Path = Path("gates.toml")
    """The gates a candidate must pass."""
    lock_seconds: float = Field(default=900.0, gt=0)
    """A promotion that died gives way after this long."""
    reports: Path = Path("mlruns/promotions")
    """Where the report of every promotion is written, Markdown and JSON."""
    require_approval: bool = False
    """Whether a version becomes champion only once its tag `approved_by` in MLflow names a person."""


class DriftSettings(Group):
    """Drift of a batch against what was to be expected of it."""

    limits: Path | None = None
    """File of the limits; none: `drift.toml` in the working folder, else the same limits built in."""
    sample_rows: int = Field(default=20_000, ge=100)
    """Most events of a batch that are read; of more, this many are chosen by position. Counts are made by the store."""
    memory_mb: int = Field(default=1_024, ge=700)
    """Memory that a check may take, libraries included; where `sample_rows` would need more, fewer events are read."""
    workspace: Path = Path("mlruns/drift")
    """Where reports are written, HTML and JSON."""
    evidently: Path | None = Path("mlruns/evidently")
    """Workspace with a snapshot of every check, for `evidently ui --workspace`."""
    keep_days: float | None = Field(default=90.0, gt=0)
    """Reports, snapshots and monitoring runs written more than so many days ago are deleted; the documents in the store
    stay."""


class MonitorSettings(Group):
    """The loop of drift checks: `oddlog monitor`."""

    delay_seconds: float = Field(default=300.0, ge=0)
    """How long after its end a batch is judged: late events are in by then, pending ones scored."""
    catch_up_days: float = Field(default=7.0, gt=0)
    """Missed batches that ended longer ago are passed over."""
    poll_seconds: float = Field(default=30.0, gt=0)
    """Longest pause between two looks at the clock; after a failure, and where another monitor is at work, too."""
    lock_seconds: float = Field(default=900.0, gt=0)
    """A monitor that died gives way after this long; longer than any one check."""
    metrics_port: int | None = Field(default=None, ge=0, le=65_535)
    """Port of /metrics with the latest drift; none: no such port. 0: any free one, which the log tells."""
    metrics_host: str = "127.0.0.1"
    """Address that port is bound to; in a container `0.0.0.0`."""


class LogSettings(Group):
    """What the verbs that run for long write to standard error."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """The least that is written; client libraries are held to WARNING at least."""
    format: Literal["text", "json"] = "text"
    """`json`: one JSON object a line, errors and stages included."""
