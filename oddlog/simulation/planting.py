"""`plant`: attack scenarios as events among a user's own, to see what a model is worth where no one has labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from oddlog.errors import UsageError
from oddlog.events.logfile import records_from_lines
from oddlog.events.parse import parse
from oddlog.events.schema import EVENT_SCHEMA, POSITION_SCHEMA
from oddlog.simulation.addresses import AddressPool
from oddlog.simulation.attacks import SCENARIOS, Scenario, chosen_scenarios, failures, outage_rows, window
from oddlog.simulation.ground import Ground, read_ground
from oddlog.simulation.requests import REQUEST_SCHEMA, combined_lines
from oddlog.simulation.streams import stream

EPOCH = "injected"
SMALLEST = 12
LARGEST_SHARE = 0.02
"""An instance has at most this share of the events' number (but SMALLEST at least): attacks are rare."""


def plant(
    events: pl.DataFrame, scenarios: Sequence[str] | None = None, *, seed: int = 0, instances: int = 3
) -> pl.DataFrame:
    """Events of attacks on the site that `events` come from, within their period; the same arguments, the same rows.

    What scenarios need they take from the events: existing pages and their sizes, the form that is posted to
    most, the things that are numbered, how "not found" looks, which browsers are usual, which clients are busy
    and sound. Attackers have addresses of 198.18.0.0/15 or 2001:db8::/32, which belong to no one; a shell used
    from a busy client and an outage are of clients that are in the events.

    Args:
        events: EVENT_SCHEMA, in any order; other columns are not looked at.
        scenarios: names in `SCENARIOS`; None: all.
        seed: any integer >= 0.
        instances: how many of each scenario.

    Returns:
        EVENT_SCHEMA, by time. `_id` is `injected-<scenario>-<instance>-<n>` (`planted_of` takes it apart), and
        `labels.truth` is `attack:<scenario>`. The position is epoch "injected", topic <scenario>, partition
        <instance>, offset n. Rows of a client that is in the events stand in that client's own partition:
        there its history is, which the state of features is kept by. The caller concatenates and sorts by time.

    Raises:
        UsageError: for an unknown scenario, and for fewer than one instance or event.
    """
    chosen = chosen_scenarios(scenarios)
    if events.is_empty():
        raise UsageError("there are no events to plant attacks among", expected="at least one event")
    if instances < 1:
        raise UsageError(f"instances is {instances}", expected="1 or more")
    traffic = _as_requests(events)
    times = events["@timestamp"].dt.epoch("ms")
    start_ms = int(times.min())  # type: ignore[arg-type]
    # The last whole second is within the period; a period of a moment gets a minute.
    end_ms = max(int(times.max()) + 1000, start_ms + 60_000)  # type: ignore[arg-type]
    taken = events["source.address"].unique().to_list()
    addresses = AddressPool(stream(seed, "planted"), reserved=True, taken=taken)
    ground = read_ground(traffic, stream(seed, "planted", "ground"), addresses)
    planted = [
        _instance(SCENARIOS[name], number, ground, traffic, stream(seed, "planted", name, number), start_ms, end_ms)
        for name in chosen
        for number in range(instances)
    ]
    return _like(events, pl.concat(planted) if planted else pl.DataFrame(schema=EVENT_SCHEMA))


def planted_of(ids: pl.Series) -> pl.DataFrame:
    """Columns `scenario` and `instance` (String, Int32) of event ids; null where an event was not planted.

    >>> planted_of(pl.Series(["injected-data_pull-2-17", "e1-logs.raw-0-9"])).rows()
    [('data_pull', 2), (None, None)]
    """
    parts = ids.cast(pl.String).str.extract_groups(rf"^{EPOCH}-(?<scenario>[a-z0-9_]+)-(?<instance>\d+)-\d+$")
    return parts.struct.unnest().with_columns(pl.col("instance").cast(pl.Int32))


def _instance(
    scenario: Scenario,
    number: int,
    ground: Ground,
    traffic: pl.DataFrame,
    rng: np.random.Generator,
    start_ms: int,
    end_ms: int,
) -> pl.DataFrame:
    """One instance as events, in the position of its own."""
    lines = min(scenario.typical_lines, max(SMALLEST, int(len(traffic) * LARGEST_SHARE)))
    first, last = window(rng, scenario, start_ms, end_ms)
    if scenario.make is None:
        # It fails many clients' requests: kept short, or it would colour what every other scenario is judged by.
        requests = _retries(traffic, rng, max(SMALLEST, lines // 4), start_ms, end_ms, scenario.label)
    else:
        requests = scenario.make(rng, ground, lines, first, last).frame(scenario.label)
    requests = requests.sort("time", maintain_order=True)
    lines_made = [line.encode() for line in combined_lines(requests).to_list()]
    records = records_from_lines(lines_made, epoch=EPOCH, topic=scenario.name)
    records.partition = [number] * len(records)
    return parse(records).events.with_columns(pl.lit(scenario.label).alias("labels.truth"))


def _retries(
    traffic: pl.DataFrame, rng: np.random.Generator, lines: int, start_ms: int, end_ms: int, label: str
) -> pl.DataFrame:
    """An outage as it can be added: what clients asked for they ask for again some seconds later, and it fails."""
    rows = outage_rows(traffic, rng, lines, start_ms, end_ms)
    status, size = failures(rng, len(rows))
    later = rng.integers(1_000, 9_000, size=len(rows))
    return traffic[rows].with_columns(
        pl.Series("time", np.minimum(traffic["time"].to_numpy()[rows] + later, end_ms - 1), dtype=pl.Int64),
        pl.Series("status", status, dtype=pl.Int32),
        pl.Series("bytes", size, dtype=pl.Int64),
        pl.lit(label).alias("label"),
    )


def _as_requests(events: pl.DataFrame) -> pl.DataFrame:
    """Events as REQUEST_SCHEMA, by time; those that no log line could hold as they are stay out."""
    plain = r'^[^\s"\\]+$'
    quotable = r'^[^"\\\r\n]*$'
    return (
        events.lazy()
        .select(
            pl.col("@timestamp").dt.epoch("ms").alias("time"),
            pl.col("source.address").alias("client"),
            pl.col("http.request.method").alias("method"),
            pl.col("url.original").alias("target"),
            pl.concat_str(pl.lit("HTTP/"), pl.col("http.version").fill_null("1.1")).alias("protocol"),
            pl.col("http.response.status_code").fill_null(0).alias("status"),
            pl.col("http.response.body.bytes").fill_null(0).alias("bytes"),
            pl.col("http.request.referrer").alias("referrer"),
            pl.col("user_agent.original").alias("agent"),
            pl.lit("benign").alias("label"),
        )
        .filter(
            pl.col("target").str.contains(plain)
            & pl.col("client").str.contains(plain)
            & (pl.col("method") != "")
            & pl.col("referrer").fill_null("").str.contains(quotable)
            & pl.col("agent").fill_null("").str.contains(quotable)
        )
        .select(pl.col(name).cast(kind) for name, kind in REQUEST_SCHEMA.items())
        .sort("time", maintain_order=True)
        .collect()
    )


def _like(events: pl.DataFrame, planted: pl.DataFrame) -> pl.DataFrame:
    """Planted events as the others are: from the usual host and file, known clients in their own partition."""
    usual = events.select(
        pl.col("host.name", "log.file.path").drop_nulls().mode(maintain_order=True).first()
    ).row(0)  # fmt: skip
    position = list(POSITION_SCHEMA)[:3]
    home = events.group_by("source.address", maintain_order=True).agg(pl.col(position).last())
    return (
        planted.join(home, on="source.address", how="left", maintain_order="left", suffix=".home")
        .with_columns(
            *(pl.coalesce(f"{name}.home", name).alias(name) for name in position),
            pl.lit(usual[0], dtype=pl.String).alias("host.name"),
            pl.lit(usual[1], dtype=pl.String).alias("log.file.path"),
        )
        .select(list(EVENT_SCHEMA))
        .sort("@timestamp", maintain_order=True)
    )
