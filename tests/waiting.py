"""Waiting for a stated condition with a deadline. No other test sleeps to let something happen."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import pytest

T = TypeVar("T")

DEADLINE = 60.0
"""Seconds that a condition may take on a machine with much to do. No test is judged by how soon it comes."""


def rest() -> None:
    """Between two looks: short beside what is waited for, long enough to leave the processor to it."""
    time.sleep(0.05)


def at_once() -> None:
    """Between two looks that wait themselves, as a poll of a source does."""


def until(
    condition: Callable[[], T],
    what: str,
    *,
    seconds: float = DEADLINE,
    each: Callable[[], object] = rest,
    told: Callable[[], str] = str,
) -> T:
    """The first true answer of `condition`.

    `each` is done between two looks; `told` says, in the failure, what there is to know about why it never came.
    """
    deadline = time.monotonic() + seconds
    while not (answer := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"not within {seconds:g} s: {what}\n{told()}".rstrip())
        each()
    return answer
