"""Settings of retraining. Those of a training itself are in `settings_verbs.py`."""

from __future__ import annotations

from pydantic import Field

from oddlog.settings_group import Group


class RetrainSettings(Group):
    """Retraining where something asks for it: `oddlog retrain`."""

    auto_promote: bool = False
    """Whether a candidate that passes every gate becomes champion by itself; else it waits for `oddlog promote`."""
    days: float = Field(default=14.0, gt=0)
    """Longest period that is trained on, up to the newest event."""
    min_days: float = Field(default=1.0, ge=0)
    """Shortest: where the logs have changed more recently, it is waited for."""
    drifted_hours: float = Field(default=6.0, ge=0)
    """Batches have to be judged as drifted for so long without a break: an outage is no new normal."""
    cooldown_hours: float = Field(default=24.0, ge=0)
    """Pause between a training and the next that a condition asks for, whatever came of the first."""
    exclude_alerted: bool = True
    """Whether clients that were alerted on are left out of what is learnt."""
    exclude_up_to: float | None = Field(default=2.0, gt=0)
    """Of these, those of the oddest alerts: so many times the budget a day at most. More alerts tell of logs that have
    changed. None: all of them."""
    lock_seconds: float = Field(default=7_200.0, gt=0)
    """A retraining that died gives way after this long; longer than any one training."""
