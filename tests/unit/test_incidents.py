"""Grouping of alerts into incidents: by client, by pattern, over time, repeated, with late and hushed events."""

from __future__ import annotations

import datetime as dt
import json
import random
from typing import Any

import polars as pl
import pytest

from monitoring.incidents import NAMES, Incident, regroup
from monitoring.incidents_alerts import ALERT_SCHEMA, hour_of
from monitoring.incidents_documents import from_document, to_document
from monitoring.incidents_words import lines
from oddlog.connectors.elastic_template import templates
from tests.incident_alerts import QUIET, alert, at, grouped


def told(incidents: dict[str, Incident], status: str = "open") -> list[tuple[Any, ...]]:
    """(kind, clients, alerts, events) of those of a status, sorted."""
    chosen = (one for one in incidents.values() if one.status == status)
    return sorted((one.kind, one.clients, one.alerts, one.events) for one in chosen)


def test_alerts_of_a_client_are_one_incident_until_a_quiet_time_divides_them() -> None:
    found = grouped(
        {}, alert("a", -9, odd=2), alert("a", -8, "/y", odd=3, severity=5), alert("a", -1), alert("b", 0.5), now=1
    )
    assert told(found) == [("client", ["a"], 1, 1), ("client", ["b"], 1, 1)]
    assert told(found, "closed") == [("client", ["a"], 2, 5)]
    (closed,) = (one for one in found.values() if one.status == "closed")
    assert (closed.first_seen, closed.last_seen, closed.severity) == (at(-9), at(-8), 5)
    assert closed.top == "a-0400"
    assert closed.paths == ["/x", "/y"]


def test_a_round_that_is_made_again_changes_nothing() -> None:
    alerts = [alert("a", -1), alert("b", 0), *(alert(f"p{n}", 0.1 * n, "/q") for n in range(5))]
    found = grouped({}, *alerts)
    random.Random(1).shuffle(alerts)
    frame = pl.DataFrame(alerts, schema=ALERT_SCHEMA)
    again = regroup(found, frame, since=hour_of(at(-24)), now=at(1), quiet=QUIET, pattern_clients=3)
    assert again == {}
    assert grouped({}, *alerts) == found, "whoever finds them gives them the same ids"


def test_what_was_written_and_read_again_is_the_same() -> None:
    found = grouped({}, alert("a", -1, "/x", "/y"), *(alert(f"p{n}", 0, "/q") for n in range(3)))
    stored = {id: json.loads(json.dumps(to_document(one, quiet=QUIET))) for id, one in found.items()}
    assert {id: from_document(document) for id, document in stored.items()} == found


def test_an_incident_goes_on_with_the_hours_before_the_look_back() -> None:
    known = grouped({}, alert("a", 0, odd=5), alert("a", 1, odd=7), now=1)
    found = grouped(known, alert("a", 1, odd=9), alert("a", 2, odd=1), since=1, now=2)
    assert told(found) == [("client", ["a"], 3, 15)]
    assert [*found] == [*known]


def test_enough_clients_with_one_behaviour_are_one_pattern() -> None:
    alerts = [alert(f"p{n}", 0.2 * n, "/q", odd=2) for n in range(3)]
    found = grouped({}, *alerts, alert("other", 0, "/q", "/r"))
    assert told(found) == [("client", ["other"], 1, 1), ("pattern", ["p0", "p1", "p2"], 3, 6)]
    assert told(grouped({}, *alerts, pattern=4)) == [("client", [f"p{n}"], 1, 2) for n in range(3)]


def test_clients_that_turn_out_to_be_a_pattern_are_merged_into_it() -> None:
    two = [alert("p0", 0, "/q"), alert("p1", 0, "/q")]
    known = grouped({}, *two)
    assert told(known) == [("client", ["p0"], 1, 1), ("client", ["p1"], 1, 1)]
    found = grouped(known, *two, alert("p2", 0.5, "/q"))
    assert told(found) == [("pattern", ["p0", "p1", "p2"], 3, 3)]
    (pattern,) = (one for one in found.values() if one.kind == "pattern")
    assert [one.merged_into for one in found.values() if one.status == "merged"] == [pattern.id] * 2


def test_a_pattern_that_is_known_takes_who_comes_later_even_alone() -> None:
    known = grouped({}, *(alert(f"p{n}", 0, "/q") for n in range(3)), now=0.5)
    found = grouped(known, alert("p9", 1.5, "/q"), since=1, now=2)
    assert told(found) == [("pattern", ["p0", "p1", "p2", "p9"], 4, 4)]


def test_a_client_that_leaves_the_pattern_has_its_incident_back() -> None:
    two = [alert("p0", 0, "/q"), alert("p1", 0, "/q")]
    known = grouped({}, *two)
    merged = grouped(known, *two, alert("p2", 0.5, "/q"))
    found = grouped(merged, alert("p0", 0, "/q", "/r", odd=4), two[1], alert("p2", 0.5, "/q"))
    assert told(found) == [("client", ["p0"], 1, 4), ("pattern", ["p1", "p2"], 2, 2)]
    assert {one.id for one in found.values()} == {one.id for one in merged.values()}
    assert [one.merged_into for one in found.values() if one.status == "open"] == [None, None]


def test_events_that_were_hushed_withdraw_an_incident_and_bring_it_back_by_the_same_id() -> None:
    known = grouped({}, alert("a", 0), alert("b", 0))
    hushed = grouped(known, alert("b", 0))
    assert told(hushed, "withdrawn") == [("client", [], 0, 0)]
    assert grouped(hushed, alert("a", 0), alert("b", 0)) == known


def test_some_events_hushed_are_counted_no_more() -> None:
    known = grouped({}, alert("a", -1, odd=5, severity=6), alert("a", 0, odd=3))
    (one,) = grouped(known, alert("a", 0, odd=2)).values()
    assert (one.alerts, one.events, one.severity, one.first_seen) == (1, 2, 3.0, at(0))
    (one,) = grouped(known, alert("a", 0, odd=3), since=-1).values()
    assert one.alerts == 1, "in the first hour that is looked at, too"


def test_late_events_that_join_two_incidents_make_the_first_of_them() -> None:
    ends = [alert("a", -6), alert("a", -2)]
    known = grouped({}, *ends)
    assert len(known) == 2
    found = grouped(known, *ends, alert("a", -4, odd=4))
    assert told(found, "closed") == [("client", ["a"], 3, 6)]
    (merged,) = (one for one in found.values() if one.status == "merged")
    assert found[str(merged.merged_into)].first_seen == at(-6)
    assert grouped(found, *ends, alert("a", -4, odd=4)) == found


def test_a_longer_quiet_time_joins_what_lasts_and_loses_none_of_its_hours() -> None:
    known = grouped({}, alert("a", -6, odd=2), alert("a", -2, odd=3), now=-1)
    found = grouped(known, alert("a", 0.5), since=0, quiet=dt.timedelta(hours=8))
    assert told(found) == [("client", ["a"], 3, 6)]


def test_it_is_closed_after_the_quiet_time_and_open_again_for_what_was_late() -> None:
    known = grouped({}, alert("a", 0), now=1)
    closed = grouped(known, alert("a", 0), now=2.5)
    assert told(closed, "closed") == [("client", ["a"], 1, 1)]
    assert told(grouped(closed, alert("a", 0), alert("a", 1.5), now=2.6)) == [("client", ["a"], 2, 2)]
    old = grouped(known, since=100, now=124)
    assert told(old, "closed") == [("client", ["a"], 1, 1)], "long before what is looked at"


def test_of_very_many_clients_some_are_named_and_all_counted() -> None:
    (one,) = grouped({}, *(alert(f"10.0.{n // 250}.{n % 250}", 0, "/q") for n in range(1_000))).values()
    assert (len(one.clients), one.client_count, one.events) == (NAMES, 1_000, 1_000)


def test_what_a_log_holds_is_told_in_safe_words() -> None:
    (one,) = grouped({}, alert("a\x1b[2J", 0, "/q\u202egpj", odd=2)).values()
    one.example = {"id": "1", "time": "", "client": "a\x1b[2J", "method": None, "url": "/\x1b[2J", "status": None}
    one.reasons = [{"feature": "tok", "value": 1.0, "typical": 1.0, "share": 1.0, "text": "tok: rare \u202e words"}]
    document = to_document(one, quiet=QUIET)
    text = "\n".join([document["title"], *lines(document)])
    assert document["title"] == r"a\x1b[2J: 2 odd requests for /q\u202egpj"
    assert "why: rare \\u202e words" in text
    assert text.replace("\n", "").isprintable()


@pytest.mark.parametrize("seed", range(5))
def test_whatever_way_alerts_come_in_each_is_counted_once(seed: int) -> None:
    """Nothing lost, nothing twice: rounds that see more and more of the alerts, some of them twice."""
    chance = random.Random(seed)
    alerts = [
        alert(
            f"c{chance.randrange(6)}", hour + chance.random() * 0.9, f"/{chance.randrange(3)}", odd=chance.randint(1, 9)
        )
        for hour in range(-20, 0)
        for _ in range(chance.randrange(3))
    ]
    alerts = list({(one["client"], one["hour"]): one for one in alerts}.values())
    known: dict[str, Incident] = {}
    for hour in range(-20, 2):
        there = [one for one in alerts if one["hour"] < at(hour) and one["hour"] >= hour_of(at(hour - 6))]  # type: ignore[operator]
        for _ in range(chance.randint(1, 2)):
            known = grouped(known, *there, since=hour - 6, now=hour)
    counted = [(hour, part.alerts, part.events) for one in known.values() for hour, part in one.hours.items()]
    assert sum(events for _, _, events in counted) == sum(int(str(one["odd"])) for one in alerts)
    assert sum(number for _, number, _ in counted) == len(alerts)
    assert all(isinstance(hour, dt.datetime) for hour, _, _ in counted)


def test_every_field_that_dashboards_may_read_is_in_the_index_template() -> None:
    (one,) = grouped({}, alert("a", 0)).values()
    one.example = dict.fromkeys(("id", "time", "client", "method", "url", "status"))
    one.reasons = [dict.fromkeys(("feature", "value", "typical", "share", "text"))]
    mapping = templates("oddlog")["oddlog-incidents"]["template"]["mappings"]["properties"]
    document = to_document(one, quiet=QUIET)
    assert {*document} - {"key"} == {*mapping}
    assert {*one.example} == {*mapping["example"]["properties"]}
    assert {*one.reasons[0]} == {*mapping["reasons"]["properties"]}
