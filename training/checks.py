"""Whether a period can teach what is usual: errors where it cannot, cautions that are recorded where it may mislead."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import polars as pl

from oddlog.errors import UsageError
from oddlog.events.printable import printable
from oddlog.events.schema import POSITION_ORDER
from oddlog.features.capping import MOST_KEYS
from oddlog.features.fitting import MIN_USER_AGENTS

FEW_CLIENTS = 50
FEW_DAYS = 2.0
"""The longest horizon of a client's means is a day, and days differ from nights."""
DOMINANT = 0.5
"""Share of the events that one client may have."""
GAP_HOURS = 3
"""Empty hours in a row that are told of, where most other days have events at these hours."""
JUMP = dt.timedelta(hours=1)
"""How far an event may lie behind an earlier one of its partition; logs of several workers are seconds apart."""

_PARTITION = POSITION_ORDER[:3]


@dataclass(frozen=True, slots=True)
class Caution:
    """Something about a data set that a reader of its model's figures should know."""

    name: str
    """A short name that can be counted: `few_clients`, `gap`, ..."""
    text: str
    figure: float
    """What was measured: a number of clients, days, a share, hours, events."""


def check_period(batches: Iterable[pl.DataFrame]) -> list[Caution]:
    """Look at all events of a training, in record order (columns: @timestamp, source.address, position).

    One batch is in memory at a time, and a count for every client and hour.
    """
    counted_clients, counted_hours, clock = _Counts(), _Counts(), _Clock()
    first = last = None
    for batch in batches:
        times = batch["@timestamp"]
        low, high = times.min(), times.max()
        first = low if first is None else min(first, low)  # type: ignore[type-var]
        last = high if last is None else max(last, high)  # type: ignore[type-var]
        counted_clients.add(batch["source.address"])
        counted_hours.add(times.dt.truncate("1h"))
        clock.add(batch)
    if first is None:
        return []
    clients, hours = counted_clients.by_key(), counted_hours.by_key()
    assert isinstance(first, dt.datetime)
    assert isinstance(last, dt.datetime)
    found = [_few_clients(clients), _few_days(first, last), _dominated(clients), _gap(hours["key"]), clock.caution()]
    return [caution for caution in found if caution is not None]


def check_fitted(events: pl.DataFrame, *, least_clients: int, excluded: int = 0) -> list[Caution]:
    """Look at the events that are fitted on; `excluded`: clients that were left out. Raises UsageError."""
    clients = events["source.address"].n_unique()
    if clients < least_clients:
        raise UsageError(
            f"{clients} client{'' if clients == 1 else 's'} to fit on"
            + (f", after {excluded:,} that were alerted on were left out" if excluded else ""),
            expected=f"at least {least_clients} (setting train.min_clients): usual is what different clients do",
            mend="a longer period (--since, --until), a larger --sample"
            + (", or no --exclude-alerted" if excluded else ""),
        )
    agents = events["user_agent.original"].n_unique()
    if agents < MIN_USER_AGENTS:
        text = (
            f"{agents} different user agents in the fitted part: fewer than {MIN_USER_AGENTS} are not counted, "
            "so that rarity rests on the sets of paths that clients ask for alone"
        )
        return [Caution("few_user_agents", text, agents)]
    return []


def check_tables(left_out: int) -> list[Caution]:
    """Whether the baseline's tables had room for all keys; `left_out`: for how many they had not."""
    if not left_out:
        return []
    text = (
        f"{left_out:,} rare keys and pairs left out of the baseline, whose tables hold {MOST_KEYS:,} each: they count "
        "as never seen; paths and words by the thousand are a scan's, or identifiers in the URL"
    )
    return [Caution("tables_capped", text, left_out)]


def _few_clients(clients: pl.DataFrame) -> Caution | None:
    if clients.height >= FEW_CLIENTS:
        return None
    text = (
        f"{clients.height} clients in the whole period: with fewer than {FEW_CLIENTS}, each one decides what is usual"
    )
    return Caution("few_clients", text, clients.height)


def _few_days(first: dt.datetime, last: dt.datetime) -> Caution | None:
    days = (last - first) / dt.timedelta(days=1)
    if days >= FEW_DAYS:
        return None
    text = f"{days:.1f} days of events: with fewer than {FEW_DAYS:g}, hours that were not seen may count as odd"
    return Caution("few_days", text, round(days, 3))


def _dominated(clients: pl.DataFrame) -> Caution | None:
    name, events = clients.sort("count", "key", descending=[True, False]).row(0)
    share = events / clients["count"].sum()
    if clients.height < 2 or share <= DOMINANT:
        return None
    text = (
        f"the client {printable(name, most=60)} has {share:.0%} of the events: if it is a monitor or a proxy, its "
        "habits are the log's; severities count its events among all"
    )
    return Caution("dominating_client", text, round(share, 4))


def _gap(hours: pl.Series) -> Caution | None:
    """The longest run of empty hours that are not empty on most of the other days."""
    first, last = hours.min(), hours.max()
    assert isinstance(first, dt.datetime)
    assert isinstance(last, dt.datetime)
    every = pl.datetime_range(first, last, "1h", eager=True, time_unit="ms")
    frame = pl.DataFrame({"hour": every}).with_columns(
        there=pl.col("hour").is_in(hours.implode()), at=pl.col("hour").dt.hour()
    )
    # An empty hour itself is no other day: it takes none off the days that have one.
    others = frame.with_columns(
        usual=pl.col("there").sum().over("at") * 2 >= pl.len().over("at") - 1, days=pl.len().over("at")
    )
    empty = others.with_columns(missing=~pl.col("there") & pl.col("usual") & (pl.col("days") > 1))
    runs = (
        empty.with_columns(run=pl.col("missing").rle_id())
        .filter("missing")
        .group_by("run", maintain_order=True)
        .agg(pl.col("hour").first(), pl.len().alias("length"))
    )
    if runs.is_empty():
        return None
    _, since, length = runs.sort("length", descending=True, maintain_order=True).row(0)
    if length < GAP_HOURS:
        return None
    text = (
        f"no event for {length} hours from {since:%Y-%m-%d %H:%M} UTC, hours that other days have events at: "
        "was something not shipped?"
    )
    return Caution("gap", text, length)


class _Clock:
    """Events that lie far behind an earlier one of their partition."""

    def __init__(self) -> None:
        self._latest: dict[tuple[object, ...], int] = {}
        self._behind = 0
        self._most = 0
        self._events = 0

    def add(self, batch: pl.DataFrame) -> None:
        """The next events in record order."""
        self._events += batch.height
        rows = batch.select(*_PARTITION, pl.col("@timestamp").dt.epoch("ms").alias("time"))
        for partition, part in rows.partition_by(_PARTITION, as_dict=True, maintain_order=True).items():
            times = part["time"].to_numpy()
            highest = np.maximum.accumulate(times)
            highest = np.maximum(highest, self._latest.get(partition, int(times[0])))
            behind = highest - times
            self._behind += int((behind > JUMP / dt.timedelta(milliseconds=1)).sum())
            self._most = max(self._most, int(behind.max()))
            self._latest[partition] = int(highest[-1])

    def caution(self) -> Caution | None:
        """Whether the clock jumped."""
        if not self._behind:
            return None
        hours = self._most / 3_600_000
        text = (
            f"{self._behind:,} of {self._events:,} events lie more than {JUMP / dt.timedelta(hours=1):g} hour behind "
            f"an earlier one of their partition, up to {hours:,.1f} hours: a clock that jumps, or an old file shipped "
            "late; clients' decayed means take such an event as one of the present"
        )
        return Caution("clock_jumps", text, self._behind)


class _Counts:
    """How often each key came. New ones join the rest when there are as many: no batch pays for all keys before it."""

    def __init__(self) -> None:
        self._parts: list[pl.DataFrame] = []
        self._pending = 0

    def add(self, keys: pl.Series) -> None:
        """The next keys."""
        counts = keys.alias("key").to_frame().group_by("key").agg(pl.len().cast(pl.Int64).alias("count"))
        self._parts.append(counts)
        self._pending += counts.height
        if self._pending > self._parts[0].height:
            self._join()

    def by_key(self) -> pl.DataFrame:
        """Columns `key` and `count`, sorted by key."""
        self._join()
        return self._parts[0].sort("key")

    def _join(self) -> None:
        self._parts = [pl.concat(self._parts).group_by("key").agg(pl.col("count").sum())]
        self._pending = 0
