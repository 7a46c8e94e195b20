"""How far is too far: the limits that `drift.toml` declares, read and checked. Judging by them is in `judgement.py`."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, model_validator

from oddlog.declared import read_declared
from oddlog.features.declaration import FEATURE_NAMES

FILE = Path("drift.toml")
"""Read where the settings name no other, if it is there."""


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class BatchLimits(_Table):
    """When a batch is too small for distances and shares."""

    min_events: int = Field(default=100, ge=1)
    """Fewest scored events."""
    min_clients: float = Field(default=5, ge=1)
    """Fewest clients that the events are worth."""


class ChanceLimits(_Table):
    """What chance explains."""

    errors: float = Field(default=2.0, ge=0)
    """Standard errors that a limit is widened by."""


class FeatureLimits(_Table):
    """Distances of the features."""

    limit: float = Field(default=0.3, gt=0)
    """Standard deviations of what the batch is compared with."""
    share: float = Field(default=0.3, gt=0, le=1)
    """Share of the judged features past their limit at which the batch has drifted by them."""
    limits: dict[str, float] = Field(default_factory=dict)
    """Of single features, instead of `limit`."""

    @model_validator(mode="after")
    def _known(self) -> FeatureLimits:
        for name, limit in self.limits.items():
            if name not in FEATURE_NAMES:
                raise ValueError(f"there is no feature {name!r}; there are {', '.join(FEATURE_NAMES)}")
            if not limit > 0:
                raise ValueError(f"the limit of {name} is {limit:g}; expected more than 0")
        return self

    def of(self, name: str) -> float:
        """The limit of one feature.

        >>> FeatureLimits(limit=0.3, limits={"path_rarity": 0.5}).of("path_rarity")
        0.5
        """
        return self.limits.get(name, self.limit)


class DistanceLimit(_Table):
    """A distance in standard deviations of what the batch is compared with."""

    limit: float = Field(default=0.4, gt=0)
    """At this distance it has drifted."""


class EffectLimit(_Table):
    """A difference between two shares as Cohen's h, 2 asin sqrt(p) - 2 asin sqrt(q): 0.2 is small, 0.5 middling."""

    limit: float = Field(default=0.25, gt=0)
    """At this size, either way, it has drifted."""


class VolumeLimit(_Table):
    """How many events there are."""

    factor: float = Field(default=1.8, gt=1)
    """So many times more or fewer than expected."""


class MostShare(_Table):
    """A share that must stay small, whatever it was before."""

    max_share: float = Field(default=0.01, gt=0, le=1)
    """At this share it has drifted."""


class LatenessLimit(_Table):
    """How late events come."""

    seconds: float = Field(default=900, gt=0)
    """Of the slowest hundredth."""


class Limits(_Table):
    """The declared limits. What is not declared is not judged; `batch` and `chance` have defaults."""

    batch: BatchLimits = BatchLimits()
    """Sizes."""
    chance: ChanceLimits = ChanceLimits()
    """Widening."""
    features: FeatureLimits | None = None
    """Features."""
    score: DistanceLimit | None = None
    """Scores."""
    severity: DistanceLimit | None = None
    """Severities."""
    alert_rate: EffectLimit | None = None
    """Client-hours with an anomaly."""
    status: EffectLimit | None = None
    """Classes of HTTP status."""
    unseen_paths: EffectLimit | None = None
    """Events whose path template the baseline does not have."""
    new_clients: EffectLimit | None = None
    """Events of clients that were not there in the day before."""
    dominance: EffectLimit | None = None
    """The busiest client."""
    volume: VolumeLimit | None = None
    """Events."""
    parse_failures: MostShare | None = None
    """Records that fit no format."""
    dead_letters: MostShare | None = None
    """Other dead letters."""
    pending: MostShare | None = None
    """Events not scored."""
    lateness: LatenessLimit | None = None
    """Late events."""


DEFAULT = Limits(
    features=FeatureLimits(),
    score=DistanceLimit(),
    severity=DistanceLimit(),
    alert_rate=EffectLimit(),
    status=EffectLimit(),
    unseen_paths=EffectLimit(),
    new_clients=EffectLimit(limit=0.6),
    dominance=EffectLimit(limit=0.45),
    volume=VolumeLimit(),
    parse_failures=MostShare(),
    dead_letters=MostShare(),
    pending=MostShare(max_share=0.1),
    lateness=LatenessLimit(),
)
"""What holds where there is no file: the same as the project's own drift.toml."""


def load_limits(path: Path | None = None) -> Limits:
    """The limits of a TOML file; None: of `drift.toml` here where there is one, else `DEFAULT`.

    Raises UsageError, naming what is unknown or wrong."""
    if path is None:
        if not FILE.is_file():
            return DEFAULT
        path = FILE
    return read_declared(
        path,
        Limits,
        file="file of limits",
        noun="limit",
        table="table",
        mend="correct the setting drift.limits; the project's own is drift.toml",
        page="docs/monitoring.md",
        beside={"batch", "chance"},
    )
