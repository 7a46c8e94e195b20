"""What a model version's tags tell of its threshold, beside it: who changed it and why, and what other budgets would
give. The threshold's own tag and its history are the registry's (oddlog/connectors/mlflow_registry.py).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from oddlog.connectors.registry import ModelVersion
from oddlog.errors import RegistryError, UsageError
from oddlog.scoring.alert_curve import AlertCurve

CURVE_TAG = "oddlog.threshold.curve"
"""What other budgets would give (oddlog/scoring/alert_curve.py)."""

CHANGES_TAG = "oddlog.threshold.changes"
"""Who changed the threshold, when and why: the latest MOST_CHANGES times."""

MOST_CHANGES = 100

MOST_TEXT = 400
"""Characters of a note, and of a name: a tag's value may have 100,000."""

Way = Literal["set", "recalibrate"]


class Change(BaseModel):
    """Why a threshold is another than its version was trained with."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    version: str
    """Of the threshold."""
    way: Way
    by: str
    at: dt.datetime
    note: str = ""


_CHANGES = TypeAdapter(list[Change])


def check_words(by: str, note: str) -> None:
    """Whether both fit beside the others. Raises UsageError."""
    for what, text in (("note", note), ("name", by)):
        if len(text) > MOST_TEXT:
            raise UsageError(f"a {what} of {len(text):,} characters", expected=f"at most {MOST_TEXT}")


def curve_of(registered: ModelVersion) -> AlertCurve | None:
    """What is kept of other budgets; None where nothing is. Raises RegistryError for a tag that somebody broke."""
    if (text := registered.tags.get(CURVE_TAG)) is None:
        return None
    try:
        return AlertCurve.model_validate_json(text)
    except ValidationError as error:
        raise _broken(registered, CURVE_TAG, text, "an alert curve") from error


def changes_of(registered: ModelVersion) -> list[Change]:
    """Who changed its threshold, oldest first. Raises RegistryError for a tag that somebody broke."""
    text = registered.tags.get(CHANGES_TAG, "[]")
    try:
        return _CHANGES.validate_json(text)
    except ValidationError as error:
        raise _broken(registered, CHANGES_TAG, text, "a list of changes") from error


def tags_of(curve: AlertCurve, changes: Sequence[Change]) -> dict[str, str]:
    """Both as tags; of the changes the latest."""
    kept = _CHANGES.dump_json(list(changes)[-MOST_CHANGES:]).decode()
    return {CHANGES_TAG: kept, CURVE_TAG: curve.model_dump_json()}


def _broken(registered: ModelVersion, tag: str, text: str, what: str) -> RegistryError:
    return RegistryError(
        f"the tag {tag!r} of version {registered.version} is not {what}: {text[:200]}",
        expected="what oddlog wrote there",
        mend=f"delete the tag {tag} on the page of version {registered.version} in MLflow",
    )
