"""A log scored without a server: what is read, who is found, how like clients are grouped, what the page escapes."""

from __future__ import annotations

import csv
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from oddlog.errors import UsageError
from oddlog.features.compute import FeatureComputer
from oddlog.simulation.traffic import simulate
from tests.small_model import small_model
from training.filescore import ReadLog, ScoredLog, read_events, score_by_itself, score_by_model, with_threshold
from training.findings import PER_CLIENT, document, find, table
from training.page import page
from training.words import headline, judged_by, unread

EVIL = '"><script>alert(1)</script>'
LINES = simulate(seed=4, lines=3_000, days=3.0, attacks=["directory_scan"], attack_share=0.05).lines
BOTS = [f"198.51.100.{n}" for n in range(40)]


def line(client: str, request: str, status: int, agent: str = "curl/8", hour: int = 9) -> str:
    return f'{client} - - [03/Mar/2026:{hour:02}:10:00 +0000] "{request}" {status} 12 "-" "{agent}"'


def read(lines: list[str]) -> ReadLog:
    return read_events(io.BytesIO("".join(f"{one}\n" for one in lines).encode()), name="access.log")


@pytest.fixture(scope="module")
def scored() -> ScoredLog:
    botnet = [line(bot, "GET /wp-login.php HTTP/1.1", 404) for bot in BOTS]
    lines = [*LINES, "no event", *botnet, line("203.0.113.9", f"GET /x/{EVIL.replace(chr(34), '%22')} HTTP/1.1", 404)]
    return score_by_itself(read(lines), algorithm="surprise", budget=60)


def test_what_was_read(scored: ScoredLog) -> None:
    assert scored.log.lines == 3_042
    assert scored.log.events.height == 3_041
    assert scored.log.unread == 1
    assert scored.log.first_unread is not None
    assert scored.log.first_unread[0] == 3_001
    assert "no event" in unread(scored.log)
    assert "3,041 requests" in headline(scored, find(scored))


def test_severity_is_the_events_own_rank(scored: ScoredLog) -> None:
    """The oddest of n events is rarer than one in n (+ 1); the median as usual as one in two."""
    top = np.argsort(-scored.scores)
    assert scored.severities[top[0]] == pytest.approx(np.log10(3_042 / np.sum(scored.scores == scored.scores.max())))
    assert scored.severities[top[1_520]] == pytest.approx(np.log10(2), abs=0.02)


def test_the_scanner_is_found_and_the_botnet_is_one_group(scored: ScoredLog) -> None:
    findings = find(scored, clients=10, events=10)
    scanner = next(c for c in findings.oddest_clients if c.requests > 100)
    assert scanner.anomalies > 100
    assert scanner.oddest.severity > 2
    (net,) = [c for c in findings.oddest_clients if c.oddest.url == "/wp-login.php"]
    assert net.alike == len(BOTS) - 1
    assert set(net.alike_clients) < set(BOTS)
    assert net.requests == 1
    assert findings.anomalies == int(scored.odd.sum())


def test_requests_are_spread_over_paths_and_clients(scored: ScoredLog) -> None:
    found = find(scored, events=30).oddest_events
    assert len({event.url for event in found}) == len(found)
    assert max(sum(e.client == one.client for e in found) for one in found) <= PER_CLIENT
    assert [e.score for e in found] == sorted((e.score for e in found), reverse=True)
    lines = [*LINES, "no event"]
    for event in found:
        if event.line <= 3_000:
            assert event.client in lines[event.line - 1]
            assert event.url in lines[event.line - 1]


def test_a_shell_used_from_a_busy_sound_client_is_found_by_the_second_channel() -> None:
    """The client's score is drowned by its sound requests; the request in itself is new."""
    made = simulate(seed=2, lines=20_000, days=4.0, attacks=["shell_from_busy_client"], attack_share=0.003)
    found = score_by_itself(read(made.lines), algorithm="surprise", budget=20)
    shell = [n for n, label in enumerate(made.labels) if label != "benign"]
    assert not found.odd[shell].any()
    findings = find(found)
    told = [event for event in findings.novel_events if event.line - 1 in shell]
    assert told
    assert told[0].reasons[0]["feature"] in ("path_rarity", "token_rarity", "section_rarity", "subsection_rarity")
    assert not any(event.is_anomaly for event in findings.novel_events)
    assert len({(e.client, e.time.replace(minute=0, second=0)) for e in findings.novel_events}) <= 4


def test_few_clients_and_none_odd_are_told_of_all_the_same() -> None:
    lines = [line(f"192.0.2.{n % 3}", "GET / HTTP/1.1", 200, hour=n % 20) for n in range(120)]
    findings = find(score_by_itself(read(lines), algorithm="surprise", budget=20))
    assert findings.anomalies == 0
    assert findings.groups == 0
    assert len(findings.oddest_clients) == 1  # three clients that did the same thing
    assert findings.oddest_clients[0].alike == 2


@pytest.mark.parametrize("algorithm", ["iforest", "autoencoder"])
def test_other_detectors_find_the_scanner_too(algorithm: str) -> None:
    findings = find(score_by_itself(read(LINES), algorithm=algorithm, budget=20))
    assert max(client.anomalies for client in findings.oddest_clients) > 100


def test_a_trained_model_scores_as_it_would_when_serving(tmp_path: Path) -> None:
    model = small_model(tmp_path / "model", [one.encode() for one in LINES[:2_000]])
    log = read(LINES[2_000:])
    found = score_by_model(log, model, name="version 7")
    expected = model.score(FeatureComputer(model.baseline).compute(log.events))
    np.testing.assert_array_equal(found.scores, expected)
    np.testing.assert_allclose(found.severities, model.severity(expected))
    assert found.threshold == model.card.threshold
    assert "version 7" in judged_by(found, find(found))
    assert with_threshold(found, 3.0).threshold.budget_per_day == 3.0


@pytest.mark.parametrize(
    ("lines", "message"),
    [([], "is empty"), (["what?"] * 3, "none of the 3 lines"), (LINES[:99], "99 events")],
)
def test_too_little_is_an_error(lines: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        score_by_itself(read(lines), algorithm="surprise", budget=20)


def test_an_unknown_algorithm_is_named() -> None:
    with pytest.raises(UsageError, match="magic"):
        score_by_itself(read(LINES[:200]), algorithm="magic", budget=20)


def test_csv_for_programs(scored: ScoredLog) -> None:
    odd = list(csv.DictReader(io.StringIO(table(scored, every=False).write_csv())))
    assert len(odd) == int(scored.odd.sum())
    assert [float(row["score"]) for row in odd] == sorted((float(row["score"]) for row in odd), reverse=True)
    assert all(row["reasons"] for row in odd)
    every = table(scored, every=True)
    assert every["line"].to_list() == [*range(1, 3_001), *range(3_002, 3_043)]


def test_csv_runs_no_formula() -> None:
    agent = "=HYPERLINK(1)"
    lines = [*LINES[:200], *[line("192.0.2.7", "GET /a HTTP/1.1", 404, agent)] * 3]
    rows = table(score_by_itself(read(lines), algorithm="surprise", budget=20), every=True)
    assert set(rows["user_agent"].to_list()[-3:]) == {f"'{agent}"}


def test_the_document_holds_what_the_terminal_tells(scored: ScoredLog) -> None:
    found = document(scored, find(scored))
    assert found["unread"] == {"lines": 1, "first": {"line": 3_001, "found": scored.log.first_unread[1]}}  # type: ignore[index]
    assert found["oddest_clients"][0]["severity"] == found["oddest_clients"][0]["oddest"]["severity"]
    assert found["oddest_clients"][0]["oddest"]["reasons"][0]["feature"]


class Elements(HTMLParser):
    """Counts elements, and collects what they point at."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.pointers: list[str | None] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.pointers += [value for name, value in attrs if name in ("src", "href", "action") or name.startswith("on")]


def test_the_page_is_whole_and_log_lines_stay_text(scored: ScoredLog) -> None:
    hostile = ReadLog(f"{EVIL}.log", scored.log.events, 3_042, 1, (3_001, f"found {EVIL}\x1b[2J"))
    text = page(ScoredLog(**{name: getattr(scored, name) for name in scored.__slots__} | {"log": hostile}),
                find(scored, clients=50, events=50))  # fmt: skip
    assert text.count("<script>") == 1
    assert "alert(1)" in text
    assert "GET /wp-login.php \N{RIGHTWARDS ARROW} 404" in text
    assert EVIL not in text
    assert "\x1b" not in text
    assert not re.search(r"https?://", text)
    elements = Elements()
    elements.feed(text)
    assert elements.pointers == []
    assert elements.tags.count("script") == 1
    assert elements.tags.count("svg") == 2
    assert {"img", "iframe", "link", "form"}.isdisjoint(elements.tags)
    assert "default-src 'none'" in text
