"""Incidents: alerts that belong together, of one client or of many that show one pattern. Pure: alerts and what is
known go in, incidents come out; reading events, storing and telling are in the files beside.

What an hour brought to an incident is replaced as a whole whenever that hour is looked at again, and everything told of
an incident is computed from its hours. So nothing is counted twice, however often a round is repeated.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import polars as pl

from oddlog.scoring.alerts import BEHAVIOUR_BETWEEN

Kind = Literal["client", "pattern"]
Status = Literal["open", "closed", "merged", "withdrawn"]
"""`merged`: its alerts are another's now. `withdrawn`: they are alerts no more, as their events were hushed or scored
anew."""

NAMES = 50
"""Most clients named of an hour."""
PATHS = 20
"""Most path templates named."""


@dataclass(frozen=True, slots=True)
class HourPart:
    """What an hour brought to an incident."""

    alerts: int
    events: int
    clients: list[str]
    """By name, the first NAMES."""
    client_count: int
    paths: list[str]
    """Templates that its odd requests ask for, the first PATHS."""
    path_count: int
    first: dt.datetime
    last: dt.datetime
    severity: float
    top: str
    """Id of its oddest event."""


@dataclass(slots=True)
class Incident:
    """Alerts that belong together. `hours` by their beginning, UTC; empty where all alerts are another's, or none."""

    id: str
    kind: Kind
    key: str
    """The client; or a digest of the behaviour that all its clients show."""
    status: Status
    hours: dict[dt.datetime, HourPart]
    first_seen: dt.datetime
    last_seen: dt.datetime
    merged_into: str | None = None
    example: dict[str, Any] | None = None
    """Its oddest event."""
    reasons: list[dict[str, Any]] = field(default_factory=list)
    """Of that event."""
    told: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By receiver: whether it waits, or was told, when, and by which message."""
    updated_at: dt.datetime | None = field(default=None, compare=False)
    """When its document was written last."""

    @property
    def alerts(self) -> int:
        """Distinct (client, hour)."""
        return sum(part.alerts for part in self.hours.values())

    @property
    def events(self) -> int:
        """Odd events."""
        return sum(part.events for part in self.hours.values())

    @property
    def clients(self) -> list[str]:
        """By name; of an hour with very many clients some."""
        return sorted({name for part in self.hours.values() for name in part.clients})

    @property
    def client_count(self) -> int:
        """Distinct clients; at least so many where an hour had more than are named."""
        return max([len(self.clients), *(part.client_count for part in self.hours.values())])

    @property
    def paths(self) -> list[str]:
        """Templates that were asked for, the first PATHS."""
        return sorted({path for part in self.hours.values() for path in part.paths})[:PATHS]

    @property
    def path_count(self) -> int:
        """Distinct templates; at least so many where there are more than are named."""
        named = {path for part in self.hours.values() for path in part.paths}
        return max([len(named), *(part.path_count for part in self.hours.values())])

    @property
    def severity(self) -> float:
        """Of its oddest event."""
        return max((part.severity for part in self.hours.values()), default=0.0)

    @property
    def top(self) -> str | None:
        """Id of its oddest event, the first of equals."""
        best = max(self.hours.items(), key=lambda item: (item[1].severity, -item[0].timestamp()), default=None)
        return best[1].top if best else None


class _Episode(NamedTuple):
    """Alerts of one kind and key without a quiet time between them."""

    kind: Kind
    key: str
    hours: dict[dt.datetime, HourPart]

    @property
    def first(self) -> dt.datetime:
        return min(part.first for part in self.hours.values())

    @property
    def last(self) -> dt.datetime:
        return max(part.last for part in self.hours.values())


def incident_id(kind: Kind, key: str, begun: dt.datetime) -> str:
    """The same for the same beginning, whoever finds it and when.

    >>> incident_id("client", "192.0.2.1", dt.datetime(2024, 3, 1, 10, 20, tzinfo=dt.UTC))
    '20240301T10-72cb1d94424e'
    """
    return f"{begun:%Y%m%dT%H}-{hashlib.sha256(f'{kind} {key}'.encode()).hexdigest()[:12]}"


def pattern_key(behaviour: str) -> str:
    """A digest of a behaviour, which may have thousands of paths."""
    return hashlib.sha256(behaviour.encode()).hexdigest()[:16]


def regroup(
    known: Mapping[str, Incident],
    alerts: pl.DataFrame,
    *,
    since: dt.datetime,
    now: dt.datetime,
    quiet: dt.timedelta,
    pattern_clients: int,
) -> dict[str, Incident]:
    """The incidents that are new or other than `known` (by id; not changed), once all alerts from `since` on are these.

    `alerts`: `client`, `hour`, `odd`, `severity`, `row` (the event's id), `behaviour` as `alerts_of` makes them, with
    `first` and `last` (of its odd events); `since` is the beginning of an hour. An alert is the pattern's where
    `pattern_clients` clients, or an incident that is known, show its behaviour without a quiet time between; else it is
    its client's. An incident is closed once `quiet` has passed since its last event.
    """
    found = {id: deepcopy(one) for id, one in known.items() if _may_change(one, since, quiet)}
    behind: dict[str, dict[dt.datetime, HourPart]] = {
        id: {hour: part for hour, part in one.hours.items() if hour < since} for id, one in found.items()
    }
    alike: dict[tuple[Kind, str], list[Incident]] = defaultdict(list)
    for one in found.values():
        alike[one.kind, one.key].append(one)
    for episode in _episodes(alerts, known, quiet, pattern_clients):
        one = _incident_of(episode, found, alike[episode.kind, episode.key], behind, quiet)
        behind[one.id].update(episode.hours)
    gone = {id: set(one.hours) - set(behind[id]) for id, one in found.items()}
    for one in found.values():
        _settle(one, behind[one.id], now, quiet)
    lost = [one for one in found.values() if one.status == "withdrawn" and one.kind == "client" and gone[one.id]]
    taken = _taken_by_patterns(alerts, {one.key for one in lost}, found.values()) if lost else {}
    for one in lost:
        takers = (taken.get((one.key, hour)) for hour in sorted(gone[one.id]))
        one.merged_into = next((id for id in takers if id is not None), None)
        one.status = "merged" if one.merged_into else "withdrawn"
    return {id: one for id, one in found.items() if one != known.get(id)}


def _may_change(one: Incident, since: dt.datetime, quiet: dt.timedelta) -> bool:
    return one.status == "open" or one.last_seen + quiet >= since


def _episodes(
    alerts: pl.DataFrame, known: Mapping[str, Incident], quiet: dt.timedelta, pattern_clients: int
) -> Iterable[_Episode]:
    """Patterns first, then what is left by client; of each in the order of their beginning."""
    if alerts.is_empty():
        return
    patterns = defaultdict(list)
    for one in known.values():
        if one.kind == "pattern" and one.status in ("open", "closed"):
            patterns[one.key].append((one.first_seen - quiet, one.last_seen + quiet))
    frame = _with_episode(alerts, "behaviour", quiet).with_columns(
        shown_by=pl.col("client").n_unique().over("behaviour", "episode"),
        begun=pl.col("first").min().over("behaviour", "episode"),
        ended=pl.col("last").max().over("behaviour", "episode"),
    )
    groups = frame.select("behaviour", "episode", "shown_by", "begun", "ended").unique()
    chosen = [
        (behaviour, number)
        for behaviour, number, shown_by, begun, ended in groups.iter_rows()
        if shown_by >= pattern_clients
        or any(begun <= until and ended >= start for start, until in patterns.get(pattern_key(behaviour), ()))
    ]
    keys = pl.DataFrame(chosen, schema=groups.select("behaviour", "episode").schema, orient="row")
    common = frame.join(keys, on=["behaviour", "episode"], how="semi")
    for behaviour, episode in _parts(common, "behaviour"):
        yield _Episode("pattern", pattern_key(behaviour), episode)
    single = _with_episode(frame.join(keys, on=["behaviour", "episode"], how="anti").drop("episode"), "client", quiet)
    for client, episode in _parts(single, "client"):
        yield _Episode("client", client, episode)


def _with_episode(alerts: pl.DataFrame, by: str, quiet: dt.timedelta) -> pl.DataFrame:
    """With `episode`: the number of the group, among those of one `by`, that no quiet time divides."""
    before = pl.col("last").cum_max().shift(1).over(by)
    begins = (pl.col("first") - before > quiet).fill_null(value=False)
    return alerts.sort(by, "first", "client", "hour").with_columns(episode=begins.cum_sum().over(by))


def _parts(alerts: pl.DataFrame, by: str) -> list[tuple[str, dict[dt.datetime, HourPart]]]:
    """The episodes of every `by`, hour by hour, in the order of their beginning."""
    paths = pl.col("behaviour").unique().sort().head(PATHS).str.split(BEHAVIOUR_BETWEEN)
    hours = alerts.group_by(by, "episode", "hour").agg(
        alerts=pl.len(),
        events=pl.col("odd").sum(),
        clients=pl.col("client").unique().sort().head(NAMES),
        client_count=pl.col("client").n_unique(),
        paths=paths.explode(empty_as_null=False).unique().sort().head(PATHS),
        path_count=pl.col("behaviour").str.count_matches(BEHAVIOUR_BETWEEN, literal=True).max() + 1,
        first=pl.col("first").min(),
        last=pl.col("last").max(),
        severity=pl.col("severity").max(),
        top=pl.col("row").sort_by("severity", "row", descending=[True, False]).first(),
    )
    episodes: dict[tuple[str, int], dict[dt.datetime, HourPart]] = defaultdict(dict)
    for row in hours.sort("first", by).iter_rows(named=True):
        key, number, hour = row.pop(by), row.pop("episode"), row.pop("hour")
        episodes[key, number][hour] = HourPart(**row)
    return [(key, parts) for (key, _), parts in episodes.items()]


def _incident_of(
    episode: _Episode,
    found: dict[str, Incident],
    alike: list[Incident],
    behind: dict[str, dict[dt.datetime, HourPart]],
    quiet: dt.timedelta,
) -> Incident:
    """The incident that an episode goes on with, or a new one. Where late events join two, the first takes both.

    `alike`: those of `found` with its kind and key; a new one is put to both."""
    id = incident_id(episode.kind, episode.key, episode.first)
    joined = sorted(
        (
            one
            for one in alike
            if one.status in ("open", "closed")
            and one.first_seen - quiet <= episode.last
            and one.last_seen + quiet >= episode.first
        ),
        key=lambda one: (one.first_seen, one.id),
    )
    if not joined and id in found:  # merged or withdrawn before
        joined = [found[id]]
    if not joined:
        found[id] = Incident(id, episode.kind, episode.key, "open", {}, episode.first, episode.last)
        alike.append(found[id])
        behind[id] = {}
        return found[id]
    first, *others = joined
    if first.status in ("merged", "withdrawn"):
        first.status, first.merged_into = "open", None
    for other in others:
        behind[first.id].update(behind[other.id])
        behind[other.id] = {}
        other.status, other.merged_into = "merged", first.id
    return first


def _settle(one: Incident, hours: dict[dt.datetime, HourPart], now: dt.datetime, quiet: dt.timedelta) -> None:
    """What follows from an incident's hours."""
    one.hours = dict(sorted(hours.items()))
    if not hours:
        one.status = "merged" if one.merged_into else "withdrawn"
        return
    one.first_seen = min(part.first for part in hours.values())
    one.last_seen = max(part.last for part in hours.values())
    one.status = "closed" if now - one.last_seen > quiet else "open"


def _taken_by_patterns(
    alerts: pl.DataFrame, clients: Collection[str], incidents: Iterable[Incident]
) -> dict[tuple[str, dt.datetime], str]:
    """By client and hour: the pattern's incident that tells of that alert now."""
    patterns: dict[tuple[str, dt.datetime], str] = {}
    for one in incidents:
        if one.kind == "pattern":
            for hour in one.hours:
                patterns.setdefault((one.key, hour), one.id)
    own = alerts.filter(pl.col("client").is_in(list(clients))).select("client", "hour", "behaviour")
    found = ((client, hour, patterns.get((pattern_key(shown), hour))) for client, hour, shown in own.iter_rows())
    return {(client, hour): id for client, hour, id in found if id is not None}
