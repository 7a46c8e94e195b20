"""Single facts about features: clients that leave, keys of paths, standard files, the declaration and its document."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from oddlog.errors import UsageError
from oddlog.events.record import Partition
from oddlog.features import clients, requests
from oddlog.features.compute import FeatureComputer, fit_features
from oddlog.features.declaration import FEATURE_NAMES, FEATURES, feature_digest
from oddlog.features.fitting import fit_baseline
from oddlog.features.keys import keys_of
from tests.plain_features import Plain, event, frame


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


def test_requests_that_read_alike_are_remembered_apart() -> None:
    fitted = frame([event("c", "/a"), event("d", "1 /a", method="GET")])
    alike = [
        event("c", "GET/a", method=""),
        event("c", "/a", method="GET"),
        event("c", "1 /a", method="GET"),
        event("c", "/a", method="GET1 "),
        event("c", "/a", method=None, status=None),
    ]
    baseline = fit_baseline(fitted).baseline
    together = FeatureComputer(baseline).compute(frame([{**row, "client": f"c{n}"} for n, row in enumerate(alike)]))
    alone = [FeatureComputer(baseline).compute(frame([row])) for row in alike]
    np.testing.assert_array_equal(together, np.concatenate(alone))


def test_forgotten_requests_are_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = frame([event(f"c{n % 5}", f"/a/{'b' * (n % 7)}", status=404 if n % 3 else 200) for n in range(60)])
    baseline = fit_baseline(stream[:20]).baseline
    whole = FeatureComputer(baseline).compute(stream)
    monkeypatch.setattr(requests, "MOST_REQUESTS", 3)
    forgetful = FeatureComputer(baseline)
    np.testing.assert_array_equal(np.concatenate([forgetful.compute(part) for part in stream.iter_slices(8)]), whole)


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
