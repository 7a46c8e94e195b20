"""Deleting days of events that are older than an operator wants to keep."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field

from oddlog.connectors.store import EventQuery, Store
from oddlog.errors import UsageError


@dataclass(slots=True)
class Retained:
    """What a retention deleted, or with `dry_run` would delete."""

    dry_run: bool
    before: dt.date
    """Events of UTC days before this one."""
    days: dict[dt.date, int | None] = field(default_factory=dict)
    """Events of each deleted day; None where they could not be counted (a closed index)."""

    @property
    def events(self) -> int:
        """Events of the days that could be counted."""
        return sum(count or 0 for count in self.days.values())


def retain(
    store: Store, keep_days: int, *, today: dt.date, dry_run: bool = False, everything: bool = False
) -> Retained:
    """Delete every UTC day of events but today's and the `keep_days` before it.

    Refuses, with UsageError, to delete all there is unless `everything`: that is what a clock gone wrong would ask
    for. Raises StoreUnavailable, StoreRefused; days that were deleted until then stay deleted."""
    before = today - dt.timedelta(days=keep_days)
    store.refresh()
    times = store.time_range(EventQuery())
    if times is not None and times[1].date() < before and not (everything or dry_run):
        raise UsageError(
            f"every event would be deleted: the newest is of {times[1]:%Y-%m-%d}, and today is {today}",
            expected="some days that stay, and a clock that is right",
            mend="oddlog retention --dry-run to see the days; --everything if that is meant",
        )
    return Retained(dry_run, before, store.delete_before(before, dry_run=dry_run))
