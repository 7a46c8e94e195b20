"""Which clients nothing is learnt of: those that were alerted on, and those whose requests people marked as attacks.

What was alerted on was told by the store, and by marks, when the events were pulled (`pull.py`).
"""

from __future__ import annotations

import datetime as dt
import math
from dataclasses import dataclass

import polars as pl

from oddlog.scoring.threshold import parse_budget
from oddlog.settings import TrainSettings
from training.checks import Caution
from training.dataset import ALERTED, SEVERITIES
from training.marks import LABELS

DAY = dt.timedelta(days=1)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Clients that were alerted on before the boundary, and their events there: nothing is made of them."""

    clients: int = 0
    events: int = 0
    spared: int = 0
    """Clients that were alerted on and are learnt from all the same: there were more alerts than attacks explain."""


def leave_out(early: pl.DataFrame, options: TrainSettings) -> tuple[pl.DataFrame, LeftOut, pl.Series]:
    """The events of the others among those before the boundary: what came later must not choose what is learnt. And
    the clients (String) that are left out; threshold and calibration leave them out of the later events, too, for who
    attacks on would use up the budget, and be what is usual there.

    Left out is, with train.exclude_alerted, every client with an alert among `early`; with train.exclude_up_to those of
    the oddest alerts, as many as so many times the budget of alerts a day; and always one with a true anomaly by a
    mark.
    """
    if not options.exclude_alerted:
        return early, LeftOut(), pl.Series(dtype=pl.String)
    first, last = early["@timestamp"].min(), early["@timestamp"].max()
    days = (last - first) / DAY if isinstance(first, dt.datetime) and isinstance(last, dt.datetime) else 0.0
    out, spared = whom_to_leave_out(early, days, options)
    chosen = early.filter(~pl.col("source.address").is_in(out.implode()))
    return chosen, LeftOut(clients=len(out), events=early.height - chosen.height, spared=spared), out


def whom_to_leave_out(events: pl.DataFrame, days: float, options: TrainSettings) -> tuple[pl.Series, int]:
    """The clients (String) that train.exclude_alerted leaves out, and how many more were alerted on.

    `events`: those with an alert or a mark are enough, of a period of so many `days`; `@timestamp`, `source.address`,
    `labels.truth`, ALERTED and, with train.exclude_up_to, SEVERITIES.
    """
    odd = events.filter(pl.col(ALERTED).fill_null(value=False))
    alerted = odd["source.address"].unique()
    believed = alerted if options.exclude_up_to is None else _oddest(odd, days, options)
    marked = events.filter(pl.col("labels.truth") == LABELS["true-anomaly"])["source.address"]
    out = pl.concat([believed, marked]).unique()
    return out, len(alerted) - int(alerted.is_in(out.implode()).sum())


def cautions(left_out: LeftOut, options: TrainSettings) -> list[Caution]:
    """That alerts were not taken for attacks."""
    if not left_out.spared:
        return []
    text = (
        f"{left_out.spared:,} clients were alerted on and are learnt from all the same: there were more alerts than "
        f"{options.exclude_up_to:g} times the budget of {options.budget}, which tells of logs that have changed. The "
        f"{left_out.clients:,} clients of the oddest alerts are left out"
    )
    return [Caution("alerts_past_budget", text, float(left_out.spared))]


def _oddest(odd: pl.DataFrame, days: float, options: TrainSettings) -> pl.Series:
    """The clients of the oddest (client, hour) alerts that the budget of so many days explains."""
    assert options.exclude_up_to is not None
    most = math.ceil(parse_budget(options.budget) * options.sample * options.exclude_up_to * days)
    alerts = odd.group_by("source.address", pl.col("@timestamp").dt.truncate("1h").alias("hour")).agg(
        pl.max_horizontal(SEVERITIES).max().fill_null(0.0).alias("severity")
    )
    ordered = alerts.sort("severity", "source.address", "hour", descending=[True, False, False])
    return ordered.head(most)["source.address"].unique()
