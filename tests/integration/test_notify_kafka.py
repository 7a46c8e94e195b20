"""Incidents on a real Kafka topic: found and closed, each once, by key, for programs that act on them."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from kafka import KafkaConsumer

from monitoring.incidents import Incident
from monitoring.incidents_documents import to_document
from monitoring.incidents_gauges import IncidentGauges
from monitoring.notify import Notifier
from monitoring.notify_receivers import receivers
from oddlog.settings import NotifySettings, Settings
from tests.incident_alerts import NOON, QUIET, alert, at, grouped
from tests.kafka_topic import Topic
from tests.waiting import at_once, until

pytestmark = pytest.mark.kafka


@pytest.fixture
def topic(kafka_url: str) -> Iterator[Topic]:
    topic = Topic(kafka_url)
    yield topic
    topic.close()


def test_programs_hear_of_every_incident_when_it_is_found_and_when_it_is_closed(topic: Topic) -> None:
    url = f"kafka://{topic.server}/{topic.name}"
    settings = Settings(notify=NotifySettings(kafka=url, most_per_hour=1, min_severity=9))
    notifier = Notifier(settings.notify, receivers(settings), IncidentGauges(["kafka"]))
    alerts = [alert(f"client-{n}", 0, f"/{n}") for n in range(3)]
    known = grouped({}, *alerts)
    for one in known.values():
        notifier.enqueue(one, NOON)

    def deliver(incidents: dict[str, Incident], hours: float) -> int:
        for one in incidents.values():
            notifier.note_end(one)
        return notifier.deliver(
            incidents.values(),
            at(hours),
            documents=lambda one: to_document(one, quiet=QUIET),
            keep=lambda told: None,
            go_on=lambda: True,
        )

    assert (deliver(known, 1), deliver(known, 1)) == (3, 0)
    ended = grouped(known, *alerts, now=3)
    assert (deliver(ended, 3), deliver(ended, 4)) == (3, 0)
    notifier.close()

    heard: dict[str, list[tuple[str, str]]] = {}
    consumer = KafkaConsumer(topic.name, bootstrap_servers=topic.server, auto_offset_reset="earliest")

    def all_are_here() -> bool:
        for records in consumer.poll(500).values():
            for record in records:
                body = json.loads(record.value)
                heard.setdefault(record.key.decode(), []).append((body["event"], body["incident"]["status"]))
        return sum(map(len, heard.values())) >= 6

    until(all_are_here, "six records", each=at_once)
    consumer.close()
    assert heard == {id: [("incident.opened", "open"), ("incident.closed", "closed")] for id in known}
