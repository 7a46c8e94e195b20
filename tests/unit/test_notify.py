"""Who is told of incidents, once each, within limits, by receivers that are real servers and fail now and then."""

from __future__ import annotations

import datetime as dt
import json
import logging
import socket
import ssl
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
from prometheus_client import generate_latest

from monitoring.incidents import Incident
from monitoring.incidents_documents import from_document, to_document
from monitoring.incidents_gauges import IncidentGauges
from monitoring.notify import HOUR, Notifier, allowance
from monitoring.notify_message import Message, digest, opening, trial
from monitoring.notify_receivers import Mail, Slack, Webhook, receivers
from oddlog.errors import NotifyError, ReceiverUnavailable, StoreUnavailable, UsageError
from oddlog.settings import NotifySettings, Settings
from tests.certificates import Authority
from tests.incident_alerts import NOON, QUIET, alert, at, grouped
from tests.receivers import HttpReceiver, SmtpReceiver


@pytest.fixture
def web() -> Iterator[HttpReceiver]:
    with HttpReceiver().running() as one:
        yield one


class Told:
    """A notifier beside its store, which is a dictionary of documents as JSON."""

    def __init__(self, settings: NotifySettings, incidents: dict[str, Incident], *, enqueue: float | None = 0) -> None:
        self.settings = settings
        self.stored: dict[str, str] = {}
        self.restart()
        for one in incidents.values():
            if enqueue is not None:
                self.notifier.enqueue(one, at(enqueue))
            self._keep([one])

    def restart(self) -> None:
        """As another process would go on."""
        named = receivers(Settings(notify=self.settings))
        self.gauges = IncidentGauges([one.name for one in named])
        self.notifier = Notifier(self.settings, named, self.gauges)

    def deliver(self, hours: float) -> int:
        """A round so many hours after noon; how many messages went out."""
        found = [from_document(json.loads(document)) for document in self.stored.values()]
        return self.notifier.deliver(found, at(hours), documents=_document, keep=self._keep, go_on=lambda: True)

    def metric(self, name: str) -> float:
        lines = generate_latest(self.gauges.registry).decode().splitlines()
        (value,) = (line.rsplit(" ", 1)[1] for line in lines if line.startswith(name + " "))
        return float(value)

    def _keep(self, told: Sequence[Incident]) -> None:
        self.stored.update((one.id, json.dumps(_document(one))) for one in told)


def _document(one: Incident) -> dict[str, Any]:
    return to_document(one, quiet=QUIET)


def clients(number: int) -> dict[str, Incident]:
    """So many incidents, the first the oddest."""
    return grouped({}, *(alert(f"client-{n:02}", 0, f"/{n}", severity=9 - n / 100) for n in range(number)), now=0)


def to(web: HttpReceiver, **more: Any) -> NotifySettings:
    return NotifySettings(webhook=web.url, attempts=1, **more)


def test_an_incident_is_told_once_whatever_restarts(web: HttpReceiver) -> None:
    told = Told(to(web, webhook_token="s3cret"), clients(1))
    assert told.deliver(0) == 1
    assert told.deliver(1) == 0
    told.restart()
    assert told.deliver(2) == 0
    (body,), (headers,) = web.bodies, web.headers
    assert headers["authorization"] == "Bearer s3cret"
    assert headers["idempotency-key"] == body["id"]
    assert body["event"] == "incident.opened"
    assert body["incident"]["client"] == "client-00"
    assert body["incident"]["severity"] == 9.0
    assert "told" not in body["incident"]
    assert body["text"].startswith("client-00: 1 odd request for /0\nseverity 9.0")


def test_a_receiver_that_dies_before_it_is_noted_is_told_again_by_the_same_id(web: HttpReceiver) -> None:
    told = Told(to(web), clients(1))

    def crash(told: Sequence[Incident]) -> None:
        raise StoreUnavailable("away")

    one = from_document(json.loads(next(iter(told.stored.values()))))
    with pytest.raises(StoreUnavailable):
        told.notifier.deliver([one], NOON, documents=_document, keep=crash, go_on=lambda: True)
    assert told.deliver(0) == 1
    assert [body["id"] for body in web.bodies] == [web.bodies[0]["id"]] * 2


def test_what_is_beyond_the_limit_comes_as_one_message_that_says_how_many_more(web: HttpReceiver) -> None:
    told = Told(to(web, most_per_hour=4), clients(30))
    assert told.deliver(0) == 4
    assert [body["event"] for body in web.bodies] == ["incident.opened"] * 3 + ["incident.digest"]
    assert [body["incident"]["client"] for body in web.bodies] == [f"client-{n:02}" for n in range(4)]
    last = web.bodies[-1]
    assert (last["more"], len(last["others"])) == (26, 20)
    assert "and 26 more:" in last["text"]
    assert "and 6 that are not named here" in last["text"]
    told.restart()
    assert told.deliver(0.01) == 0
    assert told.metric('oddlog_notifications_waiting{receiver="webhook"}') == 0


def test_once_the_limit_is_spent_new_ones_wait_for_the_next_message_together(web: HttpReceiver) -> None:
    told = Told(to(web, most_per_hour=2), clients(5))
    assert told.deliver(0) == 2
    for one in grouped({}, alert("late-1", 0.1), alert("late-2", 0.1, "/y")).values():
        told.notifier.enqueue(one, at(0.2))
        told._keep([one])
    assert told.deliver(0.2) == 0
    assert told.metric('oddlog_notifications_waiting{receiver="webhook"}') == 2
    told.restart()  # what was sent in the hour before is still known
    assert told.deliver(0.3) == 0
    assert told.deliver(0.5) == 1
    assert web.bodies[-1]["more"] == 1


def test_a_receiver_that_fails_stops_nothing_and_is_tried_again_after_growing_pauses(
    web: HttpReceiver, caplog: pytest.LogCaptureFixture
) -> None:
    told = Told(to(web), clients(3))
    web.answers = [(500, {})] * 3
    assert [told.deliver(minutes / 60) for minutes in (0, 0.5, 1, 2, 3, 6)] == [0, 0, 0, 0, 0, 0]
    assert len(web.headers) == 3, "once a try, and not while it is left alone"
    assert told.metric('oddlog_notifications_total{outcome="failed",receiver="webhook"}') == 3
    assert told.metric('oddlog_notifications_waiting{receiver="webhook"}') == 3
    assert "webhook answers 500" in caplog.text
    assert told.deliver(8 / 60) == 3
    assert told.metric('oddlog_notifications_total{outcome="sent",receiver="webhook"}') == 3
    assert told.metric('oddlog_notified_incidents_total{receiver="webhook"}') == 3


def test_what_is_for_now_is_tried_again_at_once(web: HttpReceiver) -> None:
    told = Told(NotifySettings(webhook=web.url, attempts=2), clients(1))
    web.answers = [(503, {})]
    assert told.deliver(0) == 1
    assert [headers["idempotency-key"] for headers in web.headers] == [web.bodies[0]["id"]] * 2


@pytest.mark.parametrize("answer", [(404, {}), (302, {"location": "/elsewhere"}), (429, {"retry-after": "1800"})])
def test_what_another_try_does_not_mend_is_not_tried_at_once(
    web: HttpReceiver, answer: tuple[int, dict[str, str]]
) -> None:
    told = Told(NotifySettings(webhook=web.url, attempts=3), clients(1))
    web.answers = [answer]
    assert told.deliver(0) == 0
    assert len(web.headers) == 1
    assert told.deliver(20 / 60) == (0 if answer[0] == 429 else 1), "as long as it asks for"
    assert told.deliver(31 / 60) == (1 if answer[0] == 429 else 0)


@pytest.mark.parametrize("seconds", ["1e300", "inf", "nan", "-5", "soon"])
def test_no_answer_about_waiting_ends_the_loop_or_lasts_over_an_hour(web: HttpReceiver, seconds: str) -> None:
    told = Told(to(web), clients(1))
    web.answers = [(429, {"retry-after": seconds})]
    assert [told.deliver(hours) for hours in (0, 1.01)] == [0, 1]


def test_one_receiver_away_keeps_nothing_from_another(web: HttpReceiver, caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        away = f"http://127.0.0.1:{closed.getsockname()[1]}/services/hunter2"
        told = Told(NotifySettings(webhook=away, slack=web.url, attempts=1), clients(2))
        caplog.set_level(logging.DEBUG, logger="monitoring")
        assert told.deliver(0) == 2
    assert "*client-00: 1 odd request for /0*" in web.bodies[0]["text"]
    assert "webhook cannot be reached: ConnectError" in caplog.text
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("monitoring")]
    assert not any("hunter2" in line for line in ours)


class Program:
    """A receiver for programs that is away for so many messages."""

    name, for_programs = "program", True

    def __init__(self, away: int) -> None:
        self.away = away
        self.heard: list[tuple[str, str]] = []

    def send(self, message: Message) -> None:
        if self.away:
            self.away -= 1
            raise ReceiverUnavailable("away")
        self.heard.append((message.key, message.event))

    def close(self) -> None:
        pass


def test_a_program_that_was_away_hears_of_both_ends_of_what_is_over_by_now() -> None:
    program, alerts = Program(away=1), [alert(f"client-{n}", 0, f"/{n}") for n in range(2)]
    notifier = Notifier(NotifySettings(attempts=1), [program], IncidentGauges(["program"]))

    def deliver(incidents: dict[str, Incident], hours: float) -> int:
        return notifier.deliver(
            incidents.values(), at(hours), documents=_document, keep=lambda told: None, go_on=lambda: True
        )

    known = grouped({}, *alerts, now=0)
    for one in known.values():
        notifier.enqueue(one, NOON)
    assert deliver(known, 0) == 0
    ended = grouped(known, *alerts, now=5)
    assert {one.status for one in ended.values()} == {"closed"}
    for one in ended.values():
        notifier.note_end(one)
    assert (deliver(ended, 5), deliver(ended, 6)) == (4, 0)
    assert sorted(program.heard[:2]) == [(id, "incident.opened") for id in sorted(known)]
    assert sorted(program.heard[2:]) == [(id, "incident.closed") for id in sorted(known)]


def test_old_and_small_ones_are_not_told(web: HttpReceiver) -> None:
    found = grouped({}, alert("old", -30), alert("small", 0, severity=2), alert("big", 0, severity=4), since=-48)
    told = Told(to(web, min_severity=3.0), found)
    assert told.deliver(0) == 1
    assert web.bodies[0]["incident"]["client"] == "big"
    small = next(one for one in found.values() if one.key == "small")
    grown = grouped({small.id: small}, alert("small", 0, severity=5))[small.id]
    told._keep([grown])
    assert told.deliver(0.1) == 1, "its severity has grown"
    assert told.deliver(0.2) == 0


def test_a_receiver_that_is_named_later_hears_of_what_comes_after(web: HttpReceiver) -> None:
    told = Told(NotifySettings(), clients(3))
    told.settings = to(web)
    told.restart()
    assert told.deliver(0) == 0
    assert web.bodies == []


def test_a_mail_has_everything_in_plain_text_and_its_subject_in_one_line() -> None:
    with SmtpReceiver(user="me", password="s3cret").running() as server:
        settings = NotifySettings(
            mail_to="a@example.org, b@example.org", mail_from="oddlog@example.org", smtp_port=server.port,
            smtp_username="me", smtp_password="s3cret", attempts=1,
        )  # fmt: skip
        told = Told(settings, grouped({}, alert("a\r\nBcc: c@example.org", 0, "/wörter")))
        assert told.deliver(0) == 1
    (mail,), (recipients,) = server.mails, server.recipients
    assert recipients == ["a@example.org", "b@example.org"]
    assert mail["Subject"] == r"[oddlog] a\r\nBcc: c@example.org: 1 odd request for /wörter"
    assert mail["Bcc"] is None
    assert mail["Message-ID"].endswith("-opened@oddlog>")
    assert "severity 3.0: its oddest request is rarer than one event in 1,000" in mail.get_content()


def test_an_addressee_that_is_refused_keeps_nothing_from_the_others_and_is_told_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with SmtpReceiver().running() as server:
        server.refuse = {"RCPT": "550 nobody"}
        told = Told(NotifySettings(mail_to="a@x.org, b@x.org", mail_from="o@x.org", smtp_port=server.port,
                                   smtp_security="none"), clients(1))  # fmt: skip
        assert (told.deliver(0), told.deliver(1)) == (1, 0)
    assert server.recipients == [["b@x.org"]]
    assert "refused 1 of 2 in notify.mail_to" in caplog.text


@pytest.mark.parametrize(
    ("refuse", "later"),
    [
        ({"MAIL": "451 busy"}, True), ({"DATA": "452 full"}, True),
        ({"RCPT": "550 nobody"}, False), ({"AUTH": "535 no"}, False),
    ],
)  # fmt: skip
def test_a_mail_server_says_by_its_answer_whether_another_try_may_do(refuse: dict[str, str], later: bool) -> None:
    with SmtpReceiver(user="me", password="s3cret").running() as server:
        server.refuse = refuse
        mail = Mail(
            NotifySettings(mail_to="a@example.org", smtp_port=server.port, smtp_username="me", smtp_password="s3cret")
        )
        with pytest.raises(NotifyError) as caught:
            mail.send(trial())
        assert isinstance(caught.value, ReceiverUnavailable) is later
        assert "s3cret" not in str(caught.value)
        mail.send(trial())
    assert len(server.mails) == 1


def test_a_mail_server_without_tls_is_not_trusted_with_a_password() -> None:
    with SmtpReceiver(user="me", password="s3cret").running() as server:
        settings = NotifySettings(
            mail_to="a@example.org", smtp_port=server.port, smtp_security="starttls", smtp_username="me",
            smtp_password="s3cret",
        )  # fmt: skip
        with pytest.raises(NotifyError, match=r"notify\.smtp_security"):
            Mail(settings).send(trial())
    assert server.mails == []


@pytest.fixture
def tls(tmp_path: Path) -> tuple[ssl.SSLContext, Path]:
    """What a server is given, and the file of the authority that signed it."""
    authority, files = Authority(), {name: tmp_path / f"{name}.pem" for name in ("key", "chain", "authority")}
    certificate = authority.certificate()
    for name, text in (("key", certificate.key), ("chain", certificate.chain), ("authority", authority.pem)):
        files[name].write_text(text)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files["chain"], files["key"])
    return context, files["authority"]


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_a_mail_goes_by_tls_to_a_server_that_is_trusted_alone(
    tls: tuple[ssl.SSLContext, Path], security: Literal["starttls", "tls"]
) -> None:
    context, authority = tls
    with SmtpReceiver(user="me", password="s3cret", tls=context, at_once=security == "tls").running() as server:
        settings = NotifySettings(
            mail_to="a@example.org", smtp_port=server.port, smtp_security=security, smtp_username="me",
            smtp_password="s3cret",
        )  # fmt: skip
        with pytest.raises(NotifyError, match="not trusted"):
            Mail(settings).send(trial())
        assert server.mails == []
        Mail(settings.model_copy(update={"ca_file": authority})).send(trial())
        with pytest.raises(NotifyError):
            Mail(settings.model_copy(update={"ca_file": authority, "smtp_security": "none", "timeout": 0.3})).send(
                trial()
            )
    assert len(server.mails) == 1


def test_a_webhook_goes_by_tls_to_a_server_that_is_trusted_alone(tls: tuple[ssl.SSLContext, Path]) -> None:
    context, authority = tls
    with HttpReceiver(tls=context).running() as web:
        (untrusting,) = receivers(Settings(notify=to(web)))
        with pytest.raises(NotifyError, match="ConnectError"):
            untrusting.send(trial())
        (trusting,) = receivers(Settings(notify=to(web, ca_file=authority)))
        trusting.send(trial())
        assert len(web.bodies) == 1
        with pytest.raises(UsageError, match="holds no certificate"):
            receivers(Settings(notify=to(web, ca_file=authority.with_name("nothing"))))


def test_log_text_cannot_call_everybody_in_slack(web: HttpReceiver) -> None:
    (one,) = grouped({}, alert("<!channel>", 0, "/a&b")).values()
    Slack(web.url).send(opening(_document(one)))
    assert web.bodies == [{"text": web.bodies[0]["text"]}]
    assert web.bodies[0]["text"].startswith("*&lt;!channel&gt;: 1 odd request for /a&amp;b*\n")


def test_a_digest_of_few_names_them_all() -> None:
    message = digest([_document(one) for one in clients(3).values()])
    assert message.subject == "client-00: 1 odd request for /0, and 2 more incidents"
    assert message.body[-1].startswith("- client-02: 1 odd request for /2 (severity 9.0, 20240301T12-")


def test_a_url_that_cannot_be_asked_is_an_error_without_it() -> None:
    with pytest.raises(ReceiverUnavailable) as caught:
        Webhook("http://exa\x7fmple/hunter2").send(trial())
    assert "hunter2" not in str(caught.value)


def test_a_topic_that_is_none_is_refused_at_the_start() -> None:
    with pytest.raises(UsageError):
        receivers(Settings(notify=NotifySettings(kafka="kafka://broker:9092")))


def test_the_bucket_fills_evenly() -> None:
    sent = [NOON - dt.timedelta(minutes=minutes) for minutes in (0, 6, 12, 18)]
    assert allowance(sent, NOON, 10) == 9, "one every six minutes is no more than fills"
    assert allowance([NOON - 5 * HOUR] * 10, NOON, 10) == 10
    assert allowance([NOON] * 25, NOON, 10) == 0
