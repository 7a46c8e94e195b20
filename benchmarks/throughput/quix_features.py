"""The product's sixteen features for one record at a time, in plain Python, as a user of Quix Streams would write them.

The frozen tables come as JSON (`tables_of`); what belongs to a client comes and goes as a small dict, which Quix keeps.
Formulas: docs/features.md. Imports nothing of oddlog but where the tables are written: this runs in an environment
that has Quix alone.
"""

from __future__ import annotations

import json
import re
from math import exp, log
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from oddlog.features.baseline import Baseline

HEX, DIGITS, TOKEN = re.compile(r"[0-9a-fA-F]{12,}"), re.compile(r"[0-9]+"), re.compile(r"[0-9A-Za-z]+")
TAUS = (3_600.0, 86_400.0)
QUIET, EPSILON, STRENGTH = 9.0 * TAUS[1], 1e-4, 0.3


def tables_of(baseline: Baseline) -> dict[str, Any]:
    """A baseline's tables as JSON takes them, every count by its key."""
    from oddlog.features.declaration import FEATURE_NAMES
    from oddlog.features.keys import _ASSET, _STANDARD

    def keyed(name: str) -> dict[str, list[int]]:
        table = getattr(baseline, name)
        return dict(zip(map(str, table.keys.to_list()), table.counts.T.tolist(), strict=True))

    def paired(name: str, other: str) -> dict[str, list[int]]:
        table, paths = getattr(baseline, name), baseline.path.keys.to_list()
        others = getattr(baseline, other).keys.to_list()
        return {
            f"{paths[key // table.width]} {others[key % table.width]}": counts
            for key, counts in zip(table.keys.tolist(), table.counts.T.tolist(), strict=True)
        }

    return {
        "units": baseline.units.tolist(),
        **{name: keyed(name) for name in ("token", "section", "subsection", "path", "method", "status")},
        "path_method": paired("path_method", "method"),
        "path_status": paired("path_status", "status"),
        "company": {
            path: list(zip(totals, units, strict=True))
            for path, totals, units in zip(
                baseline.path.keys.to_list(),
                baseline.company_total.T.tolist(),
                baseline.company_units.T.tolist(),
                strict=True,
            )
        },
        "buckets": [
            list(zip(totals, units, strict=True))
            for totals, units in zip(baseline.bucket_total.tolist(), baseline.bucket_units.tolist(), strict=True)
        ],
        "general": baseline.general.tolist(),
        "prior": baseline.client_prior.tolist(),
        "names": list(FEATURE_NAMES),
        "standard": _STANDARD,
        "asset": _ASSET,
    }


class Features:
    """Features of records one by one; what was looked up for a URL once is remembered, as anyone would."""

    def __init__(self, tables: Path) -> None:
        found = json.loads(tables.read_text())
        self.names: list[str] = found["names"]
        self._tables = found
        self._units: list[int] = found["units"]
        self._none = [0] * len(self._units)
        self._standard, self._asset = re.compile(found["standard"]), re.compile(found["asset"])
        self._urls: dict[str, tuple[Any, ...]] = {}

    def of(self, event: dict[str, Any], client: dict[str, Any]) -> tuple[list[float], dict[str, Any]]:
        """The features of an event (`url`, `path`, `method`, `status`, `seconds`), and what the client becomes."""
        tpl, standard, asset, rarities = self._urls.get(event["url"]) or self._look_up(event["url"], event["path"])
        status, method = event["status"], event["method"]
        company = self._company(tpl, status)
        if standard:
            rare = [0.0] * 6
            error = 0.0
        else:
            rare = [
                *rarities,
                self._unusual("path_method", "method", tpl, method),
                self._unusual("path_status", "status", tpl, str(status)),
            ]
            error = float(status >= 400)
        signals = (error, rare[3], company, float(not asset), float(method == "POST"))
        means, client = self._means(signals, event["seconds"], client)
        return means + rare, client

    def _look_up(self, url: str, path: str) -> tuple[Any, ...]:
        tpl = DIGITS.sub("0", HEX.sub("H", path))
        parts = tpl.split("/")
        begins = 2 if tpl.startswith("/") else 1
        tokens = dict.fromkeys(TOKEN.findall(DIGITS.sub("0", url)))
        found = (
            tpl,
            self._standard.search(path) is not None,
            self._asset.search(path) is not None,
            [
                self._rarity("section", "/".join(parts[:begins])),
                self._rarity("subsection", "/".join(parts[: begins + 1])),
                self._rarity("path", tpl),
                sum(self._rarity("token", token) for token in tokens) / max(len(tokens), 1),
            ],
        )
        if len(self._urls) < 100_000:
            self._urls[url] = found
        return found

    def _rarity(self, table: str, key: str) -> float:
        counts = self._tables[table].get(key, self._none)
        return sum(-log((c + 0.5) / (n + 1.0)) for c, n in zip(counts, self._units, strict=True)) / len(self._units)

    def _unusual(self, pairs: str, table: str, tpl: str, key: str) -> float:
        together = self._tables[pairs].get(f"{tpl} {key}", self._none)
        paths, keys = self._tables["path"].get(tpl, self._none), self._tables[table].get(key, self._none)
        total = 0.0
        for pair, path, c, n in zip(together, paths, keys, self._units, strict=True):
            total -= log((pair + 2.0 * min(1.0, (c + 0.5) / (n + 1.0))) / (max(path, pair) + 2.0))
        return total / len(self._units)

    def _company(self, tpl: str, status: int) -> float:
        counts = self._tables["path"].get(tpl, self._none)
        known = self._tables["company"].get(tpl)
        total = 0.0
        for kind, (count, general) in enumerate(zip(counts, self._tables["general"], strict=True)):
            bucket = ((1 + count).bit_length() - 1) * 10 + status // 100
            buckets = self._tables["buckets"][kind]
            failed, units = buckets[bucket] if bucket < len(buckets) else (0.0, 0)
            prior = (failed + 2.0 * general) / (units + 2.0)
            failed, units = known[kind] if known else (0.0, 0)
            total += (failed + 4.0 * prior) / (units + 4.0)
        return total / len(counts)

    def _means(
        self, signals: tuple[float, ...], seconds: float, client: dict[str, Any]
    ) -> tuple[list[float], dict[str, Any]]:
        last, weights, sums = client.get("last"), client.get("weights", [0.0, 0.0]), client.get("sums", [0.0] * 10)
        if last is None or (seconds - last > QUIET and weights[1] * exp((last - seconds) / TAUS[1]) < EPSILON):
            last, decays = seconds, (0.0, 0.0)
        else:
            gap = max(0.0, seconds - last)
            last, decays = max(last, seconds), (exp(-gap / TAUS[0]), exp(-gap / TAUS[1]))
        weights = [weight * decay + 1.0 for weight, decay in zip(weights, decays, strict=True)]
        means, kept = [], []
        for i, signal in enumerate(signals):
            for h in (0, 1):
                kept.append(sums[2 * i + h] * decays[h] + signal)
                means.append((kept[-1] + STRENGTH * self._tables["prior"][i]) / (weights[h] + STRENGTH))
        return means, {"last": last, "weights": weights, "sums": kept}
