"""How messages get out: webhooks over HTTP, mail over SMTP, a Kafka topic. When and to whom is `notify.py`'s.

No error here carries the text of a library's: a URL of a webhook is a secret, and libraries put it there.
"""

from __future__ import annotations

import logging
import smtplib
import ssl
from email.message import EmailMessage
from email.utils import formatdate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import orjson

from monitoring.notify import Receiver
from monitoring.notify_message import Message, as_json, as_slack
from oddlog.errors import NotifyError, ReceiverUnavailable, SourceError, UsageError
from oddlog.settings import NotifySettings, Settings, SourceSettings

if TYPE_CHECKING:
    from oddlog.connectors.kafka_producer import KafkaWriter

log = logging.getLogger(__name__)

_FOR_NOW = frozenset({408, 425, 429})
"""Answers, beside 5xx, after which the same request may do."""


def receivers(settings: Settings) -> list[Receiver]:
    """Those that the settings name. Raises UsageError for a Kafka URL, or a file of authorities, that is none."""
    notify = settings.notify
    trusted = None if notify.ca_file is None else _trusting(httpx.create_ssl_context(), notify.ca_file)
    found: list[Receiver] = []
    if notify.webhook is not None:
        token = None if notify.webhook_token is None else notify.webhook_token.get_secret_value()
        url = notify.webhook.get_secret_value()
        found.append(Webhook(url, token=token, timeout=notify.timeout, trusted=trusted))
    if notify.slack is not None:
        found.append(Slack(notify.slack.get_secret_value(), timeout=notify.timeout, trusted=trusted))
    if notify.mail_to is not None:
        found.append(Mail(notify))
    if notify.kafka is not None:
        found.append(Topic(notify.kafka, settings.source))
    return found


class Webhook:
    """Each message as a JSON document by POST, with its id as `Idempotency-Key`. A redirect is not followed: it is not
    the address that was named."""

    name = "webhook"
    for_programs = False

    def __init__(
        self, url: str, *, token: str | None = None, timeout: float = 10.0, trusted: ssl.SSLContext | None = None
    ) -> None:
        self._url = url
        headers = {"user-agent": "oddlog", "content-type": "application/json"}
        self._client = httpx.Client(timeout=timeout, headers=headers, verify=True if trusted is None else trusted)
        if token is not None:
            self._client.headers["authorization"] = f"Bearer {token}"

    def send(self, message: Message) -> None:
        """POST it. Raises NotifyError, ReceiverUnavailable."""
        try:
            answer = self._client.post(
                self._url, content=orjson.dumps(self._body(message)), headers={"idempotency-key": message.id}
            )
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ReceiverUnavailable(f"{self.name} cannot be reached: {type(error).__name__}") from None
        if answer.is_success:
            return
        if answer.status_code in _FOR_NOW or answer.status_code >= 500:
            raise ReceiverUnavailable(
                f"{self.name} answers {answer.status_code}", wait_seconds=_seconds(answer.headers.get("retry-after"))
            )
        raise NotifyError(
            f"{self.name} answers {answer.status_code}", expected="2xx", mend=f"look at setting notify.{self.name}"
        )

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _body(self, message: Message) -> dict[str, Any]:
        return as_json(message)


class Slack(Webhook):
    """The same for Slack, and what takes the same."""

    name = "slack"

    def _body(self, message: Message) -> dict[str, Any]:
        return as_slack(message)


class Mail:
    """Each message as a mail of plain text, over a connection of its own: there are few."""

    name = "mail"
    for_programs = False

    def __init__(self, settings: NotifySettings) -> None:
        self._settings = settings
        self._to = [one.strip() for one in (settings.mail_to or "").split(",")]
        self._trusted = ssl.create_default_context()
        if settings.ca_file is not None:
            _trusting(self._trusted, settings.ca_file)

    def send(self, message: Message) -> None:
        """Hand it to the SMTP server. Raises NotifyError, ReceiverUnavailable."""
        mail = EmailMessage()
        mail["Subject"] = f"[oddlog] {message.subject}"
        mail["From"], mail["To"] = self._settings.mail_from, ", ".join(self._to)
        mail["Date"] = formatdate()
        mail["Message-ID"] = f"<{message.id}@oddlog>"
        mail["Auto-Submitted"] = "auto-generated"
        mail.set_content(message.text + "\n")
        try:
            with self._connection() as server:
                if self._settings.smtp_security == "starttls":
                    server.starttls(context=self._trusted)
                if self._settings.smtp_username is not None:
                    password = self._settings.smtp_password
                    server.login(self._settings.smtp_username, "" if password is None else password.get_secret_value())
                refused = server.send_message(mail)
        except smtplib.SMTPRecipientsRefused as error:
            raise _answered(max(code for code, _ in error.recipients.values())) from None
        except smtplib.SMTPResponseException as error:
            raise _answered(error.smtp_code) from None
        except ssl.SSLCertVerificationError as error:
            raise NotifyError(
                f"mail: the certificate of the SMTP server is not trusted: {error.verify_message}",
                mend="look at notify.smtp_host, and set notify.ca_file to the PEM file of the authority",
            ) from None
        except smtplib.SMTPNotSupportedError:
            raise NotifyError(
                "mail: the SMTP server does not offer what notify.smtp_security or notify.smtp_username ask for",
                mend="look at both settings and at notify.smtp_port",
            ) from None
        except (smtplib.SMTPException, OSError) as error:
            raise ReceiverUnavailable(f"mail: the SMTP server cannot be reached: {type(error).__name__}") from None
        if refused:  # the others have it: it is not sent again
            log.warning("mail: the SMTP server refused %d of %d in notify.mail_to", len(refused), len(self._to))

    def close(self) -> None:
        """Nothing is open."""

    def _connection(self) -> smtplib.SMTP:
        host, port, timeout = self._settings.smtp_host, self._settings.smtp_port, self._settings.timeout
        if self._settings.smtp_security == "tls":
            return smtplib.SMTP_SSL(host, port, timeout=timeout, context=self._trusted)
        return smtplib.SMTP(host, port, timeout=timeout)


class Topic:
    """Each message as a record whose key is the incident's id, so that one incident's stay in order."""

    name = "kafka"
    for_programs = True

    def __init__(self, url: str, source: SourceSettings) -> None:
        """Connects later, at the first message. Raises UsageError for a URL that is none."""
        from oddlog.connectors.kafka_connection import kafka_address

        kafka_address(url)
        self._url, self._source = url, source
        self._writer: KafkaWriter | None = None

    def send(self, message: Message) -> None:
        """Write it, and wait until it is acknowledged. Raises NotifyError."""
        from oddlog.connectors.kafka_producer import KafkaWriter

        try:
            if self._writer is None:
                self._writer = KafkaWriter(self._source, self._url)
            self._writer.send(message.key.encode(), orjson.dumps(as_json(message)))
            self._writer.flush()
        except SourceError as error:
            self.close()
            raise NotifyError(f"kafka: {error.found}", expected=error.expected, mend=error.mend) from None

    def close(self) -> None:
        """Leave."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def _trusting(context: ssl.SSLContext, authorities: Path) -> ssl.SSLContext:
    """The context with further authorities. Raises UsageError."""
    try:
        context.load_verify_locations(authorities)
    except (OSError, ssl.SSLError) as error:
        raise UsageError(
            f"{authorities} holds no certificate: {error}", expected="a PEM file", mend="correct notify.ca_file"
        ) from None
    return context


def _answered(code: int) -> NotifyError:
    """SMTP's own rule: 4xx is for now, 5xx for good."""
    if code < 500:
        return ReceiverUnavailable(f"mail: the SMTP server answers {code}")
    mend = "look at settings notify.smtp_username and notify.smtp_password" if code in (530, 534, 535) else None
    return NotifyError(
        f"mail: the SMTP server answers {code}", mend=mend or "look at notify.mail_to and notify.mail_from"
    )


def _seconds(retry_after: str | None) -> float:
    """How long a receiver asks to be left alone; a date, or nothing, is 0."""
    try:
        return max(0.0, float(retry_after or 0))
    except ValueError:
        return 0.0
