"""Every error this project raises, and the exit code each one ends a command with.

OddlogError
├── CheckFailed            1  a check said no (a gate, drift past its limit)
├── UsageError             2  settings or arguments are wrong
│   └── ArtifactError      2  a model artifact is broken, or was made for other features
└── OutsideError           3  an outside system failed
    ├── SourceError        3
    │   └── SourceEpochError  3  committed offsets do not fit the topic: recreated, or retention ran past them
    ├── StoreError         3
    │   ├── StoreUnavailable  3  for now: connection, 429, 503, write block; retried by the caller
    │   └── StoreRefused      3  for good: 401, 403; retrying changes nothing
    ├── RegistryError      3
    │   └── NotRegistered  2  the registry answers, and does not hold that version
    ├── ScorerError        3
    │   └── ScorerUnavailable 3  for now: away, or no warm model yet
    └── NotifyError        3
        └── ReceiverUnavailable 3  for now: away, 429, 5xx
"""

from __future__ import annotations


class OddlogError(Exception):
    """What was found, what was expected, and the command that mends it.

    >>> error = UsageError("no model is registered", expected="a champion", mend="oddlog train && oddlog promote")
    >>> print(error)
    no model is registered
      expected: a champion
      to mend:  oddlog train && oddlog promote
    """

    exit_code = 3

    def __init__(self, found: str, *, expected: str | None = None, mend: str | None = None) -> None:
        super().__init__(found)
        self.found = found
        self.expected = expected
        self.mend = mend

    def __str__(self) -> str:
        lines = [self.found]
        if self.expected:
            lines.append(f"  expected: {self.expected}")
        if self.mend:
            lines.append(f"  to mend:  {self.mend}")
        return "\n".join(lines)


class CheckFailed(OddlogError):
    """A check said no: a gate, or drift past its limit."""

    exit_code = 1


class UsageError(OddlogError):
    """Settings or arguments are wrong."""

    exit_code = 2


class ArtifactError(UsageError):
    """A model artifact is broken, or was made for other features than these."""


class OutsideError(OddlogError):
    """A system that is not ours failed."""


class SourceError(OutsideError):
    """Records could not be read, or a position not committed."""


class SourceEpochError(SourceError):
    """The committed position does not fit the topic or file: it was made anew, or retention ran past it."""


class StoreError(OutsideError):
    """The store failed."""


class StoreUnavailable(StoreError):
    """The store cannot take this now: connection, 429, 503, flood stage, write block. The caller retries."""


class StoreRefused(StoreError):
    """The store refuses for good: 401 or 403 of its security. Retrying changes nothing."""


class RegistryError(OutsideError):
    """MLflow failed."""


class NotRegistered(RegistryError):
    """MLflow answers, and does not hold the version that was asked for."""

    exit_code = 2


class ScorerError(OutsideError):
    """The scoring service answered with an error."""


class ScorerUnavailable(ScorerError):
    """The scoring service is away, or has no warm model yet."""


class NotifyError(OutsideError):
    """A receiver of notifications did not take one."""


class ReceiverUnavailable(NotifyError):
    """A receiver of notifications cannot take one now; `wait_seconds` is how long it asks to be left alone."""

    def __init__(self, found: str, *, wait_seconds: float = 0.0) -> None:
        super().__init__(found)
        self.wait_seconds = wait_seconds
