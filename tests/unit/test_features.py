"""Features against a plain reading of their definition, one event at a time, and against how batches are cut."""

from __future__ import annotations

import datetime as dt
import itertools
import math
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from oddlog.errors import UsageError
from oddlog.events.record import Partition
from oddlog.events.schema import EVENT_SCHEMA
from oddlog.features import clients
from oddlog.features.baseline import Baseline
from oddlog.features.compute import FeatureComputer, fit_features
from oddlog.features.declaration import FEATURE_NAMES, FEATURES, feature_digest
from oddlog.features.fitting import fit_baseline
from oddlog.features.keys import keys_of

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


CLIENTS = ["192.0.2.1", "192.0.2.2", "2001:db8::1", "host.example", "192.0.2.3"]
URLS = [
    "/",
    "/a",
    "/a/b.css",
    "/a/17?page=3",
    "/a/18?page=4",
    "/shop/0123456789abcdef/cart",
    "/wp-login.php",
    "",
    "*",
    "//x//y",
    "http://other.example/a",
    "\\x16\\x03\\x01",
    "/ä/ü?q=%27%20OR%201=1",
    "/a?" + "x=1&" * 200,
    *STANDARD,
    "/.well-known/shell.php",
]
MOMENTS = st.one_of(
    st.integers(0, 7_200),
    st.integers(0, 3 * 86_400),
    st.sampled_from([0, 3_600, 9 * 86_400, 10 * 86_400, 25 * 86_400, 60 * 86_400]),
)


@st.composite
def traffic(draw: st.DrawFn, *, most: int = 40, agents: int = 4) -> pl.DataFrame:
    """Events late, repeated, out of order, with everything missing that may be missing."""
    rows = draw(
        st.lists(
            st.builds(
                lambda client, url, seconds, status, method, agent, partition: event(
                    client, url, seconds=seconds, status=status, method=method, agent=agent, partition=partition
                ),
                st.sampled_from(CLIENTS),
                st.sampled_from(URLS),
                MOMENTS,
                st.sampled_from([200, 200, 304, 404, 500, None, 999, 1200]),
                st.sampled_from(["GET", "POST", "", "HEAD"]),
                st.one_of(st.none(), st.integers(0, agents).map(lambda n: f"agent {n}")),
                st.integers(0, 1),
            ),
            min_size=1,
            max_size=most,
        )
    )
    if draw(st.booleans()):
        rows.sort(key=lambda row: row["time"])
    return frame(rows)


# --- the definition, read plainly -----------------------------------------------------------------------------------


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


# --- properties -----------------------------------------------------------------------------------------------------

SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large]


@settings(max_examples=30, deadline=None, suppress_health_check=SLOW)
@given(fitted=traffic(), later=traffic())
def test_features_are_what_the_definition_says(fitted: pl.DataFrame, later: pl.DataFrame) -> None:
    baseline, data = fit_features(fitted)
    plain = Plain(fitted)
    np.testing.assert_allclose(data.features, plain.fitted, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(FeatureComputer(baseline).compute(later), plain.features(later), rtol=1e-5, atol=1e-6)
    same = np.array(plain.behaviour, dtype=object)
    assert all((data.behaviour == data.behaviour[i]).tolist() == [b == same[i] for b in same] for i in range(len(same)))


@settings(max_examples=15, deadline=None, suppress_health_check=SLOW)
@given(fitted=traffic(most=60, agents=60), later=traffic(most=20))
def test_user_agents_are_counted_too_where_there_are_enough(fitted: pl.DataFrame, later: pl.DataFrame) -> None:
    many = frame([event("192.0.2.9", f"/p{n % 7}", agent=f"more {n}", status=404 if n % 5 else 200) for n in range(22)])
    fitted = pl.concat([fitted, many])
    baseline, data = fit_features(fitted)
    plain = Plain(fitted)
    assert len(baseline.units) == len(plain.counted) == 2
    np.testing.assert_allclose(data.features, plain.fitted, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(FeatureComputer(baseline).compute(later), plain.features(later), rtol=1e-5, atol=1e-6)


@settings(max_examples=30, deadline=None, suppress_health_check=SLOW)
@given(fitted=traffic(most=20), stream=traffic(most=60), cuts=st.lists(st.integers(0, 60)))
def test_batches_may_be_cut_anywhere(fitted: pl.DataFrame, stream: pl.DataFrame, cuts: list[int]) -> None:
    baseline = fit_baseline(fitted).baseline
    whole = FeatureComputer(baseline).compute(stream)
    bounds = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    in_batches, one_by_one = FeatureComputer(baseline), FeatureComputer(baseline)
    parts = [in_batches.compute(stream[a:b]) for a, b in itertools.pairwise(bounds)]
    single = [one_by_one.compute(stream[row : row + 1]) for row in range(len(stream))]
    np.testing.assert_array_equal(np.concatenate(parts), whole)  # bit for bit
    np.testing.assert_array_equal(np.concatenate(single), whole)


@settings(max_examples=30, deadline=None, suppress_health_check=SLOW)
@given(fitted=traffic(most=20), stream=traffic(most=40))
def test_partitions_do_not_mix(fitted: pl.DataFrame, stream: pl.DataFrame) -> None:
    baseline = fit_baseline(fitted).baseline
    whole = FeatureComputer(baseline).compute(stream)
    for number in (0, 1):
        rows = (stream["oddlog.position.partition"] == number).to_numpy()
        np.testing.assert_array_equal(FeatureComputer(baseline).compute(stream.filter(rows)), whole[rows])


@settings(max_examples=20, deadline=None, suppress_health_check=SLOW)
@given(fitted=traffic(), later=traffic(most=10))
def test_a_baseline_survives_its_bytes(fitted: pl.DataFrame, later: pl.DataFrame) -> None:
    baseline = fit_baseline(fitted).baseline
    again = Baseline.from_arrow(baseline.to_arrow())
    assert again.digest == baseline.digest
    assert again.to_arrow() == baseline.to_arrow()
    np.testing.assert_array_equal(FeatureComputer(again).compute(later), FeatureComputer(baseline).compute(later))


# --- single facts ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("days", "kept_at_most", "kept_at_least"), [(8.7, 6_000, 6_000), (12.0, 4_500, 3_000)])
def test_clients_leave_the_memory_without_changing_a_number(
    days: float, kept_at_most: int, kept_at_least: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """3,000 one-request clients, days later 3,000 others, then some of the first again, half of them late.

    exp(-8.7) is above EPSILON: nobody may leave yet; after 12 days all of the first have left."""
    gap = days * 86_400.0
    rows = [event(f"c{n}", "/a", seconds=n) for n in range(3_000)]
    rows += [event(f"d{n}", "/b", seconds=gap + n, status=404) for n in range(3_000)]
    rows += [event(f"c{n}", "/a", seconds=gap + 60 if n % 2 else 1.0, status=404) for n in range(300)]
    stream = frame(rows)
    baseline = fit_baseline(stream[:100]).baseline
    swept = FeatureComputer(baseline)
    parts = np.concatenate([swept.compute(batch) for batch in stream.iter_slices(500)])
    assert kept_at_least <= swept.clients <= kept_at_most
    whole = FeatureComputer(baseline).compute(stream)
    np.testing.assert_array_equal(parts, whole)
    monkeypatch.setattr(clients.ClientState, "_sweep", lambda self: None)
    kept = FeatureComputer(baseline)
    unswept = np.concatenate([kept.compute(batch) for batch in stream.iter_slices(500)])
    assert kept.clients == 6_000
    np.testing.assert_array_equal(unswept, whole)


def test_a_forgotten_client_that_comes_late_is_not_forgotten_at_every_event() -> None:
    """An old file is shipped after a new one: its clients' requests add up, as all late ones do."""
    hour, day = 3_600.0, 86_400.0
    stream = frame(
        [
            event("c", "/a", seconds=5 * hour, status=404),
            event("d", "/a", seconds=30 * day),
            event("c", "/a", seconds=0.0, status=404),
            event("c", "/a", seconds=hour),
        ]
    )
    features = FeatureComputer(fit_baseline(stream).baseline).compute(stream)
    np.testing.assert_allclose(features, Plain(stream).features(stream), rtol=1e-5, atol=1e-6)
    g = fit_baseline(stream).baseline.client_prior[0]
    assert features[2, 0] == pytest.approx((1 + 0.3 * g) / 1.3, rel=1e-5)
    assert features[3, 0] == pytest.approx((1 + 0.3 * g) / 2.3, rel=1e-5)


def test_dropping_a_partition_forgets_its_clients_alone() -> None:
    stream = frame([event("192.0.2.1", "/a", partition=p, status=404) for p in (0, 1)])
    computer = FeatureComputer(fit_baseline(stream).baseline)
    first = computer.compute(stream)
    computer.drop(Partition("e1", "t", 0))
    computer.drop(Partition("e1", "t", 7))  # never seen: nothing to forget
    again = computer.compute(stream)
    assert computer.clients == 2
    np.testing.assert_array_equal(again[0], first[0])
    assert (again[1] != first[1]).any()


def test_no_rows() -> None:
    stream = frame([event("192.0.2.1", "/a")])
    assert FeatureComputer(fit_baseline(stream).baseline).compute(stream[:0]).shape == (0, len(FEATURE_NAMES))
    with pytest.raises(UsageError, match="no events"):
        fit_features(stream[:0])


def test_every_feature_is_declared_once_and_told_in_words() -> None:
    assert len(set(FEATURE_NAMES)) == len(FEATURES) == 16
    assert all(feature.meaning and feature.formula for feature in FEATURES)
    assert len(feature_digest()) == 64


def test_the_document_says_what_is_declared() -> None:
    document = (Path(__file__).parents[2] / "docs" / "features.md").read_text()
    told = [line for line in document.splitlines() if line.startswith("| `")]
    assert told == [f"| `{f.name}` | {f.meaning} | `{f.formula}` | {f.unit} |" for f in FEATURES]


@pytest.mark.parametrize(
    ("url", "tpl", "p1", "p2"),
    [
        ("/", "/", "/", "/"),
        ("/blog/2015/07", "/blog/0/0", "/blog", "/blog/0"),
        ("/img/0123456789abcdef.png", "/img/H.png", "/img", "/img/H.png"),
        ("/a?b=/c/d", "/a", "/a", "/a"),
        ("//x//y", "//x//y", "/", "//x"),
        ("*", "*", "*", "*"),
        ("", "", "", ""),
    ],
)
def test_path_keys(url: str, tpl: str, p1: str, p2: str) -> None:
    assert keys_of(frame([event("c", url)])).paths.select("tpl", "p1", "p2").row(0) == (tpl, p1, p2)


@pytest.mark.parametrize(
    ("path", "standard"),
    [
        ("/favicon.ico", True),
        ("//favicon.ico", True),
        ("/apple-touch-icon-120x120-precomposed.png", True),
        ("/sitemap_index.xml.gz", True),
        ("/ads.txt", True),
        ("/.well-known/assetlinks.json", True),
        ("/.well-known/acme-challenge/shell.php", False),
        ("/.well-known/wp-login.php", False),
        ("/favicon.ico.php", False),
        ("/admin/favicon.ico", False),
        ("/wlwmanifest.xml", False),
    ],
)
def test_standard_files(path: str, standard: bool) -> None:
    assert keys_of(frame([event("c", path)])).paths["standard"].to_list() == [standard]


def test_a_browsers_own_404s_count_for_nothing() -> None:
    sound = [event(f"c{n}", "/", seconds=n) for n in range(30)]
    stream = frame([*sound, *(event("c1", "/favicon.ico", status=404, seconds=40 + n) for n in range(5))])
    features = FeatureComputer(fit_baseline(frame(sound)).baseline).compute(stream)
    named = dict(zip(FEATURE_NAMES, features[-1].tolist(), strict=True))
    assert named["client_error_1h"] < 0.01
    assert named["path_rarity"] == named["token_rarity"] == named["status_rarity"] == 0.0


def test_a_crowd_of_equal_clients_is_one_behaviour() -> None:
    """Counted by clients, the probe of a botnet would look like the most normal page of the site."""
    sound = [event(f"c{n}", f"/page/{chr(97 + n % 20)}/{chr(97 + n // 20)}", seconds=60 * n) for n in range(60)]
    botnet = [event(f"b{n}", "/wp-login.php", seconds=n, status=404) for n in range(500)]
    baseline = fit_baseline(frame([*sound, *botnet])).baseline
    path = baseline.path.keys.to_list().index("/wp-login.php")
    assert baseline.path.counts[0, path] == 1
    assert baseline.units[0] == 61
