"""Logs of the verbs: one JSON object a line, whatever is logged, and no secret in any of them."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli import logs
from oddlog.errors import StoreRefused
from oddlog.settings import load


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., io.StringIO]]:
    """Starts logging into a text that the test reads; all as it was before, afterwards."""
    root, before = logging.getLogger(), {name: logging.getLogger(name).level for name in logs.ROOMS}
    handlers, level = root.handlers[:], root.level
    written = io.StringIO()
    monkeypatch.setattr("sys.excepthook", lambda *_: None)
    monkeypatch.setattr(logs, "_in_json", False)  # whatever a start makes of it: this is undone afterwards

    def start(**settings: object) -> io.StringIO:
        root.handlers[:] = []  # pytest's own would be closed by a start
        monkeypatch.setattr("sys.stderr", written)  # in the test itself: pytest sets its own between fixture and test
        logs.start_logging(load(settings))
        return written

    yield start
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, one in before.items():
        logging.getLogger(name).setLevel(one)


def lines(written: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in written.getvalue().splitlines()]


def test_a_line_has_time_level_logger_message_and_fields(started: Callable[..., io.StringIO]) -> None:
    written = started(log={"format": "json"})
    logging.getLogger("serving.enrich").info("lane of version %s", "3", extra={"version": "3"})
    (line,) = lines(written)
    assert line.pop("time")
    assert line == {"level": "INFO", "logger": "serving.enrich", "message": "lane of version 3", "version": "3"}


def test_a_client_library_that_repeats_itself_is_heard_once_a_minute(started: Callable[..., io.StringIO]) -> None:
    clock = iter([0.0, 0.5, 1.0, 59.0, 61.0, 61.0]).__next__
    written = started()
    handler = logging.getLogger().handlers[-1]
    handler.filters[:] = [logs.OnceAMinute(clock)]
    noisy = logging.getLogger("elastic_transport.node_pool")
    for times in (1, 2, 3, 4, 5):
        noisy.warning("Node <Urllib3HttpNode(http://127.0.0.1:9200)> has failed for %d times in a row", times)
    noisy.warning("Node <Urllib3HttpNode(http://127.0.0.1:9200)> is back")
    for _ in range(2):
        logging.getLogger("serving.enrich").warning("ours")
    told = [line.split(": ", 1)[1] for line in written.getvalue().splitlines()]
    assert [line.rpartition("> ")[2] for line in told] == [
        "has failed for 1 times in a row",
        "has failed for 5 times in a row (and 3 more like it)",
        "is back",
        "ours",
        "ours",
    ]


def test_an_error_that_ends_a_verb_is_one_line_with_its_fields(started: Callable[..., io.StringIO]) -> None:
    written = started(log={"format": "json"})
    logs.log_error(StoreRefused("refused with 401", expected="a user", mend="set the password"))
    (line,) = lines(written)
    assert (line["level"], line["expected"], line["mend"], line["exit_code"]) == (
        "ERROR", "a user", "set the password", 3,
    )  # fmt: skip


def test_a_traceback_is_one_line(started: Callable[..., io.StringIO]) -> None:
    written = started(log={"format": "json"})
    try:
        raise RuntimeError("two\nlines")
    except RuntimeError:
        logging.getLogger("cli").exception("failed")
    (line,) = lines(written)
    assert "RuntimeError: two\nlines" in str(line["error"])


@pytest.mark.parametrize("format", ["text", "json"])
def test_no_secret_of_the_settings_is_written(started: Callable[..., io.StringIO], format: str) -> None:
    secrets = ["hunter2", 'with "quotes" and \\', "key=="]
    written = started(
        log={"format": format},
        source={"password": secrets[0]},
        store={"password": secrets[1], "api_key": secrets[2]},
    )
    log = logging.getLogger("oddlog.connectors")
    log.warning("refused: %s", secrets, extra={"deep": {"in": [secrets[1]]}})
    for secret in secrets:
        log.error("refused: %s", secret, extra={"field": secret})
    log.info("mlflow at https://me:hunter2@mlflow:5000")
    assert len(written.getvalue().splitlines()) == 5
    for secret in (*secrets, "me:"):
        assert secret not in written.getvalue()
        assert json.dumps(secret)[1:-1] not in written.getvalue()


def test_client_libraries_are_held_to_warnings_and_levels_are_kept(started: Callable[..., io.StringIO]) -> None:
    written = started(log={"format": "json", "level": "DEBUG"})
    logging.getLogger("kafka.conn").info("connecting")
    logging.getLogger("kafka.conn").warning("lost")
    logging.getLogger("serving").debug("seen")
    started(log={"format": "json", "level": "ERROR"})
    logging.getLogger("kafka.conn").warning("lost again")
    logging.getLogger("serving").warning("not seen")
    assert [line["message"] for line in lines(written)] == ["lost", "seen"]


@given(message=st.text(), field=st.recursive(st.none() | st.integers() | st.floats() | st.text(), st.lists))
def test_whatever_is_logged_is_one_line_of_json(message: str, field: object) -> None:
    record = logging.makeLogRecord({"msg": message, "field": field, "levelname": "INFO", "name": "x"})
    text = logs.JsonLines(["secret"]).format(record)
    assert len(text.split("\n")) == 1
    assert json.loads(text)["message"] == logs.JsonLines(["secret"])._hide(message)
