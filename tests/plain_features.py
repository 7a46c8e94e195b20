"""Events by hand, and features by a plain reading of their definition: one event at a time, with sets and loops."""

from __future__ import annotations

import datetime as dt
import math
import re
from collections import defaultdict
from typing import Any

import numpy as np
import polars as pl

from oddlog.events.schema import EVENT_SCHEMA
from oddlog.features import clients

START = dt.datetime(2026, 3, 2, 10, tzinfo=dt.UTC)
ASSETS = (".css", ".png", ".ico", ".js")
STANDARD = ("/favicon.ico", "/robots.txt", "//apple-touch-icon-120x120.png", "/.well-known/security.txt")


def frame(rows: list[dict[str, Any]]) -> pl.DataFrame:
    """Events with the given columns by short name; the rest is null."""
    names = {
        "time": "@timestamp",
        "client": "source.address",
        "method": "http.request.method",
        "url": "url.original",
        "status": "http.response.status_code",
        "agent": "user_agent.original",
        "partition": "oddlog.position.partition",
    }
    columns: dict[str, list[Any]] = {full: [row.get(short) for row in rows] for short, full in names.items()}
    columns["url.path"] = [row["url"].split("?")[0] for row in rows]
    columns["oddlog.position.epoch"] = ["e1"] * len(rows)
    columns["oddlog.position.topic"] = ["t"] * len(rows)
    columns["oddlog.position.partition"] = [row.get("partition", 0) for row in rows]
    columns["oddlog.position.offset"] = list(range(len(rows)))
    return pl.DataFrame(
        {name: columns.get(name, [None] * len(rows)) for name in EVENT_SCHEMA}, schema=dict(EVENT_SCHEMA)
    )


def event(client: str, url: str, *, seconds: float = 0.0, status: int | None = 200, **more: Any) -> dict[str, Any]:
    time = START + dt.timedelta(seconds=seconds)
    return {"client": client, "url": url, "time": time, "status": status, "method": "GET", "agent": "a", **more}


def _tpl(path: str) -> str:
    return re.sub(r"[0-9]+", "0", re.sub(r"[0-9a-fA-F]{12,}", "H", path))


def _line(row: dict[str, Any]) -> dict[str, Any]:
    path, url = row["url.path"], row["url.original"]
    tpl = _tpl(path)
    slash, body = ("/", tpl[1:]) if tpl.startswith("/") else ("", tpl)
    parts = body.split("/")
    status = row["http.response.status_code"] or 0
    standard = path in STANDARD
    return {
        "tpl": tpl,
        "p1": slash + parts[0],
        "p2": slash + "/".join(parts[:2]),
        "tokens": list(dict.fromkeys(re.findall("[0-9A-Za-z]+", re.sub(r"[0-9]+", "0", url)))),
        "method": row["http.request.method"],
        "status": status,
        "class": status // 100 if 0 <= status < 1_000 else 0,
        "standard": standard,
        "e": 1.0 if status >= 400 and not standard else 0.0,
        "page": 0.0 if path.endswith(ASSETS) else 1.0,
        "post": 1.0 if row["http.request.method"] == "POST" else 0.0,
        "client": row["source.address"],
        "hour": row["@timestamp"].replace(minute=0, second=0, microsecond=0),
        "agent": row["user_agent.original"] or "-",
        "seconds": row["@timestamp"].timestamp(),
        "partition": row["oddlog.position.partition"],
    }


class Counted:
    """Counts over one kind of unit, with sets and loops."""

    def __init__(self, lines: list[dict[str, Any]], unit: list[Any]) -> None:
        self.units_with: dict[Any, set[Any]] = defaultdict(set)
        requests: dict[Any, list[dict[str, Any]]] = defaultdict(list)
        for line, u in zip(lines, unit, strict=True):
            for key in self.keys(line):
                self.units_with[key].add(u)
            requests[u].append(line)
        self.n = len(requests)
        self.g = float(np.mean([np.mean([r["e"] for r in rs]) for rs in requests.values()]))
        self.f: dict[tuple[Any, str], float] = {}
        for u, rs in requests.items():
            for tpl in {r["tpl"] for r in rs}:
                other = [r["e"] for r in rs if r["tpl"] != tpl]
                if other:
                    self.f[u, tpl] = float(np.mean(other))
        # A path is as well known as it is among other units.
        self.bucket: dict[tuple[int, int], dict[Any, float]] = defaultdict(dict)
        for u, rs in requests.items():
            inside: dict[tuple[int, int], list[float]] = defaultdict(list)
            for r in rs:
                if (u, r["tpl"]) in self.f:
                    level = math.floor(math.log2(1 + self.count("tpl", r["tpl"]) - 1))
                    inside[level, r["class"]].append(self.f[u, r["tpl"]])
            for bucket, values in inside.items():
                self.bucket[bucket][u] = float(np.mean(values))

    @staticmethod
    def keys(line: dict[str, Any]) -> list[tuple[Any, ...]]:
        single = [(k, line[k]) for k in ("tpl", "p1", "p2", "method", "status")]
        pairs = [("tpl", "method", line["tpl"], line["method"]), ("tpl", "status", line["tpl"], line["status"])]
        return [*single, *pairs, *(("token", t) for t in line["tokens"])]

    def count(self, *key: Any) -> int:
        return len(self.units_with.get(key, ()))

    def signals(self, line: dict[str, Any], own: Any = None) -> list[float]:
        """p1, p2, tpl, tok, c_me, c_st, comp; `own`: the unit that is left out."""
        out = 0 if own is None else 1
        n = self.n - out

        def nll(*key: Any) -> float:
            return -math.log((self.count(*key) - out + 0.5) / (n + 1))

        def conditional(kind: str) -> float:
            q = min(1.0, (self.count(kind, line[kind]) - out + 0.5) / (n + 1))
            pair = self.count("tpl", kind, line["tpl"], line[kind]) - out
            return -math.log((pair + 2 * q) / (max(self.count("tpl", line["tpl"]) - out, pair) + 2))

        level = math.floor(math.log2(1 + self.count("tpl", line["tpl"]) - out))
        inside = {u: f for u, f in self.bucket.get((level, line["class"]), {}).items() if u != own}
        prior = (sum(inside.values()) + 2 * self.g) / (len(inside) + 2)
        seen = [f for (u, tpl), f in self.f.items() if tpl == line["tpl"] and u != own]
        tokens = [nll("token", t) for t in line["tokens"]]
        return [
            nll("p1", line["p1"]),
            nll("p2", line["p2"]),
            nll("tpl", line["tpl"]),
            float(np.mean(tokens)) if tokens else 0.0,
            conditional("method"),
            conditional("status"),
            (sum(seen) + 4 * prior) / (len(seen) + 4),
        ]


class Plain:
    """Baseline, own-unit-left-out features of the fitted lines, and features of others, by the definition."""

    def __init__(self, events: pl.DataFrame) -> None:
        lines = [_line(row) for row in events.iter_rows(named=True)]
        sets: dict[Any, set[str]] = defaultdict(set)
        for line in lines:
            sets[line["client"], line["hour"]].add(line["tpl"])
        self.behaviour = [frozenset(sets[line["client"], line["hour"]]) for line in lines]
        agents = [line["agent"] for line in lines]
        units: list[list[Any]] = [self.behaviour] + ([agents] if len(set(agents)) >= 20 else [])
        self.counted = [Counted(lines, unit) for unit in units]
        signals = [
            self._of(line, [c.signals(line, own[row]) for c, own in zip(self.counted, units, strict=True)])
            for row, line in enumerate(lines)
        ]
        by_client: dict[str, list[list[float]]] = defaultdict(list)
        for line, (client, _) in zip(lines, signals, strict=True):
            by_client[line["client"]].append(client)
        self.prior = np.mean([np.mean(values, axis=0) for values in by_client.values()], axis=0)
        self.fitted = self._features(lines, signals)

    @staticmethod
    def _of(line: dict[str, Any], kinds: list[list[float]]) -> tuple[list[float], list[float]]:
        *rarities, company = np.mean(kinds, axis=0).tolist()
        if line["standard"]:
            rarities = [0.0] * len(rarities)
        return [line["e"], rarities[3], company, line["page"], line["post"]], rarities

    def features(self, events: pl.DataFrame) -> np.ndarray:
        lines = [_line(row) for row in events.iter_rows(named=True)]
        return self._features(lines, [self._of(line, [c.signals(line) for c in self.counted]) for line in lines])

    def _features(self, lines: list[dict[str, Any]], signals: list[tuple[list[float], list[float]]]) -> np.ndarray:
        state: dict[Any, dict[str, Any]] = {}
        clock: dict[int, float] = defaultdict(lambda: -math.inf)
        rows = []
        for line, (client, rarities) in zip(lines, signals, strict=True):
            partition, t = line["partition"], line["seconds"]
            clock[partition] = max(clock[partition], t)
            who = state.get((partition, line["client"]))
            if who and who["n"][1] * math.exp(-(clock[partition] - who["last"]) / 86_400) < clients.EPSILON:
                who = None
            if who is None:
                start = t if clock[partition] - t < 9 * 86_400 else clock[partition]
                who = state[partition, line["client"]] = {"n": [0.0, 0.0], "s": np.zeros((5, 2)), "last": start}
            gap = max(0.0, t - who["last"])
            who["last"] = max(who["last"], t)
            for h, tau in enumerate((3_600, 86_400)):
                decay = math.exp(-gap / tau)
                who["n"][h] = who["n"][h] * decay + 1
                who["s"][:, h] = who["s"][:, h] * decay + client
            means = (who["s"] + 0.3 * self.prior[:, None]) / (np.array(who["n"]) + 0.3)
            rows.append([*means.ravel().tolist(), *rarities])
        return np.array(rows)
