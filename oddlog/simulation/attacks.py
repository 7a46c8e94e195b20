"""The registry of attack scenarios, and how they are placed into traffic. What each does is in `scenarios.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from oddlog.errors import UsageError
from oddlog.simulation import scenarios as play
from oddlog.simulation.addresses import AddressPool
from oddlog.simulation.ground import ASSET, Ground, read_ground
from oddlog.simulation.requests import REQUEST_SCHEMA
from oddlog.simulation.scenarios import Make
from oddlog.simulation.streams import Ints, stream


@dataclass(frozen=True, slots=True)
class Scenario:
    """One kind of attack: what it is, how large it is by itself, and who plays it."""

    name: str
    sentence: str
    typical_lines: int
    make: Make | None
    """None: it adds no requests, it breaks the ones that are there."""
    whole_period: bool = False
    """Its window is the whole time; else each instance has a day."""

    @property
    def label(self) -> str:
        """`attack:<name>`."""
        return f"attack:{self.name}"

    @property
    def breaks(self) -> bool:
        """Whether it turns sound requests into failing ones instead of adding requests."""
        return self.make is None


SCENARIOS: dict[str, Scenario] = {
    scenario.name: scenario
    for scenario in (
        Scenario("directory_scan", "One client works through a word list of guessed paths, nearly all 404.",
                 400, play.directory_scan),
        Scenario("slow_distributed_scan", "Many clients ask for one to five sensitive paths each, over days.",
                 180, play.slow_distributed_scan, whole_period=True),
        Scenario("login_bruteforce", "Passwords are tried at the login form, which mostly answers 200 again.",
                 300, play.login_bruteforce),
        Scenario("injection_probes", "SQL, script, path and template injections into parameters of real pages.",
                 140, play.injection_probes),
        Scenario("web_shell_use", "A shell left on the server is used, by a busy sound client or by a lone one.",
                 35, play.web_shell_use),
        Scenario("data_pull", "One client counts through the ids of a thing and takes all that is there.",
                 400, play.data_pull),
        Scenario("error_outage", "The backend fails: for some minutes pages answer 502, 503 or 504 to everyone.",
                 300, None),
        Scenario("botnet_one_request", "A thousand clients ask for one missing page, once each, evenly spread.",
                 1000, play.botnet_one_request, whole_period=True),
        Scenario("probes_answered_5xx", "Sensitive paths are asked for and answered 500, 502 or 503.",
                 80, play.probes_answered_5xx),
        Scenario("rotating_user_agents", "A scan from one client that names another browser every time.",
                 200, play.rotating_user_agents),
        Scenario("shell_from_busy_client", "A shell is used from a busy sound client, among its usual requests.",
                 30, play.shell_from_busy_client),
        Scenario("xmlrpc_posts", "POSTs to one endpoint by a few clients, all answered 200 alike.",
                 250, play.xmlrpc_posts),
        Scenario("distributed_bruteforce", "Passwords are tried from many clients, a few times each, answered 200.",
                 250, play.distributed_bruteforce, whole_period=True),
    )
}  # fmt: skip
"""All scenarios by name."""


def chosen_scenarios(names: Sequence[str] | None) -> list[str]:
    """Names in the registry's order, each once; None is all of them. Raises UsageError for an unknown one.

    >>> chosen_scenarios(["data_pull", "directory_scan"])
    ['directory_scan', 'data_pull']
    """
    if names is None:
        return list(SCENARIOS)
    unknown = [name for name in names if name not in SCENARIOS]
    if unknown:
        raise UsageError(
            f"no scenario is called {', '.join(map(repr, unknown))}",
            expected=", ".join(SCENARIOS),
            mend="oddlog simulate --list",
        )
    return [name for name in SCENARIOS if name in names]


def attack(
    traffic: pl.DataFrame,
    budgets: Mapping[str, int],
    *,
    seed: int,
    start_ms: int,
    end_ms: int,
    release_ms: int | None = None,
) -> pl.DataFrame:
    """Traffic (REQUEST_SCHEMA, by time) with attacks between the two moments, as many lines as budgeted.

    Scenarios that break sound requests change rows in place, fewer where there are not as many; the others' rows
    stand at the end, unsorted, exactly as many.
    """
    if not any(budgets.values()):
        return traffic
    addresses = AddressPool(stream(seed, "attackers"), taken=traffic["client"].unique().to_list())
    grounds = _grounds(traffic, seed, addresses, release_ms)
    added: list[pl.DataFrame] = []
    for name, budget in budgets.items():
        scenario = SCENARIOS[name]
        rng = stream(seed, "attack", name)
        if scenario.make is None:
            traffic = break_requests(traffic, rng, budget, start_ms, end_ms, scenario.label)
            continue
        for share in _instances(budget, scenario.typical_lines):
            first, last = window(rng, scenario, start_ms, end_ms)
            ground = grounds[-1] if release_ms is not None and first >= release_ms else grounds[0]
            added.append(scenario.make(rng, ground, share, first, last).frame(scenario.label))
    return pl.concat([traffic, *added])


def _grounds(traffic: pl.DataFrame, seed: int, addresses: AddressPool, release_ms: int | None) -> list[Ground]:
    """The ground before the release and after it; one where there is no release, or nothing on a side of it."""
    parts = [traffic]
    if release_ms is not None:
        sides = [traffic.filter(pl.col("time") < release_ms), traffic.filter(pl.col("time") >= release_ms)]
        parts = [side for side in sides if len(side)]
    return [read_ground(part, stream(seed, "ground", n), addresses) for n, part in enumerate(parts)]


def _instances(budget: int, typical: int) -> list[int]:
    """A budget of lines in about equal instances of about the typical size."""
    if not budget:
        return []
    count = max(1, round(budget / typical))
    return [budget // count + (n < budget % count) for n in range(count)]


def window(rng: np.random.Generator, scenario: Scenario, start_ms: int, end_ms: int) -> tuple[int, int]:
    """First millisecond of an instance, and the one after its last: the whole time, or a day of it."""
    length = end_ms - start_ms
    if scenario.whole_period:
        return start_ms, end_ms
    day = min(length, 86_400_000)
    first = start_ms + int(rng.random() * (length - day))
    return first, first + day


def outage_rows(traffic: pl.DataFrame, rng: np.random.Generator, lines: int, start_ms: int, end_ms: int) -> Ints:
    """Rows (at most `lines`) of one stretch of time that an outage of the backend would fail: no assets."""
    path = pl.col("target").str.split("?").list.first()
    dynamic = (
        traffic.select(
            (
                pl.col("time").is_between(start_ms, end_ms, closed="left")
                & (pl.col("status") < 400)
                & ~path.str.contains(ASSET)
            ).arg_true()
        )
        .to_series()
        .to_numpy()
        .astype(np.int64)
    )
    failing = dynamic[rng.random(len(dynamic)) < 0.93]
    if len(failing) <= lines:
        return failing
    first = int(rng.integers(len(failing) - lines + 1))
    return failing[first : first + lines]


def break_requests(
    traffic: pl.DataFrame, rng: np.random.Generator, lines: int, start_ms: int, end_ms: int, label: str
) -> pl.DataFrame:
    """Traffic in which `lines` sound requests (or as many as there are) of one stretch of time fail with 5xx."""
    rows = outage_rows(traffic, rng, lines, start_ms, end_ms)
    status, size = failures(rng, len(rows))
    broken = pl.DataFrame(
        {"row": rows, "to_status": status, "to_bytes": size},
        schema={"row": pl.UInt32, "to_status": pl.Int32, "to_bytes": pl.Int64},
    )
    changed = pl.col("to_status").is_not_null()
    return (
        traffic.with_row_index("row")
        .join(broken, on="row", how="left", maintain_order="left")
        .with_columns(
            pl.coalesce("to_status", "status").alias("status"),
            pl.coalesce("to_bytes", "bytes").alias("bytes"),
            pl.when(changed).then(pl.lit(label)).otherwise(pl.col("label")).alias("label"),
        )
        .select(list(REQUEST_SCHEMA))
    )


def failures(rng: np.random.Generator, count: int) -> tuple[Ints, Ints]:
    """Status and bytes of `count` answers of a server whose backend is away."""
    status = rng.choice(np.array([502, 503, 504]), size=count, p=[0.6, 0.25, 0.15])
    return status.astype(np.int64), np.where(status == 503, 190, np.where(status == 502, 150, 160)).astype(np.int64)
