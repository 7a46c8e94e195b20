"""Logs of the verbs that run for long: one handler on standard error, as text or as a JSON object a line.

Nothing is logged for a single event, no secret of the settings gets through, and a client library that says the same
again and again is heard once a minute. What a verb prints as its answer
goes to standard output, and is not a log.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import re
import sys
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import BaseModel, SecretStr

if TYPE_CHECKING:
    from oddlog.errors import OddlogError
    from oddlog.settings import Settings

LogJson = Annotated[
    bool, typer.Option("--log-json", help="Logs, stages and errors as JSON lines. Beats log.format.")
]  # fmt: skip

ROOMS = ("cli", "oddlog", "serving", "training", "monitoring")
"""Loggers of our own; everybody else's are held to WARNING at least."""

SAME_SECONDS = 60.0
"""How long a client library that repeats itself is not heard: while its server is away, it does so all the time."""

_HIDDEN = "***"
_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
_NUMBER = re.compile(r"0x[0-9a-f]+|\d+")
_in_json = False


def log_flags(log_json: bool) -> dict[str, Any]:
    """The settings that the flag `--log-json` stands for."""
    return {"format": "json" if log_json else None}


def start_logging(settings: Settings) -> None:
    """Send the logs of this process to standard error, as `settings.log` says; replaces an earlier start."""
    global _in_json  # noqa: PLW0603  logging itself is global
    _in_json = settings.log.format == "json"
    secrets = _secrets(settings)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines(secrets) if _in_json else TextLines(secrets))
    handler.addFilter(OnceAMinute())
    level = logging.getLevelNamesMapping()[settings.log.level]
    logging.basicConfig(level=max(level, logging.WARNING), handlers=[handler], force=True)
    for room in ROOMS:
        logging.getLogger(room).setLevel(level)
    if _in_json:
        sys.excepthook = _log_crash


def logs_are_json() -> bool:
    """Whether standard error carries JSON lines, so that nothing else may be printed there."""
    return _in_json


def log_error(error: OddlogError) -> None:
    """An error that ends a verb, with what was expected and what mends it as fields."""
    more = {"expected": error.expected, "mend": error.mend, "exit_code": error.exit_code}
    logging.getLogger("cli").error(error.found, extra={key: value for key, value in more.items() if value is not None})


class OnceAMinute(logging.Filter):
    """Lets the same news of a client library through once in SAME_SECONDS, with how often it was said meanwhile.

    Two messages that differ in numbers alone are the same news. Our own rooms are always heard."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._heard: dict[tuple[str, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is written."""
        if record.name.partition(".")[0] in ROOMS:
            return True
        now, message = self._clock(), record.getMessage()
        news = (record.name, _NUMBER.sub("#", message))
        at, more = self._heard.get(news, (float("-inf"), 0))
        if now - at < SAME_SECONDS:
            self._heard[news] = (at, more + 1)
            return False
        if len(self._heard) >= 1_000:
            self._heard.clear()
        self._heard[news] = (now, 0)
        if more:
            record.msg, record.args = f"{message} (and {more} more like it)", ()
        return True


class TextLines(logging.Formatter):
    """Time (UTC), level, logger, message; secrets hidden."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")
        self._hide = _hider(secrets)

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        """ISO 8601 in UTC, with milliseconds."""
        return _time(record)

    def format(self, record: logging.LogRecord) -> str:
        """One line, but for a traceback."""
        return self._hide(super().format(record))


class JsonLines(logging.Formatter):
    """One JSON object a record: time, level, logger, message, `extra` fields, error; secrets hidden.

    >>> record = logging.makeLogRecord({"msg": "to kafka://me:pw@k:9092, pin %s", "args": ("1234",), "created": 0.0,
    ...                                 "levelname": "INFO", "name": "serving.enrich", "records": 7})
    >>> print(JsonLines(["1234"]).format(record))
    {"time": "1970-01-01T00:00:00.000Z", "level": "INFO", "logger": "serving.enrich",
     "message": "to kafka://***@k:9092, pin ***", "records": 7}
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        super().__init__()
        self._hide = _hider(secrets)

    def format(self, record: logging.LogRecord) -> str:
        """One line, whatever is in it."""
        line: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line.update((key, value) for key, value in record.__dict__.items() if key not in _STANDARD)
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(self._hidden(line), ensure_ascii=False, default=str)

    def _hidden(self, value: Any) -> Any:
        # Before encoding: a secret with a quote or a backslash in it would look otherwise afterwards.
        if isinstance(value, str):
            return self._hide(value)
        if isinstance(value, dict):
            return {key: self._hidden(one) for key, one in value.items()}
        if isinstance(value, list | tuple):
            return [self._hidden(one) for one in value]
        return value if isinstance(value, bool | int | float | None) else self._hide(str(value))


class _hider:
    """Replaces secrets, and whatever stands before the @ of a URL."""

    def __init__(self, secrets: Iterable[str]) -> None:
        longest_first = sorted((re.escape(secret) for secret in secrets if secret), key=len, reverse=True)
        self._secret = re.compile("|".join(longest_first)) if longest_first else None
        self._in_url = re.compile(r"(?<=://)[^/\s@]+(?=@)")

    def __call__(self, text: str) -> str:
        if self._secret is not None:
            text = self._secret.sub(_HIDDEN, text)
        return self._in_url.sub(_HIDDEN, text)


def _secrets(group: BaseModel) -> list[str]:
    """The value of every secret setting, at any depth."""
    found: list[str] = []
    for name in type(group).model_fields:
        value = getattr(group, name)
        if isinstance(value, SecretStr):
            found.append(value.get_secret_value())
        elif isinstance(value, BaseModel):
            found.extend(_secrets(value))
    return found


def _time(record: logging.LogRecord) -> str:
    moment = dt.datetime.fromtimestamp(record.created, dt.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _log_crash(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    logging.getLogger("cli").critical("ended by an error that nobody expected", exc_info=(kind, error, trace))
