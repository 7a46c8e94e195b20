"""Attackers who raise their traffic slowly for a week before they act: does a retraining make them normal?

    python -m benchmarks.poisoning

A simulated site, watched by a champion. In its second week three groups of clients come, each day with more requests of
the kind that they are about to send in masses: a scan, a pull of data, a web shell. Then a new model is trained, and
they act for a day. Measured on that day: with the old champion, with a model that learnt from all clients, and with one
that left out those who were alerted on, as `oddlog retrain` does.
"""

from __future__ import annotations

import argparse
import datetime as dt
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks.living_site import DAY, HOUR, LivingSite
from benchmarks.machine import machine
from benchmarks.program import end_when_asked, told_by_the_clock
from benchmarks.tables import markdown, publish
from oddlog.connectors.registry import CHAMPION
from oddlog.connectors.store import EventQuery
from oddlog.simulation import simulate
from training.due import Conditions

KINDS = ("scan", "pull", "shell")
AGENT = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"
CLIENTS = 3
"""Of each kind."""
RAMP_DAYS = 7
GATES = {None: "", "promoted": "passed", "ready": "passed", "rejected": "rejected"}
VARIANTS: dict[str, dict[str, Any] | None] = {
    "no retraining": None,
    "retrained on all": {"exclude_alerted": False},
    "retrained, alerted left out": {"exclude_alerted": True},
}


def attack_lines(
    rng: np.random.Generator, kind: str, client: int, day: dt.datetime, requests: int
) -> Iterator[tuple[str, str]]:
    """The log lines of one attacker on one day, each with its label, within three hours of it."""
    begin = day + float(rng.uniform(0, 20)) * HOUR
    address = f"203.0.113.{10 * (KINDS.index(kind) + 1) + client}"
    for offset in np.sort(rng.uniform(0, 3 * 3_600, requests)):
        time = begin + dt.timedelta(seconds=float(offset))
        method, status, size = "GET", 200, int(rng.integers(40_000, 90_000))
        if kind == "scan":
            word, end = rng.choice(["backup", "old", "db", "config"]), rng.choice(["zip", "sql", "tar.gz", "bak"])
            path, status, size = f"/{word}{rng.integers(100)}.{end}", 404, 512
        elif kind == "pull":
            path = f"/export/customers.csv?page={rng.integers(5_000)}"
        else:
            path, method = f"/uploads/.thumb.php?c={rng.integers(1 << 30):x}", "POST"
        request = f'"{method} {path} HTTP/1.1" {status} {size} "-" "{AGENT}"'
        yield f"{address} - - [{time:%d/%b/%Y:%H:%M:%S +0000}] {request}", f"attack:{kind}"


def measure(
    folder: Path, options: dict[str, Any] | None, *, seed: int, lines_per_day: float, most: int, algorithm: str
) -> dict[str, Any]:
    """What the acting attackers are worth to the champion of that day, by kind; and what the retraining said."""
    made = simulate(seed=seed, days=7 + RAMP_DAYS + 1, lines_per_day=lines_per_day, attacks=())
    start = made.start.replace(hour=0, minute=0, second=0, microsecond=0)
    ramp, act = start + 7 * DAY, start + (7 + RAMP_DAYS) * DAY
    rng = np.random.default_rng(seed)
    lines, labels = list(made.lines), list(made.labels)
    for day in range(RAMP_DAYS + 1):
        requests = max(1, most * (day + 1) // (2 * RAMP_DAYS)) if day < RAMP_DAYS else most
        for kind in KINDS:
            for client in range(CLIENTS):
                for line, label in attack_lines(rng, kind, client, ramp + day * DAY, requests):
                    lines.append(line)
                    labels.append(label)
    chosen = {"days": float(RAMP_DAYS), "drifted_hours": 1e6, "exclude_up_to": 2.0, **(options or {})}
    with closing(LivingSite(folder, lines, labels, algorithm=algorithm, seed=seed, **chosen)) as site:
        site.begin(ramp)
        site.live(ramp, act)
        told: dict[str, Any] = {"outcome": None}
        if options is not None:
            done = site.retrain(Conditions(), act)
            assert done.trained is not None
            told = {"outcome": done.outcome, "why": done.why, "version": done.trained.version,
                    "left_out": done.trained.metrics["data/alerted_clients_left_out"]}  # fmt: skip
            # What the gates say of it is told; what it would do is measured in any case.
            site.registry.set_alias(CHAMPION, done.trained.version)
        site.live(act, act + DAY)
        return {**told, "kinds": _by_kind(site, act), "alerts": asdict(site.alerts(act, act + DAY))}


def _by_kind(site: LivingSite, act: dt.datetime) -> dict[str, dict[str, float]]:
    columns = ["_id", "anomaly.is_anomaly", "anomaly.severity"]
    events = pl.concat(site.store.read_events(EventQuery(since=act, until=act + DAY), columns=columns))
    found = {}
    for kind in KINDS:
        label = f"attack:{kind}"
        own = events.join(site.labels.filter(pl.col("labels.truth") == label), on="_id")
        median = own["anomaly.severity"].median()
        found[kind] = {
            "events": own.height,
            "events_flagged": float(own["anomaly.is_anomaly"].sum()) / own.height,
            "median_severity": float(median) if isinstance(median, float) else 0.0,
        }
    return found


def table(found: dict[str, dict[str, Any]]) -> str:
    """By kind and variant: share of the attack's events that are flagged, of its client-hours, and their severity."""
    head = ["on the day that they act", *(f"{kind}: {what}" for kind in KINDS for what in ("flagged", "severity")),
            "false alerts", "gates"]  # fmt: skip
    rows = []
    for name, one in found.items():
        cells = [
            cell
            for kind in KINDS
            for cell in (f"{one['kinds'][kind]['events_flagged']:.0%}", f"{one['kinds'][kind]['median_severity']:.1f}")
        ]
        rows.append([name, *cells, str(one["alerts"]["false"]), GATES[one["outcome"]]])
    return markdown(head, rows)


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.poisoning", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--lines-per-day", type=float, default=4_000)
    parser.add_argument("--most", type=int, default=300, help="requests of an attacker on the day that it acts")
    parser.add_argument("--algorithm", default="iforest")
    parser.add_argument("--json", type=Path, default=None)
    chosen = parser.parse_args(arguments)
    end_when_asked()
    say, where = told_by_the_clock(), machine()
    found: dict[str, dict[str, Any]] = {}
    for name, options in VARIANTS.items():
        with tempfile.TemporaryDirectory(prefix="oddlog-poisoning-") as folder:
            found[name] = measure(
                Path(folder), options, seed=chosen.seed, lines_per_day=chosen.lines_per_day, most=chosen.most,
                algorithm=chosen.algorithm,
            )  # fmt: skip
            say(f"{name}: {found[name]}")
    options = {"seed": chosen.seed, "lines_per_day": chosen.lines_per_day, "most": chosen.most,
               "algorithm": chosen.algorithm}  # fmt: skip
    publish("poisoning", where, {"options": options, "variants": found}, [table(found)], chosen.json)


if __name__ == "__main__":
    main()
