"""The first alerts: chosen by score, told by client, with reasons, and harmless as a page whatever a log holds."""

from __future__ import annotations

import datetime as dt
import json
from html.parser import HTMLParser

import numpy as np
import polars as pl

from oddlog.features.declaration import FEATURE_NAMES
from training.alerts import Alert, as_document, as_page, first_alerts

START = dt.datetime(2024, 5, 1, 10, tzinfo=dt.UTC)
TYPICAL = dict.fromkeys(FEATURE_NAMES, 0.02)


class Weighing:
    """Severity is the score; what carried it is the first feature."""

    def severity(self, scores: np.ndarray) -> np.ndarray:
        return np.asarray(scores, dtype=np.float64)

    def contributions(self, features: np.ndarray) -> np.ndarray:
        parts = np.zeros_like(features)
        parts[:, 0] = 1.0
        return parts


def alerts(
    rows: list[tuple[str, int, float]], *, most: int = 20, url: str = "/x", threshold: float = 1.0
) -> list[Alert]:
    """Of (client, minute, score)."""
    events = pl.DataFrame(
        {
            "source.address": [client for client, _, _ in rows],
            "@timestamp": pl.Series(
                [START + dt.timedelta(minutes=minute) for _, minute, _ in rows], dtype=pl.Datetime("ms", "UTC")
            ),
            "http.request.method": ["GET"] * len(rows),
            "url.original": [f"{url}/{number}" for number in range(len(rows))],
            "http.response.status_code": [404] * len(rows),
        }
    )
    scores = np.array([score for *_, score in rows], dtype=np.float32)
    features = np.full((len(rows), len(FEATURE_NAMES)), 0.96, dtype=np.float32)
    return first_alerts(events, scores, features, threshold, Weighing(), FEATURE_NAMES, TYPICAL, most=most)


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
    assert [one.url for one in found] == ["/x/2", "/x/4", "/x/0", "/x/6"]
    assert found[0].rarity == "rarer than one event in 1,000"
    assert found[0].reasons[0]["text"].endswith("96 % of this client's requests in the last hour failed; typical 2 %")


def test_only_the_oddest_are_told() -> None:
    found = alerts([(f"client {i}", i, 1.0 + i) for i in range(50)], most=20)
    assert [one.client for one in found] == [f"client {i}" for i in range(49, 29, -1)]


def test_a_quiet_period_has_no_alert_and_says_so() -> None:
    found = alerts([("a", 0, 0.5)])
    assert found == []
    assert "No event of the later period reaches the threshold." in as_page(found, "a run")
    assert as_document(found) == {"alerts": []}


def test_a_page_holds_what_a_stranger_wrote_as_text() -> None:
    hostile = '/<script>alert(1)</script>"onload=x \x1b[2J\u202e'
    found = alerts([("<b>client", 0, 9.0), ("<b>client", 61, 8.0)], url=hostile)
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
    assert '/<script>alert(1)</script>"onload=x \\x1b[2J\\u202e/0' in reader.text
    assert reader.text.count("<b>client") == 1  # a client is named once
    assert "\x1b" not in page
    assert "default-src 'none'" in page
    document = json.loads(json.dumps(as_document(found)))
    assert document["alerts"][0]["hour"] == "2024-05-01T10:00:00+00:00"
