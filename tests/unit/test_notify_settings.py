"""Settings of who is told: what is refused, and that no secret of them is shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from oddlog import settings as module
from oddlog.errors import UsageError
from oddlog.settings import load
from oddlog.settings_in_force import describe


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "_chosen_file", None)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("webhook", "hooks.example.org/hunter2"),
        ("webhook", "https://[hunter2"),
        ("slack", "https://hooks.example.org:hunter2/x"),
        ("slack", "ftp://hooks.example.org/hunter2"),
        ("mail_to", "someone"),
        ("mail_to", "a@example.org,"),
        ("mail_to", "a@example.org\nBcc: b@example.org"),
        ("kafka", "http://broker/topic"),
    ],
)
def test_a_wrong_receiver_is_refused_by_the_settings_name_and_its_secret_not_shown(field: str, value: str) -> None:
    with pytest.raises(UsageError, match=rf"notify\.{field}") as caught:
        load({"notify": {field: value}})
    assert "hunter2" not in str(caught.value)


def test_urls_that_are_secrets_as_a_whole_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ODDLOG_NOTIFY__SLACK", "https://hooks.slack.com/services/T0/B0/hunter2")
    monkeypatch.setenv("ODDLOG_NOTIFY__SMTP_PASSWORD", "hunter2")
    settings = load()
    assert settings.notify.slack is not None
    assert "hunter2" not in repr(settings)
    assert not any("hunter2" in line.value for line in describe(settings))


def test_a_variable_that_is_empty_names_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WEBHOOK", "SLACK", "MAIL_TO", "KAFKA", "SMTP_PASSWORD"):
        monkeypatch.setenv(f"ODDLOG_NOTIFY__{name}", "")
    notify = load().notify
    assert (notify.webhook, notify.slack, notify.mail_to, notify.kafka, notify.smtp_password) == (None,) * 5
