"""Settings of incidents, and of who is told of them. Those of other verbs are in `settings_verbs.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator

from oddlog.settings_group import Group


class IncidentSettings(Group):
    """Alerts grouped into incidents: `oddlog incidents watch`."""

    quiet_minutes: float = Field(default=120.0, ge=1)
    """An incident is closed when nothing odd came of it for so long; what comes later is another one."""
    lookback_hours: float = Field(default=24.0, ge=1)
    """How far back events are looked at again: late ones, those scored late and those hushed meanwhile count until
    then. After a pause of the loop everything since its last round."""
    catch_up_days: float = Field(default=7.0, gt=0)
    """The most that is looked at after a pause."""
    pattern_clients: int = Field(default=3, ge=2)
    """From so many clients on, alerts that show the same behaviour are one incident, not one for each client."""
    keep_days: float | None = Field(default=90.0, gt=0)
    """Incidents that have ended, and were written more than so many days ago, are deleted; none: they stay."""
    lock_seconds: float = Field(default=300.0, gt=0)
    """A watch that died gives way after this long; longer than any one round."""
    metrics_port: int | None = Field(default=None, ge=0, le=65_535)
    """Port of /metrics; none: no such port. 0: any free one, which the log tells."""
    metrics_host: str = "127.0.0.1"
    """Address that port is bound to; in a container `0.0.0.0`."""


class NotifySettings(Group):
    """Who is told of incidents; each receiver that is named here, once."""

    webhook: SecretStr | None = None
    """`http(s)://` URL that gets each incident as a JSON document by POST."""
    webhook_token: SecretStr | None = None
    """Sent with it as `Authorization: Bearer TOKEN`."""
    slack: SecretStr | None = None
    """`http(s)://` URL of a Slack webhook, or of what takes the same (Mattermost, Rocket.Chat, Discord's `/slack`)."""
    mail_to: str | None = None
    """Addresses that get a mail, with a comma between them."""
    mail_from: str = "oddlog@localhost"
    """Its sender."""
    smtp_host: str = "127.0.0.1"
    """Server that the mail is handed to."""
    smtp_port: int = Field(default=25, ge=1, le=65_535)
    """Its port: 25, 587 (`starttls`) or 465 (`tls`)."""
    smtp_security: Literal["none", "starttls", "tls"] = "none"
    """How the connection is secured."""
    smtp_username: str | None = None
    """SMTP user."""
    smtp_password: SecretStr | None = None
    """SMTP password."""
    ca_file: Path | None = None
    """PEM file with further authorities to trust for TLS to webhooks and to the SMTP server."""
    kafka: str | None = None
    """`kafka://host:port[,host:port]/topic` that gets each incident when it is found and when it is closed, for
    programs; with the credentials of `source`. Not held to `min_severity` and `most_per_hour`."""
    min_severity: float = Field(default=0.0, ge=0)
    """Incidents below this severity are stored, and nobody is told; 3 is one event in 1,000."""
    most_per_hour: int = Field(default=10, ge=1)
    """Most messages an hour to each receiver. What is beyond comes together in one that tells the first of them, and
    how many more."""
    oldest_hours: float = Field(default=24.0, gt=0)
    """Incidents whose last event is older when they are found are stored, and nobody is told."""
    timeout: float = Field(default=10.0, gt=0)
    """Seconds that a receiver has to answer."""
    attempts: int = Field(default=3, ge=1, le=10)
    """Tries in a row; then it is tried again in later rounds, after growing pauses of up to a quarter of an hour."""

    @field_validator(
        "webhook", "webhook_token", "slack", "mail_to", "smtp_username", "smtp_password", "kafka", mode="before"
    )
    @classmethod
    def _empty_is_none(cls, value: object) -> object:
        """A variable that is there and empty, as a compose file passes one on, names nobody."""
        return None if value == "" else value

    @field_validator("webhook", "slack")
    @classmethod
    def _are_http(cls, url: SecretStr | None) -> SecretStr | None:
        """Raises ValueError, which shows nothing of the URL: it is a secret as a whole."""
        if url is not None:
            try:
                parts = urlsplit(url.get_secret_value())
                usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
            except ValueError:  # whose text has a part of it
                usable = False
            if not usable:
                raise ValueError("it is no http:// or https:// URL")
        return url

    @field_validator("webhook_token")
    @classmethod
    def _is_a_token(cls, token: SecretStr | None) -> SecretStr | None:
        """Raises ValueError for what no header can carry."""
        if token is not None:
            found = token.get_secret_value()
            if not (found.isascii() and found.isprintable()) or " " in found:
                raise ValueError("a token is printable ASCII without spaces")
        return token

    @field_validator("mail_to")
    @classmethod
    def _are_addresses(cls, addresses: str | None) -> str | None:
        """Raises ValueError for what is no list of addresses."""
        if addresses is not None:
            for one in addresses.split(","):
                user, at, host = one.strip().rpartition("@")
                if not (user and at and host) or not one.isprintable() or " " in one.strip():
                    raise ValueError("expected addresses with a comma between them, as in a@example.org,b@example.org")
        return addresses

    @field_validator("kafka")
    @classmethod
    def _is_kafka(cls, url: str | None) -> str | None:
        """Raises ValueError for another scheme; the rest is checked where it is connected to."""
        if url is not None and not url.startswith("kafka://"):
            raise ValueError("expected kafka://host:port/topic")
        return url
