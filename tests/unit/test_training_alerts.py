"""The first alerts: chosen by score, told by client, with reasons, and harmless as a page whatever a log holds."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Sequence
from html.parser import HTMLParser

import numpy as np
import polars as pl

from oddlog.scoring.model import Verdict
from oddlog.scoring.scorer import NoveltyScores, Reason
from training.alerts import Alert, as_document, as_page, first_alerts

START = dt.datetime(2024, 5, 1, 10, tzinfo=dt.UTC)


def alerts(
    rows: Sequence[tuple[str, int, float] | tuple[str, int, float, str]],
    *,
    most: int = 20,
    threshold: float = 1.0,
    novelty: NoveltyScores | None = None,
) -> list[Alert]:
    """Of (client, minute, score) or (client, minute, score, URL); severity is the score."""
    words = [[f"w{chr(97 + number // 26)}{chr(97 + number % 26)}"] for number in range(len(rows))]
    urls = [row[3] if len(row) > 3 else f"/{word[0]}" for row, word in zip(rows, words, strict=True)]
    events = pl.DataFrame(
        {
            "source.address": [row[0] for row in rows],
            "@timestamp": pl.Series(
                [START + dt.timedelta(minutes=row[1]) for row in rows], dtype=pl.Datetime("ms", "UTC")
            ),
            "http.request.method": ["GET"] * len(rows),
            "url.original": urls,
            "url.path": [url.split("?")[0] for url in urls],
            "http.response.status_code": [404] * len(rows),
        }
    )
    scores = np.array([row[2] for row in rows], dtype=np.float32)
    odd = scores >= threshold
    if novelty is not None:
        odd |= novelty.is_anomaly
    reason = Reason(feature="a", value=0.96, typical=0.02, share=1.0, text="a: 96 % failed; typical 2 %")
    reasons = {int(row): [reason] for row in np.flatnonzero(odd)}
    verdict = Verdict(scores, scores.astype(np.float64), odd, reasons, novelty)
    return first_alerts(events, verdict, most=most)


def test_alerts_are_client_hours_the_oddest_client_first_and_its_hours_in_order() -> None:
    found = alerts(
        [
            ("b", 0, 2.0), ("a", 0, 1.5), ("a", 10, 3.0), ("a", 20, 0.5), ("a", 70, 1.0),
            ("quiet", 5, 0.9), ("b", 130, 2.5), ("b", 131, 2.5),
        ]
    )  # fmt: skip
    assert [(one.client, one.hour.hour, one.odd, one.requests, one.score) for one in found] == [
        ("a", 10, 2, 3, 3.0), ("a", 11, 1, 1, 1.0), ("b", 10, 1, 1, 2.0), ("b", 12, 2, 2, 2.5),
    ]  # fmt: skip
    assert [one.url for one in found] == ["/wac", "/wae", "/waa", "/wag"]
    assert found[0].rarity == "rarer than one event in 1,000"
    assert found[0].reasons[0]["text"] == "a: 96 % failed; typical 2 %"
    assert {(one.alike, one.alike_clients) for one in found} == {(0, 0)}


def test_only_the_oddest_are_told() -> None:
    found = alerts([(f"client {i}", i, 1.0 + i) for i in range(50)], most=20)
    assert [one.client for one in found] == [f"client {i}" for i in range(49, 29, -1)]


def test_a_distributed_attack_takes_one_place() -> None:
    """A thousand clients ask for one path once each; a shell's one alert, less odd, is told all the same."""
    botnet = [(f"bot {i}", i, 5.0 + i / 1_000, f"/login.php?try={i}") for i in range(1_000)]
    found = alerts([*botnet, ("shell", 30, 2.0, "/up/x.php"), ("shell", 31, 0.1, "/")], most=20)
    assert [(one.client, one.odd, one.alike, one.alike_clients) for one in found] == [
        ("bot 999", 1, 999, 999), ("shell", 1, 0, 0),
    ]  # fmt: skip
    assert found[0].examples == [f"bot {i}" for i in range(998, 993, -1)]
    page = as_page(found, "a run")
    assert "999 more alerts with odd requests for the same paths, of 999 more clients: bot 998, " in page
    assert "and 994 others" in page


def test_one_clients_hours_of_the_same_are_told_once() -> None:
    found = alerts([("a", 60 * hour, 2.0 + hour, "/backup/7") for hour in range(3)])
    assert [(one.hour.hour, one.alike, one.alike_clients, one.examples) for one in found] == [(12, 2, 0, [])]
    assert "2 more alerts with odd requests for the same paths, of this client" in as_page(found, "a run")


def test_what_novelty_alone_finds_is_an_alert_by_its_own_severity() -> None:
    second = NoveltyScores(
        4.0, np.array([1, 6, 0], np.float32), np.array([0.5, 3.5, 0.0]), np.array([False, True, False])
    )
    found = alerts([("a", 0, 2.0), ("busy", 1, 0.2), ("busy", 2, 0.1)], novelty=second)
    assert [(one.client, one.odd, one.requests, one.severity) for one in found] == [
        ("busy", 1, 2, 3.5),
        ("a", 1, 1, 2.0),
    ]


def test_a_quiet_period_has_no_alert_and_says_so() -> None:
    found = alerts([("a", 0, 0.5)])
    assert found == []
    assert "No event of the later period reaches the threshold." in as_page(found, "a run")
    assert as_document(found) == {"alerts": []}


def test_a_page_holds_what_a_stranger_wrote_as_text() -> None:
    hostile = '/<script>alert(1)</script>"onload=x \x1b[2J\u202e'
    found = alerts([("<b>client", 0, 9.0, f"{hostile}/a"), ("<b>client", 61, 8.0, f"{hostile}/b")])
    page = as_page(found, "run <1>")
    tags: set[str] = set()

    class Reader(HTMLParser):
        text = ""

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            tags.add(tag)
            assert not [name for name, _ in attrs if name.startswith("on")]

        def handle_data(self, data: str) -> None:
            self.text += data

    reader = Reader()
    reader.feed(page)
    assert not tags & {"script", "b", "img", "a"}
    assert '/<script>alert(1)</script>"onload=x \\x1b[2J\\u202e/a' in reader.text
    assert reader.text.count("<b>client") == 1  # a client is named once
    assert "\x1b" not in page
    assert "default-src 'none'" in page
    document = json.loads(json.dumps(as_document(found)))
    assert document["alerts"][0]["hour"] == "2024-05-01T10:00:00+00:00"
